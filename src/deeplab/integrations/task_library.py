"""The TFLite Task Library's image segmenter, name for name, run by this package.

A program changes one line::

    from deeplab.integrations.task_library import core, processor, vision
    # before: from tflite_support.task import core, processor, vision

Masks of float models are the same to the last pixel; names, types, sizes and the kinds of
exceptions are the same. What this package would do differently is an option that is off:
``SegmentationOptions(softmax=True)`` gives confidences from 0 to 1 where the Task Library gives
logits, ``exact_masks=True`` the masks of :class:`deeplab.Segmenter` in the photo's size, and
``TensorImage.create_from_file(path, upright=True)`` turns a photo as its EXIF data say.
"""

from __future__ import annotations

import dataclasses
import enum
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import DeepLabError, ImageError, ModelNotFoundError
from deeplab.integrations.frames import resize_as_libyuv
from deeplab.integrations.named_model import (
    NamedModel,
    NoNormalisationError,
    confidences,
    softmax,
)
from deeplab.integrations.picture_files import decode
from deeplab.labels import LabelSet, voc_colours
from deeplab.photo.upsample import argmax_bilinear

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

_MOST_PLANES = 256


@dataclasses.dataclass
class BaseOptions:
    """Which model, and on how many threads.

    Attributes:
        file_name: path of a model, or the name of one that ``deeplab models list`` shows.
        file_content: the bytes of a ``.tflite``; they go before ``file_name``.
        num_threads: -1 leaves it to the segmenter.
        use_coral: there is no Edge TPU here; True is refused.
    """

    file_name: str | None = None
    file_content: bytes | None = None
    num_threads: int | None = -1
    use_coral: bool | None = None


class OutputType(enum.Enum):
    """What a segmenter gives: one mask of class ids, or a plane of numbers per class."""

    UNSPECIFIED = 0
    CATEGORY_MASK = 1
    CONFIDENCE_MASK = 2


@dataclasses.dataclass
class SegmentationOptions:
    """What is to come out.

    Attributes:
        display_names_locale: for display names; models here have none.
        output_type: see :class:`OutputType`.
        softmax: of this package: confidence masks are probabilities, 0..1, not logits.
        exact_masks: of this package: masks as :class:`deeplab.Segmenter` makes them, in the
            photo's size.
    """

    display_names_locale: str | None = None
    output_type: OutputType | None = OutputType.CATEGORY_MASK
    softmax: bool = False
    exact_masks: bool = False


class ColorSpaceType(enum.Enum):
    """What the channels of an image are."""

    GRAYSCALE = "GRAYSCALE"
    RGB = "RGB"
    RGBA = "RGBA"


class TensorImage:
    """A photo: (H, W, C) uint8 with one, three or four channels."""

    def __init__(self, image_data: UInt8, is_from_numpy_array: bool = True) -> None:
        self._pixels = image_data

    @classmethod
    def create_from_file(
        cls, file_name: str | PathLike[str], *, upright: bool = False
    ) -> TensorImage:
        """Read a picture file; it is turned as its EXIF data say only where ``upright``.

        Raises:
            RuntimeError: there is no such file, or it is no picture.
        """
        try:
            data = Path(file_name).read_bytes()
        except OSError as error:
            raise RuntimeError(
                f"An error occurred while decoding image: {file_name}: {error.strerror}"
            ) from error
        return cls(_decode(data, str(file_name), upright), is_from_numpy_array=False)

    @classmethod
    def create_from_array(cls, array: UInt8) -> TensorImage:
        """Take (H, W, 3) RGB, (H, W) grey or (H, W, 4) RGBA uint8; a batch of one as well.

        Raises:
            ValueError: it is of another type or shape.
        """
        if array.dtype != np.uint8:
            raise ValueError("Expect numpy array with dtype=uint8.")
        pixels = array[0] if array.ndim == 4 and len(array) == 1 else array
        if pixels.ndim == 3 and len(pixels) == 1 and pixels.shape[2] not in (1, 3, 4):
            pixels = pixels[0]  # (1, H, W)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if pixels.ndim != 3:
            raise ValueError(
                f"Incompatible buffer dimension! Got an array of shape {list(array.shape)}, "
                "expected (H, W, 3), (H, W) or (H, W, 4)."
            )
        return cls(pixels)

    @classmethod
    def create_from_buffer(cls, buffer: bytes, *, upright: bool = False) -> TensorImage:
        """Read the bytes of a picture file; see :meth:`create_from_file`.

        Raises:
            RuntimeError: it is no picture.
        """
        return cls(_decode(bytes(buffer), "the buffer", upright), is_from_numpy_array=False)

    @property
    def buffer(self) -> UInt8:
        """(H, W, C) uint8."""
        return self._pixels

    @property
    def height(self) -> int:
        """Rows."""
        return int(self._pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self._pixels.shape[1])

    @property
    def color_space_type(self) -> ColorSpaceType:
        """What the channels are."""
        spaces = {1: ColorSpaceType.GRAYSCALE, 3: ColorSpaceType.RGB, 4: ColorSpaceType.RGBA}
        if self._pixels.shape[2] not in spaces:
            raise ValueError("Unsupported color space type.")
        return spaces[self._pixels.shape[2]]


@dataclasses.dataclass
class ColoredLabel:
    """A class: (red, green, blue), 0..255, and its names."""

    color: tuple[int, int, int]
    category_name: str
    display_name: str


@dataclasses.dataclass(eq=False)
class ConfidenceMask:
    """The numbers of one class: (height, width) float64."""

    value: npt.NDArray[np.float64]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfidenceMask) and np.array_equal(self.value, other.value)


@dataclasses.dataclass(eq=False)
class Segmentation:
    """One photo's masks.

    Attributes:
        height: rows of the masks: those of the model's answer, whatever the photo's.
        width: columns of the masks.
        colored_labels: the classes, by id.
        category_mask: (height, width) uint8 class ids, or None.
        confidence_masks: one per class, or None.
    """

    height: int
    width: int
    colored_labels: list[ColoredLabel]
    category_mask: UInt8 | None = None
    confidence_masks: list[ConfidenceMask] | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Segmentation):
            return False
        same_mask = (
            np.array_equal(self.category_mask, other.category_mask)
            if self.category_mask is not None and other.category_mask is not None
            else self.category_mask is other.category_mask
        )
        return (
            same_mask
            and (self.height, self.width) == (other.height, other.width)
            and self.colored_labels == other.colored_labels
            and self.confidence_masks == other.confidence_masks
        )


@dataclasses.dataclass
class SegmentationResult:
    """What a segmenter gives: a list with one :class:`Segmentation`."""

    segmentations: list[Segmentation]


@dataclasses.dataclass
class ImageSegmenterOptions:
    """Which model, and what is to come out."""

    base_options: BaseOptions
    segmentation_options: SegmentationOptions = dataclasses.field(
        default_factory=SegmentationOptions
    )


class ImageSegmenter:
    """Photos in, masks out. It is safe to use from several threads."""

    def __init__(self, options: ImageSegmenterOptions, segmenter: NamedModel) -> None:
        self._options, self._model = options, segmenter

    @classmethod
    def create_from_file(cls, file_path: str) -> ImageSegmenter:
        """Open a model; see :meth:`create_from_options`."""
        return cls.create_from_options(ImageSegmenterOptions(BaseOptions(file_name=file_path)))

    @classmethod
    def create_from_options(cls, options: ImageSegmenterOptions) -> ImageSegmenter:
        """Open a model.

        Raises:
            ValueError: no model is named, it is no model, or an option has no such value.
            RuntimeError: there is no such file, or it says nothing of its normalisation.
        """
        base, wanted = options.base_options, options.segmentation_options
        threads = _check_threads(base.num_threads)
        if wanted.output_type.value == OutputType.UNSPECIFIED.value:  # type: ignore[union-attr]
            raise ValueError("ImageSegmenterOptions: `output_type` must not be UNSPECIFIED")
        if base.use_coral:
            raise RuntimeError("use_coral: there is no Edge TPU here; leave it out.")
        return cls(options, _open(base, threads))

    def segment(self, image: TensorImage) -> SegmentationResult:
        """Segment one photo.

        Raises:
            ValueError: it is grey, or of other channels than red, green, blue (and alpha, which
                is left out).
        """
        photo = np.asarray(image.buffer)
        channels = photo.shape[2] if photo.ndim == 3 else 1
        if channels == 1:
            raise ValueError("Grayscale format does not convert to other formats.")
        if channels not in (3, 4):
            raise ValueError(
                f"Expected image with 1 (grayscale), 3 (RGB) or 4 (RGBA) channels, found {channels}"
            )
        if 0 in photo.shape:
            raise ValueError(f"image: got an empty one of shape {list(photo.shape)}.")
        return SegmentationResult([self._segment(photo[:, :, :3])])

    def _segment(self, photo: UInt8) -> Segmentation:
        wanted, model = self._options.segmentation_options, self._model
        labels = _label(model.labels)
        by_category = wanted.output_type is OutputType.CATEGORY_MASK
        if wanted.exact_masks:
            seen = model.segment(photo)
            if by_category:
                return _with_mask(seen.mask, labels)
            values = confidences(seen)
        else:
            logits = model.run(resize_as_libyuv(photo, model.spec.height, model.spec.width))
            if by_category:
                mask = _choose_above_zero(model, logits)
                return _with_mask(mask, labels)
            values = model.resized(logits)
        if wanted.softmax and not model.softmaxed:
            values = softmax(values)
        planes = np.ascontiguousarray(values.transpose(2, 0, 1)).astype(np.float64)
        masks = [ConfidenceMask(plane) for plane in planes]
        _, height, width = planes.shape
        return Segmentation(height, width, labels, confidence_masks=masks)


def _with_mask(mask: UInt8, labels: list[ColoredLabel]) -> Segmentation:
    height, width = mask.shape
    return Segmentation(height, width, labels, category_mask=mask)


def _choose_above_zero(model: NamedModel, logits: Float32) -> UInt8:
    """Return the class with the largest logit; class 0 where none is above 0.

    A plane of zeros that stands before the classes does it. Source: image_segmenter.cc, where the
    search for the largest begins at 0.
    """
    grid = model.grid(logits)
    if logits.shape[2] < _MOST_PLANES:
        zeros = np.zeros((*logits.shape[:2], 1), np.float32)
        planes = np.concatenate([zeros, logits], axis=2)
        chosen = (
            planes.argmax(axis=2).astype(np.uint8)
            if logits.shape[:2] == grid
            else argmax_bilinear(planes, *grid, align_corners=model.align_corners)
        )
        mask: UInt8 = np.maximum(chosen, 1) - np.uint8(1)
        return mask
    values = model.resized(logits)
    values = np.where(np.arange(values.shape[2]) == 0, np.maximum(values, 0), values)
    widest: UInt8 = values.argmax(axis=2).astype(np.uint8)
    return widest


def _label(labels: LabelSet) -> list[ColoredLabel]:
    """Return the classes in the colours of the VOC colour map, which the Task Library gives all."""
    colours = voc_colours(len(labels))
    return [ColoredLabel(c, name, "") for c, name in zip(colours, labels.names, strict=True)]


def _check_threads(threads: Any) -> int | None:
    if threads is None or threads == -1:
        return None
    if not isinstance(threads, int):
        raise TypeError(f"num_threads: got {threads!r}, expected a whole number.")
    if threads < 1:
        raise ValueError("`num_threads` must be greater than 0 or equal to -1.")
    return threads


def _open(base: BaseOptions, threads: int | None) -> NamedModel:
    model = base.file_content or base.file_name
    if not model:
        raise ValueError("base_options: neither file_name nor file_content names a model.")
    try:
        return NamedModel(model, threads=threads)
    except (ModelNotFoundError, NoNormalisationError) as error:
        raise RuntimeError(f"Unable to open file at {base.file_name}: {error}") from error
    except DeepLabError as error:
        raise ValueError(str(error)) from error


def _decode(data: bytes, name: str, upright: bool) -> UInt8:
    try:
        return decode(data, name=name, upright=upright)
    except ImageError as error:
        raise RuntimeError(f"An error occurred while decoding image: {error}") from error


core = SimpleNamespace(BaseOptions=BaseOptions)
"""What ``tflite_support.task.core`` calls so."""

processor = SimpleNamespace(
    ColoredLabel=ColoredLabel,
    ConfidenceMask=ConfidenceMask,
    OutputType=OutputType,
    Segmentation=Segmentation,
    SegmentationOptions=SegmentationOptions,
    SegmentationResult=SegmentationResult,
)
"""What ``tflite_support.task.processor`` calls so."""

vision = SimpleNamespace(
    ImageSegmenter=ImageSegmenter,
    ImageSegmenterOptions=ImageSegmenterOptions,
    TensorImage=TensorImage,
)
"""What ``tflite_support.task.vision`` calls so."""
