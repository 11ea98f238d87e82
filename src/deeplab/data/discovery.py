"""Where photos and masks lie in a folder that nobody has described.

images/ and masks/                 under these or other usual names
train/images/ and train/masks/     and the same for val/, test/
train/ and train_masks/            or trainannot/, train_labels/, …
train/a.jpg and train/a_mask.png   side by side, in folders of splits
a.jpg and a_mask.png               side by side
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deeplab.photo.find import walk
from deeplab.photo.formats import PHOTO_SUFFIXES

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
    "trainval": ("trainval",),
}
"""The usual names of splits, and how folders and lists spell them."""

_IMAGES = ("images", "image", "imgs", "img", "photos", "photo", "pictures", "jpegimages", "rgb",
           "images_png", "img_dir", "inputs", "input", "frames", "leftimg8bit")  # fmt: skip
_MASKS = ("masks", "mask", "segmentationclass", "segmentationclasspng", "segmentationclassraw",
          "annotations", "annotation", "labels", "label", "ann_dir", "gt", "ground_truth",
          "groundtruth", "ground-truth", "segmentation", "segmentations", "segmaps", "seg",
          "masks_png", "targets", "target", "labelids", "pascal_person_part_gt")  # fmt: skip
_BEHIND = ("annot", "_annot", "_masks", "_mask", "_labels", "_label", "_gt", "_annotations",
           "-masks", "-labels", "masks", "labels", "_segmentations", "_seg")  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Folders, relative to the root, that hold photos and their masks; they may be one.

    Attributes:
        images, masks: the folders; "" is the root itself.
        split: the split that all of it belongs to, "" for none of its own.
    """

    images: str
    masks: str
    split: str = ""


def find_places(root: Path) -> tuple[Place, ...]:
    """Return the places of photos and masks below ``root``; none when it looks like no data set."""
    folders = _folders(root)
    for image, mask in itertools.product(_IMAGES, _MASKS):
        if image in folders and mask in folders and _has_pictures(root / folders[mask]):
            return (Place(folders[image], folders[mask]),)
    for find in (_halves_of_splits, _split_beside_split, _mixed_splits):
        places = tuple(find(root, folders))
        if places:
            return places
    return (Place("", ""),) if _has_pictures(root, deep=False) else ()


def _folders(root: Path) -> dict[str, str]:
    """Return the folders in ``root``: {name in lower case: name}."""
    try:
        found = [path.name for path in root.iterdir() if path.is_dir()]
    except OSError:
        return {}
    return {name.lower(): name for name in sorted(found) if not name.startswith(".")}


def _split_folders(folders: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Give (split, its folder)."""
    for split, spellings in SPLITS.items():
        spelling = next((name for name in spellings if name in folders), None)
        if spelling is not None:
            yield split, folders[spelling]


def _halves_of_splits(root: Path, folders: dict[str, str]) -> Iterator[Place]:
    for split, folder in _split_folders(folders):
        inner = _folders(root / folder)
        for image, mask in itertools.product(_IMAGES, _MASKS):
            if image in inner and mask in inner and _has_pictures(root / folder / inner[mask]):
                yield Place(f"{folder}/{inner[image]}", f"{folder}/{inner[mask]}", split)
                break


def _split_beside_split(root: Path, folders: dict[str, str]) -> Iterator[Place]:
    splits = {folder: split for split, folder in _split_folders(folders)}
    for lower, folder in folders.items():
        for behind in _BEHIND:
            masks = folders.get(lower + behind)
            if masks is not None and _has_pictures(root / masks):
                yield Place(folder, masks, splits.get(folder, folder))
                break


def _mixed_splits(root: Path, folders: dict[str, str]) -> Iterator[Place]:
    for split, folder in _split_folders(folders):
        if _has_pictures(root / folder):
            yield Place(folder, folder, split)


def _has_pictures(folder: Path, *, deep: bool = True) -> bool:
    if not deep:
        return any(p.suffix.lower() in PHOTO_SUFFIXES for p in folder.iterdir() if p.is_file())
    return any(path.suffix.lower() in PHOTO_SUFFIXES for path in walk(folder, Counter()))
