"""Which tools' data sets are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from deeplab.data.coco_writer import CocoWriter
from deeplab.data.cvat_writer import CvatWriter
from deeplab.data.labelme_writer import LabelmeWriter
from deeplab.data.voc_writer import VocWriter
from deeplab.data.writing import Style, Writer
from deeplab.data.yolo_writer import YoloWriter

WRITERS: Mapping[str, Callable[[Path, Style], Writer]] = {
    "coco": CocoWriter,
    "cvat": CvatWriter,
    "labelme": LabelmeWriter,
    "yolo": YoloWriter,
    "voc": VocWriter,
}
"""Name of the tool -> its writer."""


def open_writer(tool: str, folder: Path, style: Style) -> Writer:
    """Return what writes a tool's annotations into a folder."""
    return WRITERS[tool](folder, style)
