"""labelme: one JSON file per photo, with shapes.

Source: wkentaro/labelme, labelme/_label_file.py and labelme/utils/shape.py.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deeplab.data.export import Drawing, Export, Region, find_photo, plain_name
from deeplab.data.shapes import Bools, Point, box_points, ellipse_points, fill_polygon
from deeplab.errors import DataError, DeepLabError
from deeplab.photo import images

_DRAWN = ("polygon", "rectangle", "circle", "mask")


def is_labelme(content: Any) -> bool:
    """Return whether a JSON document is one of labelme's."""
    return isinstance(content, dict) and {"shapes", "imagePath"} <= set(content)


def read_labelme(folder: Path, photos: Path | None) -> Export:
    """Read every labelme file in ``folder``.

    Args:
        folder: of the JSON files.
        photos: the folder of the photos; None searches beside the JSON files.

    Raises:
        DataError: a file is broken, or has a shape without an area.
    """
    drawings, names = [], set()
    for path in sorted(folder.rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not is_labelme(content):
                continue
            drawings.append(_drawing(path, content, photos))
            names |= {str(shape["label"]) for shape in content["shapes"]}
        except DeepLabError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: is not complete labelme JSON ({error!r}).") from None
    return Export(names=tuple(sorted(names)), drawings=tuple(drawings), colours={})


def _drawing(path: Path, content: dict[str, Any], photos: Path | None) -> Drawing:
    photo = find_photo(content["imagePath"], [photos] if photos else [path.parent])
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = (int(height), int(width)) if height and width else images.Photo(photo).size
    for shape in content["shapes"]:
        kind = shape.get("shape_type") or "polygon"
        if kind not in _DRAWN:
            raise DataError(
                f"{path}: the shape '{shape['label']}' is a {kind}, which has no area. "
                "Draw a polygon instead, or delete it."
            )
    return Drawing(
        photo=photo,
        name=plain_name(content["imagePath"]),
        size=size,
        regions=partial(_regions, content["shapes"]),
    )


def _regions(shapes: list[dict[str, Any]]) -> Iterator[Region]:
    for shape in shapes:
        yield str(shape["label"]), partial(_fill, shape)


def _fill(shape: dict[str, Any], size: tuple[int, int]) -> Bools:
    points: list[Point] = [(float(x), float(y)) for x, y in shape["points"]]
    kind = shape.get("shape_type") or "polygon"
    if kind == "mask":
        return _paste(shape["mask"], points[0], size)
    if kind == "rectangle":
        points = box_points(points)
    elif kind == "circle":  # its centre, and any point of its rim
        radius = math.dist(points[0], points[1])
        points = ellipse_points(points[0], (radius, radius))
    return fill_polygon(size, points)


def _paste(encoded: str, corner: Point, size: tuple[int, int]) -> Bools:
    """Return a mask that is stored as a PNG of its bounding box."""
    with Image.open(io.BytesIO(base64.b64decode(encoded)), formats=("PNG",)) as image:
        box = np.asarray(image.convert("L")) > 0
    left, top = round(corner[0]), round(corner[1])
    where = np.zeros(size, bool)
    where[top : top + box.shape[0], left : left + box.shape[1]] = box[
        : size[0] - top, : size[1] - left
    ]
    return where
