"""Pictures in files that are read by region: TIFF, BigTIFF, GeoTIFF, COG, JPEG 2000, JPEG, PNG.

The reader is GDAL, through rasterio: it reads blocks as they are asked for, uses the smaller copies
that a file has of itself, and knows where a map lies and where it holds nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from deeplab.errors import ImageError, ImageFormatError, InputError
from deeplab.photo.formats import open_header
from deeplab.photo.gdal import first_line, gdal_errors, import_rasterio, quiet_gdal
from deeplab.photo.images import DARK, read_orientation
from deeplab.tiles.pictures import Bool, UInt8
from deeplab.tiles.tiff_pages import is_tiff, read_pages

_DRIVERS = {"JPEG": "JPEG", "MPO": "JPEG", "PNG": "PNG", "JPEG2000": "JP2OpenJPEG", "BMP": "BMP",
            "DIB": "BMP", "WEBP": "WEBP"}  # fmt: skip
"""What Pillow calls a format, and GDAL its reader. GDAL is not let to choose: it opens much more,
some of which fetches other files (VRT)."""

_BLOCKS = ("GTiff", "JP2OpenJPEG")
"""The readers of files of which a part can be had without what is above it."""

_SAMPLES, _SAMPLE = 3, 256
"""Blocks per side, and their pixels, that are looked at for the range of values."""

_ENOUGH = 2
"""A smaller copy of a picture must have this many times the pixels per side that are asked for."""

_ROWS_BACK, _COLUMNS_BACK = (3, 4, 6, 7), (2, 3, 7, 8)
"""EXIF orientations in which stored rows or columns are seen in the other direction; from 5 on,
stored rows are seen as columns. Source: Exif 2.32, tag 0x0112."""

_WHAT = "Reading pictures by region"

_Result = TypeVar("_Result")
Range = tuple[float, float]


class RasterPicture:
    """A :class:`~deeplab.tiles.pictures.Picture` in a file.

    Args:
        path: the file.
        bands: the numbers of the channels to take for red, green and blue, or of one for grey, from
            1 on; None takes those that the file calls so.
        value_range: the values that are shown as 0 and as 255; None takes all that the type can
            hold, and refuses 16-bit pictures that use an eighth of it or less.

    Attributes:
        profile: what a mask of the same place must say: crs, transform, gcps, rpcs, pixel_is.

    Raises:
        ImageError: the file cannot be read, is damaged, or its channels are no colours.
        InputError: there are no such bands, or the range is empty.
        MissingExtraError: rasterio is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        bands: Sequence[int] | None = None,
        value_range: Range | None = None,
    ) -> None:
        import_rasterio(_WHAT)
        self.name, self._path = str(path), path
        notes: list[str] = []
        self._driver, orientation = _check_header(path, notes)
        self._file = self._open()
        self._guarded(lambda: self._describe(orientation, bands, value_range, notes))
        self.notes = tuple(notes)

    def _describe(
        self,
        orientation: int,
        bands: Sequence[int] | None,
        value_range: Range | None,
        notes: list[str],
    ) -> None:
        """Read what the file says of itself; GDAL reads tags only when they are asked for."""
        geo = self._file.crs is not None or bool(self._file.gcps[0]) or self._file.rpcs is not None
        # GDAL leaves pictures as they are stored, and a map's transform is of the stored ones.
        self._turn = 1 if geo or not self._file.transform.is_identity else orientation
        self._colours = self._read_colours()
        self._bands = self._choose_bands(bands, notes)
        self._low, self._high = self._choose_range(value_range)
        stored = self._file.height, self._file.width
        self.size: tuple[int, int] = stored[::-1] if self._turn >= 5 else stored
        self._stored = stored
        self.has_nodata = self._has_nodata()
        if self.has_nodata and self._both_nodata_and_alpha():
            notes.append("its no-data value says what holds nothing; its alpha channel was left")
        self.from_top = self._driver not in _BLOCKS
        self.profile = {
            "crs": self._file.crs,
            "transform": None if self._file.transform.is_identity else self._file.transform,
            "gcps": self._file.gcps if self._file.gcps[0] else None,
            "rpcs": self._file.rpcs,
            "pixel_is": self._file.tags().get("AREA_OR_POINT"),
        }

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def smaller(self, size: tuple[int, int]) -> RasterPicture:
        """Return the smallest copy in the file that has twice ``size``, or this one.

        A copy's pixels hold nothing where its file says so.
        """
        factors = self._guarded(lambda: self._file.overviews(1))
        wanted = max(_ENOUGH * side for side in size) / max(self.size)
        fitting = [level for level, factor in enumerate(factors) if 1 / factor >= wanted]
        if not fitting:
            return self
        copy = object.__new__(RasterPicture)
        copy.__dict__.update(self.__dict__)
        copy._file = self._open(overview_level=fitting[-1])
        stored = copy._file.height, copy._file.width
        copy._stored, copy.size = stored, stored[::-1] if self._turn >= 5 else stored
        return copy

    def read(self, top: int, left: int, bottom: int, right: int) -> UInt8:
        """Return a region, (h, w, 3) uint8 RGB.

        Raises:
            ImageError: that part of the file is damaged or cut off.
        """
        window = self._window(top, left, bottom, right)
        values = self._guarded(partial(self._file.read, self._bands, window=window))
        if self._colours is not None:
            rgb: UInt8 = self._colours[values[0]][:, :, :3]
        else:
            pixels = np.moveaxis(self._to_bytes(values), 0, 2)
            rgb = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
        return np.ascontiguousarray(_turned(rgb, self._turn))

    def valid(self, top: int, left: int, bottom: int, right: int) -> Bool:
        """Return which pixels of a region hold something, (h, w) bool."""
        window = self._window(top, left, bottom, right)
        if self._colours is not None and not self._has_mask():
            ids = self._guarded(partial(self._file.read, 1, window=window))
            return _turned(self._colours[ids][:, :, 3] > 0, self._turn)
        mask = self._guarded(partial(self._file.dataset_mask, window=window))
        return _turned(mask > 0, self._turn)

    # --- opening ------------------------------------------------------------------------------

    def _open(self, **wishes: Any) -> Any:
        def opened() -> Any:
            with quiet_gdal(_WHAT) as rasterio:
                return rasterio.open(os.fspath(self._path), driver=self._driver, **wishes)

        return self._guarded(opened)

    def _read_colours(self) -> npt.NDArray[np.uint8] | None:
        """Return the (256, 4) uint8 RGBA of a palette; None where there is none."""
        if self._file.colorinterp[0].name != "palette" or self._file.dtypes[0] != "uint8":
            return None
        table = np.zeros((256, 4), np.uint8)
        for index, colour in self._file.colormap(1).items():
            if index < 256:
                table[index] = colour
        return table

    def _choose_bands(self, asked: Sequence[int] | None, notes: list[str]) -> list[int]:
        count = self._file.count
        if asked is not None:
            if len(asked) not in (1, 3) or not all(1 <= band <= count for band in asked):
                raise InputError(
                    f"bands: got {', '.join(map(str, asked))}; {self.name} has {count}: give "
                    "three of their numbers (red, green, blue), or one."
                )
            self._colours = None
            return list(asked)
        kinds = [kind.name for kind in self._file.colorinterp]
        if self._colours is not None:
            return [1]
        if {"red", "green", "blue"} <= {*kinds}:
            chosen = [kinds.index(name) + 1 for name in ("red", "green", "blue")]
        elif count == 1 or (count == 2 and kinds[1] == "alpha"):
            chosen = [1]
        elif count == 3 and not {*kinds} - {"undefined", "gray"}:
            chosen = [1, 2, 3]
            notes.append("its three channels are red, green and blue, which it does not say")
        else:
            listed = ", ".join(kinds[:8]) + ", …" * (count > 8)
            raise ImageError(
                f"{self.name}: has {count} channels ({listed}), and does not say which "
                "are red, green and blue. Say it with --bands 1,2,3 (bands=)."
            )
        left = [
            number
            for number, kind in enumerate(kinds, 1)
            if number not in chosen and kind != "alpha"
        ]
        if left:
            notes.append(f"of {count} channels, {', '.join(map(str, chosen))} are shown")
        return chosen

    def _choose_range(self, asked: Range | None) -> Range:
        kinds = {self._file.dtypes[band - 1] for band in self._bands}
        structure = self._file.tags(1, ns="IMAGE_STRUCTURE")
        kind = np.dtype(kinds.pop()) if len(kinds) == 1 else np.dtype("float64")
        if self._colours is not None:
            return 0.0, 255.0
        if asked is not None:
            if not (all(map(math.isfinite, asked)) and asked[0] < asked[1]):
                raise InputError(f"range: got {asked[0]}, {asked[1]}; expected a low, then a high.")
            return float(asked[0]), float(asked[1])
        if kind not in (np.uint8, np.uint16):
            raise ImageError(
                f"{self.name}: its values are {kind}, which have no fixed range. Say which are "
                "black and white with --range LOW,HIGH (value_range=)."
            )
        bits = int(structure.get("NBITS", 8 * kind.itemsize))
        top = float(2**bits - 1)
        if kind == np.uint16:
            self._refuse_dark(top)
        is_negative = self._file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
        return (top, 0.0) if is_negative else (0.0, top)

    def _refuse_dark(self, top: float) -> None:
        """Refuse a picture that would be nearly black: sensors of 11 bits write 16."""
        height, width = self._file.height, self._file.width
        largest = 0
        for row in range(_SAMPLES):
            for column in range(_SAMPLES):
                y = row * max(0, height - _SAMPLE) // (_SAMPLES - 1)
                x = column * max(0, width - _SAMPLE) // (_SAMPLES - 1)
                bottom, right = min(height, y + _SAMPLE), min(width, x + _SAMPLE)
                window = self._stored_window(y, x, bottom, right)
                values = self._guarded(
                    partial(self._file.read, self._bands, window=window, masked=True)
                )
                largest = max(largest, int(values.filled(0).max()))
        if 0 < largest <= top / DARK:
            raise ImageError(
                f"{self.name}: its 16-bit values end near {largest}, so that it would be nearly "
                f"black as 0..{top:.0f}. Say which are black and white: --range 0,{largest} "
                f"(value_range=), or --range 0,{top:.0f} if it is so dark."
            )

    def _has_mask(self) -> bool:
        return any(
            flag.name != "all_valid" for flags in self._file.mask_flag_enums for flag in flags
        )

    def _both_nodata_and_alpha(self) -> bool:
        by_value = any(
            flag.name == "nodata" for flags in self._file.mask_flag_enums for flag in flags
        )
        return by_value and any(kind.name == "alpha" for kind in self._file.colorinterp)

    def _has_nodata(self) -> bool:
        clear = self._colours is not None and bool((self._colours[:, 3] == 0).any())
        return self._has_mask() or clear

    # --- reading ------------------------------------------------------------------------------

    def _to_bytes(self, values: npt.NDArray[Any]) -> UInt8:
        if (self._low, self._high) == (0, 255) and values.dtype == np.uint8:
            pixels: UInt8 = values
            return pixels
        scaled = (values.astype(np.float32) - self._low) * (255 / (self._high - self._low))
        np.nan_to_num(scaled, copy=False, nan=0.0)
        scaled_bytes: UInt8 = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
        return scaled_bytes

    def _window(self, top: int, left: int, bottom: int, right: int) -> Any:
        """Return the stored region that is seen as this one; see the EXIF orientations."""
        turn, (height, width) = self._turn, self._stored
        if turn >= 5:
            top, left, bottom, right = left, top, right, bottom
        if turn in _ROWS_BACK:  # the stored rows run the other way
            top, bottom = height - bottom, height - top
        if turn in _COLUMNS_BACK:
            left, right = width - right, width - left
        return self._stored_window(top, left, bottom, right)

    def _stored_window(self, top: int, left: int, bottom: int, right: int) -> Any:
        from rasterio.windows import Window

        return Window(left, top, right - left, bottom - top)

    def _guarded(self, action: Callable[[], _Result]) -> _Result:
        try:
            with quiet_gdal(_WHAT):
                return action()
        except gdal_errors() as error:
            raise ImageError(
                f"{self.name}: the picture is damaged or cut off ({first_line(error)})."
            ) from error


def _turned(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Return stored pixels as they are to be seen."""
    if orientation in _ROWS_BACK:
        pixels = pixels[::-1]
    if orientation in _COLUMNS_BACK:
        pixels = pixels[:, ::-1]
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    return pixels


def _check_header(path: Path, notes: list[str]) -> tuple[str, int]:
    """Return GDAL's reader for a file, and its picture's orientation, from its first bytes.

    Raises:
        ImageError: there is no such file, or it is empty, damaged, or of another kind.
    """
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty (0 bytes).")
        if is_tiff(path):
            pages = read_pages(path)
            if not pages:
                raise ImageError(f"{path}: the picture is damaged or cut off (it has no page).")
            same = [page for page in pages if page.size == pages[0].size and not page.is_extra]
            if len(same) > 1:
                notes.append(f"of {len(same)} pages, the first is taken")
            return "GTiff", pages[0].orientation
        with path.open("rb") as file:
            try:
                header = open_header(file)
                return _DRIVERS[header.format or ""], read_orientation(header)
            except Exception as error:  # Pillow's readers raise nearly anything on damaged files
                raise ImageFormatError(
                    f"{path}: cannot be read by region; what can: TIFF, JPEG 2000, JPEG, PNG."
                ) from error
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}.") from None
