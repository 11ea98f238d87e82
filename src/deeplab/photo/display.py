"""The colours in which classes are shown: the label set's, made to be seen over a photo.

Official palettes hold colours that are nearly black, or grey as a street is. Over photos these get
another lightness or a hue of their own; saved masks keep the official ones. ``web/src/palette.ts``
chooses the same.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from deeplab.labels import Colour, LabelSet

_Lab = tuple[float, float, float]
"""Lightness, a and b in Oklab; distances in it are about as large as they look."""

_LIGHTNESS = 0.5, 0.86
_LEAST_CHROMA = 0.09
_LEAST_DISTANCE = 0.09
"""Colours nearer than this are taken for the same."""

_HUE_STEP = 2.399963
"""Between the hues that are tried for greys: the golden angle."""


@functools.lru_cache(maxsize=64)
def display_colours(labels: LabelSet) -> tuple[Colour, ...]:
    """Return one colour per class; the background keeps its own, for it is not drawn."""
    taken: list[_Lab] = []
    shown = []
    for index, colour in enumerate(labels.colours):
        if index == labels.background:
            shown.append(colour)
            continue
        own = to_lab(colour)
        is_seen = _LIGHTNESS[0] <= own[0] <= _LIGHTNESS[1]
        is_seen &= math.hypot(own[1], own[2]) >= _LEAST_CHROMA
        keeps = is_seen and _nearest(own, taken) >= _LEAST_DISTANCE
        chosen = own if keeps else _choose(own, taken, index)
        taken.append(chosen)
        shown.append(colour if keeps else _to_rgb(chosen))
    return tuple(shown)


@functools.lru_cache(maxsize=64)
def display_palette(labels: LabelSet) -> npt.NDArray[np.uint8]:
    """Return (256, 3) uint8 RGB: the colours in which the ids of a mask are shown."""
    palette = labels.palette.copy()
    palette[: len(labels)] = display_colours(labels)
    palette.setflags(write=False)
    return palette


def _choose(own: _Lab, taken: list[_Lab], index: int) -> _Lab:
    """Return the first candidate that is far from what is taken, or the farthest one."""
    chroma = math.hypot(own[1], own[2])
    hue = math.atan2(own[2], own[1]) if chroma > 0.03 else index * _HUE_STEP
    middle = min(max(own[0], _LIGHTNESS[0] + 0.05), _LIGHTNESS[1] - 0.06)
    candidates = []
    for turn in range(12):
        angle = hue + turn * (math.pi / 6)
        for lightness in (middle, 0.55, 0.68, 0.8):
            for length in (max(chroma, 0.14), 0.1, 0.18):
                lab = (lightness, length * math.cos(angle), length * math.sin(angle))
                if all(-0.002 <= value <= 1.002 for value in _to_linear(lab)):
                    candidates.append(lab)
    enough = (lab for lab in candidates if _nearest(lab, taken) >= _LEAST_DISTANCE)
    return next(enough, None) or max(candidates, key=lambda lab: _nearest(lab, taken))


def _nearest(lab: _Lab, others: list[_Lab]) -> float:
    return min((math.dist(lab, other) for other in others), default=1.0)


def to_lab(colour: Colour) -> _Lab:
    """Return a colour in Oklab.

    Source: Björn Ottosson, "A perceptual color space for image processing", 2020.
    """
    r, g, b = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (byte / 255 for byte in colour)
    )
    l_ = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    m = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    s = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * l_ + 0.793617785 * m - 0.0040720468 * s,
        1.9779984951 * l_ - 2.428592205 * m + 0.4505937099 * s,
        0.0259040371 * l_ + 0.7827717662 * m - 0.808675766 * s,
    )


def _to_linear(lab: _Lab) -> tuple[float, float, float]:
    lightness, a, b = lab
    l_ = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3
    return (
        4.0767416621 * l_ - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l_ + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l_ - 0.7034186147 * m + 1.707614701 * s,
    )


def _to_rgb(lab: _Lab) -> Colour:
    red, green, blue = (
        int(
            255 * (12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055)
            + 0.5
        )
        for value in (min(max(linear, 0.0), 1.0) for linear in _to_linear(lab))
    )
    return red, green, blue
