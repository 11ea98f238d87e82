"""Fill polygons, boxes, ellipses and run-length codes into a label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from deeplab.data.masks import UInt8
from deeplab.errors import DataError

Bools = npt.NDArray[np.bool_]
Point: TypeAlias = tuple[float, float]
"""(x, y) in pixels; (0, 0) is the centre of the first pixel."""

_ELLIPSE_CORNERS = 180


def fill_polygon(size: tuple[int, int], points: Sequence[Point]) -> Bools:
    """Return (H, W) bool: the inside of a polygon of (x, y) points, its border included."""
    height, width = size
    canvas = Image.new("1", (width, height))
    if len(points) >= 3:
        ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points], fill=1)
    return np.array(canvas)


def box_points(corners: Sequence[Point]) -> list[Point]:
    """Return the four corners of the box between two opposite ones."""
    (x0, y0), (x1, y1) = corners
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def ellipse_points(centre: Point, radii: tuple[float, float]) -> list[Point]:
    """Return a polygon for an upright ellipse with (horizontal, vertical) radii."""
    angles = [2 * math.pi * step / _ELLIPSE_CORNERS for step in range(_ELLIPSE_CORNERS)]
    (x, y), (rx, ry) = centre, radii
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def rotate_points(points: Sequence[Point], centre: Point, degrees: float) -> list[Point]:
    """Return the points turned clockwise (as seen; y points down) around ``centre``."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    (cx, cy) = centre
    return [
        (cx + (x - cx) * cosine - (y - cy) * sine, cy + (x - cx) * sine + (y - cy) * cosine)
        for x, y in points
    ]


def decode_coco_rle(rle: dict[str, Any]) -> Bools:
    """Return (H, W) bool from COCO's run-length code: column by column, zeros first.

    ``counts`` is a list of run lengths or COCO's compressed string.

    Raises:
        DataError: the runs do not add up to the size.
    """
    height, width = rle["size"]
    counts = rle["counts"]
    runs = _decompress(counts) if isinstance(counts, (str, bytes)) else counts
    return _fill_runs(runs, height * width).reshape(width, height).T


def decode_row_rle(runs: Sequence[int], size: tuple[int, int]) -> Bools:
    """Return (H, W) bool from CVAT's run lengths: row by row, zeros first.

    Raises:
        DataError: the runs do not add up to the size.
    """
    return _fill_runs(runs, size[0] * size[1]).reshape(size)


def _fill_runs(runs: Sequence[int], total: int) -> Bools:
    if sum(runs) != total or any(run < 0 for run in runs):
        raise DataError(f"run lengths: they add up to {sum(runs)}, expected {total} pixels.")
    values = np.arange(len(runs)) % 2 == 1
    filled: Bools = np.repeat(values, runs)
    return filled


def _decompress(text: str | bytes) -> list[int]:
    """Return the runs in COCO's string: base-32 digits plus 48, from the third as differences.

    Source: cocoapi, common/maskApi.c, ``rleFrString``.
    """
    data = text.encode() if isinstance(text, str) else text
    runs: list[int] = []
    value = shift = 0
    for byte in data:
        digit = byte - 48
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & 0x20:
            continue
        if digit & 0x10:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        runs.append(value)
        value = shift = 0
    return runs


def paint(label: UInt8, where: Bools, value: int) -> None:
    """Write ``value`` into ``label`` where ``where`` is true.

    Raises:
        DataError: the shapes differ.
    """
    if where.shape != label.shape:
        raise DataError(f"mask: got {where.shape} for a photo of {label.shape} (height, width).")
    label[where] = value
