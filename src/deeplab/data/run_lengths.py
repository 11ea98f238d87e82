"""Masks as run lengths and other codes of annotation tools; the other way is ``shapes``' and
``encoded_masks``'.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deeplab.data.shapes import Bools

Int64 = npt.NDArray[np.int64]


def encode_runs(values: Bools) -> Int64:
    """Return the lengths of runs of false and true in turn, false first, of (N,) bool."""
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    ends = np.concatenate([edges, [len(values)]]) if len(values) else np.zeros(0, np.int64)
    starts_true = len(values) > 0 and bool(values[0])
    lengths: Int64 = np.diff(ends, prepend=0)
    return np.concatenate([[0], lengths]) if starts_true else lengths


def encode_coco_rle(where: Bools, corner: tuple[int, int], size: tuple[int, int]) -> str:
    """Return COCO's compressed run lengths of a photo, column by column.

    Args:
        where: (h, w) bool, pixels in a box.
        corner: (x, y) of the box.
        size: (height, width) of the photo.

    Source: cocoapi, common/maskApi.c, ``rleToString``.
    """
    (x, y), (height, width) = corner, size
    columns = np.zeros((where.shape[1], height), bool)
    columns[:, y : y + where.shape[0]] = where.T
    runs = encode_runs(columns.ravel())
    before, after = x * height, (width - x - where.shape[1]) * height
    if before:
        runs = np.concatenate([[runs[0] + before], runs[1:]])
    if after:
        if len(runs) % 2:  # it ends outside
            runs = np.concatenate([runs[:-1], [runs[-1] + after]])
        else:
            runs = np.append(runs, after)
    return _compress(runs)


def _compress(runs: Int64) -> str:
    """Return runs in base-32 digits plus 48, from the fourth on less the one before the last."""
    values = runs.copy()
    values[3:] -= runs[1:-2]
    letters = []
    for value in values.tolist():
        while True:
            digit = value & 0x1F
            value >>= 5
            more = value != -1 if digit & 0x10 else value != 0
            letters.append(chr((digit | 0x20 if more else digit) + 48))
            if not more:
                break
    return "".join(letters)


_RUN_BITS = (3, 4, 8, 16)
"""Bits of a length, for its four kinds; Label Studio's own encoder takes these."""


def encode_brush(values: npt.NDArray[np.uint8]) -> list[int]:
    """Return Label Studio's bit stream of (N,) uint8, which is red, green, blue, alpha by turns.

    Each stretch of equal numbers is one entry. Source: thi-ng/umbrella, packages/rle-pack;
    label-studio-sdk, converter/brush.py.
    """
    ends = np.concatenate([np.flatnonzero(values[1:] != values[:-1]) + 1, [len(values)]])
    most = 1 << _RUN_BITS[-1]
    parts = [f"{len(values):032b}", f"{8 - 1:05b}", *(f"{bits - 1:04b}" for bits in _RUN_BITS)]
    begin = 0
    for end in ends.tolist():
        left, value = end - begin, f"{int(values[begin]):08b}"
        while left:
            length = min(left, most)
            kind = next(k for k, bits in enumerate(_RUN_BITS) if length <= 1 << bits)
            parts.append(f"1{kind:02b}{length - 1:0{_RUN_BITS[kind]}b}{value}")
            left -= length
        begin = end
    bits = "".join(parts)
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def encode_brush_mask(where: Bools) -> list[int]:
    """Return a mask, (H, W) bool, as Label Studio's brush has it: white where it is true."""
    return encode_brush(np.repeat(where.ravel().astype(np.uint8) * 255, 4))
