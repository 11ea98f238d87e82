"""A mask of any size as a tiled, compressed palette TIFF, written part by part.

Pixel value = class id, colours = the label set's. It lies on Earth where its picture lies, and its
no-data value is where the picture holds nothing. Larger ones carry smaller copies of themselves, so
that viewers show them at once; beyond 4 GB it is a BigTIFF.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import OutputError
from deeplab.labels import LabelSet
from deeplab.photo.gdal import first_line, gdal_errors, quiet_gdal
from deeplab.tiles.blend import MaskPart

BLOCK = 512
"""Pixels per side of the file's tiles; every strip begins at a multiple of it."""

_ROOM = 1 << 21
"""Bytes; GDAL writes so much at a time, and a disk with less is full."""

_VIEW = 1024
"""Pixels of the longer side of a file's smallest copy of itself."""


class MaskWriter:
    """Takes the parts of a mask, in the order in which they are made; of :func:`open_mask`."""

    def __init__(self, file: Any, size: tuple[int, int]) -> None:
        self._file, self._size = file, size
        self._waiting: list[npt.NDArray[np.uint8]] = []
        self._top = self._left = self._rows = 0

    def write(self, part: MaskPart) -> None:
        """Write a part: the next rows of its strip."""
        if not self._waiting:
            self._top, self._left = part.top, part.left
        self._waiting.append(part.mask)
        self._rows += len(part.mask)
        ready = self._rows - self._rows % BLOCK
        if self._top + self._rows == self._size[0]:
            ready = self._rows
        if ready:
            rows = np.concatenate(self._waiting)
            self._write(rows[:ready])
            self._top += ready
            self._rows -= ready
            self._waiting = [rows[ready:].copy()] if self._rows else []

    def _write(self, rows: npt.NDArray[np.uint8]) -> None:
        from rasterio.windows import Window

        self._file.write(rows, 1, window=Window(self._left, self._top, rows.shape[1], len(rows)))


@contextmanager
def open_mask(
    path: Path,
    size: tuple[int, int],
    *,
    name: str,
    labels: LabelSet,
    nodata: int | None,
    profile: Mapping[str, Any],
) -> Iterator[MaskWriter]:
    """Give what takes a mask's parts, and finish the file when the block ends.

    Args:
        path: of the file; a name in the making, see :func:`deeplab.files.replacing`.
        size: (height, width).
        name: that the file will have, for messages.
        labels: names and colours.
        nodata: the value of pixels that hold nothing; None where all hold something.
        profile: where the picture lies, see :class:`~deeplab.tiles.raster.RasterPicture`.

    Raises:
        OutputError: the disk is full, or the file could not be written for another reason.
    """
    with quiet_gdal("Writing masks of pictures larger than memory") as rasterio:
        try:
            with _create(rasterio, path, size, nodata, profile) as file:
                colours = enumerate(labels.palette.tolist())
                file.write_colormap(1, {index: (*colour, 255) for index, colour in colours})
                file.update_tags(1, **{f"CLASS_{i}": name for i, name in enumerate(labels.names)})
                if profile.get("pixel_is"):
                    file.update_tags(AREA_OR_POINT=profile["pixel_is"])
                yield MaskWriter(file, size)
                if factors := _factors(size):
                    file.build_overviews(factors, rasterio.enums.Resampling.nearest)
            _check_complete(rasterio, path, name)
        except gdal_errors() as error:
            reason = first_line(error)
            if shutil.disk_usage(path.parent).free < _ROOM:
                reason = "no space left on device"
            raise OutputError(f"output: cannot write {name}: {reason}.") from error


def _create(
    rasterio: Any, path: Path, size: tuple[int, int], nodata: int | None, profile: Mapping[str, Any]
) -> Any:
    place = {
        key: profile[key] for key in ("crs", "transform", "rpcs") if profile.get(key) is not None
    }
    if profile.get("gcps"):
        place["gcps"], place["crs"] = profile["gcps"]
    return rasterio.open(
        path, "w", driver="GTiff", height=size[0], width=size[1], count=1, dtype="uint8",
        photometric="palette", tiled=True, blockxsize=BLOCK, blockysize=BLOCK,
        compress="deflate", bigtiff="if_safer", nodata=nodata, **place,
    )  # fmt: skip


def _factors(size: tuple[int, int]) -> list[int]:
    factors: list[int] = []
    while max(size) > _VIEW * 2 ** len(factors):
        factors.append(2 ** (len(factors) + 1))
    return factors


def _check_complete(rasterio: Any, path: Path, name: str) -> None:
    """Refuse a file of which a part is missing: GDAL does not always say so when a disk is full."""
    length = path.stat().st_size
    with rasterio.open(path, driver="GTiff") as file:
        for (row, column), _ in file.block_windows(1):
            begin, size = (
                int(file.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=1) or 0)
                for what in ("OFFSET", "SIZE")
            )
            if begin == 0 or begin + size > length:
                raise OutputError(
                    f"output: cannot write {name}: the file is not whole; is the disk full?"
                )
