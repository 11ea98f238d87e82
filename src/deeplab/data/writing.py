"""Masks out as a data set of an annotation tool: what all of its writers share.

One file per tool beside its reader: ``coco_writer``, ``cvat_writer``, ``labelme_writer``,
``yolo_writer``, ``voc_writer``. Each turns a mask into bytes, which many threads may do, and puts
them where the tool looks for them, which is done in the order of the photos.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from deeplab.errors import OutputError
from deeplab.files import name_partial, sweep
from deeplab.labels import LabelSet
from deeplab.photo.outlines import FoundObject, find_objects
from deeplab.photo.polygons import TOLERANCE, Polygon, make_polygons

UInt8 = npt.NDArray[np.uint8]
Shapes = Literal["masks", "polygons"]

_NO_CLASS = np.uint8(255)  # no id: at most 254 classes have a name

IGNORED = "__ignore__"
"""What pixels are called that are unknown: readers then let them count for nothing."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How objects are written, where a tool knows several ways.

    Attributes:
        shapes: masks give back every pixel; polygons can be moved by hand.
        tolerance: pixels by which polygons may leave the outline; 0 gives back every pixel.
    """

    shapes: Shapes = "masks"
    tolerance: float = TOLERANCE


class Writer(Protocol):
    """Puts annotations into a folder that is being made."""

    def encode(self, mask: UInt8, labels: LabelSet, file_name: str) -> bytes:
        """Return the annotation of one photo.

        Args:
            mask: (H, W) uint8 class ids; or (K, H, W), 0 and 1 of each class, where they overlap.
            labels: of the ids.
            file_name: of the photo in the data set, "/" between folders.
        """

    def place_photo(self, file_name: str) -> str:
        """Return where a photo goes, relative to the folder."""

    def add(self, file_name: str, size: tuple[int, int], encoded: bytes) -> None:
        """Keep the annotation of one photo of (height, width)."""

    def finish(self, labels: LabelSet) -> None:
        """Write what is written of all photos together."""


def with_ignored(labels: LabelSet) -> LabelSet:
    """Return labels in which unknown pixels are a class, called ``IGNORED``; the last."""
    if labels.unknown is None:
        return labels
    return replace(
        labels,
        names=(*labels.names, IGNORED),
        colours=(*labels.colours, labels.colour_of(labels.unknown)),
        unknown=None,
    )


def object_classes(labels: LabelSet) -> list[int]:
    """Return the ids that are drawn: all but the background."""
    return [index for index in range(len(labels)) if index != labels.background]


def draw_objects(
    mask: UInt8, labels: LabelSet, style: Style
) -> list[tuple[FoundObject, list[Polygon]]]:
    """Return the objects of a mask, the largest first, with their polygons where they are wanted.

    Of masks of each class, (K, H, W), those of each. Ids are those of :func:`with_ignored`.
    """
    if mask.ndim == 3:
        planes = (np.where(one == 1, np.uint8(k), _NO_CLASS) for k, one in enumerate(mask))
        objects = [one for plane in planes for one in draw_objects(plane, labels, style)]
        return sorted(objects, key=lambda one: -one[0].area)
    if labels.unknown is not None:
        mask = np.where(mask == labels.unknown, np.uint8(len(labels)), mask)
    has_polygons = style.shapes == "polygons"
    found = find_objects(
        mask, labels=with_ignored(labels), outlines=has_polygons, pixels=not has_polygons
    )
    return [(one, make_polygons(one.rings, tolerance=style.tolerance)) for one in found]


def check_free(folder: Path) -> None:
    """Find out whether a data set can get its name.

    Raises:
        OutputError: something is there; it may be anybody's work, so it is never written over.
    """
    if os.path.lexists(folder):
        raise OutputError(
            f"output: {folder} exists already, and a data set is never written over what is there. "
            "Move it away, or choose another folder with -o."
        )


class DataSet:
    """A folder of photos and annotations that appears under its name when it is whole.

    Leaving the block without :meth:`finish` leaves nothing.

    Args:
        folder: to make; it must not exist.

    Attributes:
        building: what becomes the folder.
        count: how many photos are in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.building = name_partial(folder)
        self.count = 0

    def __enter__(self) -> DataSet:
        check_free(self.folder)
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            sweep(self.folder.parent)
            self.building.mkdir()
        except OSError as error:
            raise self._failed(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.building, ignore_errors=True)

    def add(
        self,
        writer: Writer,
        file_name: str,
        photo: Path | bytes,
        *,
        size: tuple[int, int],
        encoded: bytes,
    ) -> None:
        """Add a photo with its annotation.

        Raises:
            OutputError: it cannot be written.
        """
        place = self.building / writer.place_photo(file_name)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(photo, bytes):
                place.write_bytes(photo)
            else:
                shutil.copyfile(photo, place)
            writer.add(file_name, size, encoded)
        except OSError as error:
            raise self._failed(error) from error
        self.count += 1

    def finish(self, writer: Writer, labels: LabelSet) -> None:
        """Give the data set its name.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            writer.finish(labels)
            self.building.rename(self.folder)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"output: cannot write {self.folder}: {error.strerror or error}.")


def write_beside(folder: Path, file: str, content: bytes) -> None:
    """Write a file of a data set, with the folders above it."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def flat(polygon: Polygon) -> list[float]:
    """Return x, y, x, y, … of a polygon."""
    return [value for point in polygon for value in point]


def stem(file_name: str) -> str:
    """Return a photo's name in the data set without its suffix."""
    base, dot, _ = file_name.rpartition(".")
    return base if dot else file_name
