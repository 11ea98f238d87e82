"""From a small grid of logits to a full-size mask, exactly, without the full-size logits.

Interpolating K classes to a 12-megapixel photo and taking the argmax computes 12e6 * K numbers to
give 12e6 bytes. Almost all of that work decides nothing. Three facts remove it:

1. Inside a grid cell, bilinear interpolation is a convex combination of the cell's four corners.
   A class that wins at all four corners wins in the whole cell; a class that another class beats
   at all four corners wins nowhere in it.
2. Down one pixel column of a cell every class is a straight line. The mask there is the upper
   envelope of a few lines, and is known from the points where the winner changes.
3. A mask that seldom changes is the running XOR, row by row, of its changes.

So: give cells with one winner their class; walk the envelope in the others, one pixel column at a
time and only for the classes that survive; write down where the class changes; and let one XOR
per row spread the changes over the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Mask = npt.NDArray[np.uint8]

_CHUNK = 1 << 16
"""Numbers worked on at once: half a megabyte of float64, so that a few arrays fit the cache."""

_NEAR = 1e-12
"""How much earlier than its computed place a crossing is looked for; far below one pixel."""

_TINIEST = np.float32(1e-30)
"""Stands for a probability of zero where its logarithm is taken."""

_TINY = 1e-300
"""Stands for zero where something is divided by it."""


class Region(NamedTuple):
    """The part of the network's input frame that the output shows, in whole frame pixels.

    A letterboxed photo fills ``[top, bottom) x [left, right)`` of a frame of
    ``frame_height x frame_width`` pixels; the rest of the frame is padding.
    """

    frame_height: int
    frame_width: int
    top: int
    left: int
    bottom: int
    right: int


def argmax_bilinear(
    logits: Float32,
    height: int,
    width: int,
    *,
    align_corners: bool,
    region: Region | None = None,
) -> Mask:
    """Return the argmax over classes of bilinearly upsampled logits, without upsampling them.

    The result equals interpolating every class in float64 and taking the argmax, pixel for pixel;
    the lowest class id wins ties.

    Args:
        logits: (h, w, K) float32, finite, 1 <= K <= 256, any h and w from 1 on.
        height: rows of the mask, at least 1. It may be smaller than h.
        width: columns of the mask, at least 1.
        align_corners: how the grid lies on its frame. True: the centres of the corner pixels
            coincide (TensorFlow's DeepLab). False: the edges of the corner pixels coincide, and
            coordinates outside the grid are clamped to it (torchvision).
        region: None when the mask shows the whole frame: the ordinary resize. With a region, the
            mask shows that part of the frame, resized from it with pixel edges aligned, as photos
            are, and never looking beyond its border pixels.

    Returns:
        (height, width) uint8 class ids.

    Raises:
        InputError: wrong shape or dtype, more than 256 classes, NaN or infinite logits, an empty
            output, or a region outside its frame.
    """
    logits = _checked(logits, height, width, region)
    h, w, _ = logits.shape
    rows = place_axis(h, height, align_corners, _row_span(region))
    columns = place_axis(w, width, align_corners, _column_span(region))
    return argmax_on(logits, rows, columns)


def argmax_on(logits: Float32, rows: Axis, columns: Axis) -> Mask:
    """Return the mask of :func:`argmax_bilinear` for the pixels of two axes.

    Args:
        logits: (h, w, K) float32, finite, 1 <= K <= 256.
        rows: where the mask's rows lie on the h points; of :func:`place_axis`, or a part of that.
        columns: the same of its columns and the w points.

    Returns:
        (rows, columns) uint8 class ids.
    """
    mask = np.zeros((len(rows.cell), len(columns.cell)), np.uint8)
    corners = _corner_winners(logits, rows, columns)
    first = np.repeat(corners[0], np.diff(columns.start), axis=1)  # of each strip of cells: its
    last = first.copy()  # first and last row of the mask
    for cells in _mixed_cells(corners, logits.shape[2]):
        for segments in _segments(logits, corners, cells, rows, columns):
            strip, x = segments.strip, segments.x
            first[strip, x], last[strip, x] = _walk(segments, rows, mask)
    first[1:] ^= last[:-1]
    mask[rows.start[:-1]] = first
    above = mask[0]
    for row in mask[1:]:  # so far the mask holds changes; each row continues the one above
        np.bitwise_xor(row, above, row)
        above = row
    return mask


def interpolate(
    logits: Float32,
    height: int,
    width: int,
    *,
    align_corners: bool,
    region: Region | None = None,
    rows: slice | None = None,
) -> Float32:
    """Return bilinearly interpolated logits, sampled exactly where :func:`argmax_bilinear` looks.

    Args:
        logits: (h, w, K) float32.
        height: rows of the whole output.
        width: columns of the output.
        align_corners: see :func:`argmax_bilinear`.
        region: see :func:`argmax_bilinear`.
        rows: which rows of the output to compute; all of them when left out. Large outputs are
            meant to be computed a few rows at a time.

    Returns:
        (number of rows, width, K) float32.

    Raises:
        InputError: as :func:`argmax_bilinear`.
    """
    logits = _checked(logits, height, width, region)
    h, w, _ = logits.shape
    y = place_axis(h, height, align_corners, _row_span(region))
    x = place_axis(w, width, align_corners, _column_span(region))
    cell, weight = y.cell[rows or slice(None)], y.weight[rows or slice(None)]
    top, bottom = logits[cell], logits[np.minimum(cell + 1, h - 1)]
    band: Float32 = top + weight.astype(np.float32)[:, None, None] * (bottom - top)
    left: Float32 = band[:, x.cell]
    right: Float32 = band[:, np.minimum(x.cell + 1, w - 1)]
    right -= left
    right *= x.weight.astype(np.float32)[None, :, None]
    right += left
    return right


def softmax_rows(
    logits: Float32,
    height: int,
    width: int,
    *,
    align_corners: bool,
    region: Region | None = None,
    softmaxed: bool = False,
    temperature: float = 1.0,
) -> Iterator[tuple[slice, Float32]]:
    """Yield ``(rows, probabilities)`` from top to bottom: softmax of the interpolated logits.

    Where ``logits`` are probabilities already (``softmaxed``) they are interpolated, no more. The
    logits are divided by ``temperature``; of probabilities, their logarithms are.

    ``probabilities`` is (number of rows, width, K) float32. The bands are small enough that even
    a 100-megapixel photo needs no more than a few tens of megabytes at a time.

    Raises:
        InputError: as :func:`argmax_bilinear`.
    """
    band = max(1, (1 << 21) // (width * logits.shape[-1]))
    for start in range(0, height, band):
        rows = slice(start, min(start + band, height))
        values = interpolate(
            logits, height, width, align_corners=align_corners, region=region, rows=rows
        )
        if softmaxed and temperature != 1:
            np.log(np.maximum(values, _TINIEST, out=values), out=values)
        if temperature != 1:
            values /= np.float32(temperature)
        if not softmaxed or temperature != 1:
            values -= values.max(axis=2, keepdims=True)
            np.exp(values, out=values)
            values /= values.sum(axis=2, keepdims=True)
        yield rows, values


# --- where the output's pixels lie on the grid -----------------------------------------------


@dataclass(frozen=True)
class Axis:
    """One axis of the output: pixel ``i`` lies in grid cell ``cell[i]``, ``weight[i]`` into it.

    ``cells`` are the grid cells that hold at least one pixel; those of ``cells[j]`` are
    ``start[j] : start[j + 1]``. Before clamping, ``cell + weight = scale * i + offset``.
    """

    cell: Index
    weight: Float64
    cells: Index
    start: Index
    scale: float
    offset: float

    def part(self, first: int, end: int) -> tuple[slice, Axis]:
        """Return the grid points that the pixels [first, end) need, and their axis on these."""
        cell = self.cell[first:end]
        points = slice(int(cell[0]), int(cell[-1]) + 2)  # one more than there is, at the last end
        cell = cell - points.start
        starts = np.flatnonzero(np.diff(cell, prepend=-1))
        return points, Axis(
            cell=cell,
            weight=self.weight[first:end],
            cells=cell[starts],
            start=np.append(starts, len(cell)),
            scale=self.scale,
            offset=self.offset + self.scale * first - points.start,
        )


def place_axis(
    grid: int, size: int, align_corners: bool, span: tuple[int, int, int] | None
) -> Axis:
    """Place ``size`` output pixels on ``grid`` points.

    Args:
        grid: points along the axis.
        size: pixels along the axis.
        align_corners: see :func:`argmax_bilinear`.
        span: (frame, first, end): the pixels show ``[first, end)`` of a frame of ``frame`` pixels;
            None: all of it.
    """
    pixel = np.arange(size, dtype=np.float64)
    frame, scale, offset = size, 1.0, 0.0
    if span is not None:  # from photo pixels to frame pixels, edges aligned
        frame, first, end = span
        scale = (end - first) / size
        offset = 0.5 * scale + first - 0.5
        pixel = np.clip(scale * pixel + offset, first, end - 1)
    if align_corners:  # from frame pixels to grid points
        step, shift = ((grid - 1) / (frame - 1) if frame > 1 else 0.0), 0.0
    else:
        step, shift = grid / frame, 0.5 * grid / frame - 0.5
    position = np.clip(step * pixel + shift, 0, grid - 1)
    cell = position.astype(np.intp)  # the last grid point is a cell of its own, all weights 0
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    return Axis(
        cell=cell,
        weight=position - cell,
        cells=cell[starts],
        start=np.append(starts, len(cell)),
        scale=step * scale,
        offset=step * offset + shift,
    )


def _row_span(region: Region | None) -> tuple[int, int, int] | None:
    return None if region is None else (region.frame_height, region.top, region.bottom)


def _column_span(region: Region | None) -> tuple[int, int, int] | None:
    return None if region is None else (region.frame_width, region.left, region.right)


# --- which cells need work, and for which classes --------------------------------------------

Corners = tuple[Mask, Mask, Mask, Mask]  # top left, top right, bottom left, bottom right


def _corner_winners(logits: Float32, rows: Axis, columns: Axis) -> Corners:
    """Return the winning class at the four corners of every cell that holds pixels."""
    winners = logits.argmax(axis=2).astype(np.uint8)
    h, w = winners.shape
    top, bottom = winners[rows.cells], winners[np.minimum(rows.cells + 1, h - 1)]
    left, right = columns.cells, np.minimum(columns.cells + 1, w - 1)
    return top[:, left], top[:, right], bottom[:, left], bottom[:, right]


def _mixed_cells(corners: Corners, num_classes: int) -> Iterator[tuple[Index, Index]]:
    """Yield, in chunks, the cells whose corners disagree, as (row, column) of the cell."""
    one, *others = corners
    mixed = np.zeros(one.shape, bool)
    for other in others:
        mixed |= other != one
    row, column = np.nonzero(mixed)
    chunk = max(1, _CHUNK // (4 * num_classes))
    for start in range(0, len(row), chunk):
        yield row[start : start + chunk], column[start : start + chunk]


@dataclass(frozen=True)
class _Segments:
    """S pixel columns of cells, in each of which m classes compete.

    At ``weight`` t down the cell the logit of class ``classes[c, s]`` is
    ``top[c, s] + t * slope[c, s]``; all arrays but the one-dimensional (S,) ones are (m, S).
    """

    strip: Index
    x: Index
    classes: Mask
    top: Float64
    slope: Float64


def _segments(
    logits: Float32, corners: Corners, cells: tuple[Index, Index], rows: Axis, columns: Axis
) -> Iterator[_Segments]:
    """Yield the pixel columns of ``cells``, cells with equally many surviving classes together."""
    h, w, _ = logits.shape
    row, column = cells
    i, j = rows.cells[row], columns.cells[column]
    below, right = np.minimum(i + 1, h - 1), np.minimum(j + 1, w - 1)
    values = np.stack([logits[i, j], logits[i, right], logits[below, j], logits[below, right]])
    alive = _survivors(values, np.stack([winners[row, column] for winners in corners]))
    for members, classes in _contests(alive.T):
        m = len(classes)
        contest = values[:, members, classes].astype(np.float64)  # (4, m, cells)
        pixels = np.diff(columns.start)[column[members]]
        for part in _parts(pixels, max(1, _CHUNK // m)):
            repeat = pixels[part]
            ends = np.cumsum(repeat)
            first_pixel = columns.start[column[members[part]]]
            x = np.arange(ends[-1]) + np.repeat(first_pixel - ends + repeat, repeat)
            left_top, right_top, left_bottom, right_bottom = (
                np.repeat(corner, repeat, axis=1) for corner in contest[:, :, part]
            )
            t = columns.weight[x]
            top = left_top + t * (right_top - left_top)
            bottom = left_bottom + t * (right_bottom - left_bottom)
            yield _Segments(
                strip=np.repeat(row[members[part]], repeat),
                x=x,
                classes=np.repeat(classes[:, part].astype(np.uint8), repeat, axis=1),
                top=top,
                slope=bottom - top,
            )


def _survivors(values: Float32, winners: Mask) -> npt.NDArray[np.bool_]:
    """Return (cells, K): which classes no corner's winner beats at all four corners.

    ``values`` is (4, cells, K), ``winners`` (4, cells). Testing against the corners' winners alone
    is enough to leave two or three classes in a real photo's cells.
    """
    ids = np.arange(values.shape[2])
    alive = np.ones(values.shape[1:], bool)
    for winner in winners:
        rival = np.take_along_axis(values, winner[None, :, None].astype(np.intp), axis=2)
        beaten = (rival > values).all(axis=0)
        tied = (rival >= values).all(axis=0) & (winner[:, None] < ids)
        alive &= ~(beaten | tied)
    return alive


def _contests(alive: npt.NDArray[np.bool_]) -> Iterator[tuple[Index, Index]]:
    """Group the columns of ``alive`` (K, N) by how many classes are alive in them.

    Yields ``(members, classes)``: which of the N, and (m, members) their m classes, ascending.
    m is rounded up to one of a few sizes, so that there are few groups; the places left over go to
    classes that are not alive, which changes nothing, as they cannot win.
    """
    count = alive.sum(axis=0)
    lower = 0
    for size in (2, 3, 4, 8, 16, 32, 64, 128, 256):
        members = np.flatnonzero((lower < count) & (count <= size))
        lower = size
        if len(members):
            living_first = np.argsort(~alive[:, members], axis=0, kind="stable")
            yield members, np.sort(living_first[:size], axis=0)


def _parts(sizes: Index, limit: int) -> Iterator[slice]:
    """Yield slices of consecutive members whose sizes sum to about ``limit``."""
    number = np.cumsum(sizes) // limit
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(sizes)), strict=True):
        yield slice(int(start), int(end))


# --- the envelope ----------------------------------------------------------------------------


def _walk(segments: _Segments, rows: Axis, mask: Mask) -> tuple[Mask, Mask]:
    """Write every change of class down the segments into ``mask``, as the XOR of both classes.

    Returns the class in the first and in the last pixel of every segment, both (S,).
    """
    x, classes, top, slope = segments.x, segments.classes, segments.top, segments.slope
    cell, end = rows.cells[segments.strip], rows.start[segments.strip + 1]
    y = rows.start[segments.strip]
    inverse = 1 / rows.scale if rows.scale else 0.0
    alive = pick = np.arange(len(x))
    value = top + rows.weight[y] * slope
    winner = _argmax(value)
    first = classes[winner, pick]
    last = first.copy()
    while len(pick):
        # Where does the first class that climbs faster than the winner overtake it? A class is
        # behind by ``lead`` and gains ``rate`` per weight: it needs lead / rate, and the smallest
        # of these is the inverse of the largest rate / lead.
        lead = np.maximum(value[winner, pick] - value, _TINY, out=value)
        urgency = ((slope - slope[winner, pick]) / lead).max(axis=0)
        t = rows.weight[y] + (1 - _NEAR) / np.maximum(urgency, _TINY)
        go = np.flatnonzero((t <= rows.weight[end - 1]) & (y + 1 < end))
        if len(go) < len(t):
            alive, x, cell, y, end, t = (a[go] for a in (alive, x, cell, y, end, t))
            classes, top, slope, winner = classes[:, go], top[:, go], slope[:, go], winner[go]
            pick = np.arange(len(go))

        guess = np.ceil((cell + t - rows.offset) * inverse).astype(np.intp)
        here, y = y, np.clip(guess, y + 1, end - 1)
        y -= (y - 1 > here) & (rows.weight[y - 1] >= t)  # the guess may be one off either way
        y += rows.weight[y] < t
        value = top + rows.weight[y] * slope
        before, winner = winner, _argmax(value)
        after = classes[winner, pick]
        mask[y, x] = classes[before, pick] ^ after
        last[alive] = after
    return first, last


def _argmax(values: Float64) -> Index:
    """Return the first maximum along axis 0 of (m, S); faster than numpy's for small m."""
    best, index = values[0].copy(), np.zeros(values.shape[1], np.intp)
    for c in range(1, len(values)):
        better = values[c] > best
        np.copyto(best, values[c], where=better)
        index[better] = c
    return index


# --- arguments -------------------------------------------------------------------------------


def _checked(logits: Float32, height: int, width: int, region: Region | None) -> Float32:
    logits = np.asarray(logits)
    if logits.ndim != 3 or 0 in logits.shape or not np.issubdtype(logits.dtype, np.floating):
        raise InputError(
            f"logits: got shape {logits.shape} of {logits.dtype}, expected (h, w, K) float32, "
            "channels last, without a batch dimension."
        )
    if logits.shape[2] > 256:
        raise InputError(
            f"logits: got {logits.shape[2]} classes, expected at most 256 (masks are uint8)."
        )
    if height < 1 or width < 1:
        raise InputError(f"size: got {height} x {width}, expected at least 1 x 1 pixel.")
    logits = logits.astype(np.float32, copy=False)
    if not np.isfinite(logits).all():
        raise InputError("logits: got NaN or infinite values; the network's output is broken.")
    if region is not None:
        rows = 0 <= region.top < region.bottom <= region.frame_height
        columns = 0 <= region.left < region.right <= region.frame_width
        if not (rows and columns):
            raise InputError(f"region: got {region}, which is empty or leaves its frame.")
    return logits
