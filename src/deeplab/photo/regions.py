"""Connected regions of equal labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.integer[Any]]


def connect_equal(label: Mask) -> npt.NDArray[np.int64]:
    """Return (H, W) numbers, equal for pixels that a path of equal labels connects.

    Neighbours are the eight around a pixel. Regions are numbered from 0, row by row.
    """
    # Runs along the rows are found at once; only their touching has to be followed.
    starts = np.ones(label.shape, bool)
    starts[:, 1:] = label[:, 1:] != label[:, :-1]
    runs: npt.NDArray[np.int64] = np.cumsum(starts).reshape(label.shape) - 1
    touching = [_touching(label, runs, shift) for shift in (-1, 0, 1)]
    first, second = np.concatenate(touching, axis=1)
    lowest = _lowest_of_each(int(runs[-1, -1]) + 1, first, second)
    numbers = np.unique(lowest, return_inverse=True)[1]
    regions: npt.NDArray[np.int64] = numbers[runs]
    return regions


def _touching(label: Mask, runs: npt.NDArray[np.int64], shift: int) -> npt.NDArray[np.int64]:
    """Return (2, N) pairs of runs of one label, a row apart and ``shift`` columns aside."""
    width = label.shape[1]
    above = np.s_[:-1, max(0, -shift) : width - max(0, shift)]
    below = np.s_[1:, max(0, shift) : width - max(0, -shift)]
    equal = label[above] == label[below]
    pairs = np.stack([runs[above][equal], runs[below][equal]])
    fresh = np.ones(pairs.shape[1], bool)
    fresh[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(0)
    return pairs[:, fresh]


def _lowest_of_each(
    count: int, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the lowest member of each node's group, where edges join nodes ``0 .. count - 1``.

    Each round hooks the root of either end under the lower one and halves all paths.
    """
    lowest = np.arange(count)
    while True:
        one, other = lowest[first], lowest[second]
        if (one == other).all():
            return lowest
        np.minimum.at(lowest, np.maximum(one, other), np.minimum(one, other))
        while (lowest[lowest] != lowest).any():
            lowest = lowest[lowest]
