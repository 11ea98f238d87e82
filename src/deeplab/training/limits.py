"""What numbers a setting may be: checked in one place, shown beside the setting's description."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from deeplab.errors import InputError


@dataclass(frozen=True)
class Limits:
    """The smallest and the largest number that a setting takes, both included."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{_plain(self.low)} to {_plain(self.high)}"


def check_numbers(record: Any, where: str = "") -> None:
    """Check every number of a record of settings, records inside it included.

    Infinite values and NaN are refused everywhere; :class:`Limits` in a field's annotation hold
    for it, or for each number in it.

    Raises:
        InputError: the first number that is none, or beyond its limits.
    """
    kinds = typing.get_type_hints(type(record), include_extras=True)
    for field in dataclasses.fields(record):
        value, dotted = getattr(record, field.name), f"{where}{field.name}"
        if dataclasses.is_dataclass(value):
            check_numbers(value, f"{dotted}.")
            continue
        limits = limits_of(kinds[field.name])
        for place, number in _numbers(value, dotted):
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"{place}: got {number}, expected a finite number.")
            if limits is not None and not limits.low <= number <= limits.high:
                shown = number if abs(number) < 1e18 else "a huge number"
                raise InputError(f"{place}: got {shown}, expected {limits}.")


def limits_of(kind: Any) -> Limits | None:
    """Return the limits in an annotation, or None."""
    if typing.get_origin(kind) is not Annotated:
        return None
    return next((part for part in typing.get_args(kind) if isinstance(part, Limits)), None)


def _numbers(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """Yield every number in a value, and where it stands."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        yield place, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _numbers(item, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item, place)


def _plain(number: float) -> str:
    return f"{number:,.0f}" if float(number).is_integer() and abs(number) < 1e12 else f"{number:g}"
