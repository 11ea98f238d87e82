"""Mean-field inference in a fully connected CRF with Potts compatibility. Needs numba.

Source: Krähenbühl and Koltun, NIPS 2011, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from deeplab.crf.permutohedral import LANES, FloatArray, IndexArray, Lattice, Team

_LEAST = 1e-5
"""Smaller probabilities are raised to it. Source: pydensecrf, ``unary_from_softmax``."""
_IDLE = 1e-3
"""A class that is nowhere above it sends no message. With weights that sum to 7, the message would
change a probability by at most 7 * 1e-3 * 1e-3. Such a class never rises again: the messages of the
others are not negative, so its share only falls."""


@dataclass(frozen=True)
class Kernel:
    """A Gaussian kernel: its lattice over the pixels, and its weight."""

    lattice: Lattice
    weight: float


def infer(
    probabilities: FloatArray,
    kernels: Sequence[Kernel],
    *,
    iterations: int,
    team: Team,
    progress: Callable[[int, int], None] | None,
) -> FloatArray:
    """Return the probabilities (K, N) after ``iterations`` rounds of mean field."""
    count = probabilities.shape[1]
    # Classes in falling order of their peak: those that ever send messages come first.
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    total = np.empty(count, np.float32)
    peaks = np.max(team.share(_sum_classes, count, probabilities, order, total), axis=0)
    width = _columns(peaks)
    prior = np.empty((count, width), np.float32)
    team.share(_transpose, count, probabilities, order, prior)
    belief = prior / total[:, None]
    silent = total - prior.sum(axis=1)
    if kernels:
        edges, rows, gains = _readings(kernels)
        buffer = np.empty(edges[-1] * width, np.float32)
        for iteration in range(iterations):
            if progress:
                progress(iteration, iterations)
            columns = _columns(peaks[:width])
            grid = buffer[: edges[-1] * columns].reshape(-1, columns)
            for number, kernel in enumerate(kernels):
                own = grid[edges[number] : edges[number + 1]]
                kernel.lattice.splat_and_blur(belief, own, team)
            parts = team.share(_update, count, rows, gains, grid, prior, silent, belief, total)
            peaks = np.max(parts, axis=0)
    if progress:
        progress(iterations, iterations)
    refined = np.empty_like(probabilities)
    team.share(_restore, count, belief, total, order, probabilities, refined)
    return refined


def _columns(peaks: FloatArray) -> int:
    """Return how many columns send messages, rounded up to whole lanes."""
    active = int(np.flatnonzero(peaks > _IDLE)[-1]) + 1
    return -(-active // LANES) * LANES


def _readings(kernels: Sequence[Kernel]) -> tuple[list[int], IndexArray, FloatArray]:
    """Stack the lattices: (first rows, rows that each pixel reads (N, R), their factors (N, R))."""
    lattices = [kernel.lattice for kernel in kernels]
    edges = [0, *np.cumsum([lattice.size for lattice in lattices]).tolist()]
    rows = np.concatenate(
        [lattice.corners + np.int32(edge) for lattice, edge in zip(lattices, edges, strict=False)],
        axis=1,
    )
    factors = [np.float32(kernel.weight * kernel.lattice.scale) for kernel in kernels]
    gains = np.concatenate(
        [
            lattice.weights * (lattice.normaliser * factor)[:, None]
            for lattice, factor in zip(lattices, factors, strict=True)
        ],
        axis=1,
    )
    return edges, rows, gains


@njit(nogil=True, cache=True, error_model="numpy")
def _clip(probability):  # type: ignore[no-untyped-def]
    return min(max(probability, np.float32(_LEAST)), np.float32(1.0))


@njit(nogil=True, cache=True, error_model="numpy")
def _sum_classes(first, last, probabilities, order, total):  # type: ignore[no-untyped-def]
    """Sum the clipped classes of every pixel; returns each one's largest share, in ``order``."""
    total[first:last] = np.float32(0.0)
    for plane in probabilities:
        for point in range(first, last):
            total[point] += _clip(plane[point])
    peaks = np.zeros(len(order), np.float32)
    for column in range(len(order)):
        plane = probabilities[order[column]]
        peak = np.float32(0.0)
        for point in range(first, last):
            peak = max(peak, _clip(plane[point]) / total[point])
        peaks[column] = peak
    return peaks


@njit(nogil=True, cache=True, error_model="numpy")
def _transpose(first, last, probabilities, order, prior):  # type: ignore[no-untyped-def]
    """(K, N) -> (N, columns) in ``order``, clipped; columns beyond K are 0."""
    for column in range(prior.shape[1]):
        if column < len(order):
            plane = probabilities[order[column]]
            for point in range(first, last):
                prior[point, column] = _clip(plane[point])
        else:
            for point in range(first, last):
                prior[point, column] = np.float32(0.0)


@njit(nogil=True, cache=True, error_model="numpy")
def _restore(first, last, belief, total, order, probabilities, refined):  # type: ignore[no-untyped-def]
    """(N, columns) -> (K, N): classes in their own order, with those that sent no message."""
    for column in range(len(order)):
        plane = refined[order[column]]
        if column < belief.shape[1]:
            for point in range(first, last):
                plane[point] = belief[point, column]
        else:
            given = probabilities[order[column]]
            for point in range(first, last):
                plane[point] = _clip(given[point]) / total[point]


@njit(nogil=True, cache=True, error_model="numpy")
def _update(first, last, rows, gains, grid, prior, silent, belief, total):  # type: ignore[no-untyped-def]
    """Read all messages and renew the belief; returns the peak of every column.

    The belief is prior * exp(message) / total: what exp(message - unary) is, with one exponential
    per message. A class that sent no message has the message 0. The largest message is taken off
    all, and is in ``total``.
    """
    width = prior.shape[1]
    columns = grid.shape[1]
    peaks = np.zeros(width, np.float32)
    message = np.empty(columns, np.float32)
    for point in range(first, last):
        largest = np.float32(0.0)
        for k in range(0, columns, LANES):
            a = b = c = d = np.float32(0.0)  # in registers: a vector of LANES
            for reading in range(rows.shape[1]):
                row = rows[point, reading]
                gain = gains[point, reading]
                a += gain * grid[row, k]
                b += gain * grid[row, k + 1]
                c += gain * grid[row, k + 2]
                d += gain * grid[row, k + 3]
            message[k] = a
            message[k + 1] = b
            message[k + 2] = c
            message[k + 3] = d
            largest = max(largest, max(max(a, b), max(c, d)))
        own = belief[point]
        quiet = np.exp(-largest)
        whole = silent[point] * quiet
        for k in range(columns):
            own[k] = prior[point, k] * np.exp(message[k] - largest)
            whole += own[k]
        for k in range(columns, width):
            own[k] = prior[point, k] * quiet
            whole += own[k]
        for k in range(width):
            own[k] /= whole
            peaks[k] = max(peaks[k], own[k])
        total[point] = whole * np.exp(largest)
    return peaks
