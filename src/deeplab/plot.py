"""Small pictures of numbers, as SVG: a panel with axes, lines and points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike

from deeplab.files import replacing

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A rectangle of the picture in which numbers have places.

    Attributes:
        left: of the rectangle, pixels from the picture's left.
        top: of the rectangle, pixels from the picture's top.
        width: pixels.
        height: pixels.
        x: the numbers at the left and the right end.
        y: the numbers at the bottom and the top.
        log_x: equal steps to the right are equal ratios; ``x`` is above 0 then.
    """

    left: float
    top: float
    width: float
    height: float
    x: Point
    y: Point
    log_x: bool = False

    def place(self, point: Point) -> Point:
        """Return where (x, y) lies, in pixels."""
        x, left, right = map(math.log, (point[0], *self.x)) if self.log_x else (point[0], *self.x)
        across = (x - left) / ((right - left) or 1.0)
        low, high = self.y
        up = (point[1] - low) / ((high - low) or 1.0)
        return self.left + self.width * across, self.top + self.height * (1 - up)

    def axes(self) -> str:
        """Draw the left and the lower edge."""
        bottom = self.top + self.height + 5
        return (
            f'<path d="M{self.left:g} {self.top - 5:g}V{bottom:g}H{self.left + self.width:g}" '
            f'fill="none" stroke="#888"/>'
        )

    def grid(self, *, x: Sequence[float], y: Sequence[float]) -> str:
        """Draw faint lines at these numbers, and the numbers beside them."""
        lines, words = [], []
        for value in x:
            across, _ = self.place((value, self.y[0]))
            lines.append(f"M{across:.1f} {self.top:g}v{self.height:g}")
            words.append(text(across, self.top + self.height + 20, f"{value:g}", anchor="middle"))
        for value in y:
            _, down = self.place((self.x[0], value))
            lines.append(f"M{self.left:g} {down:.1f}h{self.width:g}")
            words.append(text(self.left - 8, down + 4, f"{value:g}", anchor="end"))
        return f'<path d="{"".join(lines)}" fill="none" stroke="#e5e5e5"/>' + "".join(words)

    def line(self, points: Sequence[Point], colour: str, *, dashes: str = "none") -> str:
        """Draw a line through points."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self.place, points))
        return (
            f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5" '
            f'stroke-dasharray="{dashes}"/>'
        )

    def dots(
        self, points: Sequence[Point], colour: str, *, radius: float = 2.5, hollow: bool = False
    ) -> str:
        """Draw a dot at every point."""
        fill = "white" if hollow else colour
        return "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}" stroke="{colour}"/>'
            for x, y in map(self.place, points)
        )


def text(x: float, y: float, words: str, *, anchor: str = "start", bold: bool = False) -> str:
    """Write words; ``anchor`` is which end of them lies at ``x``: start, middle or end."""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'


class Svg(str):
    """The text of an SVG file; a notebook shows the picture."""

    def _repr_svg_(self) -> str:
        return str(self)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the file.

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(path) as partial:
            partial.write_text(self, encoding="utf-8")


def picture(width: int, height: int, body: str) -> Svg:
    """Return the whole picture as an SVG file's text."""
    return Svg(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" '
        f'fill="white"/>{body}</svg>\n'
    )


def round_ticks(low: float, high: float, *, count: int = 6) -> list[float]:
    """Return at most ``count`` round numbers from ``low`` to ``high``: steps of 1, 2 or 5."""
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    for factor in (1, 2, 5, 10, 20):  # the last where a rounded step came out too small
        first, last = math.ceil(low / (step * factor)), math.floor(high / (step * factor))
        if last - first < count:
            break
    return [round(index * step * factor, 12) for index in range(first, last + 1)]


def ratio_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten from ``low`` (above 0) to ``high``."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    return [tick for tick in ticks if low <= tick <= high]
