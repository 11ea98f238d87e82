"""A photo in: decode it, turn it upright, fit it into a network's frame, and undo that exactly.

Everything that looks at photos goes through this file, so the two choices that change masks the
most are made once: the resize filter (:data:`RESIZE_FILTER`) and how a photo meets the square
frame (:class:`Geometry`).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.errors import DownloadError, ImageError, InputError
from deeplab.photo.bands import Bands, Values
from deeplab.photo.formats import MAX_PIXELS, open_picture
from deeplab.photo.upsample import Region
from deeplab.remote import store
from deeplab.remote.address import Address, find_address

UInt8 = npt.NDArray[np.uint8]
Source: TypeAlias = (
    "str | PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | UInt8"
)
Fit = Literal["letterbox", "stretch"]

RESIZE_FILTER = Image.Resampling.BILINEAR
"""Bilinear with a support that grows with the reduction (Pillow's), so every pixel counts."""

REDUCED_MARGIN = 3
"""A reduced JPEG decode keeps at least this many times the pixels per side that are asked for.

At 12 megapixels 99.8 to 99.9 % of a mask's pixels stay the same. Twice would be enough there, but
a 1280×720 photo would then be halved too, which saves 2 ms and changes up to 1 % of its mask.
"""

DARK = 8
"""A 16-bit picture whose values end below this part of their range is not what it seems: sensors
of 10 to 14 bits write 16."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the stored pixels upright. Source: Exif 2.32, tag 0x0112."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a network wants to be fed with: one RGB picture, (height, width, 3).

    Attributes:
        height: rows of the network's frame.
        width: columns of the network's frame.
        mean: per channel (red, green, blue), in units of 0..255; the network sees
            ``(value - mean) / std``. Of other pictures than photos, in their own units.
        std: per channel, in the same units.
        fit: how a photo of another shape meets the frame, see :class:`Geometry`.
        bands: of a network for other pictures than photos, what those are; it is then fed with
            (height, width, channels) float32 in their own units. None for photos.
    """

    height: int
    width: int
    mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    std: tuple[float, ...] = (127.5, 127.5, 127.5)
    fit: Fit = "letterbox"
    bands: Bands | None = None

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(f"input: got {self.height}×{self.width}, expected at least 1×1.")
        if self.fit not in ("letterbox", "stretch"):
            raise InputError(f"fit: got '{self.fit}', expected 'letterbox' or 'stretch'.")
        if self.bands is not None:
            _check_bands(self, self.bands)
        elif len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise InputError(
                f"normalisation: got mean {self.mean} and std {self.std}, expected three numbers "
                "each (red, green, blue) and a std above 0."
            )

    @property
    def channels(self) -> int:
        """Channels of the pictures."""
        return len(self.mean)

    @property
    def padding(self) -> tuple[int, int, int]:
        """The colour around a letterboxed photo: the mean, which the network sees as nothing."""
        red, green, blue = (int(value) for value in self.mean)
        return red, green, blue


def _check_bands(spec: InputSpec, bands: Bands) -> None:
    if not spec.mean or len(spec.mean) != len(spec.std) or min(spec.std) <= 0:
        raise InputError(
            f"normalisation: got mean {spec.mean} and std {spec.std}, expected one number per "
            "channel each, and a std above 0."
        )
    if max(bands.shown) > len(spec.mean):
        raise InputError(
            f"bands: channel {max(bands.shown)} is to be shown, but there are {len(spec.mean)}."
        )


@dataclass(frozen=True)
class Geometry:
    """Where a photo lies inside a network's frame, both ways.

    ``letterbox`` keeps the photo's shape, puts it into the top left corner and pads below or to
    the right. Source: research/deeplab/core/preprocess_utils.py (``pad_to_bounding_box`` at
    offset 0, 0) of the original. ``stretch`` fills the whole frame.

    Attributes:
        photo: (height, width) of the upright photo.
        frame: (height, width) of the network's frame.
        fit: "letterbox" or "stretch".
    """

    photo: tuple[int, int]
    frame: tuple[int, int]
    fit: Fit = "letterbox"

    @property
    def content(self) -> tuple[int, int]:
        """(height, width) of the part of the frame that the photo fills, whole pixels."""
        if self.fit == "stretch":
            return self.frame
        (height, width), (frame_height, frame_width) = self.photo, self.frame
        scale = min(frame_height / height, frame_width / width)
        return (
            min(frame_height, max(1, round(height * scale))),
            min(frame_width, max(1, round(width * scale))),
        )

    @property
    def region(self) -> Region:
        """The photo's place inside the frame, as :mod:`deeplab.photo.upsample` wants it."""
        height, width = self.content
        return Region(*self.frame, top=0, left=0, bottom=height, right=width)

    def place(self, image: Image.Image, padding: tuple[int, int, int]) -> UInt8:
        """Return the frame with the photo in it: (frame height, frame width, 3) uint8 RGB.

        Args:
            image: the upright RGB photo, at its full size or reduced.
            padding: RGB, 0..255, of the frame around a letterboxed photo.
        """
        height, width = self.content
        if image.size != (width, height):
            image = image.resize((width, height), RESIZE_FILTER)
        if (height, width) == self.frame:
            return np.asarray(image)
        frame = np.empty((*self.frame, 3), dtype=np.uint8)
        frame[:height, :width] = np.asarray(image)
        # Row by row, because numpy is slow along an axis of three.
        side = np.array(padding * self.frame[1], np.uint8).reshape(-1, 3)
        frame[:height, width:], frame[height:] = side[width:], side
        return frame

    def place_values(self, values: Values, spec: InputSpec) -> npt.NDArray[np.float32]:
        """Return the frame with another picture than a photo in it: (height, width, C) float32.

        Resized as photos are, each channel by itself and in real numbers; around it is the mean,
        which the network sees as nothing.

        Args:
            values: (H, W, C), at the picture's full size.
            spec: of the network: its mean.
        """
        height, width = self.content
        frame = np.empty((*self.frame, values.shape[2]), np.float32)
        frame[:] = np.asarray(spec.mean, np.float32)
        for channel in range(values.shape[2]):
            plane = np.ascontiguousarray(values[:, :, channel], np.float32)
            if plane.shape != (height, width):
                resized = Image.fromarray(plane).resize((width, height), RESIZE_FILTER)
                plane = np.asarray(resized)
            frame[:height, :width, channel] = plane
        return frame


class Photo:
    """A photo whose header is known and whose pixels are decoded when they are wanted.

    Attributes:
        name: the path, or what the photo was made from; for messages.
        height: rows of the upright photo (EXIF orientation applied), at full size.
        width: columns of the upright photo.
    """

    def __init__(
        self, source: Source, *, max_pixels: int = MAX_PIXELS, name: str | None = None
    ) -> None:
        self._max_pixels = max_pixels
        self._data: bytes | None = None
        self._image: Image.Image | None
        if isinstance(source, Image.Image):
            if 0 in source.size:
                raise InputError(f"photo: got an empty PIL image of size {source.size}.")
            self.name = "the PIL image"
            self._image = source
        elif isinstance(source, np.ndarray):
            self.name = "the array"
            self._image = _from_array(source)
        else:
            self.name, self._data = read_bytes(source)
            self.name = name or self.name
            self._image = self._open(self._data)
        if self._image.format == "PNG" and "exif" not in self._image.info:
            _find_late_exif(self._image, self._data, self.name)
        self._orientation = read_orientation(self._image)
        width, height = self._image.size
        if self._orientation >= 5:
            width, height = height, width
        self.height, self.width = height, width
        if self._data is None:
            self._image = self._finish(self._image)
            self._orientation = 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the upright photo at full size."""
        return self.height, self.width

    @property
    def orientation(self) -> int:
        """The EXIF orientation that was applied, 1 to 8."""
        return self._orientation

    def decode(self, *, at_least: tuple[int, int] | None = None) -> Image.Image:
        """Return the upright RGB picture.

        Args:
            at_least: (height, width) that will be wanted of it. A JPEG is then decoded at a half,
                a quarter or an eighth per side where that leaves three times as much; this
                saves most of the time. None decodes every pixel.

        Raises:
            ImageError: the file is damaged or cut off.
        """
        if self._data is None:
            assert self._image is not None
            return self._image
        image, self._image = self._image or self._open(self._data), None
        if at_least is not None:
            height, width = (REDUCED_MARGIN * side for side in at_least)
            if self._orientation >= 5:
                height, width = width, height
            image.draft("RGB", (width, height))
        return self._finish(image)

    def pixels(self) -> UInt8:
        """Return every pixel: (height, width, 3) uint8 RGB, upright.

        Raises:
            ImageError: the file is damaged or cut off.
        """
        return np.asarray(self.decode())

    def _open(self, data: bytes) -> Image.Image:
        return _guarded(
            lambda: open_picture(data, name=self.name, max_pixels=self._max_pixels), self.name
        )

    def _finish(self, image: Image.Image) -> Image.Image:
        def finished() -> Image.Image:
            rgb = _to_rgb(image)
            turn = _UPRIGHT.get(self._orientation)
            return rgb if turn is None else rgb.transpose(turn)

        return _guarded(finished, self.name)


def read(source: Source, *, max_pixels: int = MAX_PIXELS) -> UInt8:
    """Read a photo: (height, width, 3) uint8 RGB, upright, at its full size.

    Args:
        source: a path, the bytes of a file, a PIL image, or an array: (H, W, 3) uint8 RGB,
            (H, W, 4) with alpha, (H, W) grey. Transparent parts are laid over white, which is what
            viewers show; the colours hidden under them mean nothing. Of an animation, the first
            frame. 16-bit grey is scaled to 8 bits.
        max_pixels: more are refused before decoding.

    Raises:
        ImageError: there is no such file, it is not a picture, it is damaged, or too large.
        InputError: ``source`` is an array of another shape or type, or no source at all.
    """
    return Photo(source, max_pixels=max_pixels).pixels()


def read_bytes(source: object) -> tuple[str, bytes]:
    """Return the name of a file, and what is in it.

    Args:
        source: a path or address, the bytes themselves, or a file opened for them, which is read
            from its begin where it can be turned back, and stays open.

    Raises:
        ImageError: there is no such file, it is empty, or cannot be read.
        InputError: it is none of these.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = "the bytes", bytes(source)
    elif isinstance(source, (str, PathLike)):
        address = find_address(source)
        if address is not None:
            return str(address), fetch(address)
        path = Path(source)
        name = str(path)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise ImageError(f"{name}: there is no such file.") from None
        except IsADirectoryError:
            raise ImageError(f"{name}: is a folder, expected a photo.") from None
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            reason = getattr(error, "strerror", None) or error
            hint = " It is a folder." if path.is_dir() else ""
            raise ImageError(f"{name}: cannot be read: {reason}.{hint}") from None
    elif callable(getattr(source, "read", None)):
        name, data = _read_open(cast("IO[bytes]", source))
    else:
        raise InputError(
            f"photo: got {type(source).__name__}, expected a path, bytes, an open file, a PIL "
            "image or an (H, W, 3) uint8 RGB array."
        )
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes).")
    return name, data


def _read_open(file: IO[bytes]) -> tuple[str, bytes]:
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) and name else "the open file"
    try:
        with contextlib.suppress(AttributeError, OSError):  # pipes and sockets stay where they are
            file.seek(0)
        data = file.read()
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise ImageError(f"{name}: cannot be read: {error}.") from None
    if not isinstance(data, bytes):
        raise InputError(f"photo: {name} gives {type(data).__name__}; open it with 'rb'.")
    return name, data


def fetch(address: Address) -> bytes:
    """Return what is in the file of a photo elsewhere.

    Raises:
        ImageError: there is no such file, it may not be read, does not come whole, or is empty.
        MissingExtraError: a package for such addresses is not installed.
    """
    try:
        data = store.read_bytes(address)
    except DownloadError as error:
        raise ImageError(str(error)) from None
    if not data:
        raise ImageError(f"{address.shown}: the file is empty (0 bytes).")
    return data


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    expected = "expected (H, W, 3) uint8 RGB (or (H, W) grey, (H, W, 4) RGB and alpha)"
    if array.dtype != np.uint8:
        hint = "Scale it to 0..255 and convert it with .astype(np.uint8)."
        raise InputError(f"photo: got an array of {array.dtype}, {expected}. {hint}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        channels_first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = " Channels come last: use array.transpose(1, 2, 0)." if channels_first else ""
        raise InputError(f"photo: got an array of shape {array.shape}, {expected}.{hint}")
    if array.size == 0:
        raise InputError(f"photo: got an empty array of shape {array.shape}, {expected}.")
    return Image.fromarray(np.ascontiguousarray(array))


def _guarded(action: Callable[[], _Result], name: str) -> _Result:
    """Run one step of reading; whatever a broken file makes Pillow raise becomes an ImageError."""
    try:
        return action()
    except ImageError as error:
        raise type(error)(f"{name}: {error}") from None
    except MemoryError:
        raise ImageError(f"{name}: there is not enough memory to decode this picture.") from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise ImageError(f"{name}: the picture is damaged or cut off ({error}).") from error


def _find_late_exif(png: Image.Image, data: bytes | None, name: str) -> None:
    """Let a PNG know the EXIF that comes behind its pixels, which Pillow meets when it has them."""
    if data is None:
        _guarded(png.load, name)
        return
    at, last = 8, data.rfind(b"eXIf")
    while at < last:
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"eXIf":
            png.info["exif"] = b"Exif\0\0" + data[at + 8 : at + 8 + length]
            return
        at += 12 + length


def _read_profile(image: Image.Image) -> bytes | None:
    """Return the ICC profile of an RGB picture; one of grey or CMYK says nothing of RGB pixels."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or profile[16:20] != b"RGB ":
        return None
    return profile


def keep_profile(photo: Image.Image, drawn: Image.Image) -> Image.Image:
    """Return what was drawn with a photo's pixels, and with the ICC profile that they mean.

    Without it, viewers take the wide colours of a phone (Display P3) for sRGB, and show them pale.
    """
    if profile := _read_profile(photo):
        drawn.info["icc_profile"] = profile
    return drawn


def read_background(
    background: Source | tuple[int, int, int], photo: Image.Image
) -> Image.Image | tuple[int, int, int]:
    """Return what a photo's objects are laid over: a colour, or a picture in the photo's colours.

    Raises:
        ImageError: a picture cannot be read.
        InputError: it is neither.
    """
    if not isinstance(background, tuple | list):
        opened = Photo(background)
        return match_profile(opened.decode(), photo)
    colour = tuple(background)
    if len(colour) != 3 or not all(
        isinstance(v, int | np.integer) and 0 <= v <= 255 for v in colour
    ):
        raise InputError(
            f"background: got {background}, expected a picture, or a colour of three whole numbers "
            "(red, green, blue) from 0 to 255."
        )
    return int(colour[0]), int(colour[1]), int(colour[2])


def match_profile(picture: Image.Image, photo: Image.Image) -> Image.Image:
    """Return a picture as RGB in the colours of a photo, so that it can lie behind its objects.

    Both are sRGB where they have no profile. A damaged profile changes nothing.
    """
    from PIL import ImageCms

    theirs, ours = _read_profile(picture), _read_profile(photo)
    rgb = _to_rgb(picture)
    if theirs == ours:
        return rgb
    srgb = ImageCms.createProfile("sRGB")
    try:
        matched = ImageCms.profileToProfile(
            rgb,
            io.BytesIO(theirs) if theirs else srgb,
            io.BytesIO(ours) if ours else srgb,
        )
    except ImageCms.PyCMSError:
        return rgb
    return rgb if matched is None else matched


def turn_upright(image: Image.Image) -> Image.Image:
    """Return a decoded picture as its EXIF orientation wants it to be seen; any mode."""
    turn = _UPRIGHT.get(read_orientation(image))
    return image if turn is None else image.transpose(turn)


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that is still to be applied, 1 to 8; damaged EXIF gives 1."""
    if image.format == "TIFF":  # Pillow's reader turns these itself
        return 1
    try:
        # For a PNG without EXIF, its own method would decode the picture, and the damage that it
        # met then would never be told again.
        value = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF must not cost the photo
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return any Pillow image as RGB; colour profiles are not applied."""
    image.load()
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ImageError("floating-point pictures have no fixed range; convert it to 8 bits.")
    if image.mode.startswith("I"):
        return _scale_to_8_bits(np.asarray(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(rgba, mask=rgba.getchannel("A"))
        white.info["icc_profile"] = image.info.get("icc_profile")
        return white
    return image.convert("RGB")


def _scale_to_8_bits(grey: npt.NDArray[Any]) -> Image.Image:
    """Return 16-bit grey as 8-bit: 65535 becomes 255."""
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > 65535:
        raise ImageError(
            f"the grey values run from {low} to {high}, expected 16 bits (0..65535); "
            "convert it to 8 bits."
        )
    if 0 < high <= 65535 // DARK:
        raise ImageError(
            f"its 16-bit values end at {high}, so that it would be nearly black as 0..65535. Say "
            f"which are black and white (--tile auto --range 0,{high}), or save it as 8 bits."
        )
    return Image.fromarray(((grey.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
