"""How the command line talks: results to stdout, everything else to stderr."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

import typer
from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from deeplab.errors import InputError, near_matches
from deeplab.limits import MAX_SIDE

if TYPE_CHECKING:
    from deeplab.labels import Colour


# Control characters but for tab and line feed, and those that turn the direction of writing: with
# them, a label or a file's name could move the cursor, or show something else than it is.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Stream(io.TextIOWrapper):
    """A standard output that shows control characters, and whose errors say that it was the one."""

    def write(self, text: str) -> int:
        """Write words and numbers, whatever is in them."""
        return self.write_styled(clean(text))

    def write_styled(self, text: str) -> int:
        """Write text as it is, with its colours."""
        try:
            return super().write(text)
        except OSError as error:
            raise _named(error) from None

    def flush(self) -> None:
        """Write what is left."""
        try:
            super().flush()
        except OSError as error:
            raise _named(error) from None


def _named(error: OSError) -> OSError:
    error.filename = error.filename or "the standard output"
    return error


class _Styled:
    """The same stream for a console, which has cleaned what it prints and adds colours to it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write_styled(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Console(Console):
    """Words stand as they are: ``[…]`` is no markup, and control characters are shown."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, soft_wrap=True, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make text of a string, a table's cell among them, before its width is measured."""
        return super().render_str(clean(text), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
        """Give what is printed, piece by piece; what came as text already may hold anything."""
        for segment in super().render(renderable, options):
            if segment.control or not _CONTROL.search(segment.text):
                yield segment
            else:
                yield Segment(clean(segment.text), segment.style)


def clean(text: str) -> str:
    """Return a text with its control characters as the escapes that JSON has for them."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def stdout() -> Console:
    """Return the console for results."""
    stream = sys.stdout
    file = cast("IO[str]", _Styled(stream)) if isinstance(stream, Stream) else None
    return _Console(file=file)


def stderr() -> Console:
    """Return the console for progress and for what a pipe must not swallow."""
    return _Console(stderr=True)


def complain(message: str) -> None:
    """Print an error to stderr, on one line."""
    lines = (line.strip() for line in message.splitlines())
    print(f"deeplab: {clean(' '.join(line for line in lines if line))}", file=sys.stderr)


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
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
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
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise InputError(f"{option}: got '{text}', expected HEIGHTxWIDTH, or one number for both.")
    if not all(len(side) < 10 and 1 <= int(side) <= MAX_SIDE for side in sides):
        raise InputError(f"{option}: got '{text}', expected sides from 1 to {MAX_SIDE} pixels.")
    return int(sides[0]), int(sides[-1])


def check_number(value: float | None) -> float | None:
    """Refuse what is no number; for options, whose ``min`` and ``max`` let it pass.

    Raises:
        typer.BadParameter: it is "nan".
    """
    if value is not None and value != value:
        raise typer.BadParameter("nan is no number.")
    return value


def parse_numbers(option: str, text: str, *, most: float) -> list[float]:
    """Return numbers with commas between them.

    Raises:
        InputError: they are none, or not above 0, at most ``most``.
    """
    try:
        numbers = [float(part) for part in split_names(option, text)]
    except ValueError:
        raise InputError(f"{option}: got '{text}', expected numbers with commas.") from None
    if not all(0 < number <= most for number in numbers):
        raise InputError(f"{option}: got '{text}', expected numbers above 0, at most {most:g}.")
    return numbers
