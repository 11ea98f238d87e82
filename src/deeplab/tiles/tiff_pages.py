"""The pages of a TIFF, counted before anybody opens it.

Readers walk along the chain of pages, and a small file can have a million of them or a circle.

Source: TIFF 6.0, section 2; the BigTIFF design (https://www.awaresystems.be/imaging/tiff/bigtiff.html).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from deeplab.errors import ImageError, ImageFormatError

MOST_PAGES = 1000
"""Pyramids have about fifteen."""

_MOST_TAGS = 4096
_KIND, _WIDTH, _HEIGHT, _ORIENTATION = 254, 256, 257, 274
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # a field's type -> how one number is stored


@dataclass(frozen=True)
class Page:
    """One picture of a TIFF.

    Attributes:
        size: (height, width).
        orientation: 1 to 8, as in EXIF.
        is_extra: it is a smaller copy or a mask of another page.
    """

    size: tuple[int, int]
    orientation: int
    is_extra: bool


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as a TIFF or BigTIFF."""
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_pages(path: Path) -> list[Page]:
    """Return the pages of a TIFF or BigTIFF in the order of the file.

    Raises:
        ImageError: the file is cut off or damaged.
        ImageFormatError: it has more than 1000 pages.
    """
    pages: list[Page] = []
    met: set[int] = set()
    try:
        with path.open("rb") as file:
            layout = _Layout(file)
            at = layout.first
            while at:
                if at in met:
                    raise ImageError(f"{path}: the picture is damaged (its pages go in a circle).")
                met.add(at)
                if len(pages) == MOST_PAGES:
                    raise ImageFormatError(
                        f"{path}: is a TIFF of more than {MOST_PAGES} pages. Take out the one that "
                        "is meant: tiffcp stack.tif,0 page.tif"
                    )
                page, at = layout.read(at)
                pages.append(page)
    except (struct.error, ValueError, OverflowError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{path}: the picture is damaged or cut off (its pages).") from None
    return pages


class _Layout:
    """How numbers lie in one file: which byte order, and the sizes of BigTIFF or of TIFF."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        start = file.read(16)
        self._order = "<" if start[:2] == b"II" else ">"
        big = struct.unpack(self._order + "H", start[2:4])[0] == 43
        self._count, self._offset = ("Q", "Q") if big else ("H", "I")
        (self.first,) = self._unpack(self._offset, start[8 if big else 4 :])

    def read(self, at: int) -> tuple[Page, int]:
        """Return the page at an offset, and where the next one is; 0 where there is none."""
        self._file.seek(at)
        (count,) = self._unpack(self._count, self._file.read(struct.calcsize("<" + self._count)))
        if count > _MOST_TAGS:
            raise ValueError(f"{count} tags")
        entry = 4 + 2 * struct.calcsize("<" + self._offset)
        tags = self._file.read(count * entry)
        (following,) = self._unpack(
            self._offset, self._file.read(struct.calcsize("<" + self._offset))
        )
        found = dict(self._numbers(tags[i : i + entry]) for i in range(0, count * entry, entry))
        orientation = found.get(_ORIENTATION, 1)
        return Page(
            size=(found.get(_HEIGHT, 0), found.get(_WIDTH, 0)),
            orientation=orientation if 1 <= orientation <= 8 else 1,
            is_extra=bool(found.get(_KIND, 0) & 5),
        ), following

    def _numbers(self, entry: bytes) -> tuple[int, int]:
        tag, kind = self._unpack("HH", entry)
        value = entry[4 + struct.calcsize("<" + self._offset) :]
        return tag, self._unpack(_NUMBERS.get(kind, "B"), value)[0]

    def _unpack(self, form: str, data: bytes) -> tuple[int, ...]:
        size = struct.calcsize("<" + form)
        return struct.unpack(self._order + form, data[:size])
