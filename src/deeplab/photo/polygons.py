"""Polygons of one ring each, as annotation tools have them, from the outlines of objects.

Such a ring has no holes: it goes in to each hole along a line through the object, around it, and
back along the same line. Tools differ in which pixels belong to a polygon: for COCO's, pixels lie
between whole numbers; for those that draw with Pillow or OpenCV, a corner belongs to the pixel that
it lies in, and the border is inside. So corners are drawn into the object by ``_INSET``: both give
back the same pixels.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deeplab.photo.outlines import Ring

Polygon = list[tuple[float, float]]
"""Corners (x, y) in pixels; the first is not repeated in the end."""

TOLERANCE = 1.0
"""Pixels by which a polygon may leave the outline where nothing else is said."""

_INSET = 0.09
"""Pixels. COCO's own code counts in fifths of a pixel, so that less than a tenth does not show."""


def make_polygons(rings: Sequence[Ring], *, tolerance: float = TOLERANCE) -> list[Polygon]:
    """Return polygons without holes that cover an object.

    Args:
        rings: of one object, as :func:`deeplab.photo.outlines.find_objects` gives them: clockwise
            around it, counterclockwise around holes.
        tolerance: pixels by which corners that are left out may lie beside the line between those
            that are kept. 0 keeps all: COCO's, Pillow's and OpenCV's code give back every pixel.

    Returns:
        One polygon per outer ring, in their order.
    """
    outer = [ring for ring in rings if _area(ring) > 0]
    holes = sorted((ring for ring in rings if _area(ring) < 0), key=min)
    bodies = _Bodies(outer)
    for hole in holes:  # from the left: what lies left of a hole has been joined before
        bodies.join(hole)
    return [_simplify(_inset(body), tolerance) for body in bodies.all()]


def _area(ring: Ring) -> int:
    """Return twice the area; it is negative where the ring goes around a hole."""
    x, y = np.array(ring, np.int64).T
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


class _Bodies:
    """Rings that holes are joined to, as linked lists of corners.

    A corner is (x, y, pinned): y lies between two rows, and the corner is pinned, where a line to a
    hole begins or ends.
    """

    def __init__(self, outer: Sequence[Ring]) -> None:
        self._corners: list[tuple[float, float, bool]] = []
        self._next: list[int] = []
        self._starts = [self._add_ring(ring) for ring in outer]
        # Left sides of the object by their x, and in each row the x of those that cross it.
        self._in_row: dict[int, list[tuple[float, int]]] = defaultdict(list)
        for start in self._starts:
            self._enter(start)

    def _add_ring(self, ring: Ring) -> int:
        start = len(self._corners)
        self._corners += [(x, y, False) for x, y in ring]
        self._next += [*range(start + 1, start + len(ring)), start]
        return start

    def _enter(self, start: int) -> None:
        """Note the left sides of the object on one ring: those that go up."""
        at = start
        while True:
            (x, y, _), (_, y2, _) = self._corners[at], self._corners[self._next[at]]
            if y2 < y:
                for row in range(int(y2), int(y)):
                    bisect.insort(self._in_row[row], (x, at))
            at = self._next[at]
            if at == start:
                return

    def join(self, hole: Ring) -> None:
        """Join a hole to what lies left of it, along the row of its leftmost side's first pixel."""
        start = self._add_ring(hole)
        leftmost = min(range(start, start + len(hole)), key=lambda i: self._corners[i][:2])
        x, y, _ = self._corners[leftmost]
        row = int(y)
        below = self._next[leftmost]
        if self._corners[below][0] != x:  # the side was walked upwards
            raise AssertionError("a ring around a hole goes down its left side")
        self._enter(start)
        sides = self._in_row[row]
        x_left, side = sides[bisect.bisect_left(sides, (x, -1)) - 1]
        middle = row + 0.5
        while not self._crosses(side, x_left, middle):  # it was cut by earlier lines
            side = self._next[side]
        first = len(self._corners)
        leave, enter, exit_, back = range(first, first + 4)
        self._corners += [
            (x_left, middle, True), (x, middle, True), (x, middle, True), (x_left, middle, True)
        ]  # fmt: skip
        self._next += [enter, below, back, self._next[side]]
        self._next[side] = leave
        self._next[leftmost] = exit_

    def _crosses(self, side: int, x_left: float, middle: float) -> bool:
        (x, y, _), (_, y2, _) = self._corners[side], self._corners[self._next[side]]
        return x == x_left and y > middle > y2

    def all(self) -> list[list[tuple[float, float, bool]]]:
        """Return the rings, with what was joined to them."""
        found = []
        for start in self._starts:
            ring, at = [], start
            while True:
                ring.append(self._corners[at])
                at = self._next[at]
                if at == start:
                    break
            found.append(ring)
        return found


def _inset(
    ring: Sequence[tuple[float, float, bool]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return (N, 2) corners, those on right and lower sides drawn into the object; and the pins."""
    corners = np.array([(x, y) for x, y, _ in ring], np.float64)
    pinned = np.array([pin for _, _, pin in ring])
    after = np.roll(corners, -1, axis=0) - corners
    before = np.roll(after, 1, axis=0)
    is_right = (before[:, 1] > 0) | (after[:, 1] > 0)  # a side that goes down
    is_lower = ~pinned & ((before[:, 0] < 0) | (after[:, 0] < 0))
    corners[:, 0] -= _INSET * is_right
    corners[:, 1] -= _INSET * is_lower
    return corners, pinned


def _simplify(
    ring: tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]], tolerance: float
) -> Polygon:
    """Leave out corners that lie near the line between others (Douglas and Peucker, 1973).

    Lines to holes stay as they are: they run through the object, and cancel each other out.
    """
    corners, kept = ring
    if tolerance > 0:
        kept = kept.copy()
        far = int(((corners - corners[0]) ** 2).sum(1).argmax())
        kept[[0, far]] = True
        ends = [*np.flatnonzero(kept).tolist(), len(corners)]
        closed = np.concatenate([corners, corners[:1]])
        stack = list(itertools.pairwise(ends))
        marks = np.zeros(len(closed), bool)
        marks[ends] = True
        while stack:
            first, last = stack.pop()
            if last - first < 2:
                continue
            distances = _distances(closed[first + 1 : last], closed[first], closed[last])
            worst = int(distances.argmax())
            if distances[worst] > tolerance:
                middle = first + 1 + worst
                marks[middle] = True
                stack += [(first, middle), (middle, last)]
        if marks[:-1].sum() >= 3:
            corners = corners[marks[:-1]]
    return [(round(x, 2), round(y, 2)) for x, y in corners.tolist()]


def _distances(
    points: npt.NDArray[np.float64], first: npt.NDArray[np.float64], last: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return how far points lie from the stretch between two others."""
    along = last - first
    length = float(along @ along)
    share = np.clip((points - first) @ along / length, 0, 1)[:, None] if length else 0.0
    gaps: npt.NDArray[np.float64] = np.hypot(*(points - first - share * along).T)
    return gaps
