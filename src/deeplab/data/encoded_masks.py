"""Masks that stand inside annotation files: small PNGs, and the bit stream of Label Studio."""

from __future__ import annotations

import base64
import binascii
import io
import struct
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.data.fields import UnreadableError, text
from deeplab.data.shapes import Size

Levels: TypeAlias = npt.NDArray[np.uint8]

_PNG = b"\x89PNG\r\n\x1a\n"


def decode_picture(encoded: Any, size: Size) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the (h, w) uint8 of a PNG in base64; of one with transparency, its alpha.

    Raises:
        UnreadableError: it is none, or has more pixels than four photos of ``size``.
    """
    return picture_levels(decode_base64(encoded, "mask"), size)


def decode_base64(encoded: Any, field: str) -> bytes:
    """Return the bytes that a text stands for.

    Raises:
        UnreadableError: it is no text, or not in base64.
    """
    letters = text(encoded, field)
    try:
        return base64.b64decode(letters)
    except (binascii.Error, ValueError):
        raise UnreadableError(f"has a {field} that is not base64") from None


def picture_levels(data: bytes, size: Size) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the (h, w) uint8 of a small PNG; of one with transparency, its alpha.

    Raises:
        UnreadableError: it is none, or has more pixels than four photos of ``size``.
    """
    if data[:8] != _PNG or len(data) < 24:
        raise UnreadableError("has a mask that is not a PNG")
    width, height = struct.unpack(">II", data[16:24])
    if width * height > 4 * size[0] * size[1]:  # known before a pixel is decoded
        raise UnreadableError(f"has a mask of {width}×{height} on a photo of {size[1]}×{size[0]}")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode in ("LA", "RGBA", "PA"):
                return np.array(image.getchannel("A"))
            if image.mode in ("1", "P", "L"):
                return np.array(image).astype(np.uint8)
            return np.array(image.convert("L"))
    except Exception:  # Pillow's readers raise nearly anything on damaged files
        raise UnreadableError("has a mask that is a damaged PNG") from None


class _Bits:
    """A stream of bits, the highest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._bits = np.unpackbits(np.frombuffer(data, np.uint8))
        self._at = 0

    def number(self, width: int) -> int:
        """Return the next ``width`` bits as a number."""
        return int("".join(map(str, self._take(width))), 2)

    def bytes(self, count: int, width: int) -> Levels:
        """Return the next ``count`` numbers of ``width`` bits, at most 8."""
        table = self._take(count * width).reshape(count, width)
        packed: Levels = np.packbits(table, axis=1)[:, 0] >> np.uint8(8 - width)
        return packed

    def _take(self, count: int) -> Levels:
        part = self._bits[self._at : self._at + count]
        if len(part) < count:
            raise UnreadableError("has a brush mask that breaks off")
        self._at += count
        return part


def decode_brush(data: Any, size: Size) -> Levels:
    """Return the alpha, (H, W) uint8, of a brush mask of Label Studio.

    The stream holds the red, green, blue and alpha of every pixel, in stretches of equal or of
    single numbers. Source: thi-ng/umbrella, packages/rle-pack; label-studio-sdk,
    converter/brush.py.

    Raises:
        UnreadableError: it is no such stream, or not of this size.
    """
    try:
        bits = _Bits(bytes(data))
    except (TypeError, ValueError):
        raise UnreadableError("has a brush mask that is not a list of bytes") from None
    count = bits.number(32)
    width = bits.number(5) + 1
    lengths = [bits.number(4) + 1 for _ in range(4)]
    if count != size[0] * size[1] * 4 or width > 8:
        raise UnreadableError(
            f"has a brush mask of {count} numbers on a photo of {size[1]}×{size[0]}, expected "
            f"{4 * size[0] * size[1]}"
        )
    values = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        repeated = bits.number(1)
        end = at + 1 + bits.number(lengths[bits.number(2)])
        if end > count:
            raise UnreadableError("has a brush mask that goes on after its end")
        values[at:end] = bits.bytes(1 if repeated else end - at, width)
        at = end
    return values.reshape(*size, 4)[..., 3]
