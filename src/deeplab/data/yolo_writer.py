"""Masks out as a YOLO segmentation data set: data.yaml, ``images/train`` and ``labels/train``.

The format knows polygons alone. Source: docs.ultralytics.com, "Instance Segmentation Datasets
Overview".
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from deeplab.data.writing import (
    Style,
    UInt8,
    draw_objects,
    object_classes,
    stem,
    with_ignored,
    write_beside,
)
from deeplab.labels import LabelSet

_DIGITS = 7
"""Of a share of a side: a hundredth of a pixel of the largest sides."""


class YoloWriter:
    """See :class:`deeplab.data.writing.Writer`."""

    def __init__(self, folder: Path, style: Style) -> None:
        self._folder, self._style = folder, replace(style, shapes="polygons")

    def encode(self, mask: UInt8, labels: LabelSet, file_name: str) -> bytes:
        """Return the lines of a photo: class, then x y of each corner in shares of the sides."""
        height, width = mask.shape[-2:]
        numbers = {
            index: number for number, index in enumerate(object_classes(with_ignored(labels)))
        }
        lines = []
        for one, polygons in draw_objects(mask, labels, self._style):
            for polygon in polygons:
                shares = (f"{x / width:.{_DIGITS}f} {y / height:.{_DIGITS}f}" for x, y in polygon)
                lines.append(f"{numbers[one.class_id]} {' '.join(shares)}\n")
        return "".join(lines).encode()

    def place_photo(self, file_name: str) -> str:
        """Return where a photo goes."""
        return f"images/train/{file_name}"

    def add(self, file_name: str, size: tuple[int, int], encoded: bytes) -> None:
        """Write the file of lines."""
        write_beside(self._folder, f"labels/train/{stem(file_name)}.txt", encoded)

    def finish(self, labels: LabelSet) -> None:
        """Write data.yaml; "val" must be there, and nobody has said which photos should judge."""
        labels = with_ignored(labels)
        names = [labels.names[index] for index in object_classes(labels)]
        # JSON's quoted text is YAML's, too.
        entries = "".join(f"  {i}: {json.dumps(name)}\n" for i, name in enumerate(names))
        text = f"train: images/train\nval: images/train  # the same photos\nnames:\n{entries}"
        write_beside(self._folder, "data.yaml", text.encode())
