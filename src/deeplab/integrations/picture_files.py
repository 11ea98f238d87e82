"""Picture files with the channels that they have: grey, RGB or RGBA."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from deeplab.errors import ImageError
from deeplab.photo.formats import open_picture
from deeplab.photo.images import Photo


def decode(data: bytes, *, name: str, upright: bool) -> npt.NDArray[np.uint8]:
    """Return the pixels of a picture file, (H, W, C) uint8 with C = 1, 3 or 4.

    Palettes, 16 bits and other colour spaces become RGB, or RGBA where parts are transparent.

    Args:
        data: the whole file.
        name: of the file, for messages.
        upright: turn it as its EXIF data say.

    Raises:
        ImageError: it is no picture, is damaged or too large, or is of a rare kind that is only
            read upright.
    """
    try:
        picture: Image.Image = open_picture(data, name=name)
        if picture.mode not in ("L", "RGB", "RGBA"):
            if not picture.has_transparency_data:
                return _decode_rare(data, name, upright)
            picture = picture.convert("RGBA")
        pixels = np.asarray(ImageOps.exif_transpose(picture) if upright else picture)
    except ImageError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise ImageError(f"{name}: is damaged or cut off ({error}).") from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _decode_rare(data: bytes, name: str, upright: bool) -> npt.NDArray[np.uint8]:
    photo = Photo(data, name=name)
    if photo.orientation != 1 and not upright:
        raise ImageError(f"{name}: is of a kind that is only read upright; save it as RGB.")
    return photo.pixels()
