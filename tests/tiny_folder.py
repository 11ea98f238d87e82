"""A small, clean data set on disk, to be broken on purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.data.masks import write_mask
from deeplab.labels import voc_colours

NAMES = ("background", "cat", "dog")
HEIGHT, WIDTH = 48, 64


def photo(seed: int, height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    """A smooth field of colour with some noise; every seed another one."""
    draw = np.random.default_rng(seed)
    grid = Image.fromarray(draw.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    smooth = np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noise = draw.integers(-9, 10, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def label(seed: int, height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    """Two discs of class 1 and 2 with a rim of 255, over class 0."""
    draw = np.random.default_rng(1000 + seed)
    rows, columns = np.mgrid[:height, :width]
    result = np.zeros((height, width), np.uint8)
    for index in (1, 2):
        distance = np.hypot(rows - draw.integers(10, 38), columns - draw.integers(10, 54))
        result[distance < 10] = 255
        result[distance < 9] = index
    return result


def make_folder(root: Path, *, pairs: int = 10) -> Path:
    """Write photos, palette masks and the names; train is the first 4/5."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    palette = np.array(voc_colours(256), np.uint8)
    names = [f"p{index:02}" for index in range(pairs)]
    for index, name in enumerate(names):
        Image.fromarray(photo(index)).save(root / "images" / f"{name}.jpg", quality=95)
        write_mask(root / "masks" / f"{name}.png", label(index), palette)
    (root / "labels.txt").write_text("\n".join(NAMES) + "\n")
    share = pairs * 4 // 5
    (root / "train.txt").write_text("\n".join(names[:share]) + "\n")
    (root / "val.txt").write_text("\n".join(names[share:]) + "\n")
    return root
