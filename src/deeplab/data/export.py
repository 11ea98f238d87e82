"""What every annotation export comes down to: photos, and regions with class names."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deeplab.data.fields import UnreadableError, WithoutAreaError
from deeplab.data.mask_files import UInt8
from deeplab.data.masks import IGNORE
from deeplab.data.shapes import Box, Patch, Size, box_points, polygon_patch
from deeplab.errors import DataError, InputError
from deeplab.files import read_text
from deeplab.labels import Colour, LabelSet

BACKGROUND = "background"
_BACKGROUND_NAMES = ("background", "_background_", "__background__")
_IGNORED_NAMES = ("__ignore__", "_ignore_", "ignore", "void", "unlabelled", "unlabeled")


@dataclass(frozen=True)
class Request:
    """What the user says about an export beside its place.

    Attributes:
        images: the folder of the photos; None searches where the tool puts them.
        encoding: of the text files, where it is none of Unicode's.
        attribute: the region attribute that names the class (VIA).
        labels: the classes, where the export names none (TFRecord).
    """

    images: Path | None = None
    encoding: str | None = None
    attribute: str | None = None
    labels: LabelSet | None = None

    def text(self, path: Path) -> str:
        """Return a text file.

        Raises:
            DataError: it is in another encoding, or cannot be read.
        """
        try:
            return read_text(path, encoding=self.encoding)
        except InputError as error:
            hint = "" if self.encoding else " Or name its encoding: --encoding gbk."
            raise DataError(f"{error}{hint}") from None

    def json(self, path: Path) -> Any:
        """Return what a JSON file holds.

        Raises:
            DataError: it is no JSON.
        """
        try:
            return json.loads(self.text(path))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: is not JSON ({error}).") from None


@dataclass(frozen=True)
class Region:
    """Something that was drawn on a photo.

    Attributes:
        name: its class; None where the export does not say it.
        fill: gives the pixels that it covers on a photo of a (height, width).
        id: how its file calls it: "annotation 77123".
        box: where it lies, as far as that is known without its outline.
    """

    name: str | None
    fill: Callable[[Size], Patch]
    id: str
    box: Box | None = None


@dataclass(frozen=True)
class Painted:
    """The label of one photo, and what of its annotations is not in it.

    Attributes:
        label: (H, W) uint8 class ids and IGNORE; or (H, W, K), 0, 1 and IGNORE of each class,
            where classes overlap.
        faults: what could not be read, one sentence each: "annotation 7 has no outline".
        outside: how many regions cover no pixel of the photo.
        regions: how many regions there are.
        lost: whether it is not even known where something lies that could not be read.
    """

    label: UInt8
    faults: tuple[str, ...] = ()
    outside: int = 0
    regions: int = 0
    lost: bool = False


@dataclass(frozen=True)
class Embedded:
    """A photo that stands inside a JSON file, in base64; of a subclass, inside something else."""

    path: Path
    key: str
    request: Request

    def read(self) -> bytes:
        """Return the bytes of the photo's file.

        Raises:
            DataError: they are not base64.
        """
        try:
            return base64.b64decode(self.request.json(self.path)[self.key])
        except (binascii.Error, ValueError, TypeError, KeyError):
            raise DataError(f"{self.path}: the photo in '{self.key}' is damaged.") from None


class Annotated(Protocol):
    """One photo with its annotation."""

    @property
    def photo(self) -> Path | Embedded:
        """Where the photo is."""

    @property
    def file_name(self) -> str:
        """How the export calls the photo; its folders count."""

    @property
    def size(self) -> Size | None:
        """(height, width) that the annotation was drawn on; None where the export has it not."""

    @property
    def split(self) -> str:
        """The split that the export puts it into; "" for none."""

    def paint(self, size: Size, ids: Mapping[str, int], rest: int) -> Painted:
        """Return the label for a photo of ``size``; pixels outside all regions get ``rest``."""


@dataclass(frozen=True)
class Drawing:
    """One photo with what was drawn on it; the attributes are those of :class:`Annotated`.

    Attributes:
        regions: what was drawn on a photo of a (height, width), in painting order.
    """

    photo: Path | Embedded
    file_name: str
    size: Size | None
    regions: Callable[[Size], Iterable[Region]]
    split: str = ""

    def paint(self, size: Size, ids: Mapping[str, int], rest: int) -> Painted:
        """Return the label; what cannot be read does not count (255) where it lies."""
        label = np.full(size, rest, np.uint8)

        def put(patch: Patch, region: Region, value: int) -> None:
            patch.paint(label, value)

        return self._each(label, size, ids, put)

    def paint_overlapping(self, size: Size, ids: Mapping[str, int]) -> Painted:
        """Return a mask for each class, in which nothing lies over anything.

        What cannot be read, or is drawn as ignored, does not count (255) where it lies, unless it
        is seen there: of its class, or of all where that is not known.
        """
        classes = [index for index in ids.values() if index != IGNORE]
        label = np.zeros((*size, 1 + max(classes)), np.uint8)

        def put(patch: Patch, region: Region, value: int) -> None:
            if value != IGNORE:
                patch.paint(label[:, :, value], 1)
                return
            own = ids.get(region.name or "", IGNORE)
            where = patch.on(size)
            for index in set(classes) if own == IGNORE else {own}:
                plane = label[:, :, index]
                plane[where & (plane == 0)] = IGNORE

        return self._each(label, size, ids, put)

    def _each(
        self,
        label: UInt8,
        size: Size,
        ids: Mapping[str, int],
        put: Callable[[Patch, Region, int], None],
    ) -> Painted:
        faults: list[str] = []
        outside = count = 0
        lost = False
        for region in self.regions(size):
            count += 1
            patch, value = None, IGNORE
            try:
                patch = region.fill(size)
                if region.name is None or region.name not in ids:
                    raise UnreadableError("names no class that the export knows")
                value = ids[region.name]
            except WithoutAreaError as error:
                faults.append(f"{region.id} {error}")
                continue
            except UnreadableError as error:
                faults.append(f"{region.id} {error}")
                patch = patch or _box_patch(region.box, size)
            if patch is None:
                lost = True
            elif patch.area:
                put(patch, region, value)
            else:
                outside += 1
        return Painted(label, tuple(faults), outside, count, lost)


def _box_patch(box: Box | None, size: Size) -> Patch | None:
    if box is None:
        return None
    left, top, right, bottom = box
    try:
        return polygon_patch(size, box_points([(left, top), (right, bottom)]))
    except UnreadableError:
        return None


def largest_first(regions: Sequence[Region], size: Size) -> list[Region]:
    """Return the regions in an order in which small ones stay in sight.

    Those that cannot be read come last: nobody knows what they lie over.
    """
    filled: list[tuple[int, Region]] = []
    rest: list[Region] = []
    for region in regions:
        try:
            patch = region.fill(size).cropped()
        except UnreadableError:
            rest.append(region)
            continue
        again = Region(region.name, partial(_as_is, patch), region.id, region.box)
        filled.append((patch.area, again))
    filled.sort(key=lambda item: -item[0])
    return [region for _, region in filled] + rest


def _as_is(patch: Patch, size: Size) -> Patch:
    return patch


@dataclass(frozen=True)
class Export:
    """A whole export.

    Attributes:
        tool: what it was recognised as, in a word.
        names: the class names as drawn, in the export's order.
        drawings: the annotated photos.
        colours: by class name, where the export has them.
        complete: whether pixels outside all regions are unlabelled rather than background.
        labels: the classes of the folder, where the export is a data set already.
        notes: what was assumed and what was passed over, one sentence each.
    """

    tool: str
    names: tuple[str, ...]
    drawings: tuple[Annotated, ...]
    colours: Mapping[str, Colour] = field(default_factory=dict)
    complete: bool = False
    labels: LabelSet | None = None
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of the folder: background first where there is one, none ignored."""
        if self.labels is not None:
            return self.labels.names
        named = tuple(n for n in self.names if not is_ignored(n))
        if self.complete:
            return named
        return (BACKGROUND, *(n for n in named if not is_background(n)))


def is_ignored(name: str) -> bool:
    """Return whether a tool calls pixels so that do not count."""
    return name.strip().lower() in _IGNORED_NAMES


def is_background(name: str) -> bool:
    """Return whether a tool calls pixels so that belong to nothing."""
    return name.strip().lower() in _BACKGROUND_NAMES


def ids_of(classes: Iterable[str], names: Iterable[str]) -> dict[str, int]:
    """Return {name as drawn: class id}; the tools' names for background and void included."""
    ids = {name: index for index, name in enumerate(classes)}
    for name in names:
        if is_ignored(name) and name not in ids:
            ids[name] = IGNORE
        elif is_background(name) and BACKGROUND in ids:
            ids[name] = ids[BACKGROUND]
    return ids


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names without repetition, in their order."""
    return tuple(dict.fromkeys(names))


def listed(items: Sequence[object], count: int = 3) -> str:
    """Return the first few of many, for a message: "a, b, c, …"."""
    return ", ".join(map(str, items[:count])) + (", …" if len(items) > count else "")


def parse_colour(value: object) -> Colour | None:
    """Return a colour that is written as "#rrggbb" or [red, green, blue]; None for others."""
    if isinstance(value, str):
        digits = value.strip().removeprefix("#")
        try:
            value = list(bytes.fromhex(digits))
        except ValueError:
            return None
    if isinstance(value, (list, tuple)) and len(value) == 3:
        red, green, blue = value
        if all(type(part) is int and 0 <= part <= 255 for part in value):
            return red, green, blue
    return None


def path_of(value: str | PathLike[str] | None) -> Path | None:
    """Return a path, or None."""
    return None if value is None else Path(value)
