"""Masks out in PASCAL VOC's layout: JPEGImages, SegmentationClass, a list, labelmap.txt.

Source: VOC 2012 development kit; labelmap.txt as CVAT's "Segmentation mask 1.1" has it.
"""

from __future__ import annotations

from pathlib import Path

from deeplab.data.writing import Style, UInt8, stem, with_ignored, write_beside
from deeplab.errors import OutputError
from deeplab.labels import LabelSet
from deeplab.photo.palette_png import encode_palette_png


class VocWriter:
    """See :class:`deeplab.data.writing.Writer`; a mask is exact, so there is nothing to choose."""

    def __init__(self, folder: Path, style: Style) -> None:
        self._folder = folder
        self._names: list[str] = []

    def encode(self, mask: UInt8, labels: LabelSet, file_name: str) -> bytes:
        """Return the palette PNG."""
        return encode_palette_png(mask, labels.palette)

    def place_photo(self, file_name: str) -> str:
        """Return where a photo goes."""
        return f"JPEGImages/{file_name}"

    def add(self, file_name: str, size: tuple[int, int], encoded: bytes) -> None:
        """Write the mask."""
        name = stem(file_name)
        write_beside(self._folder, f"SegmentationClass/{name}.png", encoded)
        self._names.append(name)

    def finish(self, labels: LabelSet) -> None:
        """Write the list and the classes.

        Raises:
            OutputError: a class has a name that labelmap.txt cannot hold.
        """
        labels = with_ignored(labels)  # in the masks it is 255
        lines = ["# label:color_rgb:parts:actions"]
        for name, colour in zip(labels.names, labels.colours, strict=True):
            if ":" in name or "\n" in name or name.startswith("#"):
                raise OutputError(
                    f"voc: the class {name!r} cannot stand in labelmap.txt; rename it (--labels)."
                )
            lines.append(f"{name}:{','.join(map(str, colour))}::")
        write_beside(self._folder, "labelmap.txt", ("\n".join(lines) + "\n").encode())
        text = "\n".join(self._names) + "\n"
        listing = "ImageSets/Segmentation/train.txt"
        write_beside(self._folder, listing, text.encode("utf-8", "surrogateescape"))
