"""What a network sums up its frame for, of a whole picture instead of a window.

A DeepLab with image pooling tells every point the mean of its features over the frame. In a window
that is the window's mean, and two windows judge one and the same pixel differently. So the picture
is gone through twice: first for the mean over all of it, each place counted once, then for the
answers, every window given that mean. The network is cut at its pooling for it, see
:mod:`deeplab.runtimes.cut`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError
from deeplab.tiles.blend import Blend
from deeplab.tiles.windows import Windows

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

Context = Literal["picture", "window"]
"""Of what the network's image pooling is the mean."""

CONTEXTS: tuple[Context, ...] = ("picture", "window")


@dataclass(frozen=True)
class Halves:
    """A network cut at its image pooling.

    Attributes:
        features: a frame in, what is averaged of it out: (h, w, C) float32 each.
        judge: a frame and averages, (C,) float32 each, in, logits out.
        maps: (height, width) of what ``features`` gives.
    """

    features: Callable[[UInt8], tuple[Float32, ...]]
    judge: Callable[[UInt8, tuple[Float32, ...]], Float32]
    maps: tuple[tuple[int, int], ...]


def check_context(context: str | None) -> None:
    """Refuse what is no context.

    Raises:
        InputError: it is neither "picture" nor "window".
    """
    if context is not None and context not in CONTEXTS:
        raise InputError(f"context: got '{context}', expected {' or '.join(CONTEXTS)}.")


def find_unit(points: int, maps: Sequence[int], *, align_corners: bool, most: int) -> int:
    """Return at every how many grid points a window may begin, so that its features lie on others'.

    A network sees a picture that is shifted by a pixel differently: its features are 16 pixels
    apart, say, and windows that begin a multiple of these apart have the same where they overlap.

    Args:
        points: of a window's grid.
        maps: of its feature maps; where not all can be met, the first are.
        align_corners: how both lie on the frame.
        most: how far apart windows may begin.
    """
    unit, less = 1, 1 if align_corners else 0
    for count in maps:
        steps = max(1, points - less)
        larger = math.lcm(unit, steps // math.gcd(steps, max(1, count - less)))
        if larger <= most:
            unit = larger
    return unit


def average(blend: Blend, features: Halves, *, group: int) -> tuple[Float32, ...]:
    """Return the means of a picture's features, (C,) float32 each.

    Every place of the picture counts once, whichever windows see it; what lies beside the picture
    does not count.

    Args:
        blend: the windows; what it runs gives the features.
        features: how large they are.
        group: how many columns of windows are gone through together.
    """
    shares = [
        (_shares(blend.rows, height), _shares(blend.columns, width))
        for height, width in features.maps
    ]
    sums, totals = [np.zeros(())] * len(shares), [0.0] * len(shares)
    count = len(blend.columns.starts)
    for first in range(0, count, group):
        for row, column, maps in blend.answers(range(first, min(count, first + group))):
            for i, ((down, across), found) in enumerate(zip(shares, maps, strict=True)):
                sums[i] = sums[i] + np.einsum("h,w,hwc->c", down[row], across[column], found)
                totals[i] += float(down[row].sum() * across[column].sum())
    return tuple((one / total).astype(np.float32) for one, total in zip(sums, totals, strict=True))


def _shares(windows: Windows, count: int) -> npt.NDArray[np.float64]:
    """(windows, count): how much of the mean each row of features has to say, 0 off the picture."""
    if windows.align_corners:
        step = (windows.frame - 1) / max(1, count - 1)
        features = np.arange(count) * step
        points = np.arange(windows.points) * windows.step
    else:
        step = windows.frame / count
        features = (np.arange(count) + 0.5) * step
        points = (np.arange(windows.points) + 0.5) * windows.step
    # A frame as large as the picture would have features up to its last pixel, or just behind.
    last = windows.size - 1 + step
    shares = [
        np.interp(features, points, weights) * (windows.first_pixel(window) + features < last)
        for window, weights in enumerate(windows.weights)
    ]
    return np.asarray(shares)
