"""Masks out as CVAT's own XML, "CVAT for images 1.1": ``annotations.xml`` beside ``images/``.

Source: docs.cvat.ai, "CVAT for image"; cvat-ai/cvat, cvat/apps/dataset_manager/formats/cvat.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from deeplab.data.run_lengths import encode_runs
from deeplab.data.writing import Style, UInt8, draw_objects, object_classes, with_ignored
from deeplab.labels import LabelSet

_SHAPES = "shapes.part"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class CvatWriter:
    """See :class:`deeplab.data.writing.Writer`."""

    def __init__(self, folder: Path, style: Style) -> None:
        self._folder, self._style = folder, style
        self._photos = 0

    def encode(self, mask: UInt8, labels: LabelSet, file_name: str) -> bytes:
        """Return the ``<mask>`` or ``<polygon>`` elements of a photo, one a line."""
        shapes = []
        common = {"source": "auto", "occluded": "0", "z_order": "0"}
        names = with_ignored(labels).names
        for one, polygons in draw_objects(mask, labels, self._style):
            name = {"label": _clean(names[one.class_id])}
            for polygon in polygons:
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in polygon)
                shapes.append(("polygon", {**name, **common, "points": points}))
            if one.where is not None:
                sides = zip(("left", "top", "width", "height"), map(str, one.box), strict=True)
                runs = ", ".join(map(str, encode_runs(one.where.ravel()).tolist()))
                shapes.append(("mask", {**name, **common, "rle": runs, **dict(sides)}))
        elements = (ElementTree.Element(tag, attributes) for tag, attributes in shapes)
        return b"".join(b"    " + ElementTree.tostring(one, "utf-8") + b"\n" for one in elements)

    def place_photo(self, file_name: str) -> str:
        """Return where a photo goes."""
        return f"images/{file_name}"

    def add(self, file_name: str, size: tuple[int, int], encoded: bytes) -> None:
        """Keep the shapes of a photo; they wait in a file, as there may be many."""
        attributes = {
            "id": str(self._photos),
            "name": _clean(file_name),
            "width": str(size[1]),
            "height": str(size[0]),
        }
        start = ElementTree.tostring(ElementTree.Element("image", attributes), "utf-8")
        with open(self._folder / _SHAPES, "ab") as out:
            out.write(b"  " + start.removesuffix(b" />") + b">\n" + encoded + b"  </image>\n")
        self._photos += 1

    def finish(self, labels: LabelSet) -> None:
        """Write the document."""
        labels = with_ignored(labels)
        meta = ElementTree.Element("meta")
        task = ElementTree.SubElement(meta, "task")
        ElementTree.SubElement(task, "size").text = str(self._photos)
        classes = ElementTree.SubElement(task, "labels")
        for index in object_classes(labels):
            label = ElementTree.SubElement(classes, "label")
            ElementTree.SubElement(label, "name").text = _clean(labels.names[index])
            ElementTree.SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(
                *labels.colours[index]
            )
            ElementTree.SubElement(label, "type").text = "any"
            ElementTree.SubElement(label, "attributes")
        waiting = self._folder / _SHAPES
        with open(self._folder / "annotations.xml", "wb") as out:
            out.write(b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
            out.write(b"  <version>1.1</version>\n  ")
            out.write(ElementTree.tostring(meta, "utf-8") + b"\n")
            if waiting.is_file():
                with open(waiting, "rb") as shapes:
                    for line in shapes:
                        out.write(line)
                waiting.unlink()
            out.write(b"</annotations>\n")


def _clean(text: str) -> str:
    """Return a text without what XML cannot hold."""
    return _NOT_XML.sub("?", text)
