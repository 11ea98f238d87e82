"""COCO's two JSON formats: instances (polygons, run lengths) and panoptic (PNGs of segment ids).

Read as they are found: ids as text, polygons flat or nested or in pairs of points, crowds, null
fields, and the unused root categories of Roboflow.

Source: cocodataset.org, "Data format", sections 1 and 4; what Roboflow, CVAT, VIA and Label Studio
write under that name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from deeplab.data.export import (
    Annotated,
    Drawing,
    Export,
    Region,
    Request,
    largest_first,
    listed,
    parse_colour,
    unique,
)
from deeplab.data.export_photos import PhotoFinder
from deeplab.data.fields import (
    UnreadableError,
    attempt,
    identity,
    mapping,
    naming,
    number,
    points,
    sequence,
    shown,
    text,
    whole,
)
from deeplab.data.mask_files import open_mask
from deeplab.data.shapes import Box, Patch, Size, decode_coco_rle, merge, polygon_patch
from deeplab.errors import DataError

_Id: TypeAlias = "int | str"


def is_coco(content: Any) -> bool:
    """Return whether a JSON document is one of COCO's."""
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content)


def read_coco(path: Path, content: dict[str, Any], request: Request, split: str = "") -> Export:
    """Read an instances or panoptic document.

    Args:
        path: where ``content`` was read; a panoptic one has its PNGs in the folder beside it that
            has its name.
        content: the parsed JSON.
        request: its ``images`` are searched for the photos; else the folders at and above ``path``.
        split: that its photos belong to.

    Raises:
        DataError: something that the format demands is missing, or an annotation or image entry
            points to nothing.
    """
    with naming(path, "COCO JSON"):
        images = [_Image.of(entry, number) for number, entry in enumerate(_list(content, "images"))]
        annotations = [mapping(entry, "an annotation") for entry in _list(content, "annotations")]
        categories = [mapping(entry, "a category") for entry in _list(content, "categories")]
        doubled = [key for key, count in Counter(image.id for image in images).items() if count > 1]
        if doubled:
            raise DataError(f"{path}: images: the id {listed(doubled)} occurs twice.")
        by_image = _by_image(path, annotations, {image.id for image in images})
        names, notes = _names(path, categories, annotations)
        finder = PhotoFinder([request.images] if request.images else _around(path))
        drawings: list[Annotated] = []
        panoptic = any("segments_info" in annotation for annotation in annotations)
        unlabelled = 0
        for image in images:
            mine = by_image.get(image.id, [])
            if panoptic and not mine:
                unlabelled += 1  # panoptic truth is complete: this photo has not been annotated
                continue
            photo = finder.find(image.file_name)
            if photo is None:
                continue
            regions = (
                partial(_segments, path.with_suffix(""), mine[0], names)
                if panoptic
                else partial(_instances, mine, names)
            )
            drawings.append(Drawing(photo, image.file_name, image.size, regions, split))
        finder.check(path)
        if unlabelled:
            notes.append(f"{unlabelled} photos without panoptic truth are left out")
        colours = {str(c.get("name")): parse_colour(c.get("color")) for c in categories}
    return Export(
        tool="COCO",
        names=unique(names.values()),
        drawings=tuple(drawings),
        colours={name: colour for name, colour in colours.items() if colour is not None},
        complete=panoptic,
        notes=tuple(notes),
    )


def _around(path: Path) -> list[Path]:
    """Return where photos may be: COCO's annotations/instances_train2017.json has its own in
    train2017/ or images/train2017/, CVAT's instances_default.json in images/default/.
    """
    above, split = path.parent.parent, path.stem.rpartition("_")[2]
    return [path.parent, above / split, above / "images" / split, above]


@dataclass(frozen=True)
class _Image:
    id: _Id
    file_name: str
    size: Size | None

    @classmethod
    def of(cls, entry: Any, place: int) -> _Image:
        try:
            fields = mapping(entry, f"images[{place}]")
            return cls(
                id=identity(fields.get("id"), "id"),
                file_name=text(fields.get("file_name"), "file_name"),
                size=_size(fields),
            )
        except UnreadableError as error:
            raise UnreadableError(f"images[{place}] {error}") from None


def _size(image: dict[str, Any]) -> Size | None:
    """Return (height, width); None where the writer did not know it (VIA: 0 or -1)."""
    height, width = image.get("height"), image.get("width")
    if height in (None, "", 0, -1) or width in (None, "", 0, -1):
        return None
    return whole(height, "height"), whole(width, "width")


def _list(content: dict[str, Any], key: str) -> list[Any]:
    value = content[key]
    if isinstance(value, dict) and key != "categories":  # VIA's importers write {"1": {…}, …}
        value = list(value.values())
    return sequence(value, key)


def _by_image(
    path: Path, annotations: Sequence[dict[str, Any]], known: set[_Id]
) -> dict[_Id, list[dict[str, Any]]]:
    """Return the annotations of each photo.

    Raises:
        DataError: some belong to no photo; what they were drawn on would be background.
    """
    by_image: dict[_Id, list[dict[str, Any]]] = defaultdict(list)
    strays = []
    for place, annotation in enumerate(annotations):
        try:
            image = identity(annotation.get("image_id"), "image_id")
        except UnreadableError:
            image = ""
        if image in known:
            by_image[image].append(annotation)
        else:
            called = shown(annotation.get("id", f"[{place}]"), 20)
            strays.append(f"{called} (image_id {shown(annotation.get('image_id'), 20)})")
    if strays:
        raise DataError(
            f"{path}: {len(strays)} annotations point to no photo: {listed(strays)}. "
            "Export photos and annotations together, or delete these annotations."
        )
    return by_image


def _names(
    path: Path, categories: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]
) -> tuple[dict[_Id, str], list[str]]:
    """Return {category id: name} in the order of the ids, and what is to be said of it.

    A category that nothing is drawn with and that is only the supercategory of others is the name
    of the data set (Roboflow writes it so), not a class.
    """
    names: dict[_Id, str] = {}
    parents: Counter[str] = Counter()
    for place, category in enumerate(categories):
        try:
            key = identity(category.get("id"), "id")
            name = text(category.get("name"), "name")
        except UnreadableError as error:
            raise UnreadableError(f"categories[{place}] {error}") from None
        if key in names:
            raise DataError(f"{path}: categories: the id {key} occurs twice.")
        names[key] = name
        parents[str(category.get("supercategory"))] += 1
    used = set()
    for annotation in annotations:
        for part in annotation.get("segments_info") or [annotation]:
            if isinstance(part, dict) and isinstance(part.get("category_id"), (int, float, str)):
                used.add(part["category_id"])
    drawn = {identity(key, "category_id") for key in used if str(key).strip()}
    notes = []
    for category in categories:
        key = identity(category["id"], "id")
        name, parent = names[key], str(category.get("supercategory"))
        others = parents[name] - (parent == name)
        if others and key not in drawn and parent in ("none", "None", "", name):
            del names[key]
            notes.append(
                f"the category '{name}' (id {key}) is only the supercategory of others and unused: "
                "it is no class"
            )
    ordered = dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))
    doubled = [name for name, count in Counter(ordered.values()).items() if count > 1]
    notes += [f"'{name}' is the name of several categories: they are one class" for name in doubled]
    return ordered, notes


def _instances(
    annotations: list[dict[str, Any]], names: dict[_Id, str], size: Size
) -> list[Region]:
    """Return the things of one photo, the largest first, so that small ones stay in sight."""
    return largest_first([_instance(annotation, names) for annotation in annotations], size)


def _instance(annotation: dict[str, Any], names: dict[_Id, str]) -> Region:
    try:
        name = names.get(identity(annotation.get("category_id"), "category_id"))
    except UnreadableError:
        name = None
    return Region(
        name=name,
        fill=partial(_fill, annotation.get("segmentation")),
        id=f"annotation {shown(annotation.get('id', '?'), 20)}",
        box=_box(annotation.get("bbox")),
    )


def _box(value: Any) -> Box | None:
    try:
        x, y, width, height = (number(part, "bbox") for part in sequence(value, "bbox"))
    except (UnreadableError, ValueError):
        return None
    return x, y, x + width, y + height


def _fill(segmentation: Any, size: Size) -> Patch:
    """Return the pixels of a segmentation.

    Raises:
        UnreadableError: there is none, or it is not an outline or a run-length code of this size.
    """
    if segmentation is None or segmentation in ([], [[]], "", {}):
        raise UnreadableError("has no segmentation, at most a box")
    return attempt(partial(_fill_parts, segmentation, size))


def _fill_parts(segmentation: Any, size: Size) -> Patch:
    if isinstance(segmentation, dict):
        return _decode(segmentation, size)
    parts = sequence(segmentation, "segmentation")
    if not isinstance(parts[0], (list, dict)):
        parts = [parts]  # one outline, flat: VIA's way
    elif all(isinstance(part, list) and len(part) == 2 for part in parts) and len(parts) > 2:
        parts = [parts]  # one outline in pairs of points
    return merge([_fill_part(part, size) for part in parts], size)


def _fill_part(part: Any, size: Size) -> Patch:
    return _decode(part, size) if isinstance(part, dict) else polygon_patch(size, _outline(part))


def _outline(numbers: Any) -> list[tuple[float, float]]:
    values = sequence(numbers, "segmentation")
    if values and isinstance(values[0], list):
        return points(values, "segmentation")
    if len(values) % 2:
        raise UnreadableError(
            f"has an outline of {len(values)} numbers, expected x and y of each point"
        )
    flat = [number(value, "segmentation") for value in values]
    return list(zip(flat[::2], flat[1::2], strict=True))


def _decode(rle: dict[str, Any], size: Size) -> Patch:
    stated = rle.get("size")
    if isinstance(stated, list) and [*map(str, stated)] != [*map(str, size)]:
        raise UnreadableError(f"has run lengths of {shown(stated)} on a photo of {list(size)}")
    return Patch(0, 0, decode_coco_rle(rle))


def _segments(
    folder: Path, annotation: dict[str, Any], names: dict[_Id, str], size: Size
) -> Iterable[Region]:
    """Give the segments of one photo; a segment's id is R + 256 G + 65536 B of its pixels."""
    try:
        path = folder / Path(text(annotation.get("file_name"), "file_name")).name
        rgb = open_mask(path).colours
        if rgb is None or rgb.shape[:2] != size:
            raise UnreadableError(f"has {path}, expected an RGB picture of {size} (height, width)")
        segments = sequence(annotation.get("segments_info"), "segments_info")
    except DataError as error:
        called = f"annotation {shown(annotation.get('id', annotation.get('image_id')), 20)}"
        reason = (
            error if isinstance(error, UnreadableError) else f"cannot be read: {error}".rstrip(".")
        )
        return [Region(None, partial(_fail, str(reason)), called)]
    ids = rgb.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    return [_segment(segment, ids, names) for segment in segments]


def _segment(segment: Any, ids: Any, names: dict[_Id, str]) -> Region:
    try:
        fields = mapping(segment, "segments_info")
        number_ = whole(fields.get("id"), "id")
    except UnreadableError as error:
        return Region(None, partial(_fail, str(error)), "a segment")
    try:
        name = names.get(identity(fields.get("category_id"), "category_id"))
    except UnreadableError:
        name = None
    return Region(name, partial(_equal, ids, number_), f"segment {number_}")


def _equal(ids: Any, value: int, size: Size) -> Patch:
    return Patch(0, 0, ids == value)


def _fail(reason: str, size: Size) -> Patch:
    raise UnreadableError(reason)
