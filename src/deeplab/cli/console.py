"""How the command line talks: results to stdout, everything else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from deeplab.errors import InputError, near_matches

if TYPE_CHECKING:
    from deeplab.labels import Colour


def stdout() -> Console:
    """Return the console for results."""
    return Console(highlight=False, soft_wrap=True)


def stderr() -> Console:
    """Return the console for progress and for what a pipe must not swallow."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error to stderr."""
    print(f"deeplab: {message}", file=sys.stderr)


@contextmanager
def show_stages() -> Iterator[Callable[[str, int, int], None]]:
    """Give what is called with (stage, done, of how many): a bar on stderr with an estimate."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = stderr()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    bar = Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    current = ""
    with bar:
        task = bar.add_task("")

        def show(stage: str, done: int, total: int) -> None:
            nonlocal current
            if stage != current:
                bar.reset(task, description=stage)
                current = stage
            bar.update(task, completed=done, total=total)

        yield show


def swatch(colour: Colour) -> Text:
    """Return two blocks in a colour."""
    red, green, blue = colour
    return Text("██", style=f"rgb({red},{green},{blue})")


def split_names(option: str, text: str) -> list[str]:
    """Return the names in "cat,dog".

    Raises:
        InputError: there are none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"{option}: got '{text}', expected names with commas between them.")
    return names


def check_choices(option: str, chosen: Iterable[str], known: Sequence[str]) -> None:
    """Refuse values that an option does not know.

    Raises:
        InputError: the first of them, with its near matches.
    """
    for name in chosen:
        if name not in known:
            raise InputError(
                f"{option}: there is no '{name}'.{near_matches(name, known)} "
                f"Expected: {', '.join(known)}."
            )


def in_bytes(size: float) -> str:
    """Return a file size in words."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def parse_size(option: str, text: str) -> tuple[int, int]:
    """Return the (height, width) in "513", "1025x2049" or "1025,2049".

    Raises:
        InputError: it is no such thing.
    """
    sides = [side.strip() for side in text.lower().replace("×", "x").replace(",", "x").split("x")]
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise InputError(f"{option}: got '{text}', expected HEIGHTxWIDTH, or one number for both.")
    return int(sides[0]), int(sides[-1])
