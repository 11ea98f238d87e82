"""How sure the network is of every pixel, sampled as the mask is and without all classes at once.

The network's coarse numbers are interpolated a few rows at a time; of each band only what is asked
for is kept: the winner's probability, the entropy, or how probable some classes are together.
A temperature above 1 makes a network that says 0.99 where it is right in 0.9 of the cases less
sure; it is found by ``deeplab evaluate --calibration`` and changes no mask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError
from deeplab.photo.upsample import Region, softmax_rows

Float32 = npt.NDArray[np.float32]

_LEAST = 1e-30
"""Stands for a probability of zero where its logarithm is taken."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """A network's coarse answer and where its photo lies in it.

    Attributes:
        values: (h, w, K) float32, logits or probabilities.
        align_corners: how they lie on the frame, see :mod:`deeplab.photo.upsample`.
        region: the photo's part of the frame; None where it fills it.
        softmaxed: they are probabilities already.
        temperature: the logits are divided by it; above 1 makes the network less sure.
        mirrored: they are of the photo with left and right exchanged.
    """

    values: Float32
    align_corners: bool
    region: Region | None = None
    softmaxed: bool = False
    temperature: float = 1.0
    mirrored: bool = False


def check_temperature(temperature: float) -> float:
    """Return a temperature as it is.

    Raises:
        InputError: it is no number above 0.
    """
    if not (isinstance(temperature, (int, float)) and 0 < temperature < math.inf):
        raise InputError(f"temperature: got {temperature!r}, expected a number above 0.")
    return float(temperature)


def probability_rows(
    looks: Sequence[Scores], height: int, width: int
) -> Iterator[tuple[slice, Float32]]:
    """Yield ``(rows, probabilities)`` from top to bottom: (number of rows, width, K) float32.

    Of several looks, the mean of their probabilities at these pixels.

    Raises:
        InputError: see :func:`deeplab.photo.upsample.argmax_bilinear`.
    """
    for bands in zip(*(_bands(look, height, width) for look in looks), strict=True):
        rows, values = bands[0]
        for _, more in bands[1:]:
            values += more
        if len(bands) > 1:
            values /= np.float32(len(bands))
        yield rows, values


def mean_argmax(looks: Sequence[Scores], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return the class with the largest mean probability: (height, width) uint8.

    Raises:
        InputError: see :func:`deeplab.photo.upsample.argmax_bilinear`.
    """
    mask = np.empty((height, width), np.uint8)
    for rows, values in probability_rows(looks, height, width):
        mask[rows] = values.argmax(axis=2)
    return mask


def confidence(looks: Sequence[Scores], height: int, width: int) -> Float32:
    """Return the winner's probability at every pixel: (height, width) float32, 1 / K to 1.

    Raises:
        InputError: see :func:`deeplab.photo.upsample.argmax_bilinear`.
    """
    result = np.empty((height, width), np.float32)
    for rows, values in probability_rows(looks, height, width):
        values.max(axis=2, out=result[rows])
    return result


def entropy(looks: Sequence[Scores], height: int, width: int) -> Float32:
    """Return the entropy of the probabilities at every pixel: (height, width) float32, bits.

    0 where the network is sure, log2 K where every class is as probable as the next.

    Raises:
        InputError: see :func:`deeplab.photo.upsample.argmax_bilinear`.
    """
    result = np.empty((height, width), np.float32)
    for rows, values in probability_rows(looks, height, width):
        values /= values.sum(axis=2, keepdims=True)
        values *= np.log2(np.maximum(values, _LEAST))
        np.negative(values.sum(axis=2), out=result[rows])
    return np.maximum(result, 0, out=result)


def kept_probability(
    looks: Sequence[Scores], kept: Sequence[int], height: int, width: int
) -> Float32:
    """Return how probable some classes are together: (height, width) float32, 0..1.

    Raises:
        InputError: see :func:`deeplab.photo.upsample.argmax_bilinear`.
    """
    result = np.empty((height, width), np.float32)
    for rows, values in probability_rows(looks, height, width):
        result[rows] = values[:, :, list(kept)].sum(axis=2)
    return np.minimum(result, 1, out=result)


def _bands(scores: Scores, height: int, width: int) -> Iterator[tuple[slice, Float32]]:
    bands = softmax_rows(
        scores.values,
        height,
        width,
        align_corners=scores.align_corners,
        region=scores.region,
        softmaxed=scores.softmaxed,
        temperature=scores.temperature,
    )
    for rows, values in bands:
        yield rows, values[:, ::-1] if scores.mirrored else values
