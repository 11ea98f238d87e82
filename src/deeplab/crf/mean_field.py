"""Mean-field inference in a fully connected CRF with Potts compatibility. Needs numba.

Source: Krähenbühl and Koltun, NIPS 2011, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from deeplab.crf.permutohedral import FloatArray, IndexArray, Lattice, Team

_LEAST = 1e-5
"""Smaller probabilities are raised to it. Source: pydensecrf, ``unary_from_softmax``."""
_IDLE = 1e-3
"""A class that is nowhere above it sends no message. With weights that sum to 7, the message would
change a probability by at most 7 * 1e-3 * 1e-3; the label maps of pydensecrf are still met."""


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
    classes, count = probabilities.shape
    # Classes in falling order of their peak: those that send messages are the first columns.
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    prior = np.empty((count, classes), np.float32)
    belief = np.empty_like(prior)
    team.share(_transpose, count, probabilities, order, np.float32(_LEAST), prior)
    peaks = team.share(_start, count, prior, belief)
    if kernels:
        edges, rows, gains = _readings(kernels)
        buffer = np.empty(edges[-1] * classes, np.float32)
        for iteration in range(iterations):
            if progress:
                progress(iteration, iterations)
            active = int(np.flatnonzero(np.max(peaks, axis=0) > _IDLE)[-1]) + 1
            grid = buffer[: edges[-1] * active].reshape(-1, active)
            for number, kernel in enumerate(kernels):
                own = grid[edges[number] : edges[number + 1]]
                kernel.lattice.splat_and_blur(belief, own, team)
            peaks = team.share(_update, count, rows, gains, grid, prior, belief)
    if progress:
        progress(iterations, iterations)
    refined = np.empty_like(probabilities)
    team.share(_restore, count, belief, order, refined)
    return refined


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


@njit(nogil=True, cache=True)
def _transpose(first, last, probabilities, order, least, prior):  # type: ignore[no-untyped-def]
    """(K, N) -> (N, K), columns in ``order``, clipped to ``least``..1."""
    for column in range(len(order)):
        plane = probabilities[order[column]]
        for point in range(first, last):
            prior[point, column] = min(max(plane[point], least), np.float32(1.0))


@njit(nogil=True, cache=True)
def _restore(first, last, belief, order, refined):  # type: ignore[no-untyped-def]
    """(N, K) -> (K, N), classes in their own order again."""
    for column in range(len(order)):
        plane = refined[order[column]]
        for point in range(first, last):
            plane[point] = belief[point, column]


@njit(nogil=True, cache=True)
def _start(first, last, prior, belief):  # type: ignore[no-untyped-def]
    """The belief before any message; returns the peak of every column."""
    classes = prior.shape[1]
    peaks = np.zeros(classes, np.float32)
    for point in range(first, last):
        total = np.float32(0.0)
        for k in range(classes):
            total += prior[point, k]
        for k in range(classes):
            value = prior[point, k] / total
            belief[point, k] = value
            peaks[k] = max(peaks[k], value)
    return peaks


@njit(nogil=True, cache=True)
def _update(first, last, rows, gains, grid, prior, belief):  # type: ignore[no-untyped-def]
    """Read all messages and renew the belief; returns the peak of every column."""
    classes = prior.shape[1]
    active = grid.shape[1]
    peaks = np.zeros(classes, np.float32)
    message = np.empty(active, np.float32)
    for point in range(first, last):
        for k in range(active):
            message[k] = np.float32(0.0)
        for reading in range(rows.shape[1]):
            row = grid[rows[point, reading]]
            gain = gains[point, reading]
            for k in range(active):
                message[k] += gain * row[k]
        # prior * exp(message): the same as exp(message - unary), with one exponential per message.
        # Classes that sent none have the message 0, so the largest is at least that.
        largest = np.float32(0.0)
        for k in range(active):
            largest = max(largest, message[k])
        own = belief[point]
        total = np.float32(0.0)
        for k in range(active):
            own[k] = prior[point, k] * np.exp(message[k] - largest)
            total += own[k]
        silent = np.exp(-largest)
        for k in range(active, classes):
            own[k] = prior[point, k] * silent
            total += own[k]
        share = np.float32(1.0) / total
        for k in range(classes):
            own[k] *= share
            peaks[k] = max(peaks[k], own[k])
    return peaks
