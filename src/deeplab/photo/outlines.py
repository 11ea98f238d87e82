"""The connected regions of a mask as objects: boxes and outlines that give back every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError
from deeplab.labels import LabelSet
from deeplab.photo.regions import connect_equal

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

MOST_SIDES = 4_000_000
"""Of pixels along outlines; a mask with more is noise, whose outlines nobody can use."""

Ring = list[tuple[int, int]]
"""Corners (x, y) between pixels, clockwise around an object and counterclockwise around a hole.

Its first corner is not repeated in the end.
"""

# Along the top of a pixel, down its right side, back along its bottom, up its left side: so the
# object lies to the right. Steps are (dy, dx), starts are the corner of a pixel.
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
_STARTS = ((0, 0), (0, 1), (1, 1), (1, 0))


@dataclass(frozen=True, kw_only=True)
class FoundObject:
    """One connected region of one class.

    Attributes:
        class_id: of the class.
        area: in pixels.
        box: (x, y, width, height) in pixels, as COCO has it.
        rings: where they were asked for: outlines along the sides of pixels. A pixel belongs to the
            object if an odd number of rings goes around it.
        where: where it was asked for: (height, width) bool, its pixels in the box.
    """

    class_id: int
    area: int
    box: tuple[int, int, int, int]
    rings: tuple[Ring, ...] = ()
    where: npt.NDArray[np.bool_] | None = None


def find_objects(
    mask: UInt8,
    *,
    labels: LabelSet,
    min_area: int = 0,
    outlines: bool = False,
    pixels: bool = False,
) -> list[FoundObject]:
    """Return the connected regions of all classes but the background, the largest first.

    Pixels are connected by their sides and corners. Ids without a name are passed over.

    Args:
        mask: (H, W) uint8 class ids.
        labels: which ids have a name, and which is the background.
        min_area: smaller regions, in pixels, are passed over.
        outlines: with ``rings``.
        pixels: with ``where``.

    Raises:
        InputError: the outlines have more than ``MOST_SIDES`` sides.
    """
    regions = connect_equal(mask)
    areas = np.bincount(regions.ravel())
    first = np.full(len(areas), -1, np.int64)
    flat = regions.ravel()
    first[flat[::-1]] = np.arange(flat.size - 1, -1, -1)  # the first pixel of each
    ids = mask.ravel()[first]
    wanted = (areas >= min_area) & (ids < len(labels))
    if labels.background is not None:
        wanted &= ids != labels.background
    boxes = _boxes(regions, len(areas))
    rings = _rings(regions, wanted) if outlines else {}
    order = sorted(np.flatnonzero(wanted).tolist(), key=lambda one: (-areas[one], one))
    return [
        FoundObject(
            class_id=int(ids[one]),
            area=int(areas[one]),
            box=boxes[one],
            rings=tuple(rings.get(one, ())),
            where=_inside(regions, one, boxes[one]) if pixels else None,
        )
        for one in order
    ]


def _inside(regions: Int64, one: int, box: tuple[int, int, int, int]) -> npt.NDArray[np.bool_]:
    x, y, width, height = box
    inside: npt.NDArray[np.bool_] = regions[y : y + height, x : x + width] == one
    return inside


def _boxes(regions: Int64, count: int) -> dict[int, tuple[int, int, int, int]]:
    """Return region -> (x, y, width, height)."""
    height, width = regions.shape
    left, top = np.full(count, width), np.full(count, height)
    right, bottom = np.zeros(count, np.int64), np.zeros(count, np.int64)
    # The ends of a row's runs are all that matters.
    starts = np.ones(regions.shape, bool)
    starts[:, 1:] = regions[:, 1:] != regions[:, :-1]
    ends = np.ones(regions.shape, bool)
    ends[:, :-1] = starts[:, 1:]
    for where, update, most, axis_one in (
        (starts, np.minimum, left, 1),
        (starts, np.minimum, top, 0),
        (ends, np.maximum, right, 1),
        (ends, np.maximum, bottom, 0),
    ):
        at = np.nonzero(where)
        update.at(most, regions[at], at[axis_one])
    return {
        one: (x, y, x2 - x + 1, y2 - y + 1)
        for one, (x, y, x2, y2) in enumerate(
            zip(left.tolist(), top.tolist(), right.tolist(), bottom.tolist(), strict=True)
        )
    }


def _rings(regions: Int64, wanted: npt.NDArray[np.bool_]) -> dict[int, list[Ring]]:
    """Return region -> its rings: follow the sides of pixels that part it from others."""
    across = regions.shape[1] + 1  # corners in a row
    shown = wanted[regions]
    keys = []
    for direction, ((dy, dx), outward) in enumerate(
        zip(_STARTS, ((-1, 0), (0, 1), (1, 0), (0, -1)), strict=True)
    ):
        rows, columns = np.nonzero(shown & _differs(regions, outward))
        keys.append(((rows + dy) * across + columns + dx) * 4 + direction)
        if sum(map(len, keys)) > MOST_SIDES:
            raise InputError(
                f"polygons: the outlines of this mask have more than {MOST_SIDES:,} sides; take a "
                "smaller photo, or the run lengths of output=json."
            )
    sides = np.sort(np.concatenate(keys))
    if not len(sides):
        return {}
    following = _follow(sides, across)
    turns = np.zeros(len(sides), bool)
    turns[following] = (sides & 3)[following] != sides & 3  # a corner lies where a turn begins
    owners = _owners(regions, sides, across)
    return _walk(sides, following, turns, owners, across)


def _differs(regions: Int64, outward: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return where the neighbour in a direction belongs to another region, or to none."""
    differs = np.ones(regions.shape, bool)
    axis = 0 if outward[0] else 1
    changes = np.moveaxis(np.diff(regions, axis=axis) != 0, axis, 0)
    inner = np.moveaxis(differs, axis, 0)  # a view
    if sum(outward) < 0:
        inner[1:] = changes
    else:
        inner[:-1] = changes
    return differs


def _follow(sides: Int64, across: int) -> Int64:
    """Return, for each side, the number of the one that goes on from its end."""
    corners, directions = sides >> 2, sides & 3
    steps = np.array([dy * across + dx for dy, dx in _STEPS])
    ends = corners + steps[directions]
    following = np.full(len(sides), -1, np.int64)
    # To the right first, which stays with the same pixel: regions that touch at a corner get a ring
    # each side of it, and none goes through a corner twice on the same side.
    for turn in (-1, 0, 1):
        key = ends * 4 + (directions + turn) % 4
        at = np.minimum(np.searchsorted(sides, key), len(sides) - 1)
        following = np.where(sides[at] == key, at, following)
    return following


def _owners(regions: Int64, sides: Int64, across: int) -> Int64:
    corners, directions = sides >> 2, sides & 3
    starts = np.array(_STARTS)[directions]
    rows, columns = corners // across - starts[:, 0], corners % across - starts[:, 1]
    owners: Int64 = regions[rows, columns]
    return owners


def _walk(
    sides: Int64,
    following: Int64,
    turns: npt.NDArray[np.bool_],
    owners: Int64,
    across: int,
) -> dict[int, list[Ring]]:
    found: dict[int, list[Ring]] = {}
    seen = bytearray(len(sides))
    step, corner = following.tolist(), (sides >> 2).tolist()
    is_corner = turns.tolist()
    for begin in range(len(step)):
        if seen[begin]:
            continue
        ring: Ring = []
        at = begin
        while not seen[at]:
            seen[at] = 1
            if is_corner[at]:
                ring.append((corner[at] % across, corner[at] // across))
            at = step[at]
        found.setdefault(int(owners[begin]), []).append(ring)
    return found
