"""Supervisely: a project folder with a meta.json, and img/ and ann/ in each data set.

    meta.json
    flowers/img/a.jpg
    flowers/ann/a.jpg.json

Source: developer.supervisely.com, "Supervisely Annotation Format"; supervisely/supervisely,
supervisely/geometry/ (polygon.py, bitmap.py, alpha_mask.py, rectangle.py, oriented_bbox.py).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from deeplab.data.encoded_masks import decode_base64, picture_levels
from deeplab.data.export import (
    Annotated,
    Drawing,
    Export,
    Region,
    Request,
    parse_colour,
    unique,
)
from deeplab.data.export_photos import PhotoFinder
from deeplab.data.fields import (
    UnreadableError,
    WithoutAreaError,
    attempt,
    mapping,
    naming,
    number,
    points,
    sequence,
    shown,
    text,
    whole,
)
from deeplab.data.sample import PHOTO_SUFFIXES
from deeplab.data.shapes import Box, Patch, Size, box_points, place, polygon_patch, rotate_points
from deeplab.errors import DataError
from deeplab.labels import Colour

_META = "meta.json"
_WITHOUT_AREA = ("point", "line", "polyline", "graph", "cuboid", "cuboid_2d")


def find_supervisely(folder: Path) -> Path | None:
    """Return the project's folder: ``folder``, or the one above where it is one data set of it."""
    for root in (folder, folder.parent):
        if (root / _META).is_file() and any(folder.rglob("ann")):
            return root
    return None


def read_supervisely(root: Path, folder: Path, request: Request) -> Export:
    """Read a project, or one data set of it.

    Args:
        root: the folder of meta.json.
        folder: of the data sets, ``root`` or one inside it.
        request: its ``images`` is searched for the photos; else the img/ beside each ann/.

    Raises:
        DataError: a file is broken, or its photo is not there.
    """
    with naming(root / _META, "Supervisely meta"):
        meta = mapping(request.json(root / _META), "the file")
        names: list[str] = []
        colours: dict[str, Colour] = {}
        for entry in sequence(meta["classes"], "classes"):
            name = text(mapping(entry, "a class").get("title"), "the title of a class")
            names.append(name)
            if (colour := parse_colour(entry.get("color"))) is not None:
                colours[name] = colour
    drawings: list[Annotated] = []
    missing = PhotoFinder([request.images or folder])
    photos = 0
    for ann in sorted(path for path in folder.rglob("ann") if path.is_dir()):
        pictures = ann.parent / "img"
        for path in sorted(p for p in ann.glob("*.json") if p.is_file()):
            photo = _photo(path, request.images or pictures)
            if photo is None:
                missing.miss(path.name.removesuffix(".json"))
                continue
            drawings.append(_drawing(path, photo, folder, names, request))
        photos += sum(p.suffix.lower() in PHOTO_SUFFIXES for p in pictures.glob("*"))
    missing.check(folder)
    bare = photos - len(drawings)
    notes = [f"{bare} photos have no annotation file and are left out"] if bare > 0 else []
    return Export("Supervisely", unique(names), tuple(drawings), colours, notes=tuple(notes))


def _photo(path: Path, folder: Path) -> Path | None:
    """Return the photo of an annotation file: a.jpg.json, or a.json as old exports have it."""
    finder = PhotoFinder([folder])
    name = path.name.removesuffix(".json")
    suffixes = [s for suffix in sorted(PHOTO_SUFFIXES) for s in (suffix, suffix.upper())]
    found = (finder.look(name + suffix) for suffix in ("", *suffixes))
    return next((photo for photo in found if photo is not None), None)


def _drawing(path: Path, photo: Path, folder: Path, names: list[str], request: Request) -> Drawing:
    with naming(path, "Supervisely JSON"):
        content = mapping(request.json(path), "the file")
        size = mapping(content["size"], "size")
        objects = [mapping(o, "an object") for o in sequence(content["objects"], "objects")]
        for entry in objects:
            if _class(entry):
                names.append(_class(entry))
        return Drawing(
            photo=photo,
            file_name=(path.parent.parent.relative_to(folder) / photo.name).as_posix(),
            size=(whole(size["height"], "height"), whole(size["width"], "width")),
            regions=partial(_regions, objects),
        )


def _class(entry: dict[str, Any]) -> str:
    title = entry.get("classTitle")
    return title.strip() if isinstance(title, str) else ""


def _kind(entry: dict[str, Any]) -> str:
    kind = entry.get("geometryType") or entry.get("shape")
    if isinstance(kind, str) and kind != "any":
        return kind
    return "bitmap" if entry.get("bitmap") else "polygon"


def _regions(objects: Sequence[dict[str, Any]], size: Size) -> list[Region]:
    """Return what was drawn on one photo; what comes later lies on top."""
    return [
        Region(
            name=_class(entry) or None,
            fill=partial(_fill, entry),
            id=f"object {shown(entry.get('id', f'[{index}]'), 20)} ({shown(_kind(entry), 20)})",
            box=_box(entry),
        )
        for index, entry in enumerate(objects)
    ]


def _exterior(entry: dict[str, Any]) -> list[tuple[float, float]]:
    value = entry.get("points")
    if not isinstance(value, list):
        value = mapping(value, "points").get("exterior")
    return points(value, "points")


def _box(entry: dict[str, Any]) -> Box | None:
    try:
        corners = _exterior(entry)
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        return min(xs), min(ys), max(xs), max(ys)
    except (UnreadableError, ValueError):
        return None


def _fill(entry: dict[str, Any], size: Size) -> Patch:
    return attempt(partial(_fill_object, entry, size))


def _fill_object(entry: dict[str, Any], size: Size) -> Patch:
    kind = _kind(entry)
    if kind in ("bitmap", "alpha_mask"):
        return _paste(mapping(entry.get("bitmap", entry.get(kind)), "bitmap"), size)
    if kind == "polygon":
        interior = sequence(mapping(entry["points"], "points").get("interior") or [], "interior")
        holes = [points(hole, "interior") for hole in interior]
        return polygon_patch(size, _exterior(entry), holes)
    if kind == "rectangle":
        return polygon_patch(size, box_points(_exterior(entry)))
    if kind == "oriented_bbox":
        corners = box_points(_exterior(entry))
        centre = (corners[0][0] + corners[2][0]) / 2, (corners[0][1] + corners[2][1]) / 2
        angle = math.degrees(number(entry.get("angle") or 0, "angle"))
        return polygon_patch(size, rotate_points(corners, centre, angle))
    if kind in _WITHOUT_AREA:
        raise WithoutAreaError(f"of '{_class(entry)}' has no area; draw a polygon instead")
    raise UnreadableError(f"has the geometry {shown(kind)}, which is not known here")


def _paste(bitmap: dict[str, Any], size: Size) -> Patch:
    """Return a mask that is stored as a packed PNG of its bounding box."""
    corner = points([bitmap.get("origin")], "origin")[0]
    packed = decode_base64(bitmap.get("data"), "data")
    most = 64 + 8 * size[0] * size[1]  # more than any PNG of four such photos
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(packed, most)
    except zlib.error:
        data = packed  # some programs leave the packing out
    return place(picture_levels(data, size) > 0, (round(corner[0]), round(corner[1])), size)


def check_project(root: Path) -> None:
    """Stop where a project holds no annotation.

    Raises:
        DataError: it has a meta.json and nothing else.
    """
    if not any(root.rglob("ann/*.json")):
        raise DataError(f"{root}: is a Supervisely project without annotations (ann/*.json).")
