"""How a stored frame is turned before it is seen: the display matrix of MP4, MOV and others."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

_ONE = 1 << 16
"""1 in the matrix's fixed point, but for its last column."""

_IDENTITY = (_ONE, 0, 0, 0, _ONE, 0, 0, 0, 1 << 30)


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways in which a frame lies, as the display matrix says.

    Attributes:
        matrix: nine integers in FFmpeg's layout, as they are stored. A point (x, y) of the stored
            frame is seen at (m[0] x + m[3] y, m[1] x + m[4] y).
    """

    matrix: tuple[int, ...] = _IDENTITY

    @classmethod
    def read(cls, side_data: bytes | None) -> Orientation:
        """Return what a frame's side data says; none of it, or damage, is the identity."""
        if side_data is None or len(side_data) != 36:
            return cls()
        return cls(struct.unpack("=9i", side_data))

    @property
    def _signs(self) -> tuple[int, int, int, int] | None:
        """The matrix as -1, 0 and 1; None for angles between the quarters of a turn."""
        a, b, c, d = (round(self.matrix[i] / _ONE) for i in (0, 1, 3, 4))
        straight = abs(a) == abs(d) == 1 and b == c == 0
        lying = abs(b) == abs(c) == 1 and a == d == 0
        return (a, b, c, d) if straight or lying else None

    @property
    def is_identity(self) -> bool:
        """Frames are stored as they are seen."""
        return self._signs in ((1, 0, 0, 1), None)

    @property
    def is_slanted(self) -> bool:
        """The matrix asks for what is no quarter of a turn; it is not followed."""
        return self._signs is None

    @property
    def swaps_sides(self) -> bool:
        """Height and width change places."""
        return self._signs is not None and self._signs[0] == 0

    def turn_upright(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return an array (H, W, …) as it is to be seen."""
        if self._signs is None:
            return stored
        a, b, c, d = self._signs
        if a == 0:
            return _flip(stored.swapaxes(0, 1), rows=b < 0, columns=c < 0)
        return _flip(stored, rows=d < 0, columns=a < 0)

    def turn_back(self, upright: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return an upright array as it is to be stored; undoes :meth:`turn_upright`."""
        if self._signs is None:
            return upright
        a, b, c, d = self._signs
        if a == 0:
            return _flip(upright, rows=b < 0, columns=c < 0).swapaxes(0, 1)
        return _flip(upright, rows=d < 0, columns=a < 0)


def _flip(array: npt.NDArray[Any], *, rows: bool, columns: bool) -> npt.NDArray[Any]:
    return array[:: -1 if rows else 1, :: -1 if columns else 1]
