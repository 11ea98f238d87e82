"""Pictures that are read by region: arrays of any kind here, files in :mod:`deeplab.tiles.raster`.

A network that is to see a picture smaller or larger than it is sees one and the same resized
picture in every window: each of its pixels is computed from the pixels that it would be computed
from if the whole were resized at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.errors import InputError
from deeplab.photo.images import RESIZE_FILTER, Photo

UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

_AT_ONCE = 1 << 24
"""Bytes of a picture that are read at once to be resized."""


_WHOLE = 300_000_000
"""Bytes of an array that is resized as a whole."""


class Picture(Protocol):
    """A picture of which any region can be had.

    Attributes:
        name: for messages.
        size: (height, width).
        has_nodata: some of its pixels may hold nothing.
        from_top: its file can be read from top to bottom only.
        notes: what was assumed when it was opened, in words.
    """

    name: str
    size: tuple[int, int]
    has_nodata: bool
    from_top: bool
    notes: tuple[str, ...]

    def read(self, top: int, left: int, bottom: int, right: int) -> UInt8:
        """Return a region, (h, w, 3) uint8 RGB."""
        ...

    def valid(self, top: int, left: int, bottom: int, right: int) -> Bool:
        """Return which pixels of a region hold something, (h, w) bool."""
        ...

    def smaller(self, size: tuple[int, int]) -> Picture:
        """Return what ``size`` is best made from: a smaller copy, or the picture itself."""
        ...


@dataclass
class ArrayPicture:
    """Anything with a shape that can be sliced: numpy's arrays and memory maps, Zarr's, HDF5's.

    Attributes:
        array: (H, W, 3) or (H, W), uint8; what a slice gives may be computed when it is asked for.
        name: for messages.
        photo: what the array was decoded from.
    """

    array: Any
    name: str = "the array"
    has_nodata: bool = False
    from_top: bool = False
    notes: tuple[str, ...] = ()
    photo: Photo | None = None

    def __post_init__(self) -> None:
        shape = tuple(getattr(self.array, "shape", ()))
        kind = getattr(self.array, "dtype", None)
        fits = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
        if not fits or kind != np.uint8 or 0 in shape:
            raise InputError(
                f"picture: got {type(self.array).__name__} of shape {shape} and type {kind}, "
                "expected (H, W, 3) uint8 RGB or (H, W) grey, not empty."
            )
        self.size = int(shape[0]), int(shape[1])

    def read(self, top: int, left: int, bottom: int, right: int) -> UInt8:
        """Return a region, (h, w, 3) uint8 RGB."""
        part: UInt8 = np.asarray(self.array[top:bottom, left:right])
        if part.ndim == 2:
            part = np.repeat(part[:, :, None], 3, axis=2)
        return part

    def valid(self, top: int, left: int, bottom: int, right: int) -> Bool:
        """Return that every pixel holds something."""
        return np.ones((bottom - top, right - left), bool)

    def smaller(self, size: tuple[int, int]) -> Picture:
        """Return the picture at that size where it is in memory and not too large, else itself.

        What is resized as a whole is the same to the last bit as in a photo that is not looked at
        in windows; 8-bit networks tell the difference.
        """
        here = type(self.array) is np.ndarray and self.array.size <= _WHOLE
        if not here or size == self.size or size[0] > self.size[0] or size[1] > self.size[1]:
            return self
        whole = Image.fromarray(np.ascontiguousarray(self.array)).convert("RGB")
        return ArrayPicture(np.asarray(whole.resize(size[::-1], RESIZE_FILTER)), name=self.name)


class Seen:
    """A picture at the size at which the network sees it.

    Args:
        picture: the picture.
        size: (height, width) as the network sees it.
        padding: RGB of pixels that hold nothing.
    """

    def __init__(
        self, picture: Picture, size: tuple[int, int], padding: tuple[int, int, int]
    ) -> None:
        self._picture, self.size, self._padding = picture, size, padding
        self._ratio = picture.size[0] / size[0], picture.size[1] / size[1]

    def read(self, top: int, left: int, bottom: int, right: int) -> UInt8:
        """Return a region in pixels of the resized picture, (h, w, 3) uint8 RGB."""
        if self._picture.size == self.size:
            return self._read(top, left, bottom, right)
        out = np.empty((bottom - top, right - left, 3), np.uint8)
        per_row = 3 * self._ratio[0] * self._ratio[1] * (right - left)
        rows = max(1, int(_AT_ONCE / per_row))
        for first in range(top, bottom, rows):
            end = min(bottom, first + rows)
            out[first - top : end - top] = self._resize(first, left, end, right)
        return out

    def _resize(self, top: int, left: int, bottom: int, right: int) -> UInt8:
        y, y_box = _support(top, bottom, self._ratio[0], self._picture.size[0])
        x, x_box = _support(left, right, self._ratio[1], self._picture.size[1])
        part = Image.fromarray(self._read(y[0], x[0], y[1], x[1]))
        box = x_box[0], y_box[0], x_box[1], y_box[1]
        return np.asarray(part.resize((right - left, bottom - top), RESIZE_FILTER, box))

    def _read(self, top: int, left: int, bottom: int, right: int) -> UInt8:
        pixels = self._picture.read(top, left, bottom, right)
        if self._picture.has_nodata:
            empty = ~self._picture.valid(top, left, bottom, right)
            if empty.any():
                pixels = pixels.copy()
                pixels[empty] = self._padding
        return pixels


def _support(
    first: int, end: int, ratio: float, size: int
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Return which pixels a resized range is made of, and where it lies among them."""
    reach = max(1.0, ratio) + 1
    low = max(0, math.floor(first * ratio - reach))
    high = min(size, math.ceil(end * ratio + reach))
    return (low, high), (first * ratio - low, min(end * ratio, size) - low)


def thumbnail(picture: Picture, size: tuple[int, int]) -> UInt8:
    """Return the whole picture at a smaller size, (height, width, 3) uint8 RGB, white as paper."""
    return Seen(picture, size, (255, 255, 255)).read(0, 0, *size)
