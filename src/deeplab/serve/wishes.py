"""What a request for a segmentation asks for: parameters of its address, or fields of its form."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from deeplab.errors import InputError, near_matches
from deeplab.labels import Colour, LabelSet
from deeplab.serve.refusal import Refusal

Output = Literal[
    "json",
    "mask",
    "overlay",
    "cutout",
    "contour",
    "blur",
    "replace",
    "confidence",
    "boxes",
    "polygons",
]  # fmt: skip
OUTPUTS: tuple[Output, ...] = get_args(Output)

PARAMETERS = ("model", "output", "only", "background", "radius", "min_area")

_READ_BY: dict[str, tuple[Output, ...]] = {
    "background": ("replace",),
    "radius": ("blur",),
    "min_area": ("boxes", "polygons"),
}
"""Parameter -> the outputs that read it."""

MOST_RADIUS = 1000.0
MOST_AREA = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is asked for.

    Attributes:
        model: a name; None takes the first.
        output: what to make; None leaves it to the Accept header.
        only: classes to keep; empty keeps all.
        background: (red, green, blue) behind the objects; None where nobody says.
        radius: of the blur, in pixels; None takes the usual.
        min_area: of objects, in pixels.
    """

    model: str | None = None
    output: Output | None = None
    only: tuple[str, ...] = ()
    background: Colour | None = None
    radius: float | None = None
    min_area: int = 0


def read_wishes(pairs: Iterable[tuple[str, str]]) -> Wishes:
    """Return what names and values ask for.

    Raises:
        Refusal: 422, there is no such parameter, one comes twice, has a value that it cannot have,
            or is read by another output alone.
    """
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in PARAMETERS:
            raise Refusal(
                422,
                f"there is no parameter '{_short(name)}'.{near_matches(name, PARAMETERS)} "
                f"Expected: {', '.join(PARAMETERS)}.",
            )
        if name in given:
            hint = " Write commas between classes: only=cat,dog." if name == "only" else ""
            raise Refusal(422, f"{name}: got it twice, expected it once.{hint}")
        given[name] = value
    output = given.get("output")
    if output is not None and output not in OUTPUTS:
        known = ", ".join(f"'{one}'" for one in OUTPUTS)
        raise Refusal(
            422,
            f"output: got '{_short(output)}', expected {known}.{near_matches(output, OUTPUTS)}",
        )
    for name in given:
        readers = _READ_BY.get(name)
        if readers and output not in readers:
            raise Refusal(
                422, f"{name}: only output={' and output='.join(readers)} reads it. Leave it out."
            )
    if output == "confidence" and "only" in given:
        raise Refusal(422, "only: output=confidence does not read it. Leave it out.")
    return Wishes(
        model=given.get("model"),
        output=output,
        only=_read_names(given["only"]) if "only" in given else (),
        background=_read_colour(given["background"]) if "background" in given else None,
        radius=_read_number("radius", given["radius"], MOST_RADIUS) if "radius" in given else None,
        min_area=_read_whole("min_area", given["min_area"]) if "min_area" in given else 0,
    )


def check_classes(only: Iterable[str], labels: LabelSet) -> None:
    """Refuse classes that a model does not have.

    Raises:
        Refusal: 422.
    """
    try:
        labels.indices(only)
    except InputError as error:
        raise Refusal(422, f"only: {error}") from None


def _read_names(value: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in value.split(",") if part.strip())
    if not names:
        raise Refusal(422, "only: got no class, expected names with commas between them.")
    return names


def _read_colour(value: str) -> Colour:
    if not re.fullmatch("#[0-9a-fA-F]{6}", value):
        raise Refusal(
            422,
            f"background: got '{_short(value)}', expected a colour such as #ff8800 (in an address: "
            "%23ff8800), or a picture as a part of the form.",
        )
    red, green, blue = bytes.fromhex(value[1:])
    return red, green, blue


def _read_number(name: str, value: str, most: float) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number <= most:
        raise Refusal(
            422, f"{name}: got '{_short(value)}', expected more than 0, {most:g} at most."
        )
    return number


def _read_whole(name: str, value: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", value) or int(value) > MOST_AREA:
        raise Refusal(
            422, f"{name}: got '{_short(value)}', expected a whole number of pixels, 0 or more."
        )
    return int(value)


def _short(value: str) -> str:
    return value if len(value) <= 100 else f"{value[:100]}…"
