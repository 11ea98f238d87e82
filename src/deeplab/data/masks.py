"""What the values and colours of mask files mean: a class per pixel, read exactly.

The commonest cause of a network that predicts one class is a mask read wrongly: a palette turned
into grey, colours taken for ids, ids smeared by JPEG or by a smooth resize. Nothing is guessed
here: a pixel is a class, is ignored by agreement, or the file is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.data.mask_files import Bools, Integers, MaskFile
from deeplab.data.mask_files import UInt8 as UInt8
from deeplab.data.mask_files import open_mask as open_mask
from deeplab.errors import DataError, InputError
from deeplab.files import replacing
from deeplab.labels import Colour
from deeplab.photo.palette_png import encode_palette_png

IGNORE = 255
"""The label of pixels that do not count, in every label array of this package."""

NOT_A_CLASS = 254
"""What :meth:`MaskEncoding.decode` gives to pixels that are neither a class nor ignored."""

_LARGEST_VALUE = 65535
_ROWS_AT_A_TIME = 1 << 22  # pixels; what is made of a mask on the way needs several bytes each


@dataclass(frozen=True)
class MaskEncoding:
    """How the mask files of a data set hold class ids.

    Attributes:
        values: ``values[i]`` is the value of class ``i`` in greyscale and palette files, 0..65535.
        ignore: the values of unlabelled pixels.
        colours: ``colours[i]`` is the colour of class ``i`` in RGB files; empty when RGB masks
            are not expected.
        ignore_colours: the colours of unlabelled pixels.
        by_colour: read palette files by their colours too, not by their indices.
        also: further (value, class id), where a class has several values.
        transparent: the class id of transparent pixels, or IGNORE; the colour under them is never
            looked at. Palette entries that ``ignore`` names stay ignored.

    Raises:
        InputError: two meanings for one value or colour, or more than 254 classes.
    """

    values: tuple[int, ...]
    ignore: tuple[int, ...] = (IGNORE,)
    colours: tuple[Colour, ...] = ()
    ignore_colours: tuple[Colour, ...] = ()
    by_colour: bool = False
    also: tuple[tuple[int, int], ...] = ()
    transparent: int = IGNORE

    def __post_init__(self) -> None:
        if not 1 <= len(self.values) <= NOT_A_CLASS:
            raise InputError(
                f"masks: got {len(self.values)} classes, expected 1 to {NOT_A_CLASS} "
                f"({IGNORE} marks ignored pixels)."
            )
        known = [*self.values, *(value for value, _ in self.also), *self.ignore]
        _reject_doubled("values", known)
        _reject_doubled("colours", [*self.colours, *self.ignore_colours])
        outside = [value for value in known if not 0 <= value <= _LARGEST_VALUE]
        if outside:
            raise InputError(f"masks: got the values {outside}, expected 0 to {_LARGEST_VALUE}.")
        if self.colours and len(self.colours) != len(self.values):
            raise InputError(
                f"masks: got {len(self.colours)} colours for {len(self.values)} classes."
            )
        if self.by_colour and not self.colours:
            raise InputError("masks: reading by colour needs one colour per class.")

    @cached_property
    def value_table(self) -> UInt8:
        """(65536,) uint8: value in the file -> class id, IGNORE or NOT_A_CLASS."""
        table = np.full(_LARGEST_VALUE + 1, NOT_A_CLASS, np.uint8)
        table[list(self.ignore)] = IGNORE
        table[list(self.values)] = np.arange(len(self.values))
        for value, index in self.also:
            table[value] = index
        return table

    @cached_property
    def _bit_table(self) -> UInt8:
        """(65536,) uint8: as ``value_table``, for files of one bit, whose 1 is white like 255."""
        table = self.value_table.copy()
        if table[1] == NOT_A_CLASS and 255 not in self.ignore:
            table[1] = table[255]
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
        label = np.empty(mask.size, np.uint8)
        is_coloured = self.reads_colours(mask)
        values = None if is_coloured else mask.grey
        table = self._table_of(mask)
        for rows in _row_blocks(mask.size):
            if is_coloured:
                pixels = mask.pixels[rows]
                shown = mask.palette[pixels] if mask.palette is not None else pixels
                label[rows] = self.classes_of_colours(shown.astype(np.uint8, copy=False))
            elif values is None:
                label[rows] = NOT_A_CLASS
            else:
                label[rows] = _look_up(table, values[rows])
        if mask.transparent is not None:
            hidden = mask.transparent
            if mask.pixels.ndim == 2:
                hidden = hidden & (label != IGNORE)
            label[hidden] = self.transparent
        return label

    def _table_of(self, mask: MaskFile) -> UInt8:
        """Return (65536,) uint8: value in this file -> class id, IGNORE or NOT_A_CLASS."""
        if mask.palette is None:
            return self._bit_table if mask.depth == 1 else self.value_table
        if self.by_colour or (self.value_table[:256] != NOT_A_CLASS).all():
            return self.value_table
        # A black and white mask that a program has stored as a palette of grey: where the indices
        # are no classes and all the greys are, the greys are meant.
        used = np.flatnonzero(np.bincount(mask.pixels.ravel(), minlength=256))
        greys = mask.palette[used]
        read_as = self.value_table[greys[:, 0]]
        if (self.value_table[used] == NOT_A_CLASS).any() and (
            (greys == greys[:, :1]).all() and (read_as != NOT_A_CLASS).all()
        ):
            table = self.value_table.copy()
            table[used] = read_as
            return table
        return self.value_table

    def reads_colours(self, mask: MaskFile) -> bool:
        """Return whether a file's colours count rather than its values."""
        if mask.pixels.ndim == 3:
            return bool(self.colours)
        return self.by_colour and mask.palette is not None


def _row_blocks(size: tuple[int, int]) -> Iterator[slice]:
    rows = max(1, _ROWS_AT_A_TIME // max(1, size[1]))
    return (slice(start, start + rows) for start in range(0, size[0], rows))


def _look_up(table: UInt8, values: Integers) -> UInt8:
    if values.dtype == np.uint8:
        return table[values]
    inside = (values >= 0) & (values < len(table))
    label = table[np.where(inside, values, 0)]
    return np.where(inside, label, np.uint8(NOT_A_CLASS))


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


def describe_wrong(mask: MaskFile, encoding: MaskEncoding, wrong: Bools) -> str:
    """Return what stands in the pixels that are no class, and what was expected there."""
    share = f"{100 * wrong.mean():.1f} % of the pixels"
    if mask.pixels.ndim == 3 and not encoding.colours and mask.grey is None:
        return (
            f"is an RGB picture, but the data set names no colours. {list_colours(mask)} Give one "
            "colour per class (`colours` in dataset.toml), or export class ids as greyscale or "
            "palette PNG."
        )
    if encoding.reads_colours(mask):
        found, counts = count_colours(mask, wrong)
        some = ", ".join(str(tuple(int(c) for c in found[i])) for i in np.argsort(-counts)[:4])
        return (
            f"{share} have a colour that belongs to no class ({len(found)} such colours: "
            f"{some}{', …' if len(found) > 4 else ''})."
        )
    assert mask.grey is not None
    found, counts = np.unique(mask.grey[wrong], return_counts=True)
    some = ", ".join(str(int(found[i])) for i in np.argsort(-counts)[:8])
    ignored = f" or {_ranges(encoding.ignore)} for unlabelled pixels" if encoding.ignore else ""
    expected = _ranges([*encoding.values, *(value for value, _ in encoding.also)])
    return (
        f"{share} have a value that is no class ({some}{', …' if len(found) > 8 else ''}); "
        f"expected {expected}{ignored}."
    )


def count_colours(mask: MaskFile, where: Bools | None = None) -> tuple[UInt8, npt.NDArray[Any]]:
    """Return the colours that occur, (N, 3) uint8 RGB, and how many pixels have each.

    Args:
        mask: an RGB or palette file.
        where: (H, W) bool, the pixels to look at; None for all but the transparent ones.
    """
    if where is None and mask.transparent is not None:
        where = ~mask.transparent
    found, counts = np.empty(0, np.uint32), np.empty(0, np.int64)
    for rows in _row_blocks(mask.size):
        pixels = mask.pixels[rows] if where is None else mask.pixels[rows][where[rows]]
        colours = pixels if mask.palette is None else mask.palette[pixels]
        codes = colours.reshape(-1, 3).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        new, new_counts = np.unique(codes, return_counts=True)
        found, places = np.unique(np.concatenate([found, new]), return_inverse=True)
        joined = np.zeros(len(found), np.int64)
        np.add.at(joined, places, np.concatenate([counts, new_counts]))
        counts = joined
    rgb = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=-1)
    return rgb.astype(np.uint8), counts


def list_colours(mask: MaskFile) -> str:
    """Return "It has 3 colours: [0, 0, 0], …", the commonest first."""
    found, counts = count_colours(mask)
    some = ", ".join(str(found[i].tolist()) for i in np.argsort(-counts)[:24])
    return f"It has {len(found)} colours: {some}{', …' if len(found) > 24 else ''}."


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
        raise InputError(
            f"masks: {field}: {', '.join(doubled)} has two meanings; it is one class, "
            "or ignored. Where nothing is ignored, write ignore = [] into dataset.toml."
        )
