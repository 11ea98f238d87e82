"""From windows to the mask: their answers are averaged on the grid, and the argmax is taken once.

A mask of windows shows where they end. Here the windows' logits, not their masks, are averaged,
each with a weight that falls towards its edges; the exact argmax of
:mod:`deeplab.photo.upsample` then runs over one grid as if there had been one window. The grid is
never there as a whole either: the windows go row by row, what no later row can change is given on,
and a picture too wide for that is worked on in strips.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deeplab.photo.upsample import argmax_on
from deeplab.tiles.pictures import Seen
from deeplab.tiles.windows import Windows

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Run = Callable[[UInt8], Float32]
"""A frame in, its logits out; called from several threads."""

_MOST_ROWS = 512
"""Rows of a mask that are made at once."""


class MaskPart(NamedTuple):
    """A part of a mask: (h, w) uint8 class ids, and where its top left corner lies."""

    top: int
    left: int
    mask: UInt8


@dataclass(frozen=True, kw_only=True)
class Blend:
    """A network on all windows of a picture.

    Attributes:
        rows: the windows from top to bottom.
        columns: the windows from left to right.
        num_classes: K of the logits.
        seen: the picture as the network sees it.
        padding: RGB beside the picture.
        run: the network.
        workers: how many windows at the same time.
        advance: called after each window.
    """

    rows: Windows
    columns: Windows
    num_classes: int
    seen: Seen
    padding: tuple[int, int, int]
    run: Callable[[UInt8], Any]
    workers: int
    advance: Callable[[], None]

    def grid(self) -> Float32:
        """Return the averaged logits of the whole grid, (h, w, K) float32."""
        whole = slice(0, self.columns.whole)
        return np.concatenate(list(self._grid_rows(whole)))

    def masks(self, size: tuple[int, int], strip: int) -> Iterator[MaskPart]:
        """Give the mask, strip by strip and in each from top to bottom.

        Args:
            size: (height, width) of the mask, the picture's own.
            strip: its widest part, pixels.
        """
        height, width = size
        y, x = self.rows.place(height), self.columns.place(width)
        for left in range(0, width, strip):
            near, columns = x.part(left, min(width, left + strip))
            points = slice(near.start, min(near.stop, self.columns.whole))
            top, first = 0, 0  # the next row of the mask, and the first row of the grid at hand
            ready = np.empty((0, points.stop - points.start, self.num_classes), np.float32)
            for more in self._grid_rows(points):
                ready = np.concatenate((ready, more))
                end = first + len(ready)
                # A row of the mask lies between two rows of the grid.
                bottom = height
                if end < self.rows.whole:
                    bottom = int(np.searchsorted(y.cell, end - 1))
                while top < bottom:
                    part_end = min(bottom, top + _MOST_ROWS)
                    at, rows = y.part(top, part_end)
                    part = ready[at.start - first : at.stop - first]
                    yield MaskPart(top, left, argmax_on(part, rows, columns))
                    top = part_end
                first, ready = end - 1, ready[-1:].copy()

    def _grid_rows(self, points: slice) -> Iterator[Float32]:
        """Give the grid's rows, a few at a time: those that no window to come has a say in."""
        count, starts = self.rows.points, self.rows.starts
        total = np.zeros((count, points.stop - points.start, self.num_classes), np.float32)
        columns = self.columns.touching(points)
        for row, column, logits in self.answers(columns):
            self._add(total, logits, row, column, points)
            if column < columns[-1]:
                continue
            done = starts[row + 1] - starts[row] if row + 1 < len(starts) else count
            yield total[:done].copy()
            total[: count - done] = total[done:]
            total[count - done :] = 0

    def _add(self, total: Float32, logits: Float32, row: int, column: int, points: slice) -> None:
        start = self.columns.starts[column]
        first, end = max(start, points.start), min(start + self.columns.points, points.stop)
        inside = slice(first - start, end - start)
        weight = self.rows.weights[row][:, None] * self.columns.weights[column][inside]
        here = total[:, first - points.start : end - points.start]
        here += weight[:, :, None] * logits[:, inside]

    def answers(self, columns: range) -> Iterator[tuple[int, int, Any]]:
        """Give row, column and the network's answer of some columns' windows, row by row."""
        with ThreadPoolExecutor(self.workers, thread_name_prefix="deeplab") as pool:
            for row, band in enumerate(self._bands(columns)):
                for column, answer in self._row(pool, band, columns):
                    yield row, column, answer

    def _row(
        self, pool: ThreadPoolExecutor, band: UInt8, columns: range
    ) -> Iterator[tuple[int, Any]]:
        """Give the answers to a band's windows from left to right, whichever is ready first."""
        waiting: deque[tuple[int, Future[Any]]] = deque()
        origin = self.columns.first_pixel(columns[0])
        try:
            for column in columns:
                left = self.columns.first_pixel(column) - origin
                frame = np.ascontiguousarray(band[:, left : left + self.columns.frame])
                waiting.append((column, pool.submit(self.run, frame)))
                if len(waiting) > 2 * self.workers:
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)
        finally:
            for _, future in waiting:
                future.cancel()

    def _next(self, waiting: deque[tuple[int, Future[Any]]]) -> tuple[int, Any]:
        column, future = waiting.popleft()
        answer = future.result()
        self.advance()
        return column, answer

    def _bands(self, columns: range) -> Iterator[UInt8]:
        """Give the pixels under each row of windows; those shared with the row above are kept."""
        left = self.columns.first_pixel(columns[0])
        right = self.columns.first_pixel(columns[-1]) + self.columns.frame
        band = np.empty((self.rows.frame, right - left, 3), np.uint8)
        bottom = None
        for row in range(len(self.rows.starts)):
            top = self.rows.first_pixel(row)
            kept = 0 if bottom is None else bottom - top
            if kept > 0:
                band[:kept] = band[self.rows.frame - kept :].copy()
            kept, bottom = max(0, kept), top + self.rows.frame
            self._fill(band[kept:], top + kept, left)
            yield band

    def _fill(self, out: UInt8, top: int, left: int) -> None:
        height, width = self.seen.size
        bottom, right = min(height, top + len(out)), min(width, left + out.shape[1])
        if bottom - top < len(out) or right - left < out.shape[1]:
            out[:] = self.padding
        if bottom > top:
            out[: bottom - top, : right - left] = self.seen.read(top, left, bottom, right)
