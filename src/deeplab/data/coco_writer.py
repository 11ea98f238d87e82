"""Masks out as COCO JSON: ``annotations/instances_default.json`` and ``images/default/``.

CVAT and datumaro lay COCO out so.

Each object is an annotation: run lengths, or polygons (holes by a line through the object, as the
format has none). Source: cocodataset.org, "Data format".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deeplab.data.run_lengths import encode_coco_rle
from deeplab.data.writing import Style, UInt8, draw_objects, flat, object_classes, with_ignored
from deeplab.labels import LabelSet

_IMAGES, _ANNOTATIONS = "images.part", "annotations.part"


class CocoWriter:
    """See :class:`deeplab.data.writing.Writer`."""

    def __init__(self, folder: Path, style: Style) -> None:
        self._folder, self._style = folder, style
        self._photos = self._objects = 0

    def encode(self, mask: UInt8, labels: LabelSet, file_name: str) -> bytes:
        """Return a JSON list of annotations without ids."""
        height, width = mask.shape[-2:]
        annotations: list[dict[str, Any]] = []
        for one, polygons in draw_objects(mask, labels, self._style):
            segmentation: Any = [flat(polygon) for polygon in polygons]
            if one.where is not None:
                counts = encode_coco_rle(one.where, one.box[:2], (height, width))
                segmentation = {"size": [height, width], "counts": counts}
            annotations.append(
                {
                    "category_id": one.class_id,
                    "segmentation": segmentation,
                    "bbox": list(one.box),
                    "area": one.area,
                    "iscrowd": 0,
                }
            )
        return json.dumps(annotations, separators=(",", ":")).encode()

    def place_photo(self, file_name: str) -> str:
        """Return where a photo goes."""
        return f"images/default/{file_name}"

    def add(self, file_name: str, size: tuple[int, int], encoded: bytes) -> None:
        """Number the annotations of a photo; they wait in files, as there may be many."""
        self._photos += 1
        image = {"id": self._photos, "file_name": file_name, "height": size[0], "width": size[1]}
        self._append(_IMAGES, image)
        for annotation in json.loads(encoded):
            self._objects += 1
            numbers = {"id": self._objects, "image_id": self._photos}
            self._append(_ANNOTATIONS, {**numbers, **annotation})

    def _append(self, file: str, entry: dict[str, Any]) -> None:
        with open(self._folder / file, "a", encoding="utf-8") as out:
            text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
            out.write(text.encode("utf-8", "replace").decode() + "\n")

    def finish(self, labels: LabelSet) -> None:
        """Write the document."""
        labels = with_ignored(labels)
        categories = [
            {
                "id": index,
                "name": labels.names[index],
                "supercategory": "",
                "color": list(labels.colours[index]),
            }
            for index in object_classes(labels)
        ]
        path = self._folder / "annotations" / "instances_default.json"
        path.parent.mkdir()
        with open(path, "w", encoding="utf-8") as out:
            out.write('{"info":{"description":"predictions of deeplab"},"licenses":[],\n"images":[')
            self._copy(_IMAGES, out)
            out.write('],\n"annotations":[')
            self._copy(_ANNOTATIONS, out)
            out.write('],\n"categories":')
            json.dump(categories, out, ensure_ascii=False)
            out.write("}\n")

    def _copy(self, file: str, out: Any) -> None:
        path = self._folder / file
        if not path.is_file():
            return
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                out.write((",\n" if number else "\n") + line.rstrip("\n"))
        path.unlink()
