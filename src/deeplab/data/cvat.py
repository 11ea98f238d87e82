"""CVAT's own XML, "CVAT for images 1.1".

Source: docs.cvat.ai, "CVAT for image".
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from deeplab.data.export import Drawing, Export, Region, find_photo, plain_name
from deeplab.data.shapes import (
    Bools,
    Point,
    box_points,
    decode_row_rle,
    ellipse_points,
    fill_polygon,
    rotate_points,
)
from deeplab.errors import DataError
from deeplab.labels import Colour

_DRAWN = ("polygon", "box", "ellipse", "mask")
_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton")


def read_cvat(path: Path, photos: Path | None) -> Export:
    """Read an annotations.xml.

    Args:
        path: of the XML.
        photos: the folder of the photos; None searches beside it and in images/.

    Raises:
        DataError: it is no such XML, or it has a shape without an area.
    """
    try:
        root = ElementTree.parse(path).getroot()
        return _read(path, root, photos)
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: is not XML ({error}).") from None
    except DataError:
        raise
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: is not complete CVAT XML ({error!r}).") from None


def _read(path: Path, root: ElementTree.Element, photos: Path | None) -> Export:
    if root.tag != "annotations":
        raise DataError(f"{path}: is not CVAT XML: it begins with <{root.tag}>.")
    if root.find("track") is not None:
        raise DataError(f"{path}: is 'CVAT for video'. Export it as 'CVAT for images'.")
    colours: dict[str, Colour] = {}
    names: list[str] = []
    for label in root.iterfind("meta//label"):
        name = label.findtext("name", "")
        names.append(name)
        colour = (label.findtext("color") or "").removeprefix("#")
        if len(colour) == 6:
            colours[name] = (int(colour[:2], 16), int(colour[2:4], 16), int(colour[4:], 16))
    drawings = []
    folders = [photos] if photos else [path.parent]
    for image in root.iterfind("image"):
        _reject_without_area(path, image)
        for shape in _shapes(image):
            if shape.attrib["label"] not in names:
                names.append(shape.attrib["label"])
        drawings.append(
            Drawing(
                photo=find_photo(image.attrib["name"], folders),
                name=plain_name(image.attrib["name"]),
                size=(int(image.attrib["height"]), int(image.attrib["width"])),
                regions=partial(_regions, image),
            )
        )
    return Export(names=tuple(names), drawings=tuple(drawings), colours=colours)


def _reject_without_area(path: Path, image: ElementTree.Element) -> None:
    for shape in image:
        if shape.tag in _WITHOUT_AREA:
            raise DataError(
                f"{path}: {image.attrib['name']} has a {shape.tag} '{shape.get('label')}', which "
                "has no area. Draw a polygon instead, or delete it."
            )


def _shapes(image: ElementTree.Element) -> list[ElementTree.Element]:
    """Return what was drawn on one photo, the lowest layer first."""
    shapes = [shape for shape in image if shape.tag in _DRAWN]
    return sorted(shapes, key=lambda shape: int(shape.get("z_order", "0")))


def _regions(image: ElementTree.Element) -> Iterator[Region]:
    for shape in _shapes(image):
        yield shape.attrib["label"], partial(_fill, shape)


def _fill(shape: ElementTree.Element, size: tuple[int, int]) -> Bools:
    if shape.tag == "mask":
        return _paste(shape, size)
    if shape.tag == "polygon":
        pairs = (pair.split(",") for pair in shape.attrib["points"].split(";"))
        return fill_polygon(size, [(float(x), float(y)) for x, y in pairs])
    points: list[Point]
    if shape.tag == "box":
        x0, y0, x1, y1 = (float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        centre, points = ((x0 + x1) / 2, (y0 + y1) / 2), box_points([(x0, y0), (x1, y1)])
    else:
        x, y, rx, ry = (float(shape.attrib[key]) for key in ("cx", "cy", "rx", "ry"))
        centre, points = (x, y), ellipse_points((x, y), (rx, ry))
    return fill_polygon(size, rotate_points(points, centre, float(shape.get("rotation", "0"))))


def _paste(shape: ElementTree.Element, size: tuple[int, int]) -> Bools:
    """Return a mask that is stored as run lengths of its bounding box."""
    left, top, width, height = (
        int(shape.attrib[key]) for key in ("left", "top", "width", "height")
    )
    runs = [int(run) for run in shape.attrib["rle"].split(",")]
    where = np.zeros(size, bool)
    where[top : top + height, left : left + width] = decode_row_rle(runs, (height, width))
    return where
