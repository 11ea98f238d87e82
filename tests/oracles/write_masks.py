"""Write masks as CVAT does, with its library; runs in the environment of `make oracles`.

write_masks.py voc|camvid LABELS.npz PHOTOS NAMES COLOURS OUT
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
from datumaro.components.annotation import AnnotationType, LabelCategories, Mask, MaskCategories
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image


def main() -> None:
    kind, labels, photos, names, colours, out = sys.argv[1:]
    names = names.split(",")
    colours = [tuple(map(int, colour.split(","))) for colour in colours.split(";")]
    items = []
    with np.load(labels) as arrays:
        for key in arrays.files:
            ids = np.unique(arrays[key]).tolist()
            masks = [Mask(arrays[key] == i, label=i) for i in ids if i or ids == [0]]
            photo = Image.from_file(path=str(Path(photos) / f"{key}.png"))
            items.append(DatasetItem(id=key, subset="default", media=photo, annotations=masks))
    categories = {
        AnnotationType.label: LabelCategories.from_iterable(names),
        AnnotationType.mask: MaskCategories(dict(enumerate(colours))),
    }
    voc = kind == "voc"
    label_map = {n: [c, [], []] if voc else c for n, c in zip(names, colours, strict=True)}
    Dataset.from_iterable(items, categories=categories).export(
        out,
        "voc_segmentation" if voc else "camvid",
        save_media=True,
        apply_colormap=True,
        label_map=OrderedDict(label_map),
    )


if __name__ == "__main__":
    main()
