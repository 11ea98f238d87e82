"""Soft edges of what is cut out: its alpha, and its own colours where the ground shines through.

A network sees a photo coarsely; its border lies some pixels beside the object's. Near it, alpha is
refined along the photo's own edges by a guided filter, and the share of the ground is taken out of
the colours. ``web/src/edges.ts`` does the same, step by step.

Alpha is, in every window of the photo, a linear function of its colour (He, Sun, Tang: Guided Image
Filtering, 2010). The functions are fitted on the photo made small (its shorter side about 72
pixels: a window is then as wide as a network's border may be off) and applied to every pixel
(He, Sun: Fast Guided Filter, 2015); each of three rounds starts from the alpha of the one before,
steeper, which draws the border to the photo's edge. Colours: Forte, Approximate Fast Foreground
Colour Estimation, 2021. Everything outside a narrow band keeps alpha 0 or 1 and its colours.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.errors import InputError

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Inside: TypeAlias = "UInt8 | npt.NDArray[np.bool_]"

_ROWS = 72
"""Of the small photo, about; one of its cells is 10 pixels of a 720p picture."""

_RADIUS = 2
"""Of the windows, in cells."""

_CORE = 2
"""What has no place for a window of this radius is thin, in cells."""

_BAND = 3
"""How far from the border alpha is refined, in cells."""

_SMOOTH = 3e-4
"""Added to the variance of colours, 0..1: what differs less is no edge."""

_FAR = 1e-9
"""What is left by rounding where nothing is near."""

_ROUNDS = 3
_STEEPER = 2.0
_PRIOR = 0.5
"""How much the mask's word counts at the far end of the band."""

_CHUNK = 1 << 15
"""Pixels that are worked on at once, so that a few arrays of them fit the cache."""

_SURE = 0.1
"""A cell is all inside or all outside if it and its neighbours are so by this much."""


class _Cells(NamedTuple):
    """The cells of a small photo in which alpha is neither 0 nor 1 everywhere.

    Attributes:
        row: (n,) of each cell.
        column: (n,) of each cell.
        values: (n, 11, 9) float32, of it and its neighbours: what alpha is made of (a factor per
            colour, and what is added), the object's colour, the ground's, and how much of alpha
            comes from here, not from the mask.
    """

    row: npt.NDArray[np.intp]
    column: npt.NDArray[np.intp]
    values: Float32


def working_size(height: int, width: int) -> tuple[int, int]:
    """Return (rows, columns) of the grid on which alpha is refined for a photo of this size."""
    step = _step(height, width)
    return -(-height // step), -(-width // step)


def soft_cutout(image: UInt8, inside: Inside, *, probability: Float32 | None = None) -> UInt8:
    """Return what is inside, with a soft edge and without the colours of its ground.

    Args:
        image: the photo, (H, W, 3) uint8 RGB.
        inside: (H, W), not 0 on what is kept.
        probability: (rows, columns) float32, 0..1, of :func:`working_size`: how sure the network
            is that what lies there is kept; None takes the mask's word.

    Returns:
        (H, W, 4) uint8 RGBA; the colours are not multiplied by alpha.

    Raises:
        InputError: sizes or types do not fit.
    """
    inside = np.asarray(inside) != 0
    _check(image, inside, probability)
    alpha = Image.fromarray(np.multiply(inside, np.uint8(255)))
    result = np.array(Image.merge("RGBA", (*Image.fromarray(image).split(), alpha)))
    step = _step(*inside.shape)
    cells = _fit(image, inside, step, probability)
    if len(cells.row):
        _apply(result, cells, step)
    return result


# --- on the small photo -------------------------------------------------------------------------


def _fit(image: UInt8, inside: Inside, step: int, probability: Float32 | None) -> _Cells:
    """Fit the linear functions, and estimate the colours on both sides."""
    reduced = np.asarray(Image.fromarray(image).reduce(step))
    hard = Image.fromarray(np.multiply(inside, np.uint8(255))).reduce(step)
    mask = np.asarray(hard) / 255.0
    share = _mean(mask, _BAND)
    near = np.minimum(1.0, 4.0 * np.minimum(share, 1.0 - share))  # 1 at the border, 0 far from it
    near *= 1.0 - np.minimum(1.0, 3.0 * _mean(_thin(mask), _RADIUS))
    top, left, box = _around(near > _FAR)
    near, mask, reduced = near[box], mask[box], reduced[box]
    # The linear functions' alpha is drawn apart about the half; and the farther from the mask's
    # border, the more it takes to contradict the mask.
    sure = 2.0 * share[box] - 1.0
    sure = np.where((sure > 0) == (mask > 0.5), sure**3, 0.0)
    prior = 0.5 - 0.5 * _STEEPER + _PRIOR * sure
    band = near > _FAR
    alpha = mask if probability is None else np.where(band, probability[box], mask)
    small = np.ascontiguousarray(reduced.transpose(2, 0, 1)) / 255.0
    colour = _mean(small, _RADIUS)
    inverse = _inverse_covariance(small, colour)
    for _ in range(_ROUNDS):
        together = _mean(np.concatenate([small * alpha, alpha[None]]), _RADIUS)
        rise = together[:3] - colour * together[3]
        slope = np.stack([(row * rise).sum(0) for row in inverse])
        rest = together[3] - (slope * colour).sum(0)
        linear = _mean(np.concatenate([slope, rest[None]]), _RADIUS)
        linear *= _STEEPER
        linear[3] += prior
        raw = (linear[:3] * small).sum(0) + linear[3]
        alpha = np.where(band, np.clip(raw, 0.0, 1.0), mask)

    kept = _mean(np.concatenate([small * alpha, alpha[None]]), _RADIUS)
    own, ground = np.maximum(kept[3], 1e-3), np.maximum(1.0 - kept[3], 1e-3)
    values = np.concatenate([linear, kept[:3] / own, (colour - kept[:3]) / ground, near[None]])
    unsure = band & ~(_reaches(raw, 1.0 + _SURE) | _reaches(-raw, _SURE))
    # Where the mask was sure and is contradicted, the pixels must be told, too.
    unsure |= band & (np.abs(alpha - mask) > 0.5)
    row, column = np.nonzero(unsure)
    around = np.pad(values.transpose(1, 2, 0).astype(np.float32), ((1, 1), (1, 1), (0, 0)), "edge")
    nine = [around[row + down, column + right] for down in range(3) for right in range(3)]
    return _Cells(row + top, column + left, np.stack(nine, axis=2))


def _around(band: npt.NDArray[np.bool_]) -> tuple[int, int, tuple[slice, slice]]:
    """Return the first row and column, and all, that say something about the band."""
    spans = []
    for axis in (1, 0):
        there = np.flatnonzero(band.any(axis=axis))
        first, last = (int(there[0]), int(there[-1])) if len(there) else (0, 0)
        spans.append(slice(max(0, first - 2 * _RADIUS), last + 2 * _RADIUS + 1))
    return spans[0].start, spans[1].start, (spans[0], spans[1])


def _thin(mask: Float64) -> Float64:
    """Return 1 in cells of what is thinner than a window (legs, tails), whose mask is kept."""
    wide = _mean((_mean(mask, _CORE) > 1.0 - _FAR).astype(np.float64), _CORE + 1) > _FAR
    return ((mask > 0.5) & ~wide).astype(np.float64)


def _inverse_covariance(small: Float64, mean: Float64) -> list[Float64]:
    """Return the three rows of the inverse of the colours' covariance in every window."""
    red, green, blue = small
    products = np.stack([red * red, red * green, red * blue, green * green, green * blue, blue**2])
    r, g, b = mean
    rr, rg, rb, gg, gb, bb = _mean(products, _RADIUS) - np.stack(
        [r * r, r * g, r * b, g * g, g * b, b * b]
    )
    rr, gg, bb = rr + _SMOOTH, gg + _SMOOTH, bb + _SMOOTH
    one, two, three = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - gg * rb
    four, five, six = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    scale = 1.0 / (rr * one + rg * two + rb * three)
    rows = [[one, two, three], [two, four, five], [three, five, six]]
    return [np.stack(row) * scale for row in rows]


def _mean(planes: Float64, radius: int) -> Float64:
    """Return the mean over squares of 2 * radius + 1, (…, h, w); fewer at the border."""
    *rest, h, w = planes.shape
    down = np.zeros((*rest, h + 2 * radius + 1, w))
    np.cumsum(planes, axis=-2, out=down[..., radius + 1 : radius + 1 + h, :])
    down[..., radius + 1 + h :, :] = down[..., radius + h, None, :]
    across = np.zeros((*rest, h, w + 2 * radius + 1))
    rows = np.subtract(down[..., 2 * radius + 1 :, :], down[..., :h, :])
    np.cumsum(rows, axis=-1, out=across[..., radius + 1 : radius + 1 + w])
    across[..., radius + 1 + w :] = across[..., radius + w, None]
    np.subtract(across[..., 2 * radius + 1 :], across[..., :w], out=rows)
    rows *= _shares(h, radius)[:, None] * _shares(w, radius)
    return rows


def _shares(size: int, radius: int) -> Float64:
    """Return one over the number of cells within ``radius`` along a line."""
    here = np.arange(size)
    return 1.0 / (np.minimum(here + radius + 1, size) - np.maximum(here - radius, 0))


def _reaches(plane: Float64, least: float) -> npt.NDArray[np.bool_]:
    """Whether a cell and its eight neighbours all have at least this much."""
    padded = np.pad(plane >= least, 1, mode="edge")
    rows = padded[:-2] & padded[1:-1] & padded[2:]
    return rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]


# --- on the photo -------------------------------------------------------------------------------


def _apply(result: UInt8, cells: _Cells, step: int) -> None:
    """Write alpha and colours of every pixel of the cells, in place."""
    height, width = result.shape[:2]
    pixels = result.reshape(-1).view("<u4")
    weights = np.ascontiguousarray(_bilinear(step).T)
    place = np.arange(step)
    offset = (place[:, None] * width + place).ravel()
    chunk = max(1, _CHUNK // step**2)
    for start in range(0, len(cells.row), chunk):
        some = slice(start, start + chunk)
        top, left = cells.row[some] * step, cells.column[some] * step
        at = (top * width + left)[:, None] + offset
        if top[-1] + step > height or int(left.max()) + step > width:  # cells that leave the photo
            there = (top[:, None] + place < height)[:, :, None]
            there = (there & (left[:, None] + place < width)[:, None, :]).reshape(at.shape)
            at = np.where(there, at, 0)
            pixels[at[there]] = _mix(pixels[at], np.matmul(cells.values[some], weights))[there]
        else:
            pixels[at] = _mix(pixels[at], np.matmul(cells.values[some], weights))


def _mix(pixels: npt.NDArray[np.uint32], values: Float32) -> npt.NDArray[np.uint32]:
    """Return (n, p) RGBA pixels, red in the lowest byte, by their (n, 11, p) values."""
    colour = [(pixels >> 8 * c & 255).astype(np.float32) for c in range(3)]
    alpha = values[:, 3]
    for c in range(3):
        values[:, c] *= np.float32(1 / 255)
        alpha += values[:, c] * colour[c]
    np.clip(alpha, 0, 1, out=alpha)
    inside = (pixels >> 24 != 0).astype(np.float32)
    alpha -= inside
    alpha *= values[:, 10]
    alpha += inside
    result: npt.NDArray[np.uint32] = (alpha * 255 + np.float32(0.5)).astype(np.uint32)
    result <<= np.uint32(24)
    for c in range(3):
        # What is left when both sides' colours are taken from the pixel's belongs to the object.
        own, ground = values[:, 4 + c], values[:, 7 + c]
        rest = colour[c] - 255 * (ground + alpha * (own - ground))
        mixed = 255 * own + alpha * rest + np.float32(0.5)
        result |= np.clip(mixed, 0, 255).astype(np.uint32) << np.uint32(8 * c)
    return result


def _bilinear(step: int) -> Float32:
    """Return (step * step, 9): the shares of nine cells in each pixel of the middle one."""
    place = (np.arange(step) + 0.5) / step - 0.5
    line = np.stack([np.maximum(-place, 0), 1 - np.abs(place), np.maximum(place, 0)], axis=1)
    both = line[:, None, :, None] * line[None, :, None, :]
    shares: Float32 = both.reshape(step * step, 9).astype(np.float32)
    return shares


def _step(height: int, width: int) -> int:
    return max(1, (2 * min(height, width) + _ROWS) // (2 * _ROWS))


def _check(image: UInt8, inside: Inside, probability: Float32 | None) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"image: got {image.dtype} of shape {image.shape}, expected (H, W, 3) uint8 RGB."
        )
    if inside.shape != image.shape[:2]:
        raise InputError(
            f"inside: got shape {inside.shape} for a photo of {image.shape[:2]}; both must have "
            "the same height and width."
        )
    if probability is not None and probability.shape != working_size(*inside.shape):
        raise InputError(
            f"probability: got shape {probability.shape}, expected "
            f"{working_size(*inside.shape)}, as working_size gives it."
        )
