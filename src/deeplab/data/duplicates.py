"""Find pictures that are the same, or nearly, by a perceptual hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

Hash = npt.NDArray[np.uint16]  # (16,)

NEAR = 12
"""Bits of 256 in which near duplicates may differ: re-encoding and resizing change fewer, two
photos of different things about 128."""

_SIDE = 16
_BANDS = 16  # more than NEAR, so that a near pair agrees in at least one band
_ALL_OF = 32  # of so many pictures that share a band every pair is looked at
_NEIGHBOURS = 4
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


def find_near(
    hashes: Sequence[Hash | None], *, near: int = NEAR, names: Sequence[str] | None = None
) -> npt.NDArray[np.intp]:
    """Return the pairs (i, j), i < j, whose hashes differ in at most ``near`` bits (below 16).

    Such a pair agrees in at least one of the sixteen bands of 16 bits, so only pictures that share
    a band are compared. Of more than 32 pictures that share a band, as a camera that stands still
    gives them, each is compared with the next four by name and by hash only; so the work grows with
    the number of pictures, and each of them is still found to be like some others.

    Args:
        hashes: as :func:`perceptual_hash` gives them.
        near: bits in which a pair may differ.
        names: pictures whose names are neighbours are likely to be alike; None takes the order.

    Returns:
        (N, 2), sorted.
    """
    assert near < _BANDS
    kept = np.array([index for index, value in enumerate(hashes) if value is not None], np.intp)
    if not len(kept):
        return np.empty((0, 2), np.intp)
    table = np.stack([value for value in hashes if value is not None])
    words = np.ascontiguousarray(table).view(np.uint64)
    by_name = np.argsort(np.argsort([names[index] for index in kept])) if names else kept
    found = [np.empty(0, np.int64)]
    for band in range(_BANDS):
        columns = np.roll(table, -band, axis=1).T
        sizes = np.bincount(columns[0], minlength=1 << 16)[columns[0]]
        orders = [np.lexsort((by_name, columns[0])), np.lexsort(columns[::-1])]
        for order in orders if sizes.max() > _ALL_OF else orders[:1]:
            found += _close_pairs(words[order], columns[0][order], sizes[order], order, near)
    one, other = np.divmod(np.unique(np.concatenate(found)), len(kept))
    return np.stack([kept[one], kept[other]], axis=-1)


def _close_pairs(
    words: npt.NDArray[np.uint64],
    values: npt.NDArray[np.uint16],
    sizes: npt.NDArray[np.intp],
    indices: npt.NDArray[np.intp],
    near: int,
) -> Iterator[npt.NDArray[np.int64]]:
    """Give the near pairs of neighbours that share a value, as i · n + j.

    Args:
        words: (n, 4), the hashes in the order in which they are neighbours.
        values: (n,), the band that neighbours share, sorted.
        sizes: (n,), how many share it.
        indices: (n,), which picture each is.
        near: bits in which they may differ.
    """
    for step in range(1, min(_ALL_OF, len(values))):
        same = values[step:] == values[:-step]
        if step > _NEIGHBOURS:
            same &= sizes[step:] <= _ALL_OF
        if not same.any():
            if step > _NEIGHBOURS:
                break
            continue
        at = np.flatnonzero(same)
        close = at[np.bitwise_count(words[at] ^ words[at + step]).sum(axis=1) <= near]
        one, other = indices[close], indices[close + step]
        yield np.minimum(one, other) * np.int64(len(values)) + np.maximum(one, other)


def nearest(
    pairs: npt.NDArray[np.intp], hashes: Sequence[Hash | None], groups: Sequence[int]
) -> list[tuple[int, int]]:
    """Return, of the near pairs, for each picture its nearest earlier one in each group.

    Args:
        pairs: as :func:`find_near` gives them.
        hashes: of all pictures.
        groups: a number for each picture, its split for instance.

    Returns:
        (i, j), i < j; at most one for each j and each group of i.
    """
    if not len(pairs):
        return []
    one, other = pairs.T
    table = np.stack([np.zeros(_BANDS, np.uint16) if h is None else h for h in hashes])
    distance = np.bitwise_count(table[one] ^ table[other]).sum(axis=1)
    group = np.asarray(groups)[one]
    order = np.lexsort((one, distance, group, other))
    first = np.ones(len(order), bool)
    first[1:] = (other[order][1:] != other[order][:-1]) | (group[order][1:] != group[order][:-1])
    return [(int(i), int(j)) for i, j in pairs[order[first]]]
