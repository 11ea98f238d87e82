"""Pictures that are no photos with something wrong in them: read whole, or refused in one line."""

from __future__ import annotations

import io
import random as rng
import warnings
from pathlib import Path

import numpy as np
import rasterio
from photos import change
from PIL import Image

from deeplab.errors import DeepLabError
from deeplab.photo.band_pictures import count_channels, read_values

_KINDS = ("uint8", "uint16", "float32", "int16", "float64", "complex64")
_COMPRESSIONS = ("deflate", "lzw", "zstd", "none")


def _write(random: rng.Random, path: Path) -> None:
    height, width = random.randrange(1, 90), random.randrange(1, 90)
    channels = random.choice((1, 2, 3, 4, 5, 7))
    chance = np.random.default_rng(random.randrange(99))
    values = chance.integers(0, 256, (height, width, channels)).astype(random.choice(_KINDS))
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".png":
        stored = io.BytesIO()
        Image.fromarray(values[:, :, 0].astype(random.choice(("uint8", "uint16")))).save(
            stored, "PNG"
        )
        path.write_bytes(stored.getvalue())
    else:
        compression = random.choice(_COMPRESSIONS)
        options = {"compress": compression} if compression != "none" else {}
        if random.random() < 0.5:
            options |= {"tiled": True, "blockxsize": 32, "blockysize": 32}
        if random.random() < 0.3:
            options |= {"nodata": random.choice((0, 255))}
        with (
            warnings.catch_warnings(action="ignore"),
            rasterio.open(
                path, "w", driver="GTiff", height=height, width=width, count=channels,
                dtype=values.dtype, **options,
            ) as file,
        ):  # fmt: skip
            file.write(np.moveaxis(values, 2, 0))
            file.update_tags(WHAT="a picture of the fuzz", AREA_OR_POINT="Point")


def run_one(random: rng.Random, folder: Path) -> str:
    """Read one changed picture."""
    path = folder / f"picture{random.choice(('.npy', '.png', '.tif', '.tif', '.tif'))}"
    _write(random, path)
    path.write_bytes(change(random, path.read_bytes()))
    try:
        count_channels(path)
        _, values = read_values(path)
        assert values.ndim == 3, values.shape
        assert values.size > 0
        assert values.dtype.name in ("uint8", "uint16", "float32"), values.dtype
        assert np.isfinite(values).all()
    except DeepLabError as error:
        lines = str(error).count("\n") + 1
        return "refused" if lines == 1 else f"refused in {lines} lines"
    return "read"
