"""CVAT's own XML, "CVAT for images 1.1".

Source: docs.cvat.ai, "CVAT for image"; cvat-ai/cvat, cvat/apps/dataset_manager/formats/cvat.py.
CVAT's other exports are read by their own formats: "Segmentation mask" as the VOC layout with its
labelmap.txt, "CamVid" as that layout with its label_colors.txt, COCO and YOLO as such.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

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
    naming,
    number,
    shown,
    text,
    whole,
)
from deeplab.data.shapes import (
    Box,
    Patch,
    Point,
    Size,
    box_points,
    decode_row_rle,
    ellipse_points,
    place,
    polygon_patch,
    rotate_points,
)
from deeplab.errors import DataError
from deeplab.labels import Colour

_NOT_DRAWN = ("tag", "attribute")


def is_cvat(root: ElementTree.Element) -> bool:
    """Return whether an XML document is one of CVAT's."""
    return root.tag == "annotations"


def read_cvat(path: Path, request: Request) -> Export:
    """Read an annotations.xml.

    Args:
        path: of the XML.
        request: its ``images`` are searched for the photos; else the folder of ``path`` and the
            images/ in it, with a folder per subset or without.

    Raises:
        DataError: it is no such XML.
    """
    root = parse_xml(path, request)
    if not is_cvat(root):
        raise DataError(f"{path}: is not CVAT XML: it begins with <{root.tag}>.")
    if root.find("track") is not None:
        raise DataError(f"{path}: is 'CVAT for video'. Export it as 'CVAT for images'.")
    with naming(path, "CVAT XML"):
        names, colours = _labels(root)
        finder = PhotoFinder([request.images] if request.images else [path.parent])
        drawings: list[Annotated] = []
        for place_, image in enumerate(root.iterfind("image")):
            try:
                name = text(image.get("name"), "name")
                size = (whole(image.get("height"), "height"), whole(image.get("width"), "width"))
            except UnreadableError as error:
                raise UnreadableError(f"image {place_} {error}") from None
            subset = (image.get("subset") or "").strip()
            names += [_class(shape) for shape in _shapes(image)]
            photo = finder.look(f"{subset}/{name}") if subset else None
            name = f"{subset}/{name}" if photo else name
            photo = photo or finder.find(name)
            if photo is not None:
                split = "" if subset.lower() == "default" else subset
                drawings.append(Drawing(photo, name, size, partial(_regions, image), split))
        finder.check(path)
    return Export(
        tool="CVAT",
        names=tuple(name for name in unique(names) if name),
        drawings=tuple(drawings),
        colours=colours,
    )


def parse_xml(path: Path, request: Request) -> ElementTree.Element:
    """Return the root of an XML file.

    Raises:
        DataError: it is no XML, or cannot be read.
    """
    try:
        if request.encoding:
            # What the document says of its encoding no longer holds once it is text.
            return ElementTree.fromstring(request.text(path))
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: is not XML ({error}).") from None
    except (ValueError, LookupError) as error:
        raise DataError(
            f"{path}: is XML in an encoding that cannot be read ({error}). Name it (--encoding "
            "gbk), or save the file as UTF-8."
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from None


def _labels(root: ElementTree.Element) -> tuple[list[str], dict[str, Colour]]:
    names: list[str] = []
    colours: dict[str, Colour] = {}
    for label in root.iterfind("meta//label"):
        name = text(label.findtext("name"), "the name of a label")
        names.append(name)
        colour = parse_colour(label.findtext("color"))
        if colour is not None:
            colours[name] = colour
    return names, colours


def _shapes(image: ElementTree.Element) -> list[ElementTree.Element]:
    return [shape for shape in image if shape.tag not in _NOT_DRAWN]


def _class(shape: ElementTree.Element) -> str:
    return (shape.get("label") or "").strip()


def _regions(image: ElementTree.Element, size: Size) -> list[Region]:
    """Return what was drawn on one photo, the lowest layer first."""
    layers: list[tuple[float, Region]] = []
    for index, shape in enumerate(_shapes(image)):
        id_ = f"{shape.tag} {index + 1}"
        try:
            layer = number(shape.get("z_order", "0"), "z_order")
            fill = partial(_fill, shape)
        except UnreadableError as error:
            layer, fill = 0.0, partial(_fail, str(error))
        layers.append((layer, Region(_class(shape) or None, fill, id_, _box(shape))))
    layers.sort(key=lambda item: item[0])
    return [region for _, region in layers]


def _fail(reason: str, size: Size) -> Patch:
    raise UnreadableError(reason)


def _box(shape: ElementTree.Element) -> Box | None:
    """Return where a shape lies when it cannot be filled."""
    try:
        if shape.tag == "mask":
            left, top, width, height = _sides(shape)
            return left, top, left + width - 1, top + height - 1
        if "points" in shape.attrib:
            corners = _points(shape)
            xs, ys = [x for x, _ in corners], [y for _, y in corners]
            return min(xs), min(ys), max(xs), max(ys)
    except (UnreadableError, ValueError):
        pass
    return None


def _fill(shape: ElementTree.Element, size: Size) -> Patch:
    return attempt(partial(_fill_shape, shape, size))


def _fill_shape(shape: ElementTree.Element, size: Size) -> Patch:
    if shape.tag == "mask":
        return _paste(shape, size)
    if shape.tag == "polygon":
        return polygon_patch(size, _points(shape))
    points: list[Point]
    if shape.tag == "box":
        x0, y0, x1, y1 = (_number(shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        centre, points = ((x0 + x1) / 2, (y0 + y1) / 2), box_points([(x0, y0), (x1, y1)])
    elif shape.tag == "ellipse":
        x, y, rx, ry = (_number(shape, key) for key in ("cx", "cy", "rx", "ry"))
        centre, points = (x, y), ellipse_points((x, y), (rx, ry))
    else:
        raise WithoutAreaError(
            f"'{shape.get('label')}' has no area; draw a polygon, a mask, a box or an ellipse"
        )
    rotation = number(shape.get("rotation", "0"), "rotation")
    return polygon_patch(size, rotate_points(points, centre, rotation) if rotation else points)


def _number(shape: ElementTree.Element, key: str) -> float:
    return number(shape.get(key), key)


def _points(shape: ElementTree.Element) -> list[Point]:
    points = []
    for pair in (shape.get("points") or "").split(";"):
        x, comma, y = pair.partition(",")
        if not comma:
            raise UnreadableError(f"has {shown(pair)} in its points, expected x,y;x,y;…")
        points.append((number(x, "points"), number(y, "points")))
    return points


def _sides(shape: ElementTree.Element) -> tuple[int, int, int, int]:
    left, top, width, height = (
        whole(shape.get(key), key) for key in ("left", "top", "width", "height")
    )
    return left, top, width, height


def _paste(shape: ElementTree.Element, size: Size) -> Patch:
    """Return a mask that is stored as run lengths of its bounding box."""
    left, top, width, height = _sides(shape)
    if not (0 < width <= size[1] + abs(left) and 0 < height <= size[0] + abs(top)):
        raise UnreadableError(f"is a mask of {width}×{height} on a photo of {size[1]}×{size[0]}")
    runs = [whole(run, "rle") for run in (shape.get("rle") or "").split(",")]
    return place(decode_row_rle(np.array(runs), (height, width)), (left, top), size)
