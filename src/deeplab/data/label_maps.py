"""The files beside masks that say what their colours and values mean.

    labelmap.txt        label:r,g,b:parts:actions       CVAT's "Segmentation mask 1.1"
    class_names.txt     one name a line, in id order    labelme2voc
    label_colors.txt    r g b name                      CamVid, and CVAT's "CamVid 1.0"
    _classes.csv        Pixel Value, Class              Roboflow's semantic masks
    class_dict.csv      name, r, g, b                   CamVid of the Semantic Segmentation Suite

Source: openvinotoolkit/datumaro, plugins/data_formats/voc/format.py and camvid.py;
wkentaro/labelme, examples/semantic_segmentation/labelme2voc.py.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deeplab.data.export import is_background, is_ignored
from deeplab.data.masks import IGNORE, MaskEncoding
from deeplab.errors import DataError, InputError
from deeplab.files import read_text
from deeplab.labels import Colour, LabelSet, voc_colours

_LINE_END = re.compile(r"\r\n|\r|\n")
_NO_NAME = re.compile(r"# |//|.*[\x00-\x08\x0b-\x1f\x85\u2028\u2029]")
"""A remark, or what has a control character or another end of a line in it."""


@dataclass(frozen=True)
class LabelMap:
    """What a file of names says: classes, and how masks hold them."""

    labels: LabelSet
    encoding: MaskEncoding


@dataclass(frozen=True)
class _Entry:
    name: str
    colour: Colour | None = None
    value: int | None = None


def read_labelmap(path: Path) -> LabelMap:
    """Read a labelmap.txt: "label:r,g,b:parts:actions" a line.

    Raises:
        DataError: a line is another one, or two lines contradict each other.
    """
    entries = []
    for line in _lines(path):
        if line.startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        if not colon:
            raise DataError(f"{path}: got {line!r}, expected label:red,green,blue:parts:actions.")
        entries.append(_Entry(name.strip(), _colour(path, rest.split(":")[0].split(","))))
    return _by_colour(path, entries)


def read_label_colors(path: Path) -> LabelMap:
    """Read a label_colors.txt: "red green blue name" a line.

    Raises:
        DataError: a line is another one, or two lines contradict each other.
    """
    entries = []
    for line in _lines(path):
        if line.startswith("#"):
            continue
        match = re.match(r"(\d+)\s+(\d+)\s+(\d+)\s+(.+)$", line)
        if match:
            entries.append(_Entry(match.group(4).strip(), _colour(path, match.groups()[:3])))
        elif not line[0].isdigit():
            entries.append(_Entry(line))
        else:
            raise DataError(f"{path}: got {line!r}, expected red green blue name.")
    return _by_colour(path, entries)


def read_class_names(path: Path) -> LabelMap:
    """Read a class_names.txt: names in id order; the masks hold ids.

    Raises:
        DataError: a name occurs twice or cannot be shown, or a line before a name is empty or a
            remark: whether it has an id of its own, programs do not agree.
    """
    lines = _LINE_END.split(_text(path).rstrip())
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if _NO_NAME.match(name):
            raise DataError(
                f"{path}: line {number} is {name[:60]!r}, expected the name of a class; a remark "
                "would take an id."
            )
        if not name:
            raise DataError(
                f"{path}: line {number} is empty, before another name. Remove it, or write the "
                "name of the class that has its id."
            )
    given = [line.strip() for line in lines]
    names = [name for name in given if name and name != "__ignore__"]  # labelme's -1, stored as 255
    return _checked(path, [_Entry(name, value=index) for index, name in enumerate(names)])


def read_classes_csv(path: Path) -> LabelMap:
    """Read a _classes.csv: "Pixel Value, Class" and a line for each.

    Raises:
        DataError: a line is another one, or two lines contradict each other.
    """
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(_lines(path))]
    except csv.Error as error:
        raise DataError(f"{path}: is not CSV ({error}).") from None
    entries = []
    for row in rows:
        if len(row) >= 2 and row[0].isdecimal() and row[1]:
            entries.append(_Entry(row[1], value=int(row[0])))
        elif row is not rows[0]:
            raise DataError(f"{path}: got {','.join(row)!r}, expected a pixel value and a class.")
    return _checked(path, entries)


def read_class_dict(path: Path) -> LabelMap:
    """Read a class_dict.csv: "name,r,g,b" and a line for each.

    Raises:
        DataError: a line is another one, or two lines contradict each other.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in _lines(path)]
    entries = []
    for row in rows:
        if len(row) == 4 and all(cell.isdecimal() for cell in row[1:]):
            entries.append(_Entry(row[0], _colour(path, row[1:])))
        elif row is not rows[0]:
            raise DataError(f"{path}: got {','.join(row)!r}, expected name,red,green,blue.")
    return _by_colour(path, entries)


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except InputError as error:
        raise DataError(str(error)) from None


def _colour(path: Path, parts: Sequence[str]) -> Colour | None:
    if not any(part.strip() for part in parts):
        return None
    try:
        red, green, blue = (int(part) for part in parts)
        if all(0 <= part <= 255 for part in (red, green, blue)):
            return red, green, blue
    except ValueError:
        pass
    raise DataError(f"{path}: got the colour {','.join(parts)!r}, expected three of 0 to 255.")


def _by_colour(path: Path, entries: list[_Entry]) -> LabelMap:
    """Return the map of entries with colours; background is 0 in greyscale masks."""
    if not any(entry.colour for entry in entries):
        usual = voc_colours(len(entries))
        entries = [_Entry(e.name, colour) for e, colour in zip(entries, usual, strict=True)]
    without = [entry.name for entry in entries if entry.colour is None]
    if without:
        raise DataError(f"{path}: {', '.join(without)} has no colour, though others have one.")
    black = [e for e in entries if is_background(e.name) or e.colour == (0, 0, 0)][:1]
    ordered = black + [entry for entry in entries if entry not in black]
    return _checked(path, [_Entry(e.name, e.colour, i) for i, e in enumerate(ordered)])


def _checked(path: Path, entries: list[_Entry]) -> LabelMap:
    classes = [entry for entry in entries if not is_ignored(entry.name)]
    ignored = [entry for entry in entries if is_ignored(entry.name)]
    names = tuple(entry.name for entry in classes)
    colours = tuple(entry.colour for entry in classes if entry.colour is not None)
    values = tuple(entry.value for entry in classes if entry.value is not None)
    background = next((i for i, name in enumerate(names) if is_background(name)), None)
    ignore = tuple(entry.value for entry in ignored if entry.value is not None)
    try:
        return LabelMap(
            labels=LabelSet(names, colours, background=background),
            encoding=MaskEncoding(
                values=values,
                ignore=tuple({*ignore, *({IGNORE} - {*values})}),
                colours=colours,
                ignore_colours=tuple(e.colour for e in ignored if e.colour is not None),
                by_colour=bool(colours),
                transparent=IGNORE if background is None else background,
            ),
        )
    except InputError as error:
        raise DataError(f"{path}: {error}") from None
