"""Gaussian filtering of many values at once, in any number of dimensions.

On a permutohedral lattice every point is spread ("splat") over the d + 1 corners of the simplex
that holds it, the corners are blurred along the d + 1 axes of the lattice, and every point reads
its corners back ("slice").
The cost grows with the number of points, not with its square.

Source: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
Eurographics 2010. The order of the floating-point operations that decide which simplex a point
lies in is that of the implementation of Krähenbühl and Koltun (NIPS 2011), so that the lattice is
theirs corner by corner; how it is stored and walked is not.

All work is split over threads in parts that never write to the same row, so the result does not
depend on the number of threads. Needs numba; compiled code is cached on disk.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from deeplab.errors import InputError

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int32]
KeyArray = npt.NDArray[np.int64]

LANES = 4
"""Values are filtered in groups of so many columns, which compile to vector instructions."""


@dataclass(frozen=True)
class Team:
    """Threads that share a range of rows."""

    threads: int
    executor: Executor

    def share(self, kernel: Callable[..., Any], count: int, *arguments: Any) -> list[Any]:
        """Call ``kernel(first, last, *arguments)`` on equal parts of ``range(count)``."""
        edges = [count * part // self.threads for part in range(self.threads + 1)]
        parts = [
            self.executor.submit(kernel, first, last, *arguments)
            for first, last in itertools.pairwise(edges)
        ]
        return [part.result() for part in parts]


@dataclass(frozen=True)
class Lattice:
    """The lattice of N points in d dimensions: M corners in use, in the order of appearance.

    Attributes:
        corners: (N, d + 1) int32, the corners of the simplex that holds each point.
        weights: (N, d + 1) float32, the barycentric coordinates of each point.
        normaliser: (N,) float32, 1 / sqrt(what the filter makes of ones): the symmetric
            normalisation of Krähenbühl and Koltun.
        splat_starts: (M + 1,) int64; the points near corner m are
            ``splat_points[splat_starts[m]:splat_starts[m + 1]]``, in rising order.
        splat_points: (N * (d + 1),) int32.
        splat_weights: (N * (d + 1),) float32, barycentric coordinate times normaliser.
        chains: for each axis (starts, corners): the runs of two or more neighbouring corners.
            Corners without a neighbour on an axis do not change when it is blurred.
    """

    corners: IndexArray
    weights: FloatArray
    normaliser: FloatArray
    splat_starts: npt.NDArray[np.int64]
    splat_points: IndexArray
    splat_weights: FloatArray
    chains: tuple[tuple[npt.NDArray[np.int64], IndexArray], ...]

    @property
    def size(self) -> int:
        """The number of corners in use."""
        return len(self.splat_starts) - 1

    @property
    def scale(self) -> float:
        """What the sliced values are multiplied by. Source: Adams et al., reference code."""
        dims = self.corners.shape[1] - 1
        return 1.0 / (1.0 + math.pow(2.0, -dims))

    def splat_and_blur(self, values: FloatArray, grid: FloatArray, team: Team) -> None:
        """Filter the first A columns of ``values`` (N, K) into ``grid`` (M, A).

        A is a multiple of LANES.
        """
        team.share(
            _splat, self.size, self.splat_starts, self.splat_points, self.splat_weights,
            values, grid,
        )  # fmt: skip
        for starts, corners in self.chains:
            team.share(_blur, len(starts) - 1, starts, corners, grid)


def build_lattice(features: FloatArray, team: Team, *, padding: int = 0) -> Lattice:
    """Return the lattice of ``features`` (N, d) float32, in units of one standard deviation.

    ``padding`` 1 also creates the corners around the origin, although no point is there.

    Raises:
        InputError: the features span more than the lattice can number.
    """
    count, dims = features.shape
    if padding:
        features = np.concatenate([features, np.zeros((padding, dims), np.float32)])
    # Adams et al., p. 5: the elevation matrix, scaled for the deviation of the whole filter.
    axis = np.arange(1, dims + 1)
    deviation = np.float32(np.sqrt(2.0 / 3.0) * (dims + 1))
    factors = (1.0 / np.sqrt((axis + 1) * axis) * deviation).astype(np.float32)
    strides, origin = _number_plan(features, factors)

    keys = np.empty((len(features), dims + 1), np.int64)
    weights = np.empty((len(features), dims + 1), np.float32)
    team.share(_embed, len(features), features, factors, strides, origin, keys, weights)
    found, corners = _number(keys)
    del keys
    corners, weights = corners[:count], weights[:count]
    order = np.argsort(found)
    in_order = found[order]
    whole = int(strides.sum())
    steps = [int(stride) * (dims + 1) - whole for stride in strides] + [-whole]
    chains = tuple(team.executor.map(lambda step: _chain(in_order, order, step), steps))

    starts, points, splat_weights = _invert(corners, weights, len(found))
    lattice = Lattice(
        corners, weights, np.ones(count, np.float32), starts, points, splat_weights, chains
    )
    grid = np.empty((lattice.size, LANES), np.float32)
    ones = np.ones((count, LANES), np.float32)
    lattice.splat_and_blur(ones, grid, team)
    team.share(_normalise, count, corners, weights, grid, lattice.scale, lattice.normaliser)
    team.share(_scale_entries, len(points), points, lattice.normaliser, splat_weights)
    return lattice


def _number_plan(features: FloatArray, factors: FloatArray) -> tuple[KeyArray, KeyArray]:
    """Return strides and origin that give every possible corner its own int64 key.

    A key is linear in the corner's coordinates, so a neighbour's key is a constant away.
    """
    dims = features.shape[1]
    low = features.min(axis=0).astype(np.float64) * factors
    high = features.max(axis=0).astype(np.float64) * factors
    least, most = np.empty(dims), np.empty(dims)
    for axis in range(dims):
        # Coordinate `axis` of E·p: the features after it, minus `axis` times the one before.
        least[axis] = low[axis:].sum() - (axis * high[axis - 1] if axis else 0.0)
        most[axis] = high[axis:].sum() - (axis * low[axis - 1] if axis else 0.0)
    margin = 3 * (dims + 1)  # a corner lies at most d away, its neighbours d more
    origin = np.floor(least).astype(np.int64) - margin
    extent = np.ceil(most).astype(np.int64) + margin - origin + 1
    if float(np.prod(extent.astype(np.float64))) >= 2.0**62:
        raise InputError(
            "parameters: the standard deviations are so small against the picture that the "
            f"lattice would need {' x '.join(map(str, extent))} cells; use larger ones."
        )
    strides = np.ones(dims, np.int64)
    for axis in range(dims - 2, -1, -1):
        strides[axis] = strides[axis + 1] * extent[axis + 1]
    return strides, origin


@njit(nogil=True, cache=True, error_model="numpy")
def _embed(first, last, features, factors, strides, origin, keys, weights):  # type: ignore[no-untyped-def]
    """Find the simplex of every point: the keys of its corners and its barycentric coordinates."""
    dims = features.shape[1]
    one = np.float32(1.0)
    up = np.float32(dims + 1)
    down = one / up
    elevated = np.empty(dims + 1, np.float32)
    nearest = np.empty(dims + 1, np.float32)
    rank = np.empty(dims + 1, np.int64)
    coordinate = np.empty(dims + 2, np.float32)
    for point in range(first, last):
        total = np.float32(0.0)
        for j in range(dims, 0, -1):
            scaled = features[point, j - 1] * factors[j - 1]
            elevated[j] = total - np.float32(j) * scaled
            total += scaled
        elevated[0] = total
        # The nearest corner of remainder 0, by rounding; `excess` says how far off the plane.
        excess = 0
        for j in range(dims + 1):
            rounded = np.float32(np.rint(down * elevated[j]))
            nearest[j] = rounded * up
            excess += int(rounded)
            rank[j] = 0
        for i in range(dims):
            difference = elevated[i] - nearest[i]
            for j in range(i + 1, dims + 1):
                if difference < elevated[j] - nearest[j]:
                    rank[i] += 1
                else:
                    rank[j] += 1
        coordinate[:] = np.float32(0.0)
        for j in range(dims + 1):
            rank[j] += excess
            if rank[j] < 0:
                rank[j] += dims + 1
                nearest[j] += up
            elif rank[j] > dims:
                rank[j] -= dims + 1
                nearest[j] -= up
            offset = (elevated[j] - nearest[j]) * down
            coordinate[dims - rank[j]] += offset
            coordinate[dims + 1 - rank[j]] -= offset
        coordinate[0] += one + coordinate[dims + 1]
        base = 0
        for j in range(dims):
            base += strides[j] * (int(nearest[j]) - origin[j])
        for remainder in range(dims + 1):
            key = base
            for j in range(dims):
                step = remainder if rank[j] <= dims - remainder else remainder - (dims + 1)
                key += strides[j] * step
            keys[point, remainder] = key
            weights[point, remainder] = coordinate[remainder]


@njit(nogil=True, cache=True, error_model="numpy")
def _slot(key, mask):  # type: ignore[no-untyped-def]
    """Return where in a table of ``mask + 1`` slots the search for ``key`` begins."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(mask))


@njit(nogil=True, cache=True, error_model="numpy")
def _number(keys):  # type: ignore[no-untyped-def]
    """Number the different keys in the order of their appearance.

    Returns the keys by number, and the number of every entry (int32, same shape as ``keys``).
    """
    count, corners = keys.shape
    numbers = np.empty((count, corners), np.int32)
    size = 1 << 16
    table = np.full(size, -1, np.int32)
    found = np.empty(size // 2, np.int64)
    used = 0
    for point in range(count):
        for corner in range(corners):
            key = keys[point, corner]
            if point > 0 and keys[point - 1, corner] == key:
                numbers[point, corner] = numbers[point - 1, corner]
                continue
            if 2 * used >= size:
                size *= 4
                table = np.full(size, -1, np.int32)
                wider = np.empty(size // 2, np.int64)
                wider[:used] = found[:used]
                found = wider
                for number in range(used):
                    slot = _slot(found[number], size - 1)
                    while table[slot] >= 0:
                        slot = (slot + 1) & (size - 1)
                    table[slot] = number
            slot = _slot(key, size - 1)
            while table[slot] >= 0 and found[table[slot]] != key:
                slot = (slot + 1) & (size - 1)
            if table[slot] < 0:
                table[slot] = used
                found[used] = key
                used += 1
            numbers[point, corner] = table[slot]
    return found[:used].copy(), numbers


@njit(nogil=True, cache=True, error_model="numpy")
def _chain(keys, numbers, step):  # type: ignore[no-untyped-def]
    """Return the runs of corners whose keys are ``step`` apart: (starts, corners).

    ``keys`` are sorted, ``numbers`` the corners they belong to. Runs are in the order of their
    first corners, so that one after the other touches rows near those of the last.
    """
    count = len(keys)
    following = np.full(count, -1, np.int32)
    led = np.zeros(count, np.bool_)  # has a predecessor
    other = 0
    for place in range(count):
        wanted = keys[place] + step
        while other < count and keys[other] < wanted:
            other += 1
        if other < count and keys[other] == wanted:
            following[numbers[place]] = numbers[other]
            led[numbers[other]] = True
    runs = 0
    length = 0
    for number in range(count):
        if following[number] >= 0:
            length += 1
            if not led[number]:
                runs += 1
    starts = np.empty(runs + 1, np.int64)
    members = np.empty(length + runs, np.int32)
    run = 0
    at = 0
    for number in range(count):
        if following[number] >= 0 and not led[number]:
            starts[run] = at
            run += 1
            member = number
            while member >= 0:
                members[at] = member
                at += 1
                member = following[member]
    starts[run] = at
    return starts, members


@njit(nogil=True, cache=True, error_model="numpy")
def _invert(corners, weights, size):  # type: ignore[no-untyped-def]
    """List the points of every corner, in rising order, with their weights."""
    count, per_point = corners.shape
    starts = np.zeros(size + 1, np.int64)
    for point in range(count):
        for corner in range(per_point):
            starts[corners[point, corner] + 1] += 1
    for number in range(size):
        starts[number + 1] += starts[number]
    at = starts[:-1].copy()
    points = np.empty(count * per_point, np.int32)
    entries = np.empty(count * per_point, np.float32)
    for point in range(count):
        for corner in range(per_point):
            number = corners[point, corner]
            points[at[number]] = point
            entries[at[number]] = weights[point, corner]
            at[number] += 1
    return starts, points, entries


@njit(nogil=True, cache=True, error_model="numpy")
def _normalise(first, last, corners, weights, grid, scale, normaliser):  # type: ignore[no-untyped-def]
    for point in range(first, last):
        total = np.float32(0.0)
        for corner in range(corners.shape[1]):
            total += weights[point, corner] * grid[corners[point, corner], 0] * np.float32(scale)
        normaliser[point] = 1.0 / np.sqrt(total + 1e-20)


@njit(nogil=True, cache=True, error_model="numpy")
def _scale_entries(first, last, points, normaliser, entries):  # type: ignore[no-untyped-def]
    for entry in range(first, last):
        entries[entry] *= normaliser[points[entry]]


@njit(nogil=True, cache=True, error_model="numpy")
def _splat(first, last, starts, points, entries, values, grid):  # type: ignore[no-untyped-def]
    for number in range(first, last):
        for k in range(0, grid.shape[1], LANES):
            a = b = c = d = np.float32(0.0)
            for entry in range(starts[number], starts[number + 1]):
                point = points[entry]
                weight = entries[entry]
                a += weight * values[point, k]
                b += weight * values[point, k + 1]
                c += weight * values[point, k + 2]
                d += weight * values[point, k + 3]
            grid[number, k] = a
            grid[number, k + 1] = b
            grid[number, k + 2] = c
            grid[number, k + 3] = d


@njit(nogil=True, cache=True, error_model="numpy")
def _blur(first, last, starts, members, grid):  # type: ignore[no-untyped-def]
    """Blur with (1/2, 1, 1/2) along runs, in place: a to d keep the values just overwritten."""
    half = np.float32(0.5)
    for run in range(first, last):
        # Each group of lanes walks the run on its own, so that its values stay in registers.
        final = starts[run + 1] - 1
        for k in range(0, grid.shape[1], LANES):
            a = b = c = d = np.float32(0.0)
            row = members[starts[run]]
            for at in range(starts[run], final):
                after = members[at + 1]
                p, q, r, s = grid[row, k], grid[row, k + 1], grid[row, k + 2], grid[row, k + 3]
                p1, q1 = p + half * (a + grid[after, k]), q + half * (b + grid[after, k + 1])
                r1, s1 = r + half * (c + grid[after, k + 2]), s + half * (d + grid[after, k + 3])
                grid[row, k], grid[row, k + 1], grid[row, k + 2], grid[row, k + 3] = p1, q1, r1, s1
                a, b, c, d = p, q, r, s
                row = after
            grid[row, k] += half * a
            grid[row, k + 1] += half * b
            grid[row, k + 2] += half * c
            grid[row, k + 3] += half * d
