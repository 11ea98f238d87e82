"""How often, and how, a network looks at each photo: at several scales, mirrored, or both.

The mean of the probabilities of several looks is surer than one; it takes as many times as long.
Source: research/deeplab/model.py, predict_labels_multi_scale (the mean of the softmax at the
picture's size, over scales and mirror images).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from deeplab.errors import InputError
from deeplab.runtimes.network_card import NetworkCard

MAX_SCALE = 4.0
_MOST = 16
"""Scales; each is one more network run, or two."""

_STEP = 16
"""Frames of k * 16 + 1 pixels, as the original's, stay such when they are scaled."""


@dataclass(frozen=True)
class Look:
    """One look at a photo.

    Attributes:
        height: of the frame it is put into.
        width: of the frame.
        mirrored: left and right are exchanged.
    """

    height: int
    width: int
    mirrored: bool = False


def plan_looks(
    card: NetworkCard, *, scales: Sequence[float], flip: bool, name: str
) -> tuple[Look, ...]:
    """Return the looks for these scales, each of them mirrored as well with ``flip``.

    Args:
        card: of the network.
        scales: of its frame; 1 is its own.
        flip: also look at the mirrored photo.
        name: of the network's file, for messages.

    Raises:
        InputError: a scale is no number above 0, at most 4; the network takes one size only; or it
            gives class ids, of which there is no mean.
    """
    scales = tuple(scales)
    numbers = all(
        isinstance(scale, (int, float)) and 0 < scale <= MAX_SCALE and math.isfinite(scale)
        for scale in scales
    )
    if not numbers or not 1 <= len(scales) <= _MOST:
        raise InputError(
            f"scales: got {list(scales)}, expected 1 to {_MOST} numbers above 0, at most "
            f"{MAX_SCALE:g}."
        )
    spec = card.spec
    sizes = [(_scale(spec.height, scale), _scale(spec.width, scale)) for scale in scales]
    own = spec.height, spec.width
    if not card.any_size and any(size != own for size in sizes):
        raise InputError(
            f"scales: {name} takes frames of {own[0]}×{own[1]} only, so it has one scale. --flip "
            "(flip=True) works with it; for more scales take a release pair, or an .onnx or "
            "OpenVINO file that takes any size."
        )
    looks = tuple(
        Look(*size, mirrored=mirrored)
        for size in sizes
        for mirrored in ((False, True) if flip else (False,))
    )
    if len(looks) > 1 and card.output == "label map":
        raise InputError(
            f"scales, flip: {name} gives class ids, of which there is no mean; take a file that "
            "gives logits or probabilities."
        )
    return looks


def _scale(side: int, scale: float) -> int:
    if scale == 1:
        return side
    if side % _STEP == 1:
        return 1 + _STEP * max(1, round((side - 1) * scale / _STEP))
    return max(1, round(side * scale))
