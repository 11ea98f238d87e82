"""Which reader opens a picture that is to be looked at in windows."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deeplab.errors import InputError
from deeplab.photo.formats import MAX_PIXELS, open_header
from deeplab.photo.images import Photo
from deeplab.photo.memory import default_budget, estimate
from deeplab.tiles.pictures import ArrayPicture, Picture
from deeplab.tiles.raster import Range, RasterPicture
from deeplab.tiles.tiff_pages import is_tiff

_SHARE = 0.5
"""Of the memory that a decoded photo may take before it is read by region instead."""


def open_picture(
    source: Any,
    *,
    bands: Sequence[int] | None = None,
    value_range: Range | None = None,
    memory: int | None = None,
) -> Picture:
    """Open a picture to be read by region.

    TIFFs, and other files that are too large to be decoded whole, are read by region from the
    file; all other photos are decoded, as they always are.

    Args:
        source: a path, the bytes of a file, a PIL image, or an array or what can be sliced as one.
        bands: see :class:`~deeplab.tiles.raster.RasterPicture`.
        value_range: likewise.
        memory: bytes that there are; None takes most of what is free.

    Raises:
        ImageError: the picture cannot be read.
        InputError: it is no picture, or bands are asked of what has none to choose.
        MissingExtraError: it must be read by region and rasterio is not installed.
    """
    if isinstance(source, (str, PathLike)) and reads_by_region(Path(source), memory=memory):
        return RasterPicture(Path(source), bands=bands, value_range=value_range)
    if bands is not None or value_range is not None:
        raise InputError("bands, range: only files that are read by region (TIFF, …) have them.")
    if isinstance(source, (str, PathLike, bytes, bytearray, memoryview, Image.Image)):
        photo = Photo(source)
        return ArrayPicture(photo.pixels(), name=photo.name, photo=photo)
    if isinstance(source, np.ndarray) and source.ndim == 3 and source.shape[2] == 4:
        return ArrayPicture(Photo(source).pixels())  # alpha is laid over white
    return ArrayPicture(source)


def reads_by_region(path: Path, *, memory: int | None = None) -> bool:
    """Return whether a picture is read by region: a TIFF, or one too large to be decoded whole."""
    try:
        if is_tiff(path):
            return True
        with path.open("rb") as file:
            width, height = open_header(file).size
    except Exception:  # it is no picture: whoever decodes it says why
        return False
    if width * height > MAX_PIXELS:
        return True
    return estimate(path, classes=0) > _SHARE * (memory or default_budget())
