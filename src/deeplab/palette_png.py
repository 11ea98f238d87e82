"""Write a mask as a palette PNG, fast."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8 = npt.NDArray[np.uint8]


def encode_palette_png(mask: UInt8, palette: UInt8) -> bytes:
    """Return (H, W) uint8 ids and their (256, 3) uint8 RGB colours as the bytes of a PNG file."""
    picture = Image.fromarray(mask)
    picture.putpalette(palette.tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", compress_type=3)  # run lengths: all that a mask consists of
    return file.getvalue()
