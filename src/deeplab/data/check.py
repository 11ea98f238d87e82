"""The data doctor: look at every pair of a data set before a training does.

report = check([open_dataset("pets", split=s) for s in ("train", "val")])
report.raise_if_broken()
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deeplab.data.counts import ClassCounts
from deeplab.data.duplicates import find_near
from deeplab.data.faults import KINDS, Fault, Suspect
from deeplab.data.masks import IGNORE
from deeplab.data.pairs import Pair, inspect_pair
from deeplab.data.sample import FileDataset
from deeplab.errors import DataError, InputError
from deeplab.files import replacing

RARE_SHARE = 1e-3
"""Classes with a smaller share of the labelled pixels are called rare."""

LARGEST_CROP = 769
"""Suggested crops stop here. Source: the original's train_crop_size for Cityscapes."""


@dataclass(frozen=True)
class Split:
    """What was found in one split.

    Attributes:
        dataset: what was looked at.
        counts: pixels by class.
        median_size: (height, width) of the photos.
        large_size: (height, width) that nine of ten photos do not exceed.
    """

    dataset: FileDataset
    counts: ClassCounts
    median_size: tuple[int, int]
    large_size: tuple[int, int]


@dataclass(frozen=True)
class Report:
    """What the doctor found.

    Attributes:
        splits: one entry per split, in the order in which they were given.
        faults: those that stop a training first.
    """

    splits: tuple[Split, ...]
    faults: tuple[Fault, ...]

    @property
    def stops(self) -> tuple[Fault, ...]:
        """The faults that should be mended before any training."""
        return tuple(fault for fault in self.faults if fault.stops)

    @property
    def class_weights(self) -> tuple[float, ...]:
        """Median-frequency weights of the first split, one per class."""
        return tuple(map(float, self.splits[0].counts.median_frequency_weights()))

    @property
    def crop_size(self) -> tuple[int, int]:
        """Suggested (height, width) of training crops, 16·k + 1.

        Nine of ten photos of the first split fit into it, but it is never above 769.
        """
        height, width = (
            min(LARGEST_CROP, 16 * math.ceil((side - 1) / 16) + 1)
            for side in self.splits[0].large_size
        )
        return height, width

    def raise_if_broken(self) -> None:
        """Raise when a fault stops a training.

        Raises:
            DataError: with every such fault, its first file and its cure.
        """
        if self.stops:
            faults = "\n".join(f"  {fault}" for fault in self.stops)
            raise DataError(f"{self.splits[0].dataset.root}: the data set is broken.\n{faults}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything that JSON can hold."""
        return {
            "root": str(self.splits[0].dataset.root),
            "layout": self.splits[0].dataset.layout,
            "classes": list(self.splits[0].dataset.labels.names),
            "splits": [
                {
                    "name": split.dataset.split,
                    "pairs": len(split.dataset),
                    "median_size": split.median_size,
                    "large_size": split.large_size,
                    "pixels": split.counts.pixels.tolist(),
                    "photos": split.counts.photos.tolist(),
                    "ignored_share": split.counts.ignored_share,
                }
                for split in self.splits
            ],
            "class_weights": self.class_weights,
            "crop_size": self.crop_size,
            "stops_training": bool(self.stops),
            "faults": [fault.to_dict() for fault in self.faults],
        }

    def save_json(self, path: Path) -> None:
        """Write :meth:`to_dict`; the file appears under its name when it is complete."""
        with replacing(path) as partial:
            partial.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False), "utf-8")


def check(
    datasets: Sequence[FileDataset],
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Look at every pair of all splits.

    Args:
        datasets: the splits of one data set, the training split first.
        threads: how many files are read at a time; None means one per core.
        progress: called with (pairs done, pairs in all).

    Raises:
        InputError: no split was given, or splits of different classes.
    """
    if not datasets:
        raise InputError("data set: got no split to check.")
    if len({dataset.labels for dataset in datasets}) > 1:
        raise InputError("data set: its splits have different classes; check them one by one.")
    work = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    pairs: list[Pair] = []
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for pair in pool.map(lambda item: inspect_pair(*item), work):
            pairs.append(pair)
            if progress is not None:
                progress(len(pairs), len(work))
    splits: list[Split] = []
    faults: list[Fault] = []
    for dataset in datasets:
        mine = [pair for pair in pairs if pair.split == dataset.split]
        split = _sum_up(dataset, mine)
        splits.append(split)
        faults += _faults_of_pairs(dataset, mine)
        faults += _faults_of_split(split, mine)
    faults += _orphans(datasets)
    faults += _faults_of_doubles(datasets, pairs)
    order = {code: place for place, code in enumerate(KINDS)}
    faults.sort(key=lambda fault: (not fault.stops, order[fault.code]))
    return Report(splits=tuple(splits), faults=tuple(faults))


def _sum_up(dataset: FileDataset, pairs: Sequence[Pair]) -> Split:
    counts = ClassCounts.none(len(dataset.labels))
    for pair in pairs:
        counts += ClassCounts.of(pair.histogram, len(dataset.labels))
    sizes = np.array([pair.size for pair in pairs if pair.size is not None] or [(1, 1)])
    median, large = (np.quantile(sizes, at, axis=0, method="higher") for at in (0.5, 0.9))
    return Split(
        dataset=dataset,
        counts=counts,
        median_size=(int(median[0]), int(median[1])),
        large_size=(int(large[0]), int(large[1])),
    )


def _faults_of_pairs(dataset: FileDataset, pairs: Sequence[Pair]) -> Iterator[Fault]:
    """Gather the findings of single pairs by code."""
    found: dict[str, list[Suspect]] = defaultdict(list)
    for pair in pairs:
        for code, note in pair.findings.items():
            of_photo = code in ("missing-photo", "unreadable-photo", "turned", "maybe-turned")
            path = (dataset.images if of_photo else dataset.masks)[pair.index]
            found[code].append(Suspect(str(path), note, pair.index))
    found["palettes-differ"] += _differing_palettes(dataset, pairs)
    for code, suspects in found.items():
        if suspects:
            yield Fault(code, dataset.split, tuple(suspects))


def _orphans(datasets: Sequence[FileDataset]) -> Iterator[Fault]:
    """Report each mask without a photo once, though several splits may share its folder."""
    told: set[Path] = set()
    for dataset in datasets:
        new = [path for path in dataset.orphans if path not in told]
        told.update(new)
        if new:
            suspects = tuple(Suspect(str(path), "there is no such photo") for path in new)
            yield Fault("orphan-mask", dataset.split, suspects)


def _differing_palettes(dataset: FileDataset, pairs: Sequence[Pair]) -> Iterator[Suspect]:
    """Find palette masks in which a colour has another index than in most others."""
    if dataset.encoding.by_colour:
        return
    uses: dict[tuple[int, int, int], Counter[int]] = defaultdict(Counter)
    for pair in pairs:
        for colour, index in pair.palette.items():
            uses[colour][index] += 1
    usual = {colour: indices.most_common(1)[0][0] for colour, indices in uses.items()}
    for pair in pairs:
        for colour, index in pair.palette.items():
            if index != usual[colour] and "palette-order" not in pair.findings:
                note = f"colour {colour} has index {index}, elsewhere {usual[colour]}"
                yield Suspect(str(dataset.masks[pair.index]), note, pair.index)
                break


def _faults_of_split(split: Split, pairs: Sequence[Pair]) -> Iterator[Fault]:
    """Judge the classes of a whole split."""
    dataset, counts = split.dataset, split.counts
    names = dataset.labels.names
    if not any(pair.histogram.any() for pair in pairs):
        return  # no mask could be read; that is said elsewhere
    labelled = int(counts.pixels.sum())
    shown = [index for index in range(len(names)) if counts.pixels[index]]
    where = str(dataset.root)
    values = {value for pair in pairs for value in pair.values}
    if values == {0, IGNORE} and shown == [0] and len(names) > 1:
        note = f"{100 * counts.ignored_share:.0f} % of the pixels are 255, the others are 0"
        yield Fault("ignored-foreground", dataset.split, (Suspect(where, note),))
        return
    if not labelled:
        if counts.ignored:
            note = "no pixel belongs to a class"
            yield Fault("nothing-labelled", dataset.split, (Suspect(where, note),))
        return
    if len(shown) == 1 and len(names) > 1:
        note = f"only '{names[shown[0]]}' occurs"
        yield Fault("only-one-class", dataset.split, (Suspect(where, note),))
        return
    if counts.ignored_share > 0.5:
        note = f"{100 * counts.ignored_share:.0f} % of the pixels"
        yield Fault("much-ignored", dataset.split, (Suspect(where, note),))
    absent = [Suspect(names[i], "no pixel") for i in range(len(names)) if not counts.pixels[i]]
    if absent:
        yield Fault("absent-class", dataset.split, tuple(absent))
    rare = [
        Suspect(names[i], f"{100 * counts.shares[i]:.2g} %, in {counts.photos[i]} photos")
        for i in shown
        if counts.shares[i] < RARE_SHARE
    ]
    if rare:
        yield Fault("rare-class", dataset.split, tuple(rare))


def _faults_of_doubles(datasets: Sequence[FileDataset], pairs: Sequence[Pair]) -> Iterator[Fault]:
    """Find photos that are the same, or nearly, within and across splits."""
    by_name = {dataset.split: dataset for dataset in datasets}
    same: dict[bytes, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.digest:
            same[pair.digest].append(pair)
    couples = [(group[0], other, "same") for group in same.values() for other in group[1:]]
    for first, second in find_near([pair.hash for pair in pairs]):
        if pairs[first].digest != pairs[second].digest:
            couples.append((pairs[first], pairs[second], "near"))
    found: dict[tuple[str, str], list[Suspect]] = defaultdict(list)
    for one, other, kind in couples:
        across = one.split != other.split
        code = f"{kind}-photo-across" if across else f"{kind}-photo"
        twin = by_name[one.split].images[one.index]
        path = by_name[other.split].images[other.index]
        note = f"like {one.split}/{twin.name}" if across else f"like {twin.name}"
        found[code, other.split].append(Suspect(str(path), note, other.index, str(twin)))
    for (code, split), suspects in found.items():
        yield Fault(code, split, tuple(suspects))
