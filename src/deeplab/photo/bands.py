"""Pictures that are no photos: what their channels are, and how they are shown.

A network for photos takes 8-bit RGB, and everything that can be seen is turned into that. One for
other pictures (scans of one channel, satellites' of many, 16 bits, real numbers) takes their
channels as the file has them, in their own numbers, and keeps a :class:`Bands` beside its mean and
deviation: the type of number that it was trained on, and the rule by which such pictures are shown
to people: which channels, and which values are black and white.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError

Kind = Literal["uint8", "uint16", "float32"]
"""The numbers of a picture: bytes, 16 bits, or real numbers (all other types become these)."""

MOST_CHANNELS = 256
"""Hyperspectral cameras have some hundreds."""

KINDS: tuple[Kind, ...] = get_args(Kind)

Values = npt.NDArray[Any]
"""(H, W, C), C channels of one of the kinds."""


@dataclass(frozen=True, kw_only=True)
class Bands:
    """What the pictures of a network for other pictures than photos are.

    Attributes:
        kind: of their numbers.
        shown: the channels to show, from 1 on: three as red, green and blue, or one as grey.
        low: of each of those, the value that is shown black.
        high: and the one that is white.

    Raises:
        InputError: these do not fit each other.
    """

    kind: Kind
    shown: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"bands: got the kind '{self.kind}', expected {', '.join(KINDS)}.")
        if len(self.shown) not in (1, 3) or min(self.shown) < 1:
            raise InputError(
                f"bands: shown are {list(self.shown)}, expected one channel or three, from 1 on."
            )
        fits = len(self.low) == len(self.high) == len(self.shown)
        if not fits or not all(map(math.isfinite, (*self.low, *self.high))):
            raise InputError(
                f"bands: got black {list(self.low)} and white {list(self.high)}, expected a number "
                f"each for the channels {list(self.shown)}."
            )

    def show(self, values: Values) -> npt.NDArray[np.uint8]:
        """Return what people see of a picture: (H, W, 3) uint8 RGB.

        Args:
            values: (H, W, C) in the units of ``low`` and ``high``.
        """
        planes = []
        for number, low, high in zip(self.shown, self.low, self.high, strict=True):
            plane = values[:, :, number - 1].astype(np.float32)
            stretched = (plane - np.float32(low)) * np.float32(255 / max(high - low, 1e-12))
            planes.append(np.clip(stretched + 0.5, 0, 255).astype(np.uint8))
        return np.stack(planes * (3 // len(planes)), axis=2)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as values that JSON knows."""
        return {
            "kind": self.kind,
            "shown": list(self.shown),
            "low": list(self.low),
            "high": list(self.high),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Bands:
        """Make them of what :meth:`to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: a part is missing or of another kind.
            InputError: the parts do not fit each other.
        """
        return cls(
            kind=values["kind"],
            shown=tuple(int(number) for number in values["shown"]),
            low=tuple(float(value) for value in values["low"]),
            high=tuple(float(value) for value in values["high"]),
        )


def describe_values(count: int, kind: str) -> str:
    """Return "4 channels of uint16"."""
    return f"{count} channel{'s' * (count != 1)} of {kind}"
