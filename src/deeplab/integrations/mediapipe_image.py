"""``mp.Image`` and ``mp.ImageFormat``: a picture in memory, of whole or real numbers."""

from __future__ import annotations

import enum
from collections.abc import Callable
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deeplab.errors import ImageError
from deeplab.integrations.picture_files import decode

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]


class ImageFormat(enum.IntEnum):
    """What the numbers of an image are. SRGB is red, green, blue, a byte each."""

    UNKNOWN = 0
    SRGB = 1
    SRGBA = 2
    GRAY8 = 3
    GRAY16 = 4
    SRGB48 = 7
    SRGBA64 = 8
    VEC32F1 = 9
    VEC32F2 = 12
    VEC32F4 = 13


_OF_TYPE: dict[str, dict[ImageFormat, int]] = {
    "uint8": {ImageFormat.GRAY8: 1, ImageFormat.SRGB: 3, ImageFormat.SRGBA: 4},
    "uint16": {ImageFormat.GRAY16: 1, ImageFormat.SRGB48: 3, ImageFormat.SRGBA64: 4},
    "float32": {ImageFormat.VEC32F1: 1, ImageFormat.VEC32F2: 2, ImageFormat.VEC32F4: 4},
}
"""Type -> format -> channels."""


class Image:
    """A picture that does not change: (height, width, channels).

    Args:
        image_format: what the numbers are.
        data: (height, width, channels), or (height, width) for one; uint8, uint16 or float32.

    Raises:
        ValueError: ``data`` does not fit the format.
    """

    def __init__(self, image_format: ImageFormat, data: Pixels) -> None:
        if data.ndim not in (2, 3):
            raise ValueError(f"Unsupported number of dimensions:{data.ndim}")
        formats = _OF_TYPE.get(data.dtype.name)
        if formats is None:
            raise ValueError(f"Unsupported numpy data type: {data.dtype}")
        if image_format not in formats:
            raise ValueError(
                f"Unsupported image format: {ImageFormat(image_format).name} (expected "
                f"{', '.join(known.name for known in formats)} for {data.dtype} data)"
            )
        channels = data.shape[2] if data.ndim == 3 else 1
        if channels != formats[ImageFormat(image_format)] or 0 in data.shape:
            raise ValueError(
                f"data: got the shape {list(data.shape)}, expected (height, width, "
                f"{formats[ImageFormat(image_format)]}) for {ImageFormat(image_format).name}."
            )
        self._format = ImageFormat(image_format)
        self._size: tuple[int, int, int] = (data.shape[0], data.shape[1], channels)
        self._make: Callable[[], Pixels] | None = None
        self._pixels: Pixels | None = _freeze(data.reshape(self._size).copy())

    @classmethod
    def create_from_file(cls, file_name: str | PathLike[str]) -> Image:
        """Read a picture file, upright.

        Raises:
            FileNotFoundError: there is no such file.
            RuntimeError: it is no picture.
        """
        try:
            data = Path(file_name).read_bytes()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"Can't find file: {file_name}") from error
        except OSError as error:
            raise RuntimeError(f"Failed to load image from file: {error}") from error
        try:
            pixels = decode(data, name=str(file_name), upright=True)
        except ImageError as error:
            raise RuntimeError(f"Failed to load image from file: {error}") from error
        formats = {channels: known for known, channels in _OF_TYPE["uint8"].items()}
        return cls(formats[pixels.shape[2]], pixels)

    @classmethod
    def later(
        cls, image_format: ImageFormat, size: tuple[int, int], make: Callable[[], Pixels]
    ) -> Image:
        """Return an image of one channel whose pixels are made when they are first looked at.

        Args:
            image_format: GRAY8 or VEC32F1.
            size: (height, width).
            make: gives (height, width) pixels.
        """
        image = cls.__new__(cls)
        image._format, image._size = image_format, (*size, 1)
        image._make, image._pixels = make, None
        return image

    def numpy_view(self) -> Pixels:
        """Return the pixels, (height, width, channels); they cannot be written to."""
        if self._pixels is None:
            assert self._make is not None
            self._pixels, self._make = _freeze(self._make().reshape(self._size)), None
        return self._pixels

    def __getitem__(self, key: tuple[int, ...]) -> int | float:
        """Return the number at (row, column, channel); the channel may be left out of one.

        Raises:
            ValueError: as many indices as the image has axes were expected.
            IndexError: there is no such pixel.
        """
        if len(key) != 3 and not (len(key) == 2 and self.channels == 1):
            raise ValueError(f"Invalid index dimension: {len(key)} (expected 2 or 3)")
        if any(not 0 <= i < size for i, size in zip(key, self._size, strict=False)):
            raise IndexError(f"index {tuple(key)} is outside an image of {self._size}")
        value: int | float = self.numpy_view()[(*key, 0)[:3]].item()
        return value

    def uses_gpu(self) -> bool:
        """Return False: pixels lie in the computer's memory."""
        return False

    def is_contiguous(self) -> bool:
        """Return True: rows lie one behind the other."""
        return True

    def is_empty(self) -> bool:
        """Return False: every image has pixels."""
        return False

    def is_aligned(self, alignment_boundary: int) -> bool:
        """Return whether each row begins at a multiple of so many bytes."""
        start = self.numpy_view().ctypes.data
        return not start % alignment_boundary and not self.step % alignment_boundary

    @property
    def step(self) -> int:
        """Bytes from one row to the next."""
        return int(self.numpy_view().strides[0])

    @property
    def width(self) -> int:
        """Columns."""
        return self._size[1]

    @property
    def height(self) -> int:
        """Rows."""
        return self._size[0]

    @property
    def channels(self) -> int:
        """Numbers in each pixel."""
        return self._size[2]

    @property
    def image_format(self) -> ImageFormat:
        """What the numbers are."""
        return self._format


def _freeze(pixels: Pixels) -> Pixels:
    frozen: Pixels = np.ascontiguousarray(pixels)  # type: ignore[assignment]
    frozen.flags.writeable = False
    return frozen
