"""Masks out as labelme has them: a JSON beside each photo.

Source: wkentaro/labelme, labelme/_label_file.py and labelme/_utils/_shape.py.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from deeplab.data.shapes import Bools, Point
from deeplab.data.writing import Style, UInt8, draw_objects, stem, with_ignored, write_beside
from deeplab.labels import LabelSet

_VERSION = "5.5.0"
"""Of labelme whose files these are like; it is not younger than "mask"."""


class LabelmeWriter:
    """See :class:`deeplab.data.writing.Writer`."""

    def __init__(self, folder: Path, style: Style) -> None:
        self._folder, self._style = folder, style

    def encode(self, mask: UInt8, labels: LabelSet, file_name: str) -> bytes:
        """Return the JSON file of a photo."""
        shapes: list[dict[str, Any]] = []
        names = with_ignored(labels).names
        for group, (one, polygons) in enumerate(draw_objects(mask, labels, self._style), 1):
            for polygon in polygons:
                found = _shape(names[one.class_id], "polygon", polygon)
                found["group_id"] = group if len(polygons) > 1 else None
                shapes.append(found)
            if one.where is not None:
                left, top, width, height = one.box
                corners = [(left, top), (left + width - 1, top + height - 1)]
                found = _shape(names[one.class_id], "mask", corners)
                shapes.append({**found, "mask": _encode(one.where)})
        content = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": file_name.rpartition("/")[2],
            "imageData": None,
            "imageHeight": mask.shape[-2],
            "imageWidth": mask.shape[-1],
        }
        return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")

    def place_photo(self, file_name: str) -> str:
        """Return where a photo goes."""
        return file_name

    def add(self, file_name: str, size: tuple[int, int], encoded: bytes) -> None:
        """Write the JSON beside the photo."""
        write_beside(self._folder, f"{stem(file_name)}.json", encoded)

    def finish(self, labels: LabelSet) -> None:
        """Write the names, for ``labelme --labels``; unknown pixels are __ignore__ there."""
        names = [name for index, name in enumerate(labels.names) if index != labels.background]
        lines = ["__ignore__", "_background_", *names]
        write_beside(self._folder, "labels.txt", ("\n".join(lines) + "\n").encode())


def _shape(label: str, kind: str, points: Sequence[Point]) -> dict[str, Any]:
    return {
        "label": label,
        "points": [list(point) for point in points],
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    }


def _encode(where: Bools) -> str:
    buffer = io.BytesIO()
    Image.fromarray(where).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
