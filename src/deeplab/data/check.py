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
from deeplab.data.duplicates import find_near, nearest
from deeplab.data.faults import KINDS, Fault, Suspect
from deeplab.data.masks import IGNORE
from deeplab.data.pairs import Pair, inspect_pair
from deeplab.data.sample import FileDataset
from deeplab.errors import DataError, InputError
from deeplab.files import replacing
from deeplab.photo.find import describe_passed_over

RARE_SHARE = 1e-3
"""Classes with a smaller share of the labelled pixels are called rare."""

SMALL_SPLIT = 5
"""A split to judge by that has fewer photos gets a note."""

EXAMPLES = 12
"""Pairs of each split that the page shows."""

LARGEST_CROP = 769
"""Suggested crops stop here. Source: the original's train_crop_size for Cityscapes."""


_WHOLE = ("all", "trainval")  # hold other splits on purpose
_LISTED_COLOURS = 40
_LISTED_NAMES = 12
_WHITE = "Write values = [0, 255] and ignore = [] into dataset.toml."
_MIXED_WHITE = "Write values = [0, [1, 255]] and ignore = [] into dataset.toml."


@dataclass(frozen=True)
class Split:
    """What was found in one split.

    Attributes:
        dataset: what was looked at.
        counts: pixels by class.
        median_size: (height, width) of the photos.
        large_size: (height, width) that nine of ten photos do not exceed.
        examples: indices of pairs that show every class where twelve can, rare ones first.
    """

    dataset: FileDataset
    counts: ClassCounts
    median_size: tuple[int, int]
    large_size: tuple[int, int]
    examples: tuple[int, ...] = ()


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
            DataError: with the first such fault, its first file and its cure.
        """
        if self.stops:
            root, count = self.splits[0].dataset.root, len(self.stops) - 1
            more = f" And {count} more faults: deeplab data check {root}" if count else ""
            raise DataError(f"{root}: the data set is broken. {self.stops[0]}{more}")

    @property
    def assumed(self) -> tuple[str, ...]:
        """What was taken to be so because nothing said otherwise, a sentence each."""
        return tuple(dict.fromkeys(s for split in self.splits for s in split.dataset.assumed))

    def to_dict(self) -> dict[str, Any]:
        """Return everything that JSON can hold."""
        return {
            "root": str(self.splits[0].dataset.root),
            "layout": self.splits[0].dataset.layout,
            "assumed": list(self.assumed),
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
    faults += _passed_over(datasets)
    faults += _faults_between(datasets)
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
        examples=_choose_examples(pairs, counts),
    )


def _choose_examples(pairs: Sequence[Pair], counts: ClassCounts) -> tuple[int, ...]:
    """Return the indices of pairs to show: the largest of each class, then evenly spaced ones."""
    sound = [pair for pair in pairs if pair.size is not None and pair.histogram.any()]
    chosen: list[int] = []
    for class_id in np.argsort(counts.pixels, kind="stable"):
        left = [pair for pair in sound if pair.index not in chosen and pair.histogram[class_id]]
        if left and len(chosen) < EXAMPLES:
            chosen.append(max(left, key=lambda pair: int(pair.histogram[class_id])).index)
    rest = [pair.index for pair in sound if pair.index not in chosen]
    wanted = min(EXAMPLES - len(chosen), len(rest))
    places = np.linspace(0, max(0, len(rest) - 1), wanted).astype(int)
    return tuple(sorted([*chosen, *(rest[place] for place in places)]))


def _faults_of_pairs(dataset: FileDataset, pairs: Sequence[Pair]) -> Iterator[Fault]:
    """Gather the findings of single pairs by code."""
    found: dict[str, list[Suspect]] = defaultdict(list)
    for pair in pairs:
        for code, note in pair.findings.items():
            of_photo = code in ("missing-photo", "unreadable-photo", "turned", "maybe-turned")
            path = (dataset.images if of_photo else dataset.masks)[pair.index]
            found[code].append(Suspect(str(path), note, pair.index))
    found["palettes-differ"] += _differing_palettes(dataset, pairs)
    found["transparent"] = [
        Suspect(str(dataset.masks[pair.index]), _name_transparent(dataset), pair.index)
        for pair in pairs
        if pair.is_transparent
    ]
    for code, suspects in found.items():
        if suspects:
            yield Fault(code, dataset.split, tuple(suspects), _line(code, dataset, pairs))


def _name_transparent(dataset: FileDataset) -> str:
    index = dataset.encoding.transparent
    return "read as ignored" if index == IGNORE else f"read as '{dataset.labels.names[index]}'"


def _line(code: str, dataset: FileDataset, pairs: Sequence[Pair]) -> str:
    """Return what the masks hold, as the line that would say what it means."""
    names = ", ".join(dataset.labels.names[:_LISTED_NAMES])
    if code in ("rgb", "colours"):
        photos = Counter(colour for pair in pairs for colour in pair.colours)
        colours = [list(colour) for colour, _ in photos.most_common(_LISTED_COLOURS)]
        if code == "colours":
            known = {*dataset.encoding.colours, *dataset.encoding.ignore_colours}
            colours = [colour for colour in colours if tuple(colour) not in known]
            return f"Unknown are: {', '.join(map(str, colours))}."
        more = " and more" if len(photos) > len(colours) else ""
        return f"Seen, to be put into the order of {names}: colours = {colours}{more}."
    if code == "ids":
        values = sorted({value for pair in pairs if code in pair.findings for value in pair.values})
        some = ", ".join(map(str, values[:_LISTED_COLOURS]))
        return f"Seen in these masks: {some}{' and more' if len(values) > _LISTED_COLOURS else ''}."
    return ""


def _passed_over(datasets: Sequence[FileDataset]) -> Iterator[Fault]:
    """Report what was not looked at, once for all splits of one data set."""
    first = datasets[0]
    if first.passed_over:
        ordered = sorted(first.passed_over.items(), key=lambda item: -item[1])
        suspects = [Suspect(kind, describe_passed_over({kind: n})) for kind, n in ordered]
        yield Fault("passed-over", first.split, tuple(suspects))


def _faults_between(datasets: Sequence[FileDataset]) -> Iterator[Fault]:
    """Find splits that share photos, and those that are too small to judge by."""
    seen: dict[Path, FileDataset] = {}
    for dataset in datasets:
        if dataset.split in _WHOLE:
            continue
        twice = []
        for index, photo in enumerate(dataset.images):
            other = seen.setdefault(photo, dataset)
            if other is not dataset:
                twice.append(Suspect(str(photo), f"is in {other.split} too", index))
        if twice:
            yield Fault("split-overlap", dataset.split, tuple(twice))
    for dataset in datasets[1:]:
        if len(dataset) < SMALL_SPLIT:
            count = "1 photo" if len(dataset) == 1 else f"{len(dataset)} photos"
            yield Fault("small-split", dataset.split, (Suspect(str(dataset.root), count),))


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
        yield Fault("ignored-foreground", dataset.split, (Suspect(where, note),), _WHITE)
        return
    if mixed := _white_among_ones(dataset, pairs):
        yield Fault("ignored-foreground", dataset.split, tuple(mixed), _MIXED_WHITE)
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


def _white_among_ones(dataset: FileDataset, pairs: Sequence[Pair]) -> list[Suspect]:
    """Find masks of 0 and 255 in a set of two classes whose other masks have 0 and 1.

    Where 255 is a rim around objects, some mask has both.
    """
    encoding = dataset.encoding
    if encoding.values != (0, 1) or IGNORE not in encoding.ignore:
        return []
    if any({1, IGNORE} <= {*pair.values} for pair in pairs):
        return []
    white = [pair for pair in pairs if pair.values == (0, IGNORE)]
    if not white or not any(pair.values == (0, 1) for pair in pairs):
        return []
    note = "holds 0 and 255, others 0 and 1"
    return [Suspect(str(dataset.masks[pair.index]), note, pair.index) for pair in white]


def _faults_of_doubles(datasets: Sequence[FileDataset], pairs: Sequence[Pair]) -> Iterator[Fault]:
    """Find photos that are the same, or nearly, within and across splits."""
    by_name = {dataset.split: dataset for dataset in datasets}
    same: dict[bytes, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.digest:
            same[pair.digest].append(pair)
    couples = [(group[0], other, "same") for group in same.values() for other in group[1:]]
    hashes = [pair.hash for pair in pairs]
    names = [by_name[pair.split].images[pair.index].name for pair in pairs]
    splits = [list(by_name).index(pair.split) for pair in pairs]
    for first, second in nearest(find_near(hashes, names=names), hashes, splits):
        if pairs[first].digest != pairs[second].digest:
            couples.append((pairs[first], pairs[second], "near"))
    found: dict[tuple[str, str], list[Suspect]] = defaultdict(list)
    for one, other, kind in couples:
        across = one.split != other.split
        code = f"{kind}-photo-across" if across else f"{kind}-photo"
        twin = by_name[one.split].images[one.index]
        path = by_name[other.split].images[other.index]
        if path == twin and across:
            continue  # one photo in two splits; that is said by its own name
        note = f"like {one.split}/{twin.name}" if across else f"like {twin.name}"
        found[code, other.split].append(Suspect(str(path), note, other.index, str(twin)))
    for (code, split), suspects in found.items():
        yield Fault(code, split, tuple(suspects))
