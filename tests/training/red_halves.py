"""Four pictures of noise, of which another half is red each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def draw(side: int, *, border: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (photo, truth) of each; red is what lies beyond the border, before it is turned."""
    random = np.random.default_rng(0)
    pairs = []
    for index in range(4):
        half = np.zeros((side, side), np.uint8)
        half[border:] = 1
        label = np.rot90(half, index)
        photo = random.integers(0, 40, (side, side, 3))
        photo[..., 0] += 180 * label
        pairs.append((photo.astype(np.uint8), label))
    return pairs


def write(folder: Path, side: int, *, border: int) -> Path:
    """Write them as a data set of "background" and "red", to learn from and to judge by."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for index, (photo, label) in enumerate(draw(side, border=border)):
        Image.fromarray(photo).save(folder / "images" / f"{index}.png")
        Image.fromarray(label).save(folder / "masks" / f"{index}.png")
    lists = '["0", "1", "2", "3"]'
    (folder / "dataset.toml").write_text(
        f'classes = ["background", "red"]\n[splits]\ntrain = {lists}\nval = {lists}\n'
    )
    return folder
