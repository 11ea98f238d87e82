"""A photo in a network's frame as OpenCV and libyuv resize it, to the last bit.

Other libraries take two pixels a side wherever the photo is larger, so a mask depends on which two.
To give the same masks as they do, these functions take the same. For masks of one's own,
:class:`deeplab.photo.images.Geometry` weighs every pixel.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
_Index = npt.NDArray[np.intp]

_OPENCV_STEPS = 32
"""OpenCV rounds where it looks to this part of a pixel. Source: imgproc.hpp, INTER_TAB_SIZE."""


def resize_as_opencv(
    photo: UInt8, height: int, width: int, *, shifted: tuple[bool, bool] = (False, False)
) -> UInt8:
    """Return a photo in a frame as MediaPipe fills it: ``cv::warpPerspective``, bilinear.

    Corners of pixels lie on centres: the frame's pixel i looks at ``i * photo / frame``. Outside,
    the border goes on.

    Args:
        photo: (H, W, 3) uint8.
        height: rows of the frame.
        width: columns of the frame.
        shifted: whether the (rows, columns) look one pixel before: those of an axis that was turned
            around, because the corner that lies on a centre is then the other one.

    Returns:
        (height, width, 3) uint8.
    """
    axes = []
    for size, length, shift in zip((height, width), photo.shape[:2], shifted, strict=True):
        place = np.arange(size) * (length / size) - shift
        steps = np.rint(place * _OPENCV_STEPS).astype(np.intp)
        cell, part = steps // _OPENCV_STEPS, (steps % _OPENCV_STEPS).astype(np.float32)
        axes.append((np.clip(cell, 0, length - 1), np.clip(cell + 1, 0, length - 1), part))
    (top, bottom, down), (left, right, across) = axes
    whole = 1 / np.float32(_OPENCV_STEPS)
    across, down = np.repeat(across * whole, 3), down[:, None] * whole
    frame = np.empty((height, width * 3), np.uint8)
    for rows in _bands(frame):
        high = _mix(*_pick(photo, top[rows], left, right), across)
        low = _mix(*_pick(photo, bottom[rows], left, right), across)
        mixed = _mix(high, low, down[rows])
        mixed += 0.5  # each is a whole count of 1/1024, so nothing was rounded so far
        frame[rows] = mixed
    return frame.reshape(height, width, 3)


def _bands(frame: UInt8) -> Iterator[slice]:
    """Yield a few rows at a time: what they need stays in the processor's cache."""
    rows = max(1, 2**16 // frame.shape[1])
    return (slice(start, start + rows) for start in range(0, len(frame), rows))


def _pick(photo: UInt8, rows: _Index, left: _Index, right: _Index) -> tuple[UInt8, UInt8]:
    """Return two pixels of every place of the frame, so that only they are computed with.

    They are (rows, columns * 3): numpy is slow along an axis of three.
    """
    band = photo.take(rows, 0)
    return band.take(left, 1).reshape(len(rows), -1), band.take(right, 1).reshape(len(rows), -1)


def _mix(
    one: npt.NDArray[np.generic], other: npt.NDArray[np.generic], part: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    first = one.astype(np.float32, copy=False)
    mixed: npt.NDArray[np.float32] = np.subtract(other, first, dtype=np.float32)
    mixed *= part
    mixed += first
    return mixed


def resize_as_libyuv(photo: UInt8, height: int, width: int) -> UInt8:
    """Return a photo in a frame as the Task Library fills it: libyuv's ``ARGBScale``, bilinear.

    Where the photo is larger, centres lie on the photo as their share of it; where it is smaller,
    corners lie on corners. Source: libyuv, source/scale_argb.cc and scale_common.cc.

    Args:
        photo: (H, W, 3) uint8.
        height: rows of the frame.
        width: columns of the frame.

    Returns:
        (height, width, 3) uint8.
    """
    (lines, step_down), (columns, step_across) = _slope(photo, 0, height), _slope(photo, 1, width)
    whole = not (step_down | step_across) & 0xFFFF
    odd = bool(step_down & 0x10000), bool(step_across & 0x10000)
    if step_down == step_across == 0x10000:
        return photo
    if whole and 0 in (step_down, step_across):  # one pixel wide or high
        return photo.take(lines >> 16, 0).take(columns >> 16, 1)
    if whole and not any(odd):
        return _halve(photo, lines >> 16, columns >> 16)
    if whole and all(odd):
        return photo.take(lines >> 16, 0).take(columns >> 16, 1)
    mixes_rows = photo.shape[0] > 1 and photo.shape[0] not in (height, 3 * height)
    mixes_columns = photo.shape[1] > 1 and (mixes_rows or photo.shape[1] not in (width, 3 * width))
    if step_across == 0x10000:  # it is only made higher or lower
        mixes_columns = False
    elif not mixes_columns:
        mixes_rows = False
    high, low = lines >> 16, np.minimum((lines >> 16) + 1, len(photo) - 1)
    left = columns >> 16
    right = np.minimum(left + 1, photo.shape[1] - 1) if mixes_columns else left
    down = ((lines >> 8) & 255).astype(np.uint16)[:, None]
    across = np.repeat(((columns >> 9) & 127).astype(np.uint16), 3)
    frame = np.empty((height, width * 3), np.uint8)
    for rows in _bands(frame):
        one, other = _pick(photo, high[rows], left, right)
        below, beyond = _pick(photo, low[rows], left, right) if mixes_rows else (one, other)
        if mixes_columns and step_down < 0x10000:
            one, below = _mix_columns(one, other, across), _mix_columns(below, beyond, across)
            frame[rows] = _mix_rows(one, below, down[rows])
            continue
        if mixes_rows:
            one = _mix_rows(one, below, down[rows])
            other = _mix_rows(other, beyond, down[rows])
        frame[rows] = _mix_columns(one, other, across) if mixes_columns else one
    return frame.reshape(height, width, 3)


def _slope(photo: UInt8, axis: int, size: int) -> tuple[_Index, int]:
    """Return where the frame's rows or columns look, and the step, in 65536ths of a pixel."""
    length = photo.shape[axis]
    start, step = 0, 0
    if size <= length:
        step = (length << 16) // size
        start = (step >> 1) - 0x8000
    elif length > 1:
        step = ((length << 16) - 0x10001) // (size - 1)
    places = start + step * np.arange(size, dtype=np.int64)
    return np.clip(places, 0, (length - 1) << 16).astype(np.intp), step


def _halve(photo: UInt8, rows: _Index, columns: _Index) -> UInt8:
    """Average the two by two pixels at every place, rounding up twice as the processor does."""
    top, bottom = photo.take(rows, 0), photo.take(rows + 1, 0)
    high = (top.astype(np.uint16) + bottom + 1) >> 1
    halved: UInt8 = ((high.take(columns, 1) + high.take(columns + 1, 1) + 1) >> 1).astype(np.uint8)
    return halved


def _mix_rows(one: UInt8, below: UInt8, part: npt.NDArray[np.uint16]) -> UInt8:
    mixed = one * (256 - part)
    mixed += below * part
    mixed += np.uint16(128)
    mixed >>= np.uint16(8)
    return mixed.astype(np.uint8)


def _mix_columns(one: UInt8, beside: UInt8, part: npt.NDArray[np.uint16]) -> UInt8:
    """Mix in 128ths whose sum is 127, as the original's loop does."""
    mixed = one * (127 - part)
    mixed += beside * part
    mixed >>= np.uint16(7)
    return mixed.astype(np.uint8)
