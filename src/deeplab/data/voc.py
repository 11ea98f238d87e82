"""PASCAL VOC 2012, and the larger training set that SBD's masks give it.

    JPEGImages/2007_000032.jpg
    SegmentationClass/2007_000032.png       palette PNG
    SegmentationClassAug/2007_000032.png    optional: SBD's masks as PNG
    ImageSets/Segmentation/train.txt        one name a line; val, trainval, train_aug, …

Source: VOC 2012 development kit; the train_aug list of Hariharan et al., ICCV 2011 (SBD).
"""

from __future__ import annotations

from pathlib import Path

from deeplab.data.masks import MaskEncoding
from deeplab.data.sample import FileDataset, choose_split
from deeplab.errors import DataError
from deeplab.labels import VOC

NAME = "voc"
LOOKS_FOR = "JPEGImages/ and ImageSets/Segmentation/"

_AUGMENTED = {"train_aug": "trainaug", "trainaug": "train_aug"}  # both spellings are about
_LISTS = Path("ImageSets", "Segmentation")


def find(root: Path) -> Path | None:
    """Return the folder of the layout: ``root`` itself or the VOC2012 inside it."""
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir() and (folder / _LISTS).is_dir():
            return folder
    return None


def splits(root: Path) -> tuple[str, ...]:
    """Return the names of the lists in ImageSets/Segmentation."""
    return tuple(sorted(path.stem for path in (root / _LISTS).glob("*.txt")))


def open_split(root: Path, split: str) -> FileDataset:
    """Return one split.

    A list may name two files a line, "/JPEGImages/a.jpg /SegmentationClassAug/a.png".

    Raises:
        DataError: there is no such list, or it is empty.
    """
    known = splits(root)
    if split not in known and _AUGMENTED.get(split) in known:
        split = _AUGMENTED[split]
    listing = root / _LISTS / f"{choose_split(split, known, root)}.txt"
    lines = [line.split() for line in listing.read_text().splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{listing}: the list is empty.")
    larger = root / "SegmentationClassAug"
    folder = larger if split in _AUGMENTED and larger.is_dir() else root / "SegmentationClass"
    images, masks = [], []
    for name, *mask in lines:
        if mask and mask[0].endswith(".png"):
            images.append(root / name.lstrip("/"))
            masks.append(root / mask[0].lstrip("/"))
        else:
            images.append(root / "JPEGImages" / f"{name}.jpg")
            masks.append(folder / f"{name}.png")
    return FileDataset(
        layout=NAME,
        root=root,
        split=split,
        labels=VOC,
        encoding=MaskEncoding(
            values=tuple(range(len(VOC))),
            colours=VOC.colours,
            ignore_colours=((224, 224, 192),),  # entry 255 of the VOC colour map
        ),
        ids=tuple(path.stem for path in images),
        images=tuple(images),
        masks=tuple(masks),
    )
