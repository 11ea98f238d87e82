"""Photos of every format with something wrong in them: read, or refused in one line."""

from __future__ import annotations

import io
import random as rng
from pathlib import Path

import numpy as np
from PIL import Image

from deeplab.errors import DeepLabError
from deeplab.photo import images
from deeplab.photo.images import Photo
from tiny_folder import photo

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")


def _write(random: rng.Random) -> bytes:
    picture = Image.fromarray(photo(random.randrange(9)))
    picture = picture.convert(random.choice(["RGB", "L", "RGB", "1"]))
    stored = io.BytesIO()
    picture.save(stored, random.choice(_FORMATS))
    return stored.getvalue()


def change(random: rng.Random, data: bytes) -> bytes:
    """Return bytes cut off, grown, or wrong in a few places."""
    changed = bytearray(data)
    kind = random.random()
    if kind < 0.2:
        del changed[random.randrange(len(changed)) :]
    elif kind < 0.3:
        place = random.randrange(len(changed))
        changed[place:place] = random.randbytes(random.randrange(1, 40))
    for _ in range(random.choice((0, 1, 2, 8))):
        if changed:
            # Headers say how large a picture is; most changes are made there.
            place = random.randrange(min(len(changed), random.choice((64, 64, 1 << 20))))
            changed[place] = random.choice((0, 255, random.randrange(256)))
    return bytes(changed)


def run_one(random: rng.Random, folder: Path) -> str:
    """Read one changed photo from bytes, and from a file under another ending."""
    data = change(random, _write(random))
    path = folder / f"photo{random.choice(('.jpg', '.png', '.webp', '.tif', '.bmp', ''))}"
    path.write_bytes(data)
    try:
        array = images.read(data)
        assert array.dtype == np.uint8
        assert array.shape[2] == 3
        assert Photo(path).decode().size == array.shape[1::-1]
    except DeepLabError as error:
        lines = str(error).count("\n") + 1
        return "refused" if lines == 1 else f"refused in {lines} lines"
    return "read"
