"""Polygons, boxes, ellipses, pictures and run-length codes, as the pixels that they cover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from deeplab.data.fields import UnreadableError, whole
from deeplab.data.mask_files import UInt8

Bools = npt.NDArray[np.bool_]
Size: TypeAlias = tuple[int, int]
"""(height, width)"""
Point: TypeAlias = tuple[float, float]
"""(x, y) in pixels; (0, 0) is the centre of the first pixel."""
Box: TypeAlias = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels."""

_ELLIPSE_CORNERS = 180
_ROUNDING = 0.5e-5
_FARTHEST = 1_000_000
"""Pixels from the corner of the photo; an outline that goes farther was not drawn on a photo."""


@dataclass(frozen=True)
class Patch:
    """Pixels of a photo: those of the rectangle at (top, left) in which ``where`` is true.

    Attributes:
        top: row of the rectangle; it lies inside the photo.
        left: column of the rectangle.
        where: (h, w) bool.
    """

    top: int
    left: int
    where: Bools

    @property
    def area(self) -> int:
        """How many pixels it covers."""
        return int(np.count_nonzero(self.where))

    def paint(self, label: UInt8, value: int) -> None:
        """Write ``value`` into the covered pixels of ``label``, (H, W) uint8."""
        height, width = self.where.shape
        part = label[self.top : self.top + height, self.left : self.left + width]
        part[self.where] = value

    def on(self, size: Size) -> Bools:
        """Return it as (H, W) bool of a photo of this size."""
        label = np.zeros(size, np.uint8)
        self.paint(label, 1)
        return label.astype(bool)

    def cropped(self) -> Patch:
        """Return the same pixels in the smallest rectangle that holds them."""
        rows, columns = np.flatnonzero(self.where.any(1)), np.flatnonzero(self.where.any(0))
        if not len(rows):
            return Patch(0, 0, np.zeros((0, 0), bool))
        top, left = int(rows[0]), int(columns[0])
        inside = self.where[top : rows[-1] + 1, left : columns[-1] + 1].copy()
        return Patch(self.top + top, self.left + left, inside)


def place(where: Bools, corner: tuple[int, int], size: Size) -> Patch:
    """Return what of a picture at ``corner``, (x, y), lies inside a photo of this size."""
    (x, y), (height, width) = corner, size
    top, left = min(max(0, y), height), min(max(0, x), width)
    inside = where[max(0, -y) : max(0, height - y), max(0, -x) : max(0, width - x)]
    return Patch(top, left, inside)


def polygon_patch(
    size: Size, points: Sequence[Point], holes: Sequence[Sequence[Point]] = ()
) -> Patch:
    """Return the inside of a polygon with its border, less the holes with theirs.

    Fractions are cut off: a corner belongs to the pixel that it lies in.

    Raises:
        UnreadableError: it has fewer than three corners, or reaches absurdly far.
    """
    if len(points) < 3:
        raise UnreadableError(f"has an outline of {len(points)} points, expected 3 or more")
    corners = [_whole_point(point) for point in points]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    top, left = max(0, min(ys)), max(0, min(xs))
    height, width = min(size[0], max(ys) + 1) - top, min(size[1], max(xs) + 1) - left
    if height <= 0 or width <= 0:
        return Patch(0, 0, np.zeros((0, 0), bool))
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    for fill, outline in ((1, corners), *((0, [_whole_point(p) for p in hole]) for hole in holes)):
        if len(outline) >= 3:
            draw.polygon([(x - left, y - top) for x, y in outline], fill=fill)
    return Patch(top, left, np.array(canvas))


def fill_polygon(size: Size, points: Sequence[Point]) -> Bools:
    """Return (H, W) bool: the inside of a polygon of (x, y) points, its border included."""
    return polygon_patch(size, points).on(size)


def from_share(share: float, length: float) -> float:
    """Return a place in pixels that was stored as a share of ``length``.

    Whole pixels stay whole: the last of five digits may be wrong.
    """
    value = share * length
    nearest = round(value)
    return nearest if abs(value - nearest) <= _ROUNDING * length else value


def merge(patches: Sequence[Patch], size: Size) -> Patch:
    """Return all pixels that any of them covers."""
    if len(patches) == 1:
        return patches[0]
    label = np.zeros(size, np.uint8)
    for patch in patches:
        patch.paint(label, 1)
    return Patch(0, 0, label.astype(bool)).cropped()


def _whole_point(point: Point) -> tuple[int, int]:
    x, y = point
    if abs(x) > _FARTHEST or abs(y) > _FARTHEST:
        raise UnreadableError(f"reaches to ({x:g}, {y:g}), far outside of any photo")
    return int(x), int(y)


def box_points(corners: Sequence[Point]) -> list[Point]:
    """Return the four corners of the box between two opposite ones.

    Raises:
        UnreadableError: there are not two.
    """
    if len(corners) != 2:
        raise UnreadableError(f"is a box of {len(corners)} points, expected 2 opposite corners")
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
        UnreadableError: it is not such a code, or the runs do not add up to the size.
    """
    if not isinstance(rle.get("size"), (list, tuple)) or len(rle["size"]) != 2:
        raise UnreadableError(f"has run lengths without a size: got {rle.get('size')!r}")
    height, width = (whole(side, "size") for side in rle["size"])
    counts = rle.get("counts")
    runs = _decompress(counts) if isinstance(counts, (str, bytes)) else counts
    return _fill_runs(runs, height * width).reshape(width, height).T


def decode_row_rle(runs: Any, size: Size) -> Bools:
    """Return (H, W) bool from CVAT's run lengths: row by row, zeros first.

    Raises:
        UnreadableError: the runs do not add up to the size.
    """
    return _fill_runs(runs, size[0] * size[1]).reshape(size)


def _fill_runs(runs: Any, total: int) -> Bools:
    lengths = np.asarray(runs) if isinstance(runs, (list, tuple, np.ndarray)) else np.array(None)
    if lengths.ndim != 1 or (lengths.size and lengths.dtype.kind not in "iu"):
        raise UnreadableError("has run lengths that are not whole numbers")
    if lengths.size and (lengths.min() < 0 or lengths.max() > total):
        raise UnreadableError(
            f"has a run of {lengths.max() if lengths.min() >= 0 else lengths.min()} pixels in a "
            f"picture of {total}"
        )
    if total < 0 or lengths.sum() != total:
        raise UnreadableError(
            f"has run lengths that add up to {int(lengths.sum())}, expected {total} pixels"
        )
    values = np.arange(len(lengths)) % 2 == 1
    filled: Bools = np.repeat(values, lengths.astype(np.int64))
    return filled


_LONGEST = 7
"""Digits of five bits; no run inside a picture needs more."""


def _decompress(text: str | bytes) -> npt.NDArray[np.int64]:
    """Return the runs in COCO's string: base-32 digits plus 48, from the third as differences.

    Source: cocoapi, common/maskApi.c, ``rleFrString``.
    """
    try:
        data = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise UnreadableError("has run lengths with letters that COCO's code has not") from None
    digits = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if not digits.size:
        return digits
    if digits.min() < 0 or digits.max() > 63:
        raise UnreadableError("has run lengths with letters that COCO's code has not")
    ends = np.flatnonzero(digits < 32)
    if not len(ends) or ends[-1] != len(digits) - 1:
        raise UnreadableError("has run lengths that break off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise UnreadableError("has run lengths that are longer than any picture")
    shift = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((digits & 31) << shift, starts)
    runs -= np.where(digits[ends] & 16, 1 << (5 * lengths), 0)
    for first in (1, 2):  # each run from the third on is stored less the one before the last
        runs[first::2] = np.cumsum(runs[first::2])
    return runs
