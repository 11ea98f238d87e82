"""PASCAL VOC 2012, and the larger training set that SBD's masks give it.

    JPEGImages/2007_000032.jpg
    SegmentationClass/2007_000032.png       palette PNG
    SegmentationClassAug/2007_000032.png    optional: SBD's masks as PNG
    ImageSets/Segmentation/train.txt        one name a line; val, trainval, train_aug, …
    labelmap.txt                            optional: classes of one's own with their colours
    class_names.txt                         optional: classes of one's own in id order

The last two are how CVAT ("Segmentation mask 1.1") and labelme2voc write this layout; without
them the classes are VOC's.

Source: VOC 2012 development kit; the train_aug list of Hariharan et al., ICCV 2011 (SBD).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from deeplab.data.label_maps import LabelMap, read_class_names, read_labelmap
from deeplab.data.masks import MaskEncoding
from deeplab.data.sample import FileDataset, choose_split, list_pictures
from deeplab.errors import DataError, InputError
from deeplab.files import read_text
from deeplab.labels import VOC

NAME = "voc"
LOOKS_FOR = "JPEGImages/ and ImageSets/Segmentation/"

_AUGMENTED = {"train_aug": "trainaug", "trainaug": "train_aug"}  # both spellings are about
_LISTS = Path("ImageSets", "Segmentation")
_PHOTOS, _MASKS, _LARGER = "JPEGImages", "SegmentationClass", "SegmentationClassAug"
_PALETTE_MASKS = "SegmentationClassPNG"  # labelme2voc's SegmentationClass holds NumPy files
_MAP, _NAMES = "labelmap.txt", "class_names.txt"

_VOC_ENCODING = MaskEncoding(
    values=tuple(range(len(VOC))),
    colours=VOC.colours,
    ignore_colours=((224, 224, 192),),  # entry 255 of the VOC colour map
)


def find(root: Path) -> Path | None:
    """Return the folder of the layout: ``root`` itself or the VOC2012 inside it."""
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / _PHOTOS).is_dir() and ((folder / _LISTS).is_dir() or _own_masks(folder)):
            return folder
        if (folder / _LISTS).is_dir() and (folder / _MASKS).is_dir():
            raise DataError(
                f"{folder}: has masks but no photos: it was exported without them. Put them into "
                f"{folder / _PHOTOS}."
            )
    return None


def _own_masks(folder: Path) -> bool:
    """Return whether labelme2voc wrote the folder, which makes no lists."""
    return (folder / _NAMES).is_file() and (folder / _PALETTE_MASKS).is_dir()


def splits(root: Path) -> tuple[str, ...]:
    """Return the names of the lists in ImageSets/Segmentation."""
    lists = sorted(path.stem for path in (root / _LISTS).glob("*.txt"))
    return tuple(lists) or (("default",) if _own_masks(root) else ())


def open_split(root: Path, split: str) -> FileDataset:
    """Return one split.

    A list may name two files a line, "/JPEGImages/a.jpg /SegmentationClassAug/a.png".

    Raises:
        DataError: there is no such list, or it is empty; or the file of names is wrong.
    """
    known = splits(root)
    if split not in known and _AUGMENTED.get(split) in known:
        split = _AUGMENTED[split]
    choose_split(split, known, root)
    folder = _mask_folder(root, split)
    passed_over: Counter[str] = Counter()
    photos = list_pictures(root / _PHOTOS, passed_over)
    names, images, masks = [], [], []
    for name, *mask in _entries(root, split, photos):
        if mask:
            images.append(_inside(root, name))
            masks.append(_inside(root, mask[0]))
            name = Path(name.lstrip("/").removeprefix(f"{_PHOTOS}/")).with_suffix("").as_posix()
        else:
            name = name if name in photos else name.removesuffix(".jpg")
            images.append(photos.get(name, root / _PHOTOS / f"{name}.jpg"))
            masks.append(folder / f"{name}.png")
        names.append(name)
    own = _own_classes(root)
    return FileDataset(
        layout=NAME,
        root=root,
        split=split,
        labels=own.labels if own else VOC,
        encoding=own.encoding if own else _VOC_ENCODING,
        ids=tuple(names),
        images=tuple(images),
        masks=tuple(masks),
        passed_over=passed_over,
        assumed=()
        if own
        else (f"the classes are the {len(VOC)} of PASCAL VOC; no {_MAP} says so",),
    )


def _inside(root: Path, name: str) -> Path:
    """Return the file that a list names.

    Raises:
        DataError: it is not inside the data set.
    """
    path = Path(name.lstrip("/"))
    if ".." in path.parts:
        raise DataError(f"{root}: a list names '{name}', which is outside the data set.")
    return root / path


def _mask_folder(root: Path, split: str) -> Path:
    if split in _AUGMENTED and (root / _LARGER).is_dir():
        return root / _LARGER
    return root / (_PALETTE_MASKS if _own_masks(root) else _MASKS)


def _own_classes(root: Path) -> LabelMap | None:
    if (root / _MAP).is_file():
        return read_labelmap(root / _MAP)
    if (root / _NAMES).is_file():
        return read_class_names(root / _NAMES)
    return None


def _entries(root: Path, split: str, photos: Mapping[str, Path]) -> list[list[str]]:
    """Return what a list names: a photo's name, or the files of photo and mask."""
    listing = root / _LISTS / f"{split}.txt"
    if not listing.is_file():
        return [[name] for name in photos]
    try:
        lines = [line.strip() for line in read_text(listing).splitlines() if line.strip()]
    except InputError as error:
        raise DataError(str(error)) from None
    if not lines:
        raise DataError(f"{listing}: the list is empty.")
    entries = []
    for line in lines:
        quoted = re.findall(r'"([^"]+)"', line)
        parts = quoted or line.split()
        if len(parts) == 2 and parts[1].endswith(".png"):
            entries.append(parts)
        else:  # a name may have spaces
            entries.append([quoted[0] if quoted else line])
    return entries
