"""Ask other people's readers what an export says; runs in the environment of `make oracles`.

    ask.py READER SOURCE IMAGES OUT.npz

writes for every photo "NAME/INDEX/CLASS": the (H, W) bool of each thing, in painting order.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def ask_supervision_coco(source: Path, images: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    import supervision

    dataset = supervision.DetectionDataset.from_coco(str(images), str(source), force_masks=True)
    yield from _of_supervision(dataset)


def ask_supervision_yolo(source: Path, images: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    import supervision

    folder = source.parent / "labels" / "train"
    dataset = supervision.DetectionDataset.from_yolo(
        str(images), str(folder), str(source), force_masks=True
    )
    yield from _of_supervision(dataset)


def _of_supervision(dataset) -> Iterator[tuple[str, str, np.ndarray]]:
    for path, _, found in dataset:
        masks = found.mask if found.mask is not None else []
        for mask, class_id in zip(masks, found.class_id, strict=True):
            yield Path(path).stem, dataset.classes[class_id], mask


def ask_datumaro(source: Path, kind: str) -> Iterator[tuple[str, str, np.ndarray]]:
    from datumaro.components.annotation import AnnotationType
    from datumaro.components.dataset import Dataset
    from datumaro.util.mask_tools import rles_to_mask

    dataset = Dataset.import_from(str(source), kind)
    names = [entry.name for entry in dataset.categories()[AnnotationType.label].items]
    for item in dataset:
        height, width = item.media.size
        for thing in sorted(item.annotations, key=lambda thing: thing.z_order):
            if thing.type == AnnotationType.mask:
                yield item.id, names[thing.label], np.asarray(thing.image, bool)
            elif thing.type == AnnotationType.polygon:
                outlines = [thing.points]
                yield (
                    item.id,
                    names[thing.label],
                    rles_to_mask(outlines, width, height).astype(bool),
                )


def ask_label_studio(source: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    from label_studio_sdk.converter.brush import decode_rle

    for task in json.loads(source.read_text()):
        for result in task["annotations"][0]["result"]:
            if result["type"] == "brushlabels":
                size = result["original_height"], result["original_width"], 4
                alpha = decode_rle(result["value"]["rle"]).reshape(size)[..., 3]
                name = Path(task["data"]["image"]).stem.removeprefix("0123abcd-")
                yield name, result["value"]["brushlabels"][0], alpha > 0


def main() -> None:
    reader, source, images, out = sys.argv[1], *map(Path, sys.argv[2:5])
    if reader.startswith("datumaro:"):
        things = ask_datumaro(source, reader.removeprefix("datumaro:"))
    elif reader == "label_studio":
        things = ask_label_studio(source)
    else:
        ask = {"supervision:coco": ask_supervision_coco, "supervision:yolo": ask_supervision_yolo}
        things = ask[reader](source, images)
    arrays = {f"{name}|{i}|{label}": mask for i, (name, label, mask) in enumerate(things)}
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main()
