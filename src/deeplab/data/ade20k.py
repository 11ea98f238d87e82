"""ADE20K, the scene parsing benchmark with 150 classes.

    images/training/ADE_train_00000001.jpg        and validation
    annotations/training/ADE_train_00000001.png   0 = other, 1..150 = the classes
    objectInfo150.txt                             their names

"Other" is not a class here: 0 is ignored and class ids start at 0 ("reduce zero label").
Source: the readme of ADEChallengeData2016.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from deeplab.data.masks import IGNORE, MaskEncoding
from deeplab.data.sample import FileDataset, choose_split, list_pictures
from deeplab.errors import DataError
from deeplab.labels import ADE20K, LabelSet

NAME = "ade20k"
LOOKS_FOR = "images/training/, annotations/training/ and objectInfo150.txt"

_SPLITS = {"train": "training", "val": "validation"}


def find(root: Path) -> Path | None:
    """Return the folder of the layout: ``root`` itself or the ADEChallengeData2016 inside it."""
    for folder in (root, root / "ADEChallengeData2016"):
        needed = [folder / "images" / "training", folder / "annotations" / "training"]
        if all(path.is_dir() for path in needed) and (folder / "objectInfo150.txt").is_file():
            return folder
    return None


def splits(root: Path) -> tuple[str, ...]:
    """Return "train" and "val", as far as they are there."""
    return tuple(name for name, folder in _SPLITS.items() if (root / "images" / folder).is_dir())


def open_split(root: Path, split: str) -> FileDataset:
    """Return one split.

    Raises:
        DataError: there is no such split, it holds no photos, or objectInfo150.txt is not it.
    """
    folder = _SPLITS[choose_split(split, splits(root), root)]
    passed_over: Counter[str] = Counter()
    photos = list_pictures(root / "images" / folder, passed_over)
    if not photos:
        raise DataError(f"{root / 'images' / folder}: there are no photos.")
    labels = _read_names(root / "objectInfo150.txt")
    return FileDataset(
        layout=NAME,
        root=root,
        split=split,
        labels=labels,
        encoding=MaskEncoding(values=tuple(range(1, len(labels) + 1)), ignore=(0, IGNORE)),
        ids=tuple(photos),
        images=tuple(photos.values()),
        masks=tuple(root / "annotations" / folder / f"{name}.png" for name in photos),
        passed_over=passed_over,
    )


def _read_names(path: Path) -> LabelSet:
    """Read the table: Idx, Ratio, Train, Val, Stuff, Name ("wall", "building, edifice", …)."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    names = [(row.get("Name") or "").split(",")[0].strip() for row in rows]
    if not names or not all(names):
        raise DataError(f"{path}: expected a tab-separated table with a column 'Name'.")
    seen: dict[str, int] = {}
    for index, name in enumerate(names):  # "screen" stands for two classes
        seen[name] = seen.get(name, 0) + 1
        names[index] = name if seen[name] == 1 else f"{name} {seen[name]}"
    colours = ADE20K.colours if len(names) == len(ADE20K) else ()
    return LabelSet(tuple(names), colours, background=None)
