"""The command line's door: ``deeplab``, ``python -m deeplab`` and ``torchrun -m deeplab train …``.

What it needs takes a moment to be read; whoever presses Ctrl-C meanwhile is answered, too.
"""

import sys


def main() -> None:
    """Run the command line of this process."""
    try:
        from deeplab.cli import main as run

        run()
    except KeyboardInterrupt:
        print("deeplab: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
