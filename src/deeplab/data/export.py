"""What every annotation export comes down to: photos, and regions with class names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from deeplab.data.masks import IGNORE, UInt8
from deeplab.data.sample import PHOTO_SUFFIXES
from deeplab.data.shapes import Bools, paint
from deeplab.errors import DataError
from deeplab.labels import Colour

BACKGROUND = "background"
_BACKGROUND_NAMES = ("background", "_background_", "__background__")
_IGNORED_NAMES = ("__ignore__", "ignore", "void", "unlabelled", "unlabeled")

Region: TypeAlias = tuple[str, Callable[[tuple[int, int]], Bools]]
"""A class name, and what gives the region's (H, W) bool for a (height, width)."""


@dataclass(frozen=True)
class Drawing:
    """One annotated photo.

    Attributes:
        photo: its file.
        name: its name in the folder to be made, without suffix.
        size: (height, width) that the annotation was drawn on.
        regions: what was drawn, in painting order.
    """

    photo: Path
    name: str
    size: tuple[int, int]
    regions: Callable[[], Iterable[Region]]

    def paint(self, ids: Mapping[str, int], rest: int) -> UInt8:
        """Return the (H, W) uint8 label; pixels outside all regions get ``rest``.

        Raises:
            DataError: a region's class is not among ``ids``.
        """
        label = np.full(self.size, rest, np.uint8)
        for name, fill in self.regions():
            if name not in ids:
                raise DataError(
                    f"{self.photo.name}: the class '{name}' is new. The folder's dataset.toml "
                    f"knows: {', '.join(ids)}."
                )
            paint(label, fill(self.size), ids[name])
        return label


@dataclass(frozen=True)
class Export:
    """A whole export.

    Attributes:
        names: the class names as drawn, in the export's order.
        drawings: the annotated photos.
        colours: by class name, where the export has them.
        complete: whether pixels outside all regions are unlabelled (panoptic) rather than
            background.
    """

    names: tuple[str, ...]
    drawings: tuple[Drawing, ...]
    colours: Mapping[str, Colour]
    complete: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of the folder: background first where there is one, none ignored."""
        named = tuple(n for n in self.names if n.lower() not in _IGNORED_NAMES)
        if self.complete:
            return named
        plain = tuple(n for n in named if n.lower() not in _BACKGROUND_NAMES)
        return (BACKGROUND, *plain)


def ids_of(classes: Iterable[str], names: Iterable[str]) -> dict[str, int]:
    """Return {name as drawn: class id}; the tools' names for background and void included."""
    ids = {name: index for index, name in enumerate(classes)}
    for name in names:
        if name.lower() in _IGNORED_NAMES:
            ids[name] = IGNORE
        elif name.lower() in _BACKGROUND_NAMES and BACKGROUND in ids:
            ids[name] = ids[BACKGROUND]
    return ids


def find_photo(name: str, folders: Iterable[Path]) -> Path:
    """Return the photo called ``name`` in one of ``folders``; only its last part must agree.

    Raises:
        DataError: it is nowhere.
    """
    places = list(folders)
    parts = Path(name.replace("\\", "/"))
    whole = [] if parts.is_absolute() or ".." in parts.parts else [parts]
    for folder in places:
        for candidate in (*whole, Path(parts.name), Path("images", parts.name)):
            if (folder / candidate).is_file():
                return folder / candidate
    raise DataError(
        f"photo: '{name}' is not in {' or '.join(map(str, places))}. "
        "Name the folder of the photos (--images)."
    )


def plain_name(name: str) -> str:
    """Return the last part of a file name, without its suffix, fit for any file system.

    Raises:
        DataError: it is not the name of a picture.
    """
    path = Path(name.replace("\\", "/"))
    if path.suffix.lower() not in PHOTO_SUFFIXES or not path.stem:
        raise DataError(f"photo: '{name}' does not end like a picture.")
    return path.stem
