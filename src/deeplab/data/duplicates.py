"""Find pictures that are the same, or nearly, by a perceptual hash."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

Hash = npt.NDArray[np.uint16]  # (16,)

NEAR = 12
"""Bits of 256 in which near duplicates may differ: re-encoding and resizing change fewer, two
photos of different things about 128."""

_SIDE = 16
_BANDS = 16  # more than NEAR, so that a near pair agrees in at least one band
_FLAT = 2.0
"""Grey levels: below this spread a picture shows nothing, and its hash is noise."""


def perceptual_hash(image: Image.Image) -> Hash | None:
    """Return 256 bits: where brightness rises from left to right on a 17×16 grid.

    None for a picture of one colour. Source: the difference hash of N. Krawetz, "Kind of Like
    That", 2013, at twice its grid.
    """
    grey = image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX)
    levels = np.asarray(grey, np.int16)
    if levels.std() < _FLAT:
        return None
    bits = np.packbits(levels[:, 1:] > levels[:, :-1])
    return bits.view(np.uint16)


def find_near(hashes: Sequence[Hash | None], *, near: int = NEAR) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, whose hashes differ in at most ``near`` bits (below 16).

    Such a pair agrees in at least one of the sixteen bands of 16 bits, so only pictures that share
    a band are compared.
    """
    assert near < _BANDS
    kept = [index for index, value in enumerate(hashes) if value is not None]
    if not kept:
        return []
    table = np.stack([value for value in hashes if value is not None])
    found: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        order = np.argsort(table[:, band], kind="stable")
        ends = np.flatnonzero(np.diff(table[order, band].astype(np.int32))) + 1
        for group in np.split(order, ends):
            if len(group) > 1:
                found.update(_close_pairs(table, group, near))
    return sorted((kept[first], kept[second]) for first, second in found)


def _close_pairs(
    table: npt.NDArray[np.uint16], group: npt.NDArray[np.intp], near: int
) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for place, index in enumerate(group[:-1]):
        others = group[place + 1 :]
        distance = np.bitwise_count(table[others] ^ table[index]).sum(axis=1)
        for other in others[distance <= near]:
            pairs.append((min(int(index), int(other)), max(int(index), int(other))))
    return pairs
