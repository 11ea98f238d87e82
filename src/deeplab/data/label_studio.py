"""Label Studio's JSON exports: brush masks, bitmasks, polygons, rectangles and ellipses.

The full JSON, JSON-MIN, and the older one with "completions" are read. Lengths are shares of 100 of
the photo; a brush mask is a stream of bits.

Source: labelstud.io, "Export annotations"; HumanSignal/label-studio-sdk, label_studio_sdk/converter
(brush.py, converter.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from deeplab.data.encoded_masks import decode_brush, decode_picture
from deeplab.data.export import (
    Annotated,
    Drawing,
    Export,
    Painted,
    Region,
    Request,
    listed,
)
from deeplab.data.export_photos import PhotoFinder, parts_of
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
from deeplab.data.shapes import (
    Box,
    Patch,
    Point,
    Size,
    ellipse_points,
    from_share,
    place,
    polygon_patch,
    rotate_points,
)

_DRAWN = re.compile(r"(brush|bitmask|polygon|rectangle|ellipse|keypoint|vector|)labels$")
_NOT_DRAWN = ("choices", "rating", "textarea", "taxonomy", "relation", "number", "datetime")


def is_label_studio(content: Any) -> bool:
    """Return whether a JSON document is one of Label Studio's."""
    if not isinstance(content, list) or not content:
        return False
    first = content[0]
    if not isinstance(first, dict):
        return False
    full = "data" in first and bool({"annotations", "completions", "predictions"} & set(first))
    small = "id" in first and bool({"annotation_id", "annotator", "lead_time"} & set(first))
    return full or small


def read_label_studio(path: Path, content: list[Any], request: Request) -> Export:
    """Read a JSON or JSON-MIN export.

    Args:
        path: where ``content`` was read.
        content: the parsed JSON: tasks.
        request: its ``images`` are searched for the photos; else the folder of ``path``. The
            uploaded name ("1a2b3c4d-dog.jpg") and the one before it ("dog.jpg") are both tried.

    Raises:
        DataError: a task is not complete, or its photo is not there.
    """
    here = path.parent
    finder = PhotoFinder([request.images] if request.images else [here, here / "data"])
    drawings: list[Annotated] = []
    names: list[str] = []
    several: list[str] = []
    bare = 0
    for place_, entry in enumerate(content):
        with naming(path, "Label Studio JSON"):
            task = mapping(entry, f"task [{place_}]")
            called = f"task {shown(task.get('id', f'[{place_}]'), 20)}"
            try:
                results, count = _results(task)
                if results is None:
                    bare += 1
                    continue
                if count > 1:
                    several.append(called)
                file_name = _file_name(task)
            except UnreadableError as error:
                raise UnreadableError(f"{called} {error}") from None
            photo = _find(finder, file_name)
            drawn = [r for r in results if _is_drawn(r)]
            names += [name for r in drawn if (name := _class(r))]
            if photo is not None:
                regions = partial(_regions, drawn)
                drawings.append(Drawing(photo, _own_name(file_name, photo), _size(drawn), regions))
    finder.check(path)
    notes = []
    if bare:
        notes.append(f"{bare} tasks have no annotation and are left out")
    if several:
        notes.append(
            f"{len(several)} tasks have several annotations; the one marked as ground truth, else "
            f"the newest, was taken: {listed(several)}"
        )
    return Export("Label Studio", tuple(sorted(set(names))), tuple(drawings), notes=tuple(notes))


def paint_results(
    results: Sequence[dict[str, Any]], size: Size, ids: Mapping[str, int], rest: int
) -> Painted:
    """Return the label of one photo from the results of its annotation.

    Args:
        results: of the annotation, as Label Studio has them.
        size: (height, width) of the photo.
        ids: class name → id.
        rest: the id of pixels outside all regions.
    """
    drawn = partial(_regions, [result for result in results if _is_drawn(result)])
    return Drawing(Path(), "", size, drawn).paint(size, ids, rest)


def photo_address(data: dict[str, Any], key: str | None = None) -> str:
    """Return where the photo of a task is, as its data has it.

    Args:
        data: of the task.
        key: the name under which it stands there; None looks for it.

    Raises:
        UnreadableError: it is not there.
    """
    if key is not None and isinstance(data.get(key), str):
        return str(data[key])
    return _file_name({"data": data})


def _results(task: dict[str, Any]) -> tuple[list[dict[str, Any]] | None, int]:
    """Return what was drawn for a task, None if nothing was; and how many versions there are."""
    if "data" not in task:  # JSON-MIN: the results stand in the task, by the name of their tag
        lists = [value for value in task.values() if isinstance(value, list)]
        return [item for items in lists for item in items if isinstance(item, dict)], 1
    listed_ = sequence(task.get("annotations", task.get("completions")) or [], "annotations")
    versions = [mapping(version, "an annotation") for version in listed_]
    valid = [version for version in versions if not version.get("was_cancelled")]
    if not valid:
        return None, 0
    chosen = max(valid, key=_rank)
    results = sequence(chosen.get("result") or [], "result")
    return [mapping(result, "a result") for result in results], len(valid)


def _rank(version: dict[str, Any]) -> tuple[bool, str, float]:
    when = version.get("updated_at") or version.get("created_at") or ""
    key = version.get("id")
    number_ = key if isinstance(key, (int, float)) else 0.0
    return bool(version.get("ground_truth")), str(when), number_


def _file_name(task: dict[str, Any]) -> str:
    """Return the photo's name: of its address in the task's data, or that of the upload."""
    if "data" not in task:
        data, tried = task, [task.get("image"), task.get("img")]
    else:
        data = mapping(task["data"], "data")
        tried = [data.get("image"), data.get("img"), data.get("photo")]
    texts = [value for value in (*tried, *data.values()) if isinstance(value, str)]
    for value in texts:
        local = parse_qs(urlsplit(value).query).get("d", [])
        for name in (*local, value.split("?")[0]):
            if parts_of(name) and "." in parts_of(name)[-1]:
                return name
    return text(task.get("file_upload"), "data (the address of the photo)")


def _find(finder: PhotoFinder, file_name: str) -> Path | None:
    """Return the photo under the name of its upload, else under its own."""
    for name in filter(None, (file_name, _without_upload_mark(file_name))):
        if found := finder.look(name):
            return found
    finder.miss(file_name)
    return None


def _without_upload_mark(file_name: str) -> str:
    """Return the name before the upload, which put eight digits before it; "" if it has none."""
    match = re.match(r"[0-9a-f]{8}-(.+)$", parts_of(file_name)[-1])
    return match.group(1) if match else ""


def _own_name(file_name: str, photo: Path) -> str:
    """Return the folders of the name with the last part of the photo's own."""
    return "/".join((*parts_of(file_name)[:-1], photo.name))


def _values(result: dict[str, Any]) -> dict[str, Any]:
    """Return the geometry of a result; JSON-MIN has it in the result itself."""
    value = result.get("value")
    return value if isinstance(value, dict) else result


def _kind(result: dict[str, Any]) -> str:
    """Return what a result was drawn with, by its geometry: "brush", "polygon", …"""
    values = _values(result)
    if "rle" in values:
        return "brush"
    if "imageDataURL" in values:
        return "bitmask"
    if "points" in values:
        return "polygon"
    if "radiusX" in values:
        return "ellipse"
    if "width" in values and "height" in values and "x" in values and not _is_keypoint(result):
        return "rectangle"
    return "keypoint" if "x" in values else "nothing"


def _is_keypoint(result: dict[str, Any]) -> bool:
    return "keypointlabels" in _values(result) or result.get("type") == "keypointlabels"


def _is_drawn(result: dict[str, Any]) -> bool:
    """Return whether a result is a thing on the photo: not an answer, not an empty region."""
    kind = result.get("type")
    if isinstance(kind, str) and kind in _NOT_DRAWN:
        return False
    return _kind(result) != "nothing" or (isinstance(kind, str) and bool(_DRAWN.match(kind)))


def _class(result: dict[str, Any]) -> str | None:
    values = _values(result)
    for key, value in values.items():
        if _DRAWN.match(key) and isinstance(value, list) and len(value) == 1:
            return str(value[0]).strip() or None
    return None


def _size(results: Sequence[dict[str, Any]]) -> Size | None:
    """Return (height, width) of the photo as its results have it."""
    for result in results:
        height, width = result.get("original_height"), result.get("original_width")
        if height and width:
            return whole(height, "original_height"), whole(width, "original_width")
    return None


def _regions(results: Sequence[dict[str, Any]], size: Size) -> list[Region]:
    """Return what was drawn on one photo; what comes later lies on top."""
    return [
        Region(
            name=_class(result),
            fill=partial(_fill, result),
            id=f"region {shown(result.get('id', f'[{index}]'), 20)} ({_kind(result)})",
            box=_box(result, size),
        )
        for index, result in enumerate(results)
    ]


def _box(result: dict[str, Any], size: Size) -> Box | None:
    try:
        corners = _corners(_values(result), size)
    except (UnreadableError, ValueError, KeyError):
        return None
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return (min(xs), min(ys), max(xs), max(ys)) if xs else None


def _fill(result: dict[str, Any], size: Size) -> Patch:
    return attempt(partial(_fill_result, result, size))


def _fill_result(result: dict[str, Any], size: Size) -> Patch:
    if result.get("image_rotation"):
        raise UnreadableError(
            "was drawn on a turned photo (image_rotation); turn it back in Label Studio"
        )
    stated = _size([result])
    if stated is not None and stated != size:
        raise UnreadableError(
            f"was drawn on a photo of {stated}, this one has {size} (height, width)"
        )
    values, kind = _values(result), _kind(result)
    if kind == "brush":
        if values.get("format", "rle") != "rle":
            raise UnreadableError(f"has a brush mask in the format {shown(values['format'])}")
        return Patch(0, 0, decode_brush(values["rle"], size) > 0)
    if kind == "bitmask":
        address = text(values["imageDataURL"], "imageDataURL")
        return place(decode_picture(address.partition("base64,")[2], size) > 0, (0, 0), size)
    if kind in ("keypoint", "nothing") or values.get("closed") is False:
        raise WithoutAreaError("has no area; draw a polygon or use the brush instead")
    return polygon_patch(size, _corners(values, size))


def _corners(values: dict[str, Any], size: Size) -> list[Point]:
    """Return the corners in pixels of what is stored in shares of 100."""
    height, width = size
    scale = partial(_scaled, width, height)
    if "points" in values:
        return scale(points(values["points"], "points"))
    x, y = number(values["x"], "x"), number(values["y"], "y")
    turn = number(values.get("rotation") or 0, "rotation")
    if "radiusX" in values:
        radii = number(values["radiusX"], "radiusX"), number(values["radiusY"], "radiusY")
        [(rx, ry)] = scale([radii])
        [centre] = scale([(x, y)])
        return rotate_points(ellipse_points(centre, (rx, ry)), centre, turn)
    wide, high = number(values["width"], "width"), number(values["height"], "height")
    corners = scale([(x, y), (x + wide, y), (x + wide, y + high), (x, y + high)])
    return rotate_points(corners, corners[0], turn)  # about the corner that (x, y) names


def _scaled(width: int, height: int, corners: Sequence[Point]) -> list[Point]:
    return [(from_share(x / 100, width), from_share(y / 100, height)) for x, y in corners]
