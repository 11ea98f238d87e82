"""Where windows lie on a picture, and how much each says at every point of the grid.

The network answers on a grid of points, a few pixels apart. Windows begin at points of one grid
that lies over the whole picture, so that where two overlap, their answers belong to the same
points and can be averaged as they are, without being enlarged first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError
from deeplab.photo.upsample import Axis, place_axis

Float32 = npt.NDArray[np.float32]

OVERLAP = 0.25
"""Of a window's side, where nobody says."""

MOST_OVERLAP = 0.9
"""A hundred windows look at each pixel then."""

_ALONE = 1e-6
"""Weight where a window should say nothing, and nobody else may see the point."""


def check_overlap(overlap: float) -> None:
    """Refuse what is no share of a window's side.

    Raises:
        InputError: it is below 0 or above 0.9.
    """
    if not 0 <= overlap <= MOST_OVERLAP:
        raise InputError(f"overlap: got {overlap}, expected a share from 0 to {MOST_OVERLAP}.")


@dataclass(frozen=True)
class Windows:
    """The windows along one axis of a picture as the network sees it.

    Attributes:
        size: pixels of the picture as the network sees it.
        frame: pixels of a window, the network's frame.
        points: grid points of a window.
        align_corners: the first and the last point lie on the centres of a window's first and last
            pixel, not half a step inside its edges.
        overlap: the share of a window that the next one shares at least.
        unit: windows begin at multiples of so many points; every point, where it is 1.
        margin: of the shared points, the share at a window's edge at which it says nothing, where
            another sees the point from further inside.
    """

    size: int
    frame: int
    points: int
    align_corners: bool
    overlap: float = OVERLAP
    unit: int = 1
    margin: float = 0.0

    @property
    def step(self) -> float:
        """Pixels from one grid point to the next."""
        if self.align_corners:
            return max(1, self.frame - 1) / (self.points - 1) if self.points > 1 else self.frame
        return self.frame / self.points

    @property
    def shared(self) -> int:
        """How many points two neighbours share at least."""
        return min(round(self.overlap * self.points), self.points - 1)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The grid point at which each window begins; evenly, the last one ends last."""
        reach = (self.size - 1) / self.step + 1 if self.align_corners else self.size / self.step
        last = -(-max(0, math.ceil(reach - 1e-9) - self.points) // self.unit)
        count = -(-last // max(1, (self.points - self.shared) // self.unit)) + 1
        return tuple(self.unit * round(i * last / max(1, count - 1)) for i in range(count))

    @property
    def whole(self) -> int:
        """How many points the grid over the whole picture has."""
        return self.starts[-1] + self.points

    @property
    def whole_frame(self) -> int:
        """Pixels of the frame under that grid; the picture fills its first ``size``."""
        if self.align_corners:
            return max(self.size, round((self.whole - 1) * self.step) + 1)
        return max(self.size, round(self.whole * self.step))

    def first_pixel(self, window: int) -> int:
        """Return where a window begins; the nearest pixel, where points lie between pixels."""
        return round(self.starts[window] * self.step)

    @cached_property
    def weights(self) -> Float32:
        """(windows, points) float32: how much each window says at its points.

        It rises from the window's edges, where the network sees half of the surroundings only,
        over the shared points; at each point of the whole grid the weights sum to 1.
        """
        blind = self.margin * self.shared
        rise = (np.arange(self.points) + 1 - blind) / (self.shared + 1 - 2 * blind)
        rise = np.clip(rise, _ALONE, 1)
        ramps = []
        for window in range(len(self.starts)):
            # Where the picture ends nobody sees more than the window that ends there.
            first = rise if window else np.ones(self.points)
            last = rise[::-1] if window < len(self.starts) - 1 else np.ones(self.points)
            ramps.append(np.minimum(first, last))
        total = np.zeros(self.whole)
        for start, ramp in zip(self.starts, ramps, strict=True):
            total[start : start + self.points] += ramp
        shares = [
            ramp / total[start : start + self.points]
            for start, ramp in zip(self.starts, ramps, strict=True)
        ]
        return np.asarray(shares, np.float32)

    def place(self, pixels: int) -> Axis:
        """Return where the picture's own ``pixels`` lie on the whole grid."""
        span = self.whole_frame, 0, self.size
        return place_axis(self.whole, pixels, self.align_corners, span)

    def touching(self, points: slice) -> range:
        """Return the windows that say something of some of the whole grid's points."""
        chosen = [
            window
            for window, start in enumerate(self.starts)
            if start < points.stop and start + self.points > points.start
        ]
        return range(chosen[0], chosen[-1] + 1)
