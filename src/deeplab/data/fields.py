"""Fields of annotation files: what is not as it should be is said in words, never guessed."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from deeplab.errors import DataError, DeepLabError

_Result = TypeVar("_Result")

# What Python raises when a document has another shape than its format demands.
_WRONG_SHAPE = (
    KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError,
    MemoryError,
)  # fmt: skip


# The whole of a value may be endless: a list in YAML that holds itself a billion times.
_short = reprlib.Repr()
_short.maxlevel, _short.maxlist, _short.maxdict, _short.maxstring = 3, 6, 4, 80


class UnreadableError(DataError):
    """An annotation of which it is not known what it says.

    The message is the rest of a sentence whose subject is the annotation: "has no outline".
    """


class WithoutAreaError(UnreadableError):
    """An annotation that covers no pixels by its nature: a line, a point."""


@contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Say of which file it is that a part is missing, in a word: "is not complete COCO JSON".

    Raises:
        DataError: in place of everything that a document of another shape raises.
    """
    try:
        yield
    except UnreadableError as error:
        raise DataError(f"{path}: {error}.") from None
    except DeepLabError:
        raise
    except _WRONG_SHAPE as error:
        raise DataError(f"{path}: is not complete {what} ({shown(error)}).") from None


def attempt(action: Callable[[], _Result]) -> _Result:
    """Return what ``action`` returns.

    Raises:
        UnreadableError: in place of everything that an annotation of another shape raises.
    """
    try:
        return action()
    except DeepLabError:
        raise
    except _WRONG_SHAPE as error:
        raise UnreadableError(f"is not complete ({shown(error)})") from None


def shown(value: object, longest: int = 60) -> str:
    """Return a value as it is shown in a message: on one line, not too long."""
    text = _reason(value) if isinstance(value, BaseException) else _short.repr(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyError) and error.args:
        return f"there is no {error.args[0]!r}"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _expected(value: Any, field: str, kind: str) -> str:
    return f"has no {field}" if value is None else f"has {shown(value)} as {field}, expected {kind}"


def number(value: Any, field: str) -> float:
    """Return a finite number; one that is written as text counts.

    Raises:
        UnreadableError: it is none.
    """
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            result = float(value)
        except (ValueError, OverflowError):
            result = math.nan
        if math.isfinite(result):
            return result
    raise UnreadableError(_expected(value, field, "a number"))


def whole(value: Any, field: str) -> int:
    """Return a whole number.

    Raises:
        UnreadableError: it is none.
    """
    result = number(value, field)
    if result != int(result):
        raise UnreadableError(_expected(value, field, "a whole number"))
    return int(result)


def text(value: Any, field: str) -> str:
    """Return a text that says something; a number counts, as programs write class names so.

    Raises:
        UnreadableError: it is none, or empty.
    """
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        result = str(value).strip()
        if result:
            return result
    raise UnreadableError(_expected(value, field, "a text"))


def sequence(value: Any, field: str) -> list[Any]:
    """Return a list.

    Raises:
        UnreadableError: it is none.
    """
    if not isinstance(value, list):
        raise UnreadableError(_expected(value, field, "a list"))
    return value


def mapping(value: Any, field: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        UnreadableError: it is none.
    """
    if not isinstance(value, dict):
        raise UnreadableError(_expected(value, field, "an object"))
    return value


def points(value: Any, field: str) -> list[tuple[float, float]]:
    """Return [[x, y], …] as (x, y).

    Raises:
        UnreadableError: it is something else.
    """
    result = []
    for pair in sequence(value, field):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise UnreadableError(f"has {shown(pair)} in {field}, expected [x, y]")
        result.append((number(pair[0], field), number(pair[1], field)))
    return result


def identity(value: Any, field: str) -> int | str:
    """Return an id; 7, 7.0 and "7" are the same one.

    Raises:
        UnreadableError: it is none.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    name = text(value, field)
    return int(name) if re.fullmatch(r"-?[0-9]{1,18}", name) else name
