"""k-fold: each picture is judged by a network that has not learned from it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from deeplab.data.masks import MaskEncoding
from deeplab.data.sample import Dataset, Sample
from deeplab.errors import InputError
from deeplab.labels import LabelSet


class Part:
    """Some pairs of a data set.

    Attributes:
        labels, split, ids, images, masks, encoding: see ``data.sample.Dataset``.
    """

    def __init__(self, dataset: Dataset, places: Sequence[int], split: str) -> None:
        self._dataset, self._places = dataset, list(places)
        self.labels: LabelSet = dataset.labels
        self.encoding: MaskEncoding = dataset.encoding
        self.split = split
        ids, images, masks = dataset.ids, dataset.images, dataset.masks
        self.ids: Sequence[str] = [ids[place] for place in places]
        self.images: Sequence[Path] = [images[place] for place in places] if images else []
        self.masks: Sequence[Path] = [masks[place] for place in places] if masks else []

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        """Return one pair."""
        return self._dataset[self._places[index]]


def split_fold(dataset: Dataset, *, fold: int, folds: int) -> tuple[Part, Part]:
    """Return the pairs to learn from and those to judge by.

    Which fold a pair is in follows from its name alone: from the order of the names' hashes.

    Raises:
        InputError: there are fewer pairs than folds.
    """
    if len(dataset) < folds:
        raise InputError(f"data.folds: got {folds} for {len(dataset)} pictures.")
    ids = dataset.ids
    digests = [
        hashlib.sha256(str(name).encode("utf-8", "surrogateescape")).digest() for name in ids
    ]
    order = sorted(range(len(ids)), key=lambda place: (digests[place], place))
    judged = set(order[fold::folds])
    name = f"fold {fold + 1} of {folds}"
    learned = [place for place in range(len(ids)) if place not in judged]
    return Part(dataset, learned, f"all but {name}"), Part(dataset, sorted(judged), name)
