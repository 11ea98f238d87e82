"""labelme: one JSON file per photo, with shapes; X-AnyLabeling and others write the same.

Source: wkentaro/labelme, labelme/_label_file.py, labelme/_utils/_shape.py and
labelme/_shape/_model.py; CVHub520/X-AnyLabeling for "rotation" and boxes of four corners.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from deeplab.data.encoded_masks import decode_picture
from deeplab.data.export import (
    Annotated,
    Drawing,
    Embedded,
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
    points,
    sequence,
    shown,
    text,
    whole,
)
from deeplab.data.sample import PHOTO_SUFFIXES
from deeplab.data.shapes import (
    Box,
    Patch,
    Point,
    Size,
    box_points,
    ellipse_points,
    place,
    polygon_patch,
)

_OUTLINES = ("polygon", "oriented_rectangle", "rotation", "quadrilateral")
_WITHOUT_AREA = ("point", "points", "line", "linestrip")


def is_labelme(content: Any) -> bool:
    """Return whether a JSON document is one of labelme's."""
    return (
        isinstance(content, dict)
        and "shapes" in content
        and bool({"imagePath", "imageData", "imageHeight"} & set(content))
    )


def read_labelme(folder: Path, files: Iterable[tuple[Path, Any]], request: Request) -> Export:
    """Read labelme files.

    Args:
        folder: in which they are; the folders inside it keep photos of one name apart.
        files: (path, parsed JSON) of every JSON file there.
        request: its ``images`` are searched for the photos; else the folder of each JSON file.

    Raises:
        DataError: a file is broken, or its photo is not there.
    """
    drawings: list[Annotated] = []
    names: set[str] = set()
    others = []
    renamed = []
    missing = PhotoFinder([request.images or folder])
    for path, content in files:
        if not is_labelme(content):
            others.append(path.name)
            continue
        with naming(path, "labelme JSON"):
            shapes = [mapping(s, "shapes") for s in sequence(content["shapes"], "shapes")]
            names |= {str(s["label"]).strip() for s in shapes if _is_name(s.get("label"))}
            photo = _photo(path, content, folder, request)
            called = content.get("imagePath")
            if photo is None:
                missing.miss(str(called or f"{path.stem}.jpg"))
                continue
            if isinstance(photo, Path) and photo.stem == path.stem and not _agrees(called, photo):
                renamed.append(path.name)
            drawings.append(
                Drawing(
                    photo=photo,
                    file_name=_file_name(path, folder, photo),
                    size=_size(content),
                    regions=partial(_regions, shapes),
                )
            )
    missing.check(folder)
    notes = _notes(others, renamed, _without_json(folder, drawings) if drawings else 0)
    return Export("labelme", tuple(sorted(names)), tuple(drawings), notes=notes)


def _notes(others: Sequence[str], renamed: Sequence[str], bare: int) -> tuple[str, ...]:
    notes = []
    if others:
        notes.append(f"{len(others)} JSON files are not labelme's and left out: {listed(others)}")
    if renamed:
        notes.append(
            f"{len(renamed)} files name a photo that is not there; the photo of the same name as "
            f"the file was taken: {listed(renamed)}"
        )
    if bare:
        notes.append(f"{bare} photos have no JSON file and are left out")
    return tuple(notes)


def _is_name(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and bool(str(value).strip())


def _size(content: dict[str, Any]) -> Size | None:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if not height or not width:
        return None
    return whole(height, "imageHeight"), whole(width, "imageWidth")


def _photo(
    path: Path, content: dict[str, Any], folder: Path, request: Request
) -> Path | Embedded | None:
    """Return the photo that a file names, else the one under its own name, else the one in it."""
    finder = PhotoFinder([request.images] if request.images else [path.parent])
    called = content.get("imagePath")
    if called and (found := finder.look(text(called, "imagePath"))):
        return found
    # "../images/a.jpg" lies beside the folder of the JSON files; plain "a.jpg" there is another.
    beside = PhotoFinder([path.parent.parent, folder.parent])
    if called and not request.images and (found := beside.look(text(called, "imagePath"), least=2)):
        return found
    for suffix in sorted(PHOTO_SUFFIXES):
        for spelling in (suffix, suffix.upper()):
            if found := finder.look(path.stem + spelling):
                return found
    return Embedded(path, "imageData", request) if content.get("imageData") else None


def _agrees(called: Any, photo: Path) -> bool:
    return isinstance(called, str) and called.replace("\\", "/").split("/")[-1] == photo.name


def _file_name(path: Path, folder: Path, photo: Path | Embedded) -> str:
    """Return the JSON file's place with the photo's own name."""
    name = f"{path.stem}.jpg" if isinstance(photo, Embedded) else photo.name
    return (path.parent.relative_to(folder) / name).as_posix()


def _without_json(folder: Path, drawings: Sequence[Annotated]) -> int:
    used = {drawing.photo for drawing in drawings}
    return sum(
        path.suffix.lower() in PHOTO_SUFFIXES and path not in used for path in folder.rglob("*")
    )


def _regions(shapes: Sequence[dict[str, Any]], size: Size) -> list[Region]:
    return [_region(index, shape) for index, shape in enumerate(shapes)]


def _region(index: int, shape: dict[str, Any]) -> Region:
    label = shape.get("label")
    name = str(label).strip() if _is_name(label) else None
    kind = shape.get("shape_type") or "polygon"
    called = f"shape {index + 1} ({shown(kind, 20)})"
    return Region(name, partial(_fill, shape), called, _box(shape))


def _box(shape: dict[str, Any]) -> Box | None:
    try:
        corners = points(shape.get("points"), "points")
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        return min(xs), min(ys), max(xs), max(ys)
    except (UnreadableError, ValueError):
        return None


def _fill(shape: dict[str, Any], size: Size) -> Patch:
    return attempt(partial(_fill_shape, shape, size))


def _fill_shape(shape: dict[str, Any], size: Size) -> Patch:
    kind = shape.get("shape_type") or "polygon"
    if kind in _WITHOUT_AREA:
        raise WithoutAreaError(
            f"of '{shape.get('label')}' is a {kind}, which has no area; draw a polygon instead"
        )
    corners = points(shape.get("points"), "points")
    if kind == "mask":
        return _paste(shape.get("mask"), corners, size)
    if kind in _OUTLINES or (kind == "rectangle" and len(corners) == 4):
        return polygon_patch(size, corners)
    if kind == "rectangle":
        return polygon_patch(size, box_points(corners))
    if kind == "circle":  # its centre, and any point of its rim
        if len(corners) != 2:
            raise UnreadableError(f"is a circle of {len(corners)} points, expected 2")
        radius = math.dist(corners[0], corners[1])
        return polygon_patch(size, ellipse_points(corners[0], (radius, radius)))
    raise UnreadableError(f"has the shape_type {shown(kind)}, which is not known here")


def _paste(encoded: Any, corners: Sequence[Point], size: Size) -> Patch:
    """Return a mask that is stored as a PNG of its bounding box."""
    if not corners:
        raise UnreadableError("has a mask without a place")
    box = decode_picture(encoded, size) > 0
    corner = (round(corners[0][0]), round(corners[0][1]))
    if len(corners) == 2:
        wide, high = (
            round(last - first) + 1 for first, last in zip(corners[0], corners[1], strict=True)
        )
        if abs(high - box.shape[0]) > 1 or abs(wide - box.shape[1]) > 1:
            raise UnreadableError(
                f"has a mask of {box.shape[1]}×{box.shape[0]} pixels in a box of {wide}×{high}"
            )
    return place(box, corner, size)
