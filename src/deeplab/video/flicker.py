"""How much masks flicker: the share of pixels whose class changes though the picture does not.

Two frames that follow one another are compared. Their brightness is averaged down to
:data:`LONGEST` pixels on the longer side and cut into blocks of :data:`BLOCK` pixels. For every
block the place in the earlier frame that resembles it most is looked for, up to :data:`REACH`
pixels away, at its own place first. Where the mean difference of brightness there is no more than
the camera's noise, the picture did not change: it stood still, or moved as a whole. That noise is
one and a half times the median of the blocks' differences at their own places, but :data:`NOISE` of
255 at least and twice that at most. A pixel of such a block whose class is not the class at that
place in the earlier mask flickers. The score is the mean, over pairs of frames, of the share of
such pixels among all pixels of the frame.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]

LONGEST = 320
BLOCK = 8
REACH = 8
NOISE = 4.0

_BETTER = 1.0
"""A place elsewhere must resemble a block by so much more, or the block is taken as still."""


def reduced_size(height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) at which frames are compared."""
    scale = min(1.0, LONGEST / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class FlickerMeter:
    """Adds up how much the masks of one video flicker.

    Args:
        every: of so many pairs of frames, one is looked at; 1 looks at all.

    Attributes:
        pairs: that were looked at.
    """

    def __init__(self, *, every: int = 1) -> None:
        self._every = every
        self._frames = 0
        self._sum = 0.0
        self.pairs = 0
        self._before: tuple[UInt8, UInt8] | None = None

    @property
    def score(self) -> float | None:
        """Share of pixels per frame, 0..1; None before two frames that follow one another."""
        return self._sum / self.pairs if self.pairs else None

    def wants(self, index: int) -> bool:
        """Return whether frame ``index``, counted from 0, is one of a pair that is looked at."""
        return index % self._every in (0, 1)

    def add(self, index: int, luma: UInt8, mask: UInt8) -> None:
        """Take the next frame.

        Args:
            index: of the frame, counted from 0; those that :meth:`wants` refuses may be left out.
            luma: (h, w) uint8 brightness at the size of :func:`reduced_size`.
            mask: (h, w) uint8 class ids at that size, see :func:`sample`.
        """
        before, self._before = self._before, (luma, mask)
        second = index % self._every == min(1, self._every - 1)
        if before is None or before[0].shape != luma.shape or not second:
            return
        self._sum += flickering(before, (luma, mask))
        self.pairs += 1


def sample(mask: UInt8, size: tuple[int, int]) -> UInt8:
    """Return a mask at another size, each pixel that of the centre."""
    rows, columns = (
        ((np.arange(n) + 0.5) * (full / n)).astype(np.intp)
        for n, full in zip(size, mask.shape, strict=True)
    )
    picked: UInt8 = mask[rows][:, columns]
    return picked


def flickering(before: tuple[UInt8, UInt8], now: tuple[UInt8, UInt8]) -> float:
    """Return the share of pixels that flicker between two (luma, mask), all of one size."""
    (luma_before, mask_before), (luma, mask) = before, now
    height, width = luma.shape
    if min(height, width) < BLOCK:
        same = np.abs(luma.astype(np.int16) - luma_before) <= NOISE
        return float(np.mean((mask != mask_before) & same))
    rows, columns = height // BLOCK, width // BLOCK
    cut = slice(rows * BLOCK), slice(columns * BLOCK)
    still = _means(np.abs(luma[cut].astype(np.int16) - luma_before[cut]))
    changes = _means(mask[cut] != mask_before[cut])
    noise = min(max(1.5 * float(np.median(still)), NOISE), 2 * NOISE)
    flickers = np.where(still <= noise, changes, 0.0)
    # Only a block that moved is looked for elsewhere, and only where there are two classes.
    for row, column in np.argwhere((still > noise / 2) & _is_mixed(mask[cut], mask_before[cut])):
        y, x = row * BLOCK, column * BLOCK
        at_rest, otherwise = float(still[row, column]), float(flickers[row, column])
        then = _origin(y, x, at_rest, luma, luma_before)
        if then is not None:
            difference, v, u = then
            block = mask[y : y + BLOCK, x : x + BLOCK] != mask_before[v : v + BLOCK, u : u + BLOCK]
            otherwise = float(np.mean(block)) if difference <= noise else 0.0
        flickers[row, column] = otherwise
    return float(flickers.sum() * BLOCK * BLOCK / (height * width))


def _means(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    rows, columns = values.shape[0] // BLOCK, values.shape[1] // BLOCK
    means: npt.NDArray[np.float64] = values.reshape(rows, BLOCK, columns, BLOCK).mean(
        axis=(1, 3), dtype=np.float64
    )
    return means


def _is_mixed(mask: UInt8, before: UInt8) -> npt.NDArray[np.bool_]:
    """Return for each block whether more than one class lies in it and its neighbours."""
    both = np.stack([mask, before])
    blocks = both.reshape(2, mask.shape[0] // BLOCK, BLOCK, mask.shape[1] // BLOCK, BLOCK)
    bounds = []
    for pick in (np.minimum, np.maximum):
        ids = np.pad(pick.reduce(blocks, axis=(0, 2, 4)), 1, mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(ids, (3, 3))
        bounds.append(pick.reduce(around, axis=(2, 3)))
    return np.asarray(bounds[0] != bounds[1])


def _origin(
    y: int, x: int, at_rest: float, luma: UInt8, luma_before: UInt8
) -> tuple[float, int, int] | None:
    """Return how much a block differs from where it came from, and where; None if it stood still.

    Args:
        y: its first row.
        x: its first column.
        at_rest: its mean difference from what was at its place.
        luma: the frame.
        luma_before: the one before.
    """
    top, left = max(0, y - REACH), max(0, x - REACH)
    around = luma_before[top : y + BLOCK + REACH, left : x + BLOCK + REACH].astype(np.int16)
    windows = np.lib.stride_tricks.sliding_window_view(around, (BLOCK, BLOCK))
    block = luma[y : y + BLOCK, x : x + BLOCK].astype(np.int16)
    differences = np.abs(windows - block).mean(axis=(2, 3))
    best = int(differences.argmin())
    if differences.flat[best] > at_rest - _BETTER:
        return None
    v, u = divmod(best, differences.shape[1])
    return float(differences.flat[best]), top + v, left + u
