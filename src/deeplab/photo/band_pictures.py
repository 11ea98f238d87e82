"""Read pictures that are no photos: every channel, in the numbers that the file holds.

``.npy`` is (H, W) or (H, W, C). Of pictures Pillow reads what it gives back exactly; TIFFs of more
channels, and colours of 16 bits, which it would cut to 8, are read by GDAL (the extra ``tiles``).
The pages of a TIFF that are of one size and one channel each are its channels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deeplab.errors import ImageError, ImageSizeError, InputError
from deeplab.photo.bands import MOST_CHANNELS, Bands, Values, describe_values
from deeplab.photo.formats import MAX_PIXELS, open_picture
from deeplab.photo.gdal import first_line, gdal_errors, quiet_gdal
from deeplab.photo.images import Geometry, InputSpec, Photo, read_bytes, turn_upright

NUMPY_SUFFIX = ".npy"

_NUMPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EXACT = ("L", "LA", "RGB", "RGBA", "I", "F")
"""Pillow's modes whose numbers are those of the file; and those that begin with I;16."""
_BITS, _SAMPLES, _ORIENTATION, _FORMAT = 258, 277, 274, 339  # TIFF tags
_UNSIGNED = (1, 4)  # formats of samples: whole numbers from 0 on, and what nobody said
_PNG_GREY = 0  # colour type

_DRIVERS = ["GTiff", "PNG", "JP2OpenJPEG", "JPEG", "BMP", "WEBP", "GIF"]
"""GDAL's readers for files of their own; others fetch what a file names (VRT)."""


class BandPhoto(Photo):
    """A picture of a network for other pictures than photos; it can be shown like a photo.

    Attributes:
        name, height, width: see :class:`~deeplab.photo.images.Photo`.
        values: (H, W, C), the numbers of the file, uint8, uint16 or float32.
        bands: how it is shown.

    Args:
        source: a path or address, the bytes of a file, or an array (H, W) or (H, W, C).
        channels: how many the network takes.
        bands: what the network says of its pictures.
        name: for messages; None takes the path.

    Raises:
        ImageError: it cannot be read.
        InputError: it has another number of channels, or other numbers, than the network takes.
    """

    def __init__(
        self, source: Any, *, channels: int, bands: Bands, name: str | None = None
    ) -> None:
        self.name, values = read_values(source)
        self.name = name or self.name
        kind = values.dtype.name
        if values.shape[2] != channels or kind != bands.kind:
            got, wanted = (
                describe_values(values.shape[2], kind),
                describe_values(channels, bands.kind),
            )
            hint = ""
            if values.shape[2] != channels and values.shape[0] == channels:
                hint = " Channels come last: use array.transpose(1, 2, 0)."
            raise InputError(
                f"{self.name}: has {got}; this network takes pictures with {wanted}, in the "
                f"numbers that it was trained on.{hint}"
            )
        self.values, self.bands = values, bands
        self.height, self.width = values.shape[:2]
        self._data, self._orientation = None, 1
        self._image: Image.Image | None = None

    def decode(self, *, at_least: tuple[int, int] | None = None) -> Image.Image:
        """Return the picture as people are shown it, RGB, at its full size."""
        if self._image is None:
            self._image = Image.fromarray(self.bands.show(self.values))
        return self._image


def open_photo(source: Any, spec: InputSpec, *, name: str | None = None) -> Photo:
    """Return a picture for a network that is fed with ``spec``; a :class:`Photo` stays as it is.

    Args:
        source: what :class:`Photo` or :class:`BandPhoto` takes.
        spec: of the network.
        name: for messages; None takes the path.

    Raises:
        ImageError, InputError: it cannot be read, or is not what the network takes.
    """
    if spec.bands is not None and not isinstance(source, BandPhoto):
        return BandPhoto(source, channels=spec.channels, bands=spec.bands, name=name)
    if spec.bands is None and isinstance(source, BandPhoto):
        raise InputError(f"{source.name}: is no photo, which this network takes.")
    return source if isinstance(source, Photo) else Photo(source, name=name)


def fill_frame(
    place: Geometry, photo: Photo, spec: InputSpec, *, exact: bool = False, mirrored: bool = False
) -> Any:
    """Return a network's frame with a picture in it, as :data:`deeplab.runtimes.network.Frame`.

    Args:
        place: where it lies.
        photo: what :func:`open_photo` gave for the same ``spec``.
        spec: of the network.
        exact: decode every pixel of a JPEG.
        mirrored: left and right are exchanged.
    """
    if isinstance(photo, BandPhoto):
        return place.place_values(photo.values[:, ::-1] if mirrored else photo.values, spec)
    image = photo.decode(at_least=None if exact else place.content)
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return place.place(image, spec.padding)


def read_values(source: Any) -> tuple[str, Values]:
    """Return the name of a picture and its numbers: (H, W, C) uint8, uint16 or float32.

    Args:
        source: a path or address, the bytes of a file, or an array.

    Raises:
        ImageError: it cannot be read, or holds what is no number or no data.
        InputError: an array that is no picture, or no source at all.
        MissingExtraError: GDAL is needed and not installed.
    """
    if isinstance(source, Photo):
        raise InputError(
            "photo: got a Photo, which is RGB; this network takes other pictures. Give the path, "
            "the bytes or the array."
        )
    if isinstance(source, Image.Image):
        return "the PIL image", _check(_from_pillow(source, "the PIL image"), "the PIL image")
    if isinstance(source, np.ndarray):
        return "the array", _check(source, "the array")
    name, data = read_bytes(source)
    return name, _check(_decode(data, name), name)


def read_size(data: bytes, name: str) -> tuple[int, int]:
    """Return (height, width) of a picture as it is stored, by its header.

    Raises:
        ImageError: it cannot be read.
        MissingExtraError: GDAL is needed and not installed.
    """
    if data[:6] == _NUMPY:
        shape = _read_header(data, name)
        return (shape[0], shape[1]) if len(shape) > 1 else (1, 1)  # what it is, is told when read
    try:
        with open_picture(data, name=name) as image:
            return image.height, image.width
    except ImageSizeError:
        raise
    except ImageError:
        if data[:4] not in _TIFF:
            raise
    except Exception as error:  # see _decode
        if data[:4] not in _TIFF:
            raise ImageError(f"{name}: the picture is damaged or cut off ({error}).") from error
    size: tuple[int, int] = _read_gdal(data, name, header=True)[:2]
    return size


def count_channels(path: Path) -> int:
    """Return how many channels a picture has that is plainly no photo; 0 where it may be one.

    An ``.npy`` always is none. Of TIFFs, those are none that no viewer shows as a photo: real
    numbers, numbers below 0 or of more than 16 bits, colours of more than 8 bits, or another number
    of channels than 1, 3 and 4.

    Raises:
        ImageError: an ``.npy`` cannot be read.
    """
    if path.suffix.lower() == NUMPY_SUFFIX:
        shape = _load_npy(path, str(path), mmap_mode="r").shape
        return int(shape[2]) if len(shape) == 3 else 1
    if path.suffix.lower() not in (".tif", ".tiff"):
        return 0
    try:
        with path.open("rb") as file, Image.open(file, formats=("TIFF",)) as image:
            tags = image.tag_v2  # type: ignore[attr-defined]
            samples, deepest = int(tags.get(_SAMPLES, 1)), max(_all(tags.get(_BITS, (1,))))
            usual = samples in (1, 3, 4) and _all(tags.get(_FORMAT, 1))[0] in _UNSIGNED
            return 0 if usual and deepest <= (16 if samples == 1 else 8) else samples
    except Exception:  # Pillow opens none of the kinds that only GDAL reads
        try:
            data = path.read_bytes()
            return int(_read_gdal(data, str(path), header=True)[2]) if data[:4] in _TIFF else 0
        except (OSError, ImageError):
            return 0


def count_shades(paths: Sequence[Path]) -> tuple[int, int, int] | None:
    """Return what photos of grey would be left of 16-bit pictures: how many of 256 shades.

    With it come the smallest and the largest value that they hold. None where they are other
    pictures, or one cannot be read.
    """
    values = []
    for path in paths:
        try:
            with open_picture(path.read_bytes(), name=str(path)) as image:
                if not image.mode.startswith("I"):
                    return None
                numbers = np.asarray(image)
                values += [int(numbers.min()), int(numbers.max())]
        except Exception:  # whoever reads it will say so
            return None
    low, high = min(values), max(values)
    return high * 255 // 65535 - low * 255 // 65535 + 1, low, high


def _all(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (int(value),)


def _decode(data: bytes, name: str) -> Values:
    if data[:6] == _NUMPY:
        return _load_npy(io.BytesIO(data), name)
    if name.lower().endswith(NUMPY_SUFFIX):
        raise ImageError(f"{name}: is no .npy file; write it with numpy.save.")
    try:
        with open_picture(data, name=name) as image:
            if _is_exact(image, data):
                return _from_pillow(image, name)
    except ImageSizeError:
        raise
    except ImageError as error:
        if data[:4] not in _TIFF:
            raise type(error)(f"{name}: {error}") from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        if data[:4] not in _TIFF:
            raise ImageError(f"{name}: the picture is damaged or cut off ({error}).") from error
    values: Values = _read_gdal(data, name)
    return values


def _is_exact(image: Image.Image, data: bytes) -> bool:
    """Return whether Pillow gives the numbers of the file, not 8-bit ones for viewing."""
    if not (image.mode in _EXACT or image.mode.startswith("I;16")):
        return False
    if image.format == "PNG":
        return data[24] in (8, 16) and (data[24] == 8 or data[25] == _PNG_GREY)
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        deepest = max(_all(tags.get(_BITS, (1,))))
        return deepest == 8 or (int(tags.get(_SAMPLES, 1)) == 1 and deepest in (16, 32))
    return True


def _from_pillow(image: Image.Image, name: str) -> Values:
    if not (image.mode in _EXACT or image.mode.startswith("I;16")):
        raise ImageError(
            f"{name}: is a picture of mode {image.mode}, whose numbers are no channels; save it as "
            "grey, RGB, TIFF or .npy."
        )
    pages = []
    for page in range(_count_pages(image)):
        if page:
            image.seek(page)
        pages.append(np.asarray(turn_upright(image)))
    return pages[0] if len(pages) == 1 else np.stack(pages, axis=2)


def _count_pages(image: Image.Image) -> int:
    """Return how many pages are channels; smaller copies behind a picture are none."""
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format != "TIFF" or image.mode in ("LA", "RGB", "RGBA"):
        return 1
    first = image.size, image.mode
    for page in range(1, count):
        image.seek(page)
        if (image.size, image.mode) != first:
            image.seek(0)
            return 1
    image.seek(0)
    return int(count)


@contextmanager
def _npy_in_words(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the header is parsed as Python is, which raises nearly anything
        reason = str(error).split("\n")[0]
        raise ImageError(f"{name}: is damaged or no array of numbers ({reason}).") from None


def _read_header(data: bytes, name: str) -> tuple[int, ...]:
    """Return the shape of an array, of which nothing else is looked at."""
    file = io.BytesIO(data)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with _npy_in_words(name):
        shape: tuple[int, ...] = read[np.lib.format.read_magic(file)](file)[0]
    return shape


def _load_npy(source: Any, name: str, **options: Any) -> Values:
    with _npy_in_words(name):
        array: Values = np.load(source, allow_pickle=False, **options)
    return array


def _read_gdal(data: bytes, name: str, *, header: bool = False) -> Any:
    """Return what GDAL reads: (H, W, C), or with ``header`` height, width and channels alone."""
    with quiet_gdal("Reading pictures of many channels, or of colours of 16 bits") as rasterio:
        try:
            with rasterio.io.MemoryFile(data) as memory, memory.open(driver=_DRIVERS) as file:
                if header:
                    return file.height, file.width, file.count
                if file.count > MOST_CHANNELS:
                    raise ImageError(
                        f"{name}: has {file.count} channels; networks take {MOST_CHANNELS} at most."
                    )
                if file.width * file.height > MAX_PIXELS:
                    raise ImageSizeError(
                        f"{name}: has {file.height}×{file.width} pixels, more than {MAX_PIXELS:,}."
                    )
                tags = file.tags(ns="TIFF") | file.tags()
                if str(tags.get("TIFFTAG_ORIENTATION", "1")) not in ("1", "1 (top-left)"):
                    raise ImageError(f"{name}: is stored turned; save it upright.")
                values = np.moveaxis(file.read(), 0, 2)
                _check_data(values, file.nodatavals, name)
                return values
        except gdal_errors() as error:
            raise ImageError(f"{name}: the picture cannot be read ({first_line(error)}).") from None


def _check_data(values: Values, missing: Any, name: str) -> None:
    """Refuse pixels that the file calls no data: a network would take them for measurements."""
    for channel, value in enumerate(missing):
        if value is None or np.isnan(value):
            continue  # what is no number is found by _check
        count = int((values[:, :, channel] == value).sum())
        if count:
            raise ImageError(
                f"{name}: {count} pixels of channel {channel + 1} are without data (value "
                f"{value:g}). Fill them with the channel's mean, and give them the mask's value "
                "for ignored pixels."
            )


def _check(array: Values, name: str) -> Values:
    """Return (H, W, C) uint8, uint16 or float32, all of them numbers."""
    values = array[:, :, None] if array.ndim == 2 else array
    if values.ndim != 3 or values.size == 0:
        raise InputError(
            f"{name}: has the shape {array.shape}, expected (height, width) or (height, width, "
            "channels)."
        )
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if values.dtype in (np.uint8, np.uint16):
        return np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))
    if not np.issubdtype(values.dtype, np.integer) and not np.issubdtype(values.dtype, np.floating):
        raise InputError(f"{name}: holds {values.dtype}, expected whole or real numbers.")
    with np.errstate(over="ignore"):
        real = np.ascontiguousarray(values, dtype=np.float32)
    wrong = int((~np.isfinite(real)).sum())
    if wrong:
        raise ImageError(
            f"{name}: {wrong} of its values are no numbers (NaN or infinite). Fill them with the "
            "channel's mean, and give these pixels the mask's value for ignored ones."
        )
    return real
