"""Divide photos into those to learn from and those to judge by."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Sequence

from deeplab.data.duplicates import Hash, find_near

_TRIES = 32
"""Divisions that are drawn; the one whose judging part shows most classes is taken."""


def group_photos(names: Sequence[str], hashes: Sequence[Hash | None]) -> list[list[int]]:
    """Return groups of indices: pictures that show the same thing stand in one group.

    These are near duplicates (frames of a film, one photo in two sizes) and the variants that
    Roboflow makes of a photo ("dog_jpg.rf.0123abcd").
    """
    parent = list(range(len(names)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[str, int] = {}
    for index, name in enumerate(names):
        origin, mark, _ = name.partition(".rf.")
        if mark:
            parent[root(index)] = root(first.setdefault(origin, index))
    for one, other in find_near(hashes):
        parent[root(one)] = root(other)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(names)):
        groups[root(index)].append(index)
    return list(groups.values())


def divide(
    names: Sequence[str],
    groups: Sequence[list[int]],
    classes: Sequence[Collection[int]],
    *,
    share: float,
    seed: int = 0,
) -> set[int]:
    """Return the indices to judge by, about ``share`` of all; no group is torn apart.

    Args:
        names: of the photos; with ``seed`` they alone decide, not the order of the photos.
        groups: as :func:`group_photos` gives them.
        classes: the class ids that each photo shows; the part to judge by should show them all.
        share: 0 to below 1.
        seed: another one draws another division.

    Returns:
        Nothing where there is only one group, or where ``share`` is 0.
    """
    if len(groups) < 2 or share <= 0:
        return set()
    wanted = max(1, round(share * len(names)))

    def quality(chosen: set[int]) -> tuple[int, int]:
        seen = {class_id for index in chosen for class_id in classes[index]}
        return len(seen), -abs(len(chosen) - wanted)

    best: set[int] = set()
    for number in range(_TRIES):
        chosen = _draw(names, groups, wanted, f"{seed}.{number}")
        if not best or quality(chosen) > quality(best):
            best = chosen
    return best


def _draw(names: Sequence[str], groups: Sequence[list[int]], wanted: int, salt: str) -> set[int]:
    def key(group: list[int]) -> bytes:
        name = min(names[index] for index in group)
        return hashlib.sha256(f"{salt}/{name}".encode(errors="surrogateescape")).digest()

    chosen: set[int] = set()
    for group in sorted(groups, key=key):
        if len(chosen) + len(group) <= wanted:
            chosen.update(group)
    smallest = min(groups, key=lambda group: (len(group), min(group)))
    return chosen or set(smallest)


def usual_name(split: str) -> str:
    """Return "train", "val" or "test" for the ways in which tools spell them."""
    plain = re.sub(r"[\W_]*(19|20)\d\d$", "", split.strip().lower())
    if plain in ("train", "training", "trn"):
        return "train"
    if plain in ("val", "valid", "validation", "dev"):
        return "val"
    return "test" if plain in ("test", "testing", "tst") else plain
