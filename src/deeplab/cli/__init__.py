"""The command line: parse, call, print. One file per group of commands.

Exit codes: 0 all went well; 1 some photos of many could not be done; 2 an error, told in words;
130 interrupted.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import deeplab
from deeplab.cli.console import Stream, complain
from deeplab.errors import DeepLabError, MissingExtraError

_COMMANDS: dict[str, tuple[str, str]] = {
    "segment": ("segment", "segment"),
    "models": ("models", "models_app"),
    "data": ("data", "data_app"),
    "import": ("weights", "import_weights"),
    "info": ("weights", "info"),
    "train": ("train", "train"),
    "reproduce": ("reproduce", "reproduce"),
    "evaluate": ("evaluate", "evaluate"),
    "benchmark": ("benchmark", "benchmark"),
    "export": ("export", "export"),
    "optimize": ("optimize", "optimize"),
    "serve": ("serve", "serve"),
    "push": ("push", "push"),
}
"""What can be typed -> the module of this room, and what in it: a function, or commands of its own.

Only what is typed is imported: to read all of them costs more than a small photo.
"""

_SETTINGS: dict[str, dict[str, Any]] = {
    # benchmark_model writes its options with underscores; whoever pastes them is understood.
    "benchmark": {"token_normalize_func": lambda word: word.replace("_", "-")},
}


def build_app(only: str | None = None) -> typer.Typer:
    """Return the program with all of its commands, or with the one that is asked for."""
    app = typer.Typer(
        name="deeplab",
        help="Semantic segmentation with every DeepLab: a photo in, an exact full-size mask out.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name in (only,) if only in _COMMANDS else _COMMANDS:
        module, member = _COMMANDS[str(name)]
        found = getattr(importlib.import_module(f"deeplab.cli.{module}"), member)
        if isinstance(found, typer.Typer):
            app.add_typer(found)
        else:
            app.command(name, context_settings=_SETTINGS.get(str(name)))(found)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deeplab {deeplab.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (at any place).")
    ] = False,
) -> None:
    pass


_OF_TRAIN = ("torch", "safetensors", "yaml", "tensorboard")
"""What only some commands import, and the core install does not bring."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed in one line."""
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    # What comes first and is no option is the command.
    typed = next((argument for argument in arguments if not argument.startswith("-")), None)
    try:
        app = build_app(typed)
        code = app(args=arguments, prog_name="deeplab", standalone_mode=False)
    except DeepLabError as error:
        if debug:
            raise
        complain(str(error))
        return 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if debug or package not in _OF_TRAIN:
            raise
        complain(str(MissingExtraError(f"'deeplab {typed}'", package=package, extra="train")))
        return 2
    except (OSError, RecursionError, UnicodeError, MemoryError) as error:
        # Of what was given or of the machine, wherever it comes from; the rest is our own bug.
        if debug:
            raise
        complain(_in_words(error))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        return 130
    except Exception as error:
        # A wrong option or argument. Where the class lives differs between versions of typer.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
        if typed and message.startswith("No such command") and os.path.exists(typed):
            message += f" To segment it: deeplab segment {typed}"
        if message:  # nothing where the help was shown instead
            complain(message)
        return 2
    return code if isinstance(code, int) else 0


def _in_words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "a file that was given is nested too deeply to be read."
    if isinstance(error, MemoryError):
        return "there is not enough memory for this; give a smaller --size or --memory, or less."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror or error}."
    return f"{error}."


def main() -> None:
    """Run the command line of this process."""
    # A path or a label that the terminal cannot show must not end the work.
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="replace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        lines, encoding = sys.stdout.line_buffering, sys.stdout.encoding
        sys.stdout = Stream(
            sys.stdout.detach(), encoding=encoding, errors="replace", line_buffering=lines
        )
    if "--debug" not in sys.argv:
        _silence_engines()
    _let_threads_rest()
    code = run(sys.argv[1:])
    try:
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()
    except OSError:  # nobody reads any more, or the disk is full; Python would try once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = code or 1
    sys.exit(code)


def _let_threads_rest() -> None:
    """Let torch's threads give their core away soon where they wait for each other.

    They spin for milliseconds at every layer. On a machine that others use too, the one that is
    waited for has no core meanwhile, and a fit of ten seconds takes minutes. Set before torch is
    loaded, and only where nobody has set it; how many threads there are, and so what they compute,
    stays as it is.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # some ten microseconds


def _silence_engines() -> None:
    """Send what native libraries print on descriptor 2 nowhere; Python's stderr stays.

    LiteRT announces its delegate there in every process, and has no switch for it.
    """
    try:
        ours = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except OSError:  # no stderr at all
        return
    os.dup2(nowhere, 2)
    os.close(nowhere)
    encoding = getattr(sys.stderr, "encoding", "utf-8")
    sys.stderr = open(ours, "w", buffering=1, encoding=encoding, errors="replace")  # noqa: SIM115
