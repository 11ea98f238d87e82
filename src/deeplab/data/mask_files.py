"""One mask file as it lies on the disk: real values whatever its depth, what is transparent, how
it was compressed. What the values mean is for ``masks.py`` to say.

Pillow scales small depths to 0..255 and halves large ones for viewing; here every value is the one
that the writer stored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.errors import DataError, ImageError
from deeplab.photo.formats import open_picture
from deeplab.photo.images import turn_upright

UInt8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.integer[Any]]

_LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "AVIF", "HEIF")
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp", "jpeg2000", "34712")
_BITS_PER_SAMPLE = 258  # TIFF tag
_PHOTOMETRIC = 262  # TIFF tag
_GREY_WITH_ALPHA = 4  # PNG colour type


@dataclass(frozen=True)
class MaskFile:
    """A mask as its file holds it.

    Attributes:
        pixels: (H, W) integer values (palette files: palette indices), or (H, W, 3) uint8 RGB.
        palette: (256, 3) uint8 RGB of a palette file, else None.
        format: Pillow's name of the file format: "PNG", "JPEG", …
        transparent: (H, W) bool, where nothing is to be seen; None where the file is opaque.
        depth: bits of one value in the file: 1, 2, 4, 8, 16 or 32.
        is_lossy: whether the format smears values, so that class ids cannot survive in it.
    """

    pixels: Integers
    palette: UInt8 | None
    format: str
    transparent: Bools | None = None
    depth: int = 8
    is_lossy: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def colours(self) -> UInt8 | None:
        """(H, W, 3) uint8 RGB of an RGB or palette file; None for greyscale."""
        if self.pixels.ndim == 3:
            return self.pixels.astype(np.uint8, copy=False)
        return None if self.palette is None else self.palette[self.pixels]

    @property
    def grey(self) -> Integers | None:
        """(H, W) integers of a file that says one number per pixel, in one channel or in three.

        What lies under transparent pixels does not matter.
        """
        if self.pixels.ndim == 2:
            return self.pixels
        first = self.pixels[..., 0]
        for other in (1, 2):
            differs = first != self.pixels[..., other]
            if self.transparent is not None:
                differs &= ~self.transparent
            if differs.any():
                return None
        return first


def open_mask(source: Path | bytes, name: str = "") -> MaskFile:
    """Return a mask as its file holds it, turned upright when the mask itself says so.

    Raises:
        DataError: the file is missing, damaged, not a picture, or holds values that no reader can
            give back exactly.
    """
    name = name or ("the bytes" if isinstance(source, bytes) else str(source))
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        with open_picture(data, name=name, what="mask") as image:
            return _unpack(image, data)
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such mask.") from None
    except MemoryError:
        raise DataError(f"{name}: there is not enough memory to decode this mask.") from None
    except ImageError as error:
        raise DataError(f"{name}: the mask cannot be read: {error}") from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise DataError(f"{name}: the mask cannot be read ({error}).") from error


def _unpack(image: Image.Image, data: bytes) -> MaskFile:
    file_format = image.format or "?"
    if file_format in ("GIF", "PNG", "TIFF", "WEBP") and _is_sequence(image):
        raise ValueError(
            "it holds several pictures of one size, and a mask is one; save them one by one"
        )
    lossy = (
        file_format in _LOSSY_FORMATS
        or (file_format == "TIFF" and str(image.info.get("compression")) in _LOSSY_TIFF)
        or (file_format == "WEBP" and b"VP8 " in data[:64])
    )
    depth = _depth(image, data)
    is_inverted = _is_inverted(image)
    if depth == 16 and file_format == "PNG" and data[25] == _GREY_WITH_ALPHA:
        raise ValueError("16-bit grey with alpha is not read; save it as 8-bit or without alpha")
    image.load()
    mode, transparency = image.mode, image.info.get("transparency")
    if depth == 16 and mode in ("RGB", "RGBA"):
        _check_low_bytes(image, data)
    upright = turn_upright(image)
    palette = None
    if mode in ("P", "PA"):
        palette = np.zeros((256, 3), np.uint8)
        stored = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
        palette[: len(stored)] = stored
        pixels: Integers = np.asarray(upright.getchannel("P") if mode == "PA" else upright)
    elif mode == "1":
        pixels = np.asarray(upright).astype(np.uint8) ^ np.uint8(is_inverted)
    elif mode in ("L", "LA", "La"):
        grey = np.asarray(upright if mode == "L" else upright.getchannel("L"))
        pixels = _unscale(grey, file_format, depth, data)
        if is_inverted:
            pixels = np.uint8(2**depth - 1) - pixels
    elif mode.startswith("I"):
        pixels = _unscale(np.asarray(upright), file_format, depth, data)
    elif mode == "F":
        pixels = _whole_numbers(np.asarray(upright))
    elif mode in ("RGB", "RGBX", "RGBA", "RGBa"):
        pixels = np.asarray(upright.convert("RGBA") if mode == "RGBa" else upright)[..., :3]
    else:
        raise ValueError(f"it is a {mode} picture; save it as greyscale, palette or RGB")
    return MaskFile(
        pixels=pixels,
        palette=palette,
        format=file_format,
        transparent=_find_transparent(upright, pixels, transparency, depth),
        depth=depth,
        is_lossy=lossy,
    )


def _is_sequence(image: Image.Image) -> bool:
    """Return whether a file is a stack or an animation; smaller copies behind it are none."""
    if getattr(image, "n_frames", 1) == 1:
        return False
    size = image.size
    image.seek(1)
    same = image.size == size
    image.seek(0)
    return same


def _depth(image: Image.Image, data: bytes) -> int:
    """Return the bits of one value in the file."""
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (1,))
        return int(bits[0] if isinstance(bits, tuple) else bits)
    return {"1": 1, "F": 32, "I": 16}.get(image.mode.partition(";")[0], 8)


def _is_inverted(image: Image.Image) -> bool:
    """Return whether Pillow turns black and white round, as a TIFF that calls 0 white asks it to.

    ImageJ's masks and others are stored so; what is stored for an object is 1 or 255 all the same.
    """
    white_is_zero = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC, 1) == 0
    return image.format == "TIFF" and white_is_zero and image.mode in ("1", "L")


def _unscale(grey: Integers, file_format: str, depth: int, data: bytes) -> Integers:
    """Undo what Pillow did to the values for viewing."""
    if file_format == "PPM":
        return _unscale_pnm(grey, data)
    if file_format in ("PNG", "TIFF") and depth in (2, 4):
        return grey // np.uint8(255 // (2**depth - 1))
    return grey


def _unscale_pnm(grey: Integers, data: bytes) -> Integers:
    """Return the values of a PGM file whose largest value is not 255 or 65535."""
    plain = re.sub(rb"#[^\r\n]*", b"", data[:4096])
    header = re.match(rb"P[25]\s+\d+\s+\d+\s+(\d+)\s", plain)
    if header is None:
        return grey
    largest = int(header[1])
    shown = 255 if largest < 256 else 65535
    if largest == shown:
        return grey
    values: Integers = np.rint(grey.astype(np.float64) * largest / shown).astype(np.int32)
    return values


def _whole_numbers(values: npt.NDArray[Any]) -> Integers:
    if not np.isfinite(values).all() or np.abs(values).max() >= 2**31:
        raise ValueError("it holds floating-point numbers that are no ids; save ids as 8-bit PNG")
    whole: Integers = values.astype(np.int32)
    if not np.array_equal(whole, values):
        raise ValueError(
            "it holds fractions, so it is no mask of ids (a probability map?); save ids as PNG"
        )
    return whole


def _find_transparent(
    image: Image.Image, pixels: Integers, transparency: object, depth: int
) -> Bools | None:
    """Return where nothing is to be seen, whatever colour is kept under it."""
    where: Bools | None = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        where = np.asarray(image.getchannel(image.getbands()[-1])) == 0
    elif image.mode == "P" and isinstance(transparency, (bytes, int)):
        table = np.zeros(256, bool)
        if isinstance(transparency, int):
            table[transparency] = True
        else:
            alphas = np.frombuffer(transparency, np.uint8)[:256]
            table[: len(alphas)] = alphas == 0
        where = table[pixels]
    elif image.mode == "1" and isinstance(transparency, int):
        where = pixels == (transparency > 0)
    elif isinstance(transparency, int):
        where = pixels == transparency
    elif pixels.ndim == 3 and isinstance(transparency, tuple):
        shift = 8 if depth == 16 else 0
        where = (pixels == [part >> shift for part in transparency]).all(axis=-1)
    return where if where is not None and where.any() else None


def _check_low_bytes(image: Image.Image, data: bytes) -> None:
    """Refuse 16-bit colours that are no 8-bit ones: Pillow gives the high bytes alone.

    Raises:
        ValueError: a low byte is neither 0 nor its high byte.
    """
    with open_picture(data, name="", what="mask") as again:
        again.tile = [tile._replace(args=_swap_bytes(tile.args)) for tile in again.tile]  # type: ignore[attr-defined]
        low, high = np.array(again)[..., :3], np.array(image)[..., :3]
    if low.any() and not np.array_equal(low, high):
        raise ValueError("it has 16-bit colours, which 8 bits cannot hold; save it as 8-bit PNG")


def _swap_bytes(arguments: Any) -> Any:
    if isinstance(arguments, tuple):
        return tuple(map(_swap_bytes, arguments))
    if isinstance(arguments, str) and arguments.endswith((";16B", ";16L", ";16N")):
        return arguments[:-1] + ("L" if arguments.endswith("B") else "B")
    return arguments
