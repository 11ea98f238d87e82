"""VGG Image Annotator 1 and 2: annotations as JSON or CSV, and whole projects.

Source: gitlab.com/vgg/via, via-2.x.y (``pack_via_metadata``, ``import_annotations_from_csv``).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deeplab.data.export import (
    Annotated,
    Drawing,
    Export,
    Region,
    Request,
    listed,
)
from deeplab.data.export_photos import PhotoFinder
from deeplab.data.fields import (
    UnreadableError,
    WithoutAreaError,
    attempt,
    mapping,
    naming,
    number,
    sequence,
    shown,
    text,
)
from deeplab.data.shapes import (
    Patch,
    Size,
    box_points,
    ellipse_points,
    polygon_patch,
    rotate_points,
)
from deeplab.errors import DataError

_METADATA = "_via_img_metadata"
_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
_ONLY_CLASS = "object"


@dataclass(frozen=True)
class _Entry:
    """A photo with what was drawn on it: (shape_attributes, region_attributes)."""

    file_name: str
    regions: tuple[tuple[dict[str, Any], dict[str, Any]], ...]


def is_via(content: Any) -> bool:
    """Return whether a JSON document is one of VIA's."""
    if not isinstance(content, dict) or not content:
        return False
    if _METADATA in content:
        return True
    first = next(iter(content.values()))
    return isinstance(first, dict) and {"filename", "regions"} <= set(first)


def is_via_3(content: Any) -> bool:
    """Return whether a JSON document is a project of VIA 3, which has another form."""
    return isinstance(content, dict) and {"project", "metadata", "view", "file"} <= set(content)


def read_via(path: Path, content: dict[str, Any], request: Request) -> Export:
    """Read annotations or a project in JSON.

    Args:
        path: where ``content`` was read.
        content: the parsed JSON.
        request: its ``images`` are searched for the photos, else the folder of ``path``; its
            ``attribute`` says which region attribute names the class, where there are several.

    Raises:
        DataError: an entry is not complete, its photo is not there, or the attributes leave open
            which of them names the class.
    """
    with naming(path, "VIA JSON"):
        by_key = mapping(content.get(_METADATA, content), _METADATA)
        entries = [_json_entry(key, value) for key, value in by_key.items()]
        return _export(path, entries, request)


def read_via_csv(path: Path, request: Request) -> Export | None:
    """Read annotations in CSV; None if it is another CSV. See :func:`read_via`.

    Raises:
        DataError: see there.
    """
    with naming(path, "VIA CSV"):
        rows = csv.reader(io.StringIO(request.text(path), newline=""), skipinitialspace=True)
        try:
            header = [name.strip().lstrip("#") for name in next(rows, [])]
            table = [row for row in rows if row]
        except csv.Error as error:
            raise DataError(f"{path}: is not CSV ({error}).") from None
        if not set(_COLUMNS) <= set(header):
            return None
        regions: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
        for line, row in enumerate(table, start=2):
            try:
                name, shape, attributes = _csv_row(dict(zip(header, row, strict=False)))
            except UnreadableError as error:
                raise UnreadableError(f"line {line} {error}") from None
            found = regions.setdefault(name, [])
            if shape:  # a photo without regions has a line with {}
                found.append((shape, attributes))
        entries = [_Entry(name, tuple(found)) for name, found in regions.items()]
        return _export(path, entries, request)


def _json_entry(key: str, value: Any) -> _Entry:
    try:
        fields = mapping(value, "the entry")
        name = text(fields.get("filename"), "filename")
        regions = fields.get("regions") or []
        if isinstance(regions, dict):  # VIA 1 numbers them: {"0": {…}, "1": {…}}
            regions = list(regions.values())
        pairs = []
        for region in sequence(regions, "regions"):
            parts = mapping(region, "a region")
            shape = mapping(parts.get("shape_attributes"), "shape_attributes")
            given = parts.get("region_attributes") or {}
            pairs.append((shape, mapping(given, "region_attributes")))
    except UnreadableError as error:
        raise UnreadableError(f"{shown(key)} {error}") from None
    return _Entry(name, tuple(pairs))


def _csv_row(row: dict[str, str]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    cells = []
    for column in _COLUMNS[1:]:
        try:
            cells.append(mapping(json.loads(row.get(column) or "{}"), column))
        except (ValueError, RecursionError):
            raise UnreadableError(
                f"has {shown(row.get(column))} as {column}, expected JSON"
            ) from None
    return text(row.get("filename"), "filename"), cells[0], cells[1]


def _export(path: Path, entries: Sequence[_Entry], request: Request) -> Export:
    finder = PhotoFinder([request.images] if request.images else [path.parent])
    attributes = [attributes for entry in entries for _, attributes in entry.regions]
    key, notes = _class_key(path, attributes, request.attribute)
    names: list[str] = []
    drawings: list[Annotated] = []
    for entry in entries:
        names += [name for _, given in entry.regions if (name := _class(given, key))]
        photo = finder.find(entry.file_name)
        if photo is not None:
            regions = partial(_regions, entry.regions, key)
            drawings.append(Drawing(photo, entry.file_name, None, regions))
    finder.check(path)
    return Export("VIA", tuple(sorted(set(names))), tuple(drawings), notes=tuple(notes))


def _class_key(
    path: Path, attributes: Iterable[dict[str, Any]], wanted: str | None
) -> tuple[str | None, list[str]]:
    """Return the attribute that names the class; None if no region has any attribute.

    Raises:
        DataError: there are several, and nobody has said which.
    """
    counts = Counter(key for given in attributes for key, value in given.items() if value)
    if wanted is not None:
        if wanted not in counts:
            raise DataError(
                f"{path}: no region has the attribute '{wanted}'. There are: "
                f"{listed([*counts], 9)}."
            )
        return wanted, []
    if len(counts) > 1:
        raise DataError(
            f"{path}: the regions have several attributes: {listed([*counts], 9)}. Say which names "
            f"the class: --attribute {next(iter(counts))}."
        )
    if not counts:
        note = f"no region has an attribute, so all are of one class, '{_ONLY_CLASS}'"
        return None, [note]
    return next(iter(counts)), []


def _class(attributes: dict[str, Any], key: str | None) -> str | None:
    """Return a region's class: the attribute's text, or the only choice that is ticked."""
    if key is None:
        return _ONLY_CLASS
    value = attributes.get(key)
    if isinstance(value, dict):  # a checkbox: {"cat": true}
        ticked = [name for name, chosen in value.items() if chosen]
        value = ticked[0] if len(ticked) == 1 else None
    try:
        return text(value, key)
    except UnreadableError:
        return None


def _regions(
    regions: Sequence[tuple[dict[str, Any], dict[str, Any]]], key: str | None, size: Size
) -> list[Region]:
    """Return what was drawn on one photo; what comes later lies on top."""
    return [
        Region(
            name=_class(attributes, key),
            fill=partial(_fill, shape),
            id=f"region {index} ({shown(shape.get('name'), 20)})",
        )
        for index, (shape, attributes) in enumerate(regions)
    ]


def _fill(shape: dict[str, Any], size: Size) -> Patch:
    return attempt(partial(_fill_shape, shape, size))


def _fill_shape(shape: dict[str, Any], size: Size) -> Patch:
    kind = shape.get("name")
    if kind == "polygon":
        xs = sequence(shape.get("all_points_x"), "all_points_x")
        ys = sequence(shape.get("all_points_y"), "all_points_y")
        if len(xs) != len(ys):
            raise UnreadableError(f"has {len(xs)} x and {len(ys)} y of its points")
        return polygon_patch(size, [(_n(x, "x"), _n(y, "y")) for x, y in zip(xs, ys, strict=True)])
    if kind == "rect":
        x, y, width, height = (_n(shape.get(k), k) for k in ("x", "y", "width", "height"))
        return polygon_patch(size, box_points([(x, y), (x + width, y + height)]))
    if kind in ("circle", "ellipse"):
        centre = _n(shape.get("cx"), "cx"), _n(shape.get("cy"), "cy")
        keys = ("r", "r") if kind == "circle" else ("rx", "ry")
        rx, ry = (_n(shape.get(k), k) for k in keys)
        turn = math.degrees(_n(shape.get("theta") or 0, "theta"))
        return polygon_patch(size, rotate_points(ellipse_points(centre, (rx, ry)), centre, turn))
    if kind in ("point", "polyline", "line"):
        raise WithoutAreaError(f"is a {kind}, which has no area; draw a polygon instead")
    raise UnreadableError(f"has the shape {shown(kind)}, which is not known here")


_n = number
