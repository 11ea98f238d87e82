"""Quieter masks for moving pictures; see docs/video.md, and ``web/src/smooth.ts``, its twin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

STILL = 0.3
NOISE, MOTION = 4.0, 14.0
EVERY = 2
LEAST = 1e-6


class Steadier:
    """Keeps a running average of the class probabilities at every point of the grid."""

    def __init__(self) -> None:
        self._past: tuple[Float32, UInt8] | None = None

    def reset(self) -> None:
        """Forget the past: another video, a cut."""
        self._past = None

    def smooth(self, logits: Float32, frame: UInt8, *, softmaxed: bool = False) -> Float32:
        """Return logits whose softmax is the average over time.

        Args:
            logits: (h, w, K) float32.
            frame: (H, W, 3) uint8 RGB, what the network saw.
            softmaxed: ``logits`` are probabilities already, and so is what is returned.
        """
        values = logits if softmaxed else _softmax(logits)
        past, self._past = self._past, (values, frame)
        if past is None or past[0].shape != values.shape or past[1].shape != frame.shape:
            return logits
        share = _new_shares(past[1], frame, (values.shape[0], values.shape[1]))
        values = past[0] + share[:, :, None] * (values - past[0])
        self._past = values, frame
        return values if softmaxed else np.log(np.maximum(values, np.float32(LEAST)))


def _softmax(logits: Float32) -> Float32:
    values: Float32 = np.exp(logits - logits.max(axis=2, keepdims=True))
    values /= values.sum(axis=2, keepdims=True)
    return values


def _new_shares(before: UInt8, now: UInt8, grid: tuple[int, int]) -> Float32:
    """Return how much of the new answer to take at each grid point, STILL..1."""
    change = np.abs(now[::EVERY, ::EVERY, 1].astype(np.int16) - before[::EVERY, ::EVERY, 1])
    for axis in (0, 1):
        change = _pool(change, now.shape[axis], grid[axis], axis)
    amount = change.astype(np.float32)
    moving = np.clip((_spread(amount) - NOISE) / (MOTION - NOISE), 0, 1)
    shares: Float32 = (STILL + (1 - STILL) * moving).astype(np.float32)
    return shares


def _pool(
    change: npt.NDArray[np.generic], size: int, points: int, axis: int
) -> npt.NDArray[np.float64]:
    """Return the mean of what lies in each of the grid's cells along one axis."""
    cell = np.arange(0, size, EVERY) * points // size
    starts = np.searchsorted(cell, np.arange(points))
    counts = np.diff(np.append(starts, len(cell)))
    sums = np.add.reduceat(change.astype(np.float64), np.minimum(starts, len(cell) - 1), axis=axis)
    shape = [1, 1]
    shape[axis] = points
    means: npt.NDArray[np.float64] = np.where(
        counts.reshape(shape) > 0, sums / np.maximum(counts, 1).reshape(shape), 0.0
    )
    return means


def _spread(amount: Float32) -> Float32:
    """Return the largest of each point and its neighbours: a network sees motion from beside it."""
    wide = amount.copy()
    wide[:, 1:] = np.maximum(wide[:, 1:], amount[:, :-1])
    wide[:, :-1] = np.maximum(wide[:, :-1], amount[:, 1:])
    tall = wide.copy()
    tall[1:] = np.maximum(tall[1:], wide[:-1])
    tall[:-1] = np.maximum(tall[:-1], wide[1:])
    return tall
