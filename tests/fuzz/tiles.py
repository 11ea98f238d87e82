"""TIFFs with something wrong in them, read by region: all of it is read, or refused in one line."""

from __future__ import annotations

import random as rng
import warnings
from pathlib import Path

import numpy as np
import rasterio
from photos import change

from deeplab.errors import DeepLabError
from deeplab.tiles.open import open_picture

_COMPRESSIONS = ("deflate", "lzw", "packbits", "jpeg", "none", "zstd")


def _write(random: rng.Random, path: Path) -> np.ndarray:
    height, width = random.randrange(1, 150), random.randrange(1, 150)
    bands = random.choice((1, 3, 3, 4))
    pixels = np.random.default_rng(random.randrange(99)).integers(
        0, 256, (bands, height, width), np.uint8
    )
    compression = random.choice(_COMPRESSIONS)
    options = {"compress": compression} if compression != "none" else {}
    if random.random() < 0.6:
        options |= {"tiled": True, "blockxsize": 64, "blockysize": 64}
    if random.random() < 0.3:
        options |= {"nodata": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it lies nowhere on Earth
        with rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=bands, dtype="uint8",
            **options,
        ) as file:  # fmt: skip
            file.write(pixels)
    return pixels


def run_one(random: rng.Random, folder: Path) -> str:
    """Read all of one changed TIFF in windows."""
    path = folder / "map.tif"
    _write(random, path)
    data = path.read_bytes()
    changed = change(random, data)
    path.write_bytes(changed)
    try:
        picture = open_picture(path)
        height, width = picture.size
        if height * width > 4_000_000:
            return "opened, and said to be large"
        for top in range(0, height, 97):
            bottom = min(height, top + 97)
            part = picture.read(top, 0, bottom, width)
            assert part.shape == (bottom - top, width, 3), part.shape
            assert part.dtype == np.uint8
            if picture.has_nodata:
                assert picture.valid(top, 0, bottom, width).shape == part.shape[:2]
    except DeepLabError as error:
        lines = str(error).count("\n") + 1
        return "refused" if lines == 1 else f"refused in {lines} lines"
    # With a byte changed as well, a file may say that it is smaller, and be whole.
    assert not data.startswith(changed) or len(changed) > len(data) // 2, (
        "half of the file is missing and was read as if it were whole"
    )
    return "read"
