"""Draw a plane of numbers from 0 to 1 as a picture, with its scale below."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from deeplab.labels import Colour

_STOPS: tuple[Colour, ...] = (
    (20, 11, 53), (101, 21, 110), (188, 55, 84), (241, 113, 43), (252, 181, 25), (252, 255, 164),
)  # fmt: skip
"""From dark to light, so that it is read in grey, too, and by all eyes."""

_LONGEST = 65_500
"""Pixels of a side of a picture with a scale; one that is longer stays without."""


def draw_confidence(plane: npt.NDArray[np.float32]) -> Image.Image:
    """Return a plane as a picture: dark is 0, light is 1, and a bar below says so.

    Args:
        plane: (H, W) float32, 0..1.

    Returns:
        RGB, W pixels wide; the plane's H rows, then those of the scale.
    """
    height, width = plane.shape
    table = _table()
    levels = np.clip(plane * 255 + 0.5, 0, 255).astype(np.uint8)
    coloured = Image.fromarray(levels)
    coloured.putpalette(table.tobytes())
    size = max(9, min(64, round(min(height, width) / 26)))
    if width < 8 * size or height + 4 * size > _LONGEST:  # no room for its words
        return coloured.convert("RGB")
    picture = Image.new("RGB", (width, height + 3 * size), "white")
    picture.paste(coloured.convert("RGB"), (0, 0))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size)
    left, right, top = size, width - size, height + size // 2
    ramp = np.linspace(0, 255, right - left).astype(np.uint8)[None].repeat(size, axis=0)
    picture.paste(Image.fromarray(table[ramp]), (left, top))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + share * (right - left)
        anchor = {0.0: "la", 1.0: "ra"}.get(share, "ma")
        draw.text((x, top + 1.1 * size), f"{share:g}", "black", font, anchor=anchor)
    return picture


def _table() -> npt.NDArray[np.uint8]:
    """Return (256, 3) uint8: the colours of 0 to 1."""
    places = np.linspace(0, 255, len(_STOPS))
    channels = [np.interp(np.arange(256), places, column) for column in zip(*_STOPS, strict=True)]
    return np.round(np.stack(channels, axis=1)).astype(np.uint8)
