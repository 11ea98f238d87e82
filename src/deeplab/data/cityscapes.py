"""Cityscapes, fine annotations.

    leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
    gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png   19 classes, 255
    gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png        as delivered

Source: cityscapesScripts, README.md and helpers/labels.py.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from deeplab.data.masks import IGNORE, MaskEncoding
from deeplab.data.sample import FileDataset, choose_split, list_pictures
from deeplab.errors import DataError
from deeplab.labels import CITYSCAPES

NAME = "cityscapes"
LOOKS_FOR = "leftImg8bit/ and gtFine/"

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The ``id`` of every ``trainId``. Source: cityscapesScripts, helpers/labels.py."""

_ALL_IDS = 34  # ids 0..33; the licence plate's -1 is 255 in a file
_PHOTO = "_leftImg8bit"


def find(root: Path) -> Path | None:
    """Return ``root`` when it is the folder of the layout."""
    return root if all((root / name).is_dir() for name in ("leftImg8bit", "gtFine")) else None


def splits(root: Path) -> tuple[str, ...]:
    """Return the folders that exist in both halves."""
    return tuple(
        sorted(
            folder.name
            for folder in (root / "leftImg8bit").iterdir()
            if folder.is_dir() and (root / "gtFine" / folder.name).is_dir()
        )
    )


def open_split(root: Path, split: str) -> FileDataset:
    """Return one split; ``labelTrainIds`` masks where they have been made, else ``labelIds``.

    Raises:
        DataError: there is no such split, or it holds no photos.
    """
    choose_split(split, splits(root), root)
    passed_over: Counter[str] = Counter()
    photos = {
        name.removesuffix(_PHOTO): path
        for name, path in list_pictures(root / "leftImg8bit" / split, passed_over).items()
        if name.endswith(_PHOTO)
    }
    if not photos:
        raise DataError(f"{root / 'leftImg8bit' / split}: there is no *{_PHOTO}.png.")
    truth = root / "gtFine" / split
    trained = all((truth / f"{name}_gtFine_labelTrainIds.png").is_file() for name in photos)
    kind = "labelTrainIds" if trained else "labelIds"
    others = tuple(value for value in range(_ALL_IDS) if value not in LABEL_IDS)
    return FileDataset(
        layout=NAME,
        root=root,
        split=split,
        labels=CITYSCAPES,
        encoding=MaskEncoding(values=tuple(range(len(CITYSCAPES))))
        if trained
        else MaskEncoding(values=LABEL_IDS, ignore=(*others, IGNORE)),
        ids=tuple(photos),
        images=tuple(photos.values()),
        masks=tuple(truth / f"{name}_gtFine_{kind}.png" for name in photos),
        passed_over=passed_over,
    )
