"""What moved between two frames, and where to, for every point of a network's grid.

The page's camera does the same, in ``web/src/motion.ts``; docs/video.md describes both. All is
counted in whole numbers as far as possible, so that both find the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Int16 = npt.NDArray[np.int16]
Float64 = npt.NDArray[np.float64]

NOISE, MOTION = 4.0, 19.0
"""Mean change of green in a cell, 0..255, that is noise, and from which on it is motion."""

EVERY = 2
"""Motion is looked for at every so many pixels, both ways."""

HALVINGS, REACH = 2, 4
"""A displacement is looked for up to so many pixels away, in a picture so often halved."""

DISPLACEMENTS = 2
"""So many are looked for: a camera's and a thing's, say."""

FEW = 8
"""Fewer points that moved are not looked after."""

UNEXPLAINED = 0.3
"""Points that move by more, and did not follow the first displacement, look for the second."""

FOLLOWED = 0.4
"""How much moves, at least, where a displacement is followed: it is known to a pixel or so."""


@dataclass(frozen=True)
class Motion:
    """What moved.

    Attributes:
        amount: (h, w) float64, 0..1, how much the picture changed at each grid point, seen from
            where it came from.
        down: (h, w) float64, how many grid points further down it was in the frame before.
        right: (h, w) float64, how many further to the right.
    """

    amount: Float64
    down: Float64
    right: Float64


def find_motion(before: UInt8, now: UInt8, grid: tuple[int, int]) -> Motion:
    """Find what moved between two frames.

    Args:
        before: (H, W, 3) uint8 RGB.
        now: the same of the frame that followed.
        grid: (h, w) of the network's answer.
    """
    old, new = (frame[::EVERY, ::EVERY, 1].astype(np.int16) for frame in (before, now))
    cells = _Cells((now.shape[0], now.shape[1]), grid)
    change = new - old
    amount = cells.moving(change)
    down, right = np.zeros(grid), np.zeros(grid)
    changed = amount > 0
    open_points = changed
    # The place it was at is given up only for one that is better by one of 255.
    least = _sum_around(cells.add(np.abs(change)) - cells.pixels)
    for _ in range(DISPLACEMENTS):
        if np.count_nonzero(open_points) < FEW:
            break
        dy, dx = _displacement(old, new, cells.enlarge(open_points))
        if (dy, dx) == (0, 0):
            break
        change = new - _shifted(old, dy, dx)
        difference = _sum_around(cells.add(np.abs(change)))
        follows = changed & (difference < least)
        least = np.where(follows, difference, least)
        left = FOLLOWED + (1 - FOLLOWED) * cells.moving(change)
        amount = np.where(follows, left, amount)
        down = np.where(follows, dy * EVERY * grid[0] / now.shape[0], down)
        right = np.where(follows, dx * EVERY * grid[1] / now.shape[1], right)
        open_points = (amount > UNEXPLAINED) & ~follows
    return Motion(amount, down, right)


def _displacement(old: Int16, new: Int16, where: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return the (dy, dx) in pixels that explains most of the change ``where`` it is looked at.

    What a displacement explains is summed over those pixels for which it is better than none:
    what belongs to another thing, or to the ground, has no say against it.
    """
    pictures = [(old, new, where)]
    for _ in range(HALVINGS):
        small, large, there = pictures[-1]
        pictures.append(
            (
                _halve(small),
                _halve(large),
                there[: there.shape[0] // 2 * 2 : 2, : there.shape[1] // 2 * 2 : 2],
            )
        )
    found, reach = (0, 0), min(REACH, *(side // 4 for side in pictures[-1][0].shape))
    for earlier, later, there in reversed(pictures):
        found = _better(earlier, later, there, (2 * found[0], 2 * found[1]), reach)
        reach = 1
    return found


def _better(
    old: Int16, new: Int16, where: npt.NDArray[np.bool_], start: tuple[int, int], reach: int
) -> tuple[int, int]:
    """Return the best displacement around ``start``; the first of equals, but none before all."""
    rows, columns = (np.flatnonzero(where.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 0, 0
    top, left = int(rows[0]), int(columns[0])  # only the part in which it is looked at
    height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    part = slice(top, top + height), slice(left, left + width)
    still = np.where(where[part], np.abs(new[part] - old[part]), 0).astype(np.int16)
    far = max(abs(start[0]), abs(start[1])) + reach
    padded = np.pad(old, far, mode="edge")[top:, left:]
    best, found = 0, (0, 0)
    for dy in range(start[0] - reach, start[0] + reach + 1):
        for dx in range(start[1] - reach, start[1] + reach + 1):
            difference = (
                new[part] - padded[far + dy : far + dy + height, far + dx : far + dx + width]
            )
            np.abs(difference, out=difference)
            np.subtract(still, difference, out=difference)
            np.maximum(difference, 0, out=difference)
            explained = int(difference.sum(dtype=np.int64))
            if explained > best:
                best, found = explained, (dy, dx)
    return found


def _halve(picture: Int16) -> Int16:
    even = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
    halved: Int16 = (even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2]) >> 2
    return halved


def _shifted(picture: Int16, dy: int, dx: int) -> Int16:
    """Return a picture in which each pixel is the one (dy, dx) further; its edge goes on."""
    height, width = picture.shape
    rows = np.clip(np.arange(height) + dy, 0, height - 1)
    columns = np.clip(np.arange(width) + dx, 0, width - 1)
    return picture[rows][:, columns]


class _Cells:
    """Every second pixel of a frame, by the grid point to whose cell it belongs."""

    def __init__(self, size: tuple[int, int], grid: tuple[int, int]) -> None:
        self._cell = [
            np.arange(0, n, EVERY) * points // n for n, points in zip(size, grid, strict=True)
        ]
        self._starts = [
            np.searchsorted(c, np.arange(n)) for c, n in zip(self._cell, grid, strict=True)
        ]
        self._counts = [
            np.diff(np.append(starts, len(cell)))
            for starts, cell in zip(self._starts, self._cell, strict=True)
        ]
        self.pixels = self._counts[0][:, None] * self._counts[1]

    def add(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the sum over each cell."""
        for axis in (1, 0):
            starts = np.minimum(self._starts[axis], len(self._cell[axis]) - 1)
            values = np.add.reduceat(values, starts, axis=axis, dtype=np.int64)
        return np.where(self.pixels == 0, 0, values)

    def moving(self, change: Int16) -> Float64:
        """Return how much moves at each grid point, 0..1.

        The mean change of a cell is looked at, not the changes of its pixels: noise goes away in
        it.
        """
        amount = _most_around(np.abs(self.add(change)) / np.maximum(self.pixels, 1))
        moving: Float64 = np.clip((amount - NOISE) / (MOTION - NOISE), 0, 1)
        return moving

    def enlarge(self, points: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return for each pixel what its grid point says."""
        return points[self._cell[0]][:, self._cell[1]]


def _most_around(amount: Float64) -> Float64:
    """Return the largest of each point and its neighbours: a network sees motion from beside it."""
    wide = amount.copy()
    wide[:, 1:] = np.maximum(wide[:, 1:], amount[:, :-1])
    wide[:, :-1] = np.maximum(wide[:, :-1], amount[:, 1:])
    tall = wide.copy()
    tall[1:] = np.maximum(tall[1:], wide[:-1])
    tall[:-1] = np.maximum(tall[:-1], wide[1:])
    return tall


def _sum_around(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the sum of each point and its neighbours."""
    wide = values.copy()
    wide[:, 1:] += values[:, :-1]
    wide[:, :-1] += values[:, 1:]
    tall = wide.copy()
    tall[1:] += wide[:-1]
    tall[:-1] += wide[1:]
    return tall
