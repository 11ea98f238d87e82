"""COCO's two JSON formats: instances (polygons, run lengths) and panoptic (PNGs of segment ids).

Source: cocodataset.org, "Data format", sections 1 and 4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deeplab.data.export import Drawing, Export, Region, find_photo, plain_name
from deeplab.data.shapes import Bools, decode_coco_rle, fill_polygon
from deeplab.errors import DataError
from deeplab.labels import Colour


def is_coco(content: Any) -> bool:
    """Return whether a JSON document is one of COCO's."""
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content)


def read_coco(path: Path, content: dict[str, Any], photos: Path | None) -> Export:
    """Read an instances or panoptic document.

    Args:
        path: where ``content`` was read; a panoptic one has its PNGs in the folder beside it that
            has its name.
        content: the parsed JSON.
        photos: the folder of the photos; None searches beside ``path``.

    Raises:
        DataError: something that the format demands is missing.
    """
    try:
        return _read(path, content, photos)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is not complete COCO JSON ({error!r}).") from None


def _read(path: Path, content: dict[str, Any], photos: Path | None) -> Export:
    categories = sorted(content["categories"], key=lambda category: int(category["id"]))
    names = {int(category["id"]): str(category["name"]) for category in categories}
    by_photo: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        by_photo[annotation["image_id"]].append(annotation)
    panoptic = any("segments_info" in annotation for annotation in content["annotations"])
    folders = [photos] if photos else [path.parent, path.parent.parent]
    drawings = []
    for image in content["images"]:
        mine = by_photo[image["id"]]
        regions: Callable[[], Iterable[Region]]
        if panoptic:
            if not mine:
                continue  # panoptic truth is complete: a photo without any has not been annotated
            regions = partial(_segments, path.with_suffix(""), mine[0], names)
        else:
            regions = partial(_instances, mine, names, (int(image["height"]), int(image["width"])))
        drawings.append(
            Drawing(
                photo=find_photo(image["file_name"], folders),
                name=plain_name(image["file_name"]),
                size=(int(image["height"]), int(image["width"])),
                regions=regions,
            )
        )
    return Export(
        names=tuple(names.values()),
        drawings=tuple(drawings),
        colours={str(c["name"]): _colour(c["color"]) for c in categories if "color" in c},
        complete=panoptic,
    )


def _colour(value: Any) -> Colour:
    red, green, blue = (int(part) for part in value)
    return red, green, blue


def _instances(
    annotations: list[dict[str, Any]], names: dict[int, str], size: tuple[int, int]
) -> list[Region]:
    """Return the things of one photo, the largest first, so that small ones stay in sight."""
    filled = []
    for annotation in annotations:
        where = _fill(annotation["segmentation"], size)
        filled.append((int(where.sum()), names[int(annotation["category_id"])], where))
    filled.sort(key=lambda item: -item[0])
    return [(name, partial(_as_is, where)) for _, name, where in filled]


def _as_is(where: Bools, size: tuple[int, int]) -> Bools:
    return where


def _fill(segmentation: Any, size: tuple[int, int]) -> Bools:
    if isinstance(segmentation, dict):
        return decode_coco_rle(segmentation)
    where = np.zeros(size, bool)
    for numbers in segmentation:
        where |= fill_polygon(size, list(zip(numbers[::2], numbers[1::2], strict=True)))
    return where


def _segments(folder: Path, annotation: dict[str, Any], names: dict[int, str]) -> Iterator[Region]:
    """Give the segments of one photo; a segment's id is R + 256 G + 65536 B of its pixels."""
    path = folder / Path(annotation["file_name"]).name
    try:
        with Image.open(path, formats=("PNG",)) as image:
            rgb = np.asarray(image.convert("RGB"), np.int32)
    except OSError as error:
        raise DataError(f"{path}: the panoptic PNG cannot be read ({error}).") from None
    ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
    for segment in annotation["segments_info"]:
        where: Bools = ids == int(segment["id"])
        yield names[int(segment["category_id"])], partial(_as_is, where)
