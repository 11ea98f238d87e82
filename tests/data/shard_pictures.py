"""The pictures of the small TFRecord shards: for the script that writes them, and their test."""

from __future__ import annotations

import numpy as np


def draw(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (photo, mask): a square of one class whose place and colour follow the index."""
    height, width = 20 + index, 31
    photo = np.full((height, width, 3), 40 + 20 * index, np.uint8)
    mask = np.zeros((height, width), np.uint8)
    photo[4:14, 3 + index : 15 + index] = (25 * index, 200, 90)
    mask[4:14, 3 + index : 15 + index] = 1 + index % 3
    mask[4, 3 + index : 15 + index] = 255
    return photo, mask
