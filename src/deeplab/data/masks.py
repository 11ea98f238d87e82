"""Mask files: greyscale, palette and RGB pictures that hold a class per pixel, read exactly.

The commonest cause of a network that predicts one class is a mask read wrongly: a palette turned
into grey, colours taken for ids, ids smeared by JPEG or by a smooth resize. Nothing is guessed
here: a pixel is a class, is ignored by agreement, or the file is refused by name.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from deeplab.errors import DataError, InputError
from deeplab.files import replacing
from deeplab.labels import Colour
from deeplab.photo.palette_png import encode_palette_png

UInt8 = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.integer[Any]]

IGNORE = 255
"""The label of pixels that do not count, in every label array of this package."""

NOT_A_CLASS = 254
"""What :meth:`MaskEncoding.decode` gives to pixels that are neither a class nor ignored."""

_LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "AVIF")


@dataclass(frozen=True)
class MaskFile:
    """A mask as its file holds it.

    Attributes:
        pixels: (H, W) integer values (palette files: palette indices), or (H, W, 3) uint8 RGB.
        palette: (256, 3) uint8 RGB of a palette file, else None.
        format: Pillow's name of the file format: "PNG", "JPEG", …
    """

    pixels: Integers
    palette: UInt8 | None
    format: str

    @property
    def is_lossy(self) -> bool:
        """Whether the format smears values, so that class ids cannot survive in it."""
        return self.format in _LOSSY_FORMATS

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def colours(self) -> UInt8 | None:
        """(H, W, 3) uint8 RGB of an RGB or palette file; None for greyscale."""
        if self.pixels.ndim == 3:
            return self.pixels.astype(np.uint8, copy=False)
        return None if self.palette is None else self.palette[self.pixels]


@dataclass(frozen=True)
class MaskEncoding:
    """How the mask files of a data set hold class ids.

    Attributes:
        values: ``values[i]`` is the value of class ``i`` in greyscale and palette files, 0..255.
        ignore: the values of unlabelled pixels.
        colours: ``colours[i]`` is the colour of class ``i`` in RGB files; empty when RGB masks
            are not expected.
        ignore_colours: the colours of unlabelled pixels.
        by_colour: read palette files by their colours too, not by their indices.

    Raises:
        InputError: two meanings for one value or colour, or more than 254 classes.
    """

    values: tuple[int, ...]
    ignore: tuple[int, ...] = (IGNORE,)
    colours: tuple[Colour, ...] = ()
    ignore_colours: tuple[Colour, ...] = ()
    by_colour: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.values) <= NOT_A_CLASS:
            raise InputError(
                f"masks: got {len(self.values)} classes, expected 1 to {NOT_A_CLASS} "
                f"({IGNORE} marks ignored pixels)."
            )
        _reject_doubled("values", [*self.values, *self.ignore])
        _reject_doubled("colours", [*self.colours, *self.ignore_colours])
        outside = [value for value in (*self.values, *self.ignore) if not 0 <= value <= 255]
        if outside:
            raise InputError(f"masks: got the values {outside}, expected 0 to 255.")
        if self.colours and len(self.colours) != len(self.values):
            raise InputError(
                f"masks: got {len(self.colours)} colours for {len(self.values)} classes."
            )
        if self.by_colour and not self.colours:
            raise InputError("masks: reading by colour needs one colour per class.")

    @cached_property
    def value_table(self) -> UInt8:
        """(256,) uint8: value in the file -> class id, IGNORE or NOT_A_CLASS."""
        table = np.full(256, NOT_A_CLASS, np.uint8)
        table[list(self.ignore)] = IGNORE
        table[list(self.values)] = np.arange(len(self.values))
        return table

    @cached_property
    def _colour_table(self) -> UInt8:
        """(2**24,) uint8: colour as one number -> class id, IGNORE or NOT_A_CLASS."""
        table = np.full(1 << 24, NOT_A_CLASS, np.uint8)
        for red, green, blue in self.ignore_colours:
            table[red << 16 | green << 8 | blue] = IGNORE
        for index, (red, green, blue) in enumerate(self.colours):
            table[red << 16 | green << 8 | blue] = index
        return table

    def classes_of_colours(self, colours: UInt8) -> UInt8:
        """Return the class ids of colours, (..., 3) uint8 RGB -> (...) uint8."""
        codes = colours[..., 0].astype(np.int32)
        codes <<= 8
        codes |= colours[..., 1]
        codes <<= 8
        codes |= colours[..., 2]
        return self._colour_table[codes]

    def decode(self, mask: MaskFile) -> UInt8:
        """Return (H, W) uint8: class ids, IGNORE, and NOT_A_CLASS where the file is wrong."""
        if mask.pixels.ndim == 3 and not self.colours:
            return np.full(mask.size, NOT_A_CLASS, np.uint8)
        if mask.pixels.ndim == 3 or (self.by_colour and mask.palette is not None):
            assert mask.colours is not None
            return self.classes_of_colours(mask.colours)
        if mask.pixels.dtype == np.uint8:
            return self.value_table[mask.pixels]
        inside = (mask.pixels >= 0) & (mask.pixels <= 255)
        label = self.value_table[np.where(inside, mask.pixels, 0)]
        return np.where(inside, label, np.uint8(NOT_A_CLASS))


def open_mask(source: Path | bytes, name: str = "") -> MaskFile:
    """Return a mask as its file holds it, turned upright when the mask itself says so.

    Raises:
        DataError: the file is missing, damaged, or not a picture.
    """
    name = name or str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            file_format = image.format or "?"
            image.load()
            return _unpack(ImageOps.exif_transpose(image), file_format)
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such mask.") from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise DataError(f"{name}: the mask cannot be read ({error}).") from error


def _unpack(image: Image.Image, file_format: str) -> MaskFile:
    palette = None
    if image.mode == "P":
        palette = np.zeros((256, 3), np.uint8)
        stored = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        palette[: len(stored)] = stored
        pixels: Integers = np.array(image)
    elif image.mode in ("L", "1") or image.mode.startswith("I"):
        pixels = np.array(image)
        if pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8)
    elif image.mode == "LA":
        pixels = np.array(image.getchannel("L"))
    else:
        pixels = np.array(image.convert("RGB"))
    return MaskFile(pixels=pixels, palette=palette, format=file_format)


def read_mask(path: Path, encoding: MaskEncoding) -> UInt8:
    """Read one mask: (H, W) uint8, class ids and IGNORE.

    Raises:
        DataError: the file is missing, damaged, lossy, or holds a value or colour that is
            neither a class nor ignored.
    """
    mask = open_mask(path)
    if mask.is_lossy:
        raise DataError(
            f"{path}: is a {mask.format} file, which smears class ids at every edge. "
            "Export the masks again as PNG."
        )
    label = encoding.decode(mask)
    wrong = label == NOT_A_CLASS
    if wrong.any():
        raise DataError(f"{path}: {describe_wrong(mask, encoding, wrong)}")
    return label


def describe_wrong(mask: MaskFile, encoding: MaskEncoding, wrong: npt.NDArray[np.bool_]) -> str:
    """Return what stands in the pixels that are no class, and what was expected there."""
    share = f"{100 * wrong.mean():.1f} % of the pixels"
    if mask.pixels.ndim == 3 and not encoding.colours:
        return (
            "is an RGB picture, but the data set names no colours. Give one colour per class "
            "(`colours` in dataset.toml), or export class ids as greyscale or palette PNG."
        )
    if mask.pixels.ndim == 3 or encoding.by_colour:
        assert mask.colours is not None
        found, counts = np.unique(mask.colours[wrong], axis=0, return_counts=True)
        some = ", ".join(str(tuple(int(c) for c in found[i])) for i in np.argsort(-counts)[:4])
        return (
            f"{share} have a colour that belongs to no class ({len(found)} such colours: "
            f"{some}{', …' if len(found) > 4 else ''})."
        )
    found, counts = np.unique(mask.pixels[wrong], return_counts=True)
    some = ", ".join(str(int(found[i])) for i in np.argsort(-counts)[:8])
    return (
        f"{share} have a value that is no class ({some}{', …' if len(found) > 8 else ''}); "
        f"expected {_ranges(encoding.values)} or {_ranges(encoding.ignore)} for unlabelled pixels."
    )


def write_mask(path: Path, label: UInt8, palette: UInt8) -> None:
    """Write ``label``, (H, W) uint8, as a palette PNG; ``palette`` is (256, 3) uint8 RGB.

    The file appears under its name only when it is complete.
    """
    with replacing(path) as partial:
        partial.write_bytes(encode_palette_png(label, palette))


def _ranges(values: Sequence[int]) -> str:
    """Return "0 to 20" for consecutive numbers, else "7, 8, 11 to 13"."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]} to {p[-1]}" for p in parts)


def _reject_doubled(field: str, values: Sequence[object]) -> None:
    doubled = sorted({str(value) for value in values if values.count(value) > 1})
    if doubled:
        raise InputError(f"masks: {field}: {', '.join(doubled)} has two meanings.")
