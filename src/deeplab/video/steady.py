"""Quieter masks for moving pictures: probabilities averaged over time, where nothing moves.

A network's answer trembles with the camera's noise, and so does the mask's edge. At every point of
its grid a running average of the class probabilities is kept. How fast it forgets depends on how
much the picture changed around the point: at once where something moved, slowly where all is still.
And where it is still, the class that a point has is given up only for one that is clearly likelier.

The page's camera does the same, in ``web/src/smooth.ts``; docs/video.md describes both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

STILL = 0.08
"""The share of the new answer where the picture stands still: the last twelve frames count."""

NOISE, MOTION = 4.0, 19.0
"""Mean change of green in a cell, 0..255, that is noise, and from which on it is motion."""

HOLD = 0.1
"""By how much a new class must be likelier where all is still: a factor of exp(0.1) = 1.11."""

EVERY = 2
"""Motion is looked for at every so many pixels, both ways."""

LEAST = np.float32(1e-6)
"""Probabilities below this are not told apart."""


class Steadier:
    """Smooths the answers of one video, frame by frame, in order."""

    def __init__(self) -> None:
        self._past: tuple[Float32, UInt8, npt.NDArray[np.intp]] | None = None

    def reset(self) -> None:
        """Forget the past: another video, another model."""
        self._past = None

    def smooth(self, logits: Float32, frame: UInt8, *, softmaxed: bool = False) -> Float32:
        """Return logits whose softmax is the average over time.

        Args:
            logits: (h, w, K) float32.
            frame: (H, W, 3) uint8 RGB, what the network saw.
            softmaxed: ``logits`` are probabilities already, and so is what is returned.

        Returns:
            (h, w, K) float32: ``logits`` themselves for the first frame, and after a change of
            size.
        """
        values = logits if softmaxed else _softmax(logits)
        past = self._past
        if past is None or past[0].shape != values.shape or past[1].shape != frame.shape:
            self._past = values, frame, values.argmax(axis=2)
            return logits
        before, frame_before, winner = past
        moving = _motion(frame_before, frame, (values.shape[0], values.shape[1]))
        share = (STILL + (1 - STILL) * moving).astype(np.float32)
        values = before + share[:, :, None] * (values - before)
        told: Float32 = np.log(np.maximum(values, LEAST))
        held = np.take_along_axis(told, winner[:, :, None], axis=2)
        held += (HOLD * (1 - moving)).astype(np.float32)[:, :, None]
        np.put_along_axis(told, winner[:, :, None], held, axis=2)
        self._past = values, frame, told.argmax(axis=2)
        if not softmaxed:
            return told
        np.exp(told, out=told)
        told /= told.sum(axis=2, keepdims=True)
        return told


def _softmax(logits: Float32) -> Float32:
    values: Float32 = np.exp(logits - logits.max(axis=2, keepdims=True))
    values /= values.sum(axis=2, keepdims=True)
    return values


def _motion(before: UInt8, now: UInt8, grid: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return how much moves at each grid point, 0..1.

    The mean change of a cell is looked at, not the changes of its pixels: noise goes away in it.
    """
    change: npt.NDArray[Any] = now[::EVERY, ::EVERY, 1].astype(np.int32)
    change -= before[::EVERY, ::EVERY, 1]
    pixels = np.ones((), np.int64)
    for axis in (0, 1):
        change, count = _add_cells(change, now.shape[axis], grid[axis], axis)
        pixels = pixels * count.reshape((-1, 1) if axis == 0 else (1, -1))
    amount = _spread(np.abs(change) / np.maximum(pixels, 1))
    moving: npt.NDArray[np.float64] = np.clip((amount - NOISE) / (MOTION - NOISE), 0, 1)
    return moving


def _add_cells(
    change: npt.NDArray[Any], size: int, points: int, axis: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp]]:
    """Return the sums over each of the grid's cells along one axis, and how many were added."""
    cell = np.arange(0, size, EVERY) * points // size
    starts = np.searchsorted(cell, np.arange(points))
    count = np.diff(np.append(starts, len(cell)))
    sums = np.add.reduceat(change, np.minimum(starts, len(cell) - 1), axis=axis, dtype=np.int64)
    empty = (count == 0).reshape((-1, 1) if axis == 0 else (1, -1))
    return np.where(empty, 0, sums), count


def _spread(amount: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the largest of each point and its neighbours: a network sees motion from beside it."""
    wide = amount.copy()
    wide[:, 1:] = np.maximum(wide[:, 1:], amount[:, :-1])
    wide[:, :-1] = np.maximum(wide[:, :-1], amount[:, 1:])
    tall = wide.copy()
    tall[1:] = np.maximum(tall[1:], wide[:-1])
    tall[:-1] = np.maximum(tall[:-1], wide[1:])
    return tall
