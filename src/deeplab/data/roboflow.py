"""Roboflow's "Semantic Segmentation Masks": photo and mask side by side in a folder per split.

    train/a.jpg  train/a_mask.png  train/_classes.csv
    valid/…      test/…

Source: an export of app.roboflow.com; the masks hold the "Pixel Value" of _classes.csv.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from deeplab.data.label_maps import read_classes_csv
from deeplab.data.sample import FileDataset, choose_split, list_pictures
from deeplab.errors import DataError

NAME = "roboflow"
LOOKS_FOR = "train/ with photos, their _mask.png and _classes.csv"

_CLASSES = "_classes.csv"
_MASK = "_mask"
_FOLDERS = {"train": "train", "val": "valid", "test": "test"}


def find(root: Path) -> Path | None:
    """Return ``root`` when it, or one of its splits, has a _classes.csv and masks."""
    return root if splits(root) else None


def splits(root: Path) -> tuple[str, ...]:
    """Return the names of the splits; a single folder is "train"."""
    found = tuple(name for name, folder in _FOLDERS.items() if _is_split(root / folder))
    return found or (("train",) if _is_split(root) else ())


def _is_split(folder: Path) -> bool:
    return (folder / _CLASSES).is_file() and any(folder.glob(f"*{_MASK}.png"))


def open_split(root: Path, split: str) -> FileDataset:
    """Return one split; "valid" is "val".

    Raises:
        DataError: there is no such split, or the splits have different classes.
    """
    split = choose_split("val" if split == "valid" else split, splits(root), root)
    folder = root / _FOLDERS[split] if _is_split(root / _FOLDERS[split]) else root
    known = read_classes_csv(folder / _CLASSES)
    for other in _FOLDERS.values():
        path = root / other / _CLASSES
        if path.is_file() and read_classes_csv(path).labels.names != known.labels.names:
            raise DataError(f"{path}: has other classes than {folder / _CLASSES}; export again.")
    passed_over: Counter[str] = Counter()
    found = list_pictures(folder, passed_over)
    passed_over.subtract({".csv": 1})
    masks = {name: path for name, path in found.items() if name.endswith(_MASK)}
    photos = {name: path for name, path in found.items() if name not in masks}
    return FileDataset(
        layout=NAME,
        root=root,
        split=split,
        labels=known.labels,
        encoding=known.encoding,
        ids=tuple(photos),
        images=tuple(photos.values()),
        masks=tuple(masks.get(name + _MASK, folder / f"{name}{_MASK}.png") for name in photos),
        orphans=tuple(p for name, p in masks.items() if name.removesuffix(_MASK) not in photos),
        passed_over=+passed_over,
    )
