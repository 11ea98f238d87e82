"""MediaPipe's image segmenter, name for name, run by this package.

A program changes one line::

    import deeplab.integrations.mediapipe as mp
    # before: import mediapipe as mp

or, where it names the parts, ``from deeplab.integrations.mediapipe import BaseOptions, vision``.
Masks of float models are the same to the last pixel; names, types, sizes and the kinds of
exceptions are the same. Confidence masks are computed when they are looked at. What this package
would do differently is an option that is off: ``ImageSegmenterOptions(softmax=True)`` gives
confidences from 0 to 1 where MediaPipe gives logits, and ``exact_masks=True`` the masks of
:class:`deeplab.Segmenter`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import logging
import threading
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import DeepLabError, ModelNotFoundError
from deeplab.integrations.frames import resize_as_opencv
from deeplab.integrations.mediapipe_image import Image as Image
from deeplab.integrations.mediapipe_image import ImageFormat as ImageFormat
from deeplab.integrations.named_model import (
    NamedModel,
    NoNormalisationError,
    confidences,
    softmax,
)
from deeplab.photo.upsample import argmax_bilinear, interpolate

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)

_MOST_PLANES = 256

_ONE_THREAD = 2**18
"""Multiplications that OpenBLAS does in one thread. Source: its GEMM_MULTITHREAD_THRESHOLD, 4."""


@dataclasses.dataclass
class BaseOptions:
    """Which model.

    Attributes:
        model_asset_path: path of a model, or the name of one that ``deeplab models list`` shows.
        model_asset_buffer: the bytes of a ``.tflite``; they go before the path.
        delegate: the processor; None and DEFAULT are the CPU, and GPU is refused.
    """

    class Delegate(enum.IntEnum):
        """What computes."""

        DEFAULT = 0
        CPU = 1
        GPU = 2

    model_asset_path: str | None = None
    model_asset_buffer: bytes | None = None
    delegate: Delegate | None = None


class RunningMode(enum.Enum):
    """Single photos, frames of a video in order, or frames as they come."""

    IMAGE = "IMAGE"
    VIDEO = "VIDEO"
    LIVE_STREAM = "LIVE_STREAM"


@dataclasses.dataclass
class RectF:
    """A part of an image, its sides from 0 to 1."""

    left: float
    top: float
    bottom: float
    right: float


@dataclasses.dataclass
class ImageProcessingOptions:
    """How an image is held: turned clockwise by a multiple of 90 degrees."""

    region_of_interest: RectF | None = None
    rotation_degrees: int = 0


@dataclasses.dataclass
class ImageSegmenterResult:
    """What a segmenter gives.

    Attributes:
        confidence_masks: one VEC32F1 image per class in the photo's size, or None.
        category_mask: a GRAY8 image of class ids in the photo's size, or None.
    """

    confidence_masks: list[Image] | None = None
    category_mask: Image | None = None


@dataclasses.dataclass
class ImageSegmenterOptions:
    """Which model, for what, and what is to come out.

    Attributes:
        base_options: which model.
        running_mode: which of the three methods will be called.
        output_confidence_masks: a plane of numbers per class.
        output_category_mask: one mask of class ids.
        result_callback: of a live stream: takes a result, its image and its time.
        softmax: of this package: confidences are probabilities, 0..1, not logits.
        exact_masks: of this package: masks as :class:`deeplab.Segmenter` makes them.
    """

    base_options: BaseOptions
    running_mode: RunningMode = RunningMode.IMAGE
    output_confidence_masks: bool = True
    output_category_mask: bool = False
    result_callback: Callable[[ImageSegmenterResult, Image, int], None] | None = None
    softmax: bool = False
    exact_masks: bool = False


class ImageSegmenter:
    """Photos in, masks out. It is safe to use from several threads."""

    def __init__(self, options: ImageSegmenterOptions, model: NamedModel) -> None:
        self._options, self._model = options, model
        self._latest: int | None = None
        self._closed = False
        self._stream = None
        if options.result_callback is not None:
            self._stream = _Stream(self._segment, options.result_callback)

    @classmethod
    def create_from_model_path(cls, model_path: str) -> ImageSegmenter:
        """Open a model for single photos; see :meth:`create_from_options`."""
        return cls.create_from_options(ImageSegmenterOptions(BaseOptions(model_path)))

    @classmethod
    def create_from_options(cls, options: ImageSegmenterOptions) -> ImageSegmenter:
        """Open a model.

        Raises:
            ValueError: no model is named, it is no model, nothing is to come out, or a callback is
                missing or given in vain.
            FileNotFoundError: there is no such file, or it says nothing of its normalisation.
            RuntimeError: it cannot be read, or the GPU was asked for.
        """
        live = options.running_mode == RunningMode.LIVE_STREAM
        if live and options.result_callback is None:
            raise ValueError(
                "The vision task is in live stream mode, a user-defined result callback must be "
                "provided."
            )
        if not live and options.result_callback is not None:
            raise ValueError(
                "The vision task is in image or video mode, a user-defined result callback should "
                "not be provided."
            )
        if not options.output_confidence_masks and not options.output_category_mask:
            raise ValueError(
                "At least one of `output_confidence_masks` and `output_category_mask` must be set."
            )
        return cls(options, _open(options.base_options))

    def segment(
        self, image: Image, image_processing_options: ImageProcessingOptions | None = None
    ) -> ImageSegmenterResult:
        """Segment one photo.

        Raises:
            ValueError: it is of another format than SRGB or SRGBA (whose alpha is left out), it is
                turned by another angle, or the segmenter is for videos.
            RuntimeError: the segmenter is closed.
        """
        self._check(RunningMode.IMAGE)
        return self._segment(_read(image), _turns(image_processing_options))

    def segment_for_video(
        self,
        image: Image,
        timestamp_ms: int,
        image_processing_options: ImageProcessingOptions | None = None,
    ) -> ImageSegmenterResult:
        """Segment a frame of a video; times must grow.

        Raises:
            ValueError: as :meth:`segment`, or the time did not grow.
        """
        self._check(RunningMode.VIDEO)
        photo, turns = _read(image), _turns(image_processing_options)
        self._go_on(timestamp_ms)
        return self._segment(photo, turns)

    def segment_async(
        self,
        image: Image,
        timestamp_ms: int,
        image_processing_options: ImageProcessingOptions | None = None,
    ) -> None:
        """Hand over a frame and return; the callback gets its result in another thread.

        A frame that still waits when a later one comes is dropped.

        Raises:
            ValueError: as :meth:`segment_for_video`.
        """
        self._check(RunningMode.LIVE_STREAM)
        photo, turns = _read(image), _turns(image_processing_options)
        self._go_on(timestamp_ms)
        assert self._stream is not None
        self._stream.put(photo, turns, image, timestamp_ms)

    @property
    def labels(self) -> list[str]:
        """The names of the classes, by id."""
        return list(self._model.labels.names)

    def close(self) -> None:
        """Wait for what is being computed, and take no more."""
        self._closed = True
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> ImageSegmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, mode: RunningMode) -> None:
        if self._closed:
            raise RuntimeError("The segmenter is closed; create another one.")
        own = self._options.running_mode
        if own != mode:
            names = {kind: kind.value.lower().replace("_", " ") for kind in RunningMode}
            raise ValueError(
                f"Task is not initialized with the {names[mode]} mode. "
                f"Current running mode:{names[own]} mode"
            )

    def _go_on(self, timestamp_ms: int) -> None:
        if not isinstance(timestamp_ms, (int, np.integer)):
            raise ctypes.ArgumentError(
                f"timestamp_ms: got {timestamp_ms!r}, expected whole milliseconds."
            )
        if self._latest is not None and timestamp_ms <= self._latest:
            raise ValueError("Input timestamp must be monotonically increasing.")
        self._latest = int(timestamp_ms)

    def _segment(self, photo: UInt8, turns: int) -> ImageSegmenterResult:
        options, model = self._options, self._model
        size = photo.shape[0], photo.shape[1]
        turned = np.rot90(photo, -turns)
        mask: Callable[[], UInt8]
        if options.exact_masks:
            seen = model.segment(np.ascontiguousarray(turned))
            mask = partial(_turn_back, seen.mask, turns)
            planes = cache(lambda: _turn_back(confidences(seen), turns))
            plane: Callable[[int], Float32] = lambda index: planes()[:, :, index]  # noqa: E731
        else:
            frame = resize_as_opencv(
                turned,
                model.spec.height,
                model.spec.width,
                shifted=(turns in (2, 3), turns in (1, 2)),
            )
            logits = model.run(frame)
            mask = partial(_make_mask, model, logits, size)
            plane = _plan_planes(model, logits, size)
        result = ImageSegmenterResult()
        if options.output_category_mask:
            made = mask()
            result.category_mask = Image.later(ImageFormat.GRAY8, size, lambda: made)
        if options.output_confidence_masks:
            count = len(model.labels)
            if options.softmax and not model.softmaxed:
                plane = _Shares(plane, count)
            result.confidence_masks = [
                Image.later(ImageFormat.VEC32F1, size, partial(plane, index))
                for index in range(count)
            ]
        return result


class _Shares:
    """Planes of probabilities, all made when one is looked at."""

    def __init__(self, plane: Callable[[int], Float32], count: int) -> None:
        self._logits, self._count = plane, count
        self._planes: Float32 | None = None
        self._lock = threading.Lock()

    def __call__(self, index: int) -> Float32:
        with self._lock:
            if self._planes is None:
                logits = np.stack([self._logits(i) for i in range(self._count)], axis=-1)
                self._planes = np.ascontiguousarray(np.moveaxis(softmax(logits), -1, 0))
        plane: Float32 = self._planes[index]
        return plane


class _Stream:
    """A thread that segments the newest frame, one after the other."""

    def __init__(
        self,
        segment: Callable[[UInt8, int], ImageSegmenterResult],
        callback: Callable[[ImageSegmenterResult, Image, int], None],
    ) -> None:
        self._segment, self._callback = segment, callback
        self._changed = threading.Condition()
        self._waiting: tuple[UInt8, int, Image, int] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="segment_async")
        self._thread.start()

    def put(self, photo: UInt8, turns: int, image: Image, timestamp_ms: int) -> None:
        """Take a frame; one that waits is dropped for it."""
        with self._changed:
            self._waiting = (photo, turns, image, timestamp_ms)
            self._changed.notify()

    def close(self) -> None:
        """Finish what was taken; not to be waited for by the callback itself."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None and not self._closing:
                    self._changed.wait()
                if self._waiting is None:
                    return
                (photo, turns, image, time), self._waiting = self._waiting, None
            try:
                result = self._segment(photo, turns)
                self._callback(result, image, time)
            except Exception:  # there is nobody to raise it to
                _log.exception("Error in segment_async at %s ms", time)


def _make_mask(model: NamedModel, logits: Float32, size: tuple[int, int]) -> UInt8:
    """Return class ids as MediaPipe does: interpolated corner on corner.

    Source: tensors_to_segmentation_calculator.cc (``ProcessForCategoryMaskCpu``).
    """
    if not model.can_skip_resize(logits):
        logits = model.resized(logits)
    return argmax_bilinear(logits, *size, align_corners=True)


def _plan_planes(
    model: NamedModel, logits: Float32, size: tuple[int, int]
) -> Callable[[int], Float32]:
    """Return what makes one class's numbers as MediaPipe does: edge on edge (``cv::resize``).

    Both resizes, the file's own and MediaPipe's, are one matrix for the rows and one for the
    columns.
    """
    prepared: list[_Resize] = []
    lock = threading.Lock()

    def make(index: int) -> Float32:
        with lock:
            if not prepared:
                grid = model.grid(logits)
                weights = [
                    _weigh(small, own, length, align_corners=model.align_corners)
                    for small, own, length in zip(logits.shape[:2], grid, size, strict=True)
                ]
                prepared.append(_Resize(*weights))
        return prepared[0](np.ascontiguousarray(logits[:, :, index]))

    return make


class _Resize:
    """Resizes a grid by one matrix for the rows and one for the columns.

    A row of the result is a mixture of few rows of the grid, and so are those below it: each such
    band is one small product. They stay below the size from which OpenBLAS takes all cores; where
    those are at work already, waiting for each other takes ten times as long as the product.
    """

    def __init__(self, rows: Float32, columns: Float32) -> None:
        self._across, self._height = np.ascontiguousarray(columns.T), len(rows)
        used = rows != 0
        first, last = used.argmax(axis=1), rows.shape[1] - used[:, ::-1].argmax(axis=1)
        ends = [*(np.flatnonzero(np.diff(first)) + 1).tolist(), len(rows)]
        self._bands = [
            (slice(start, end), slice(low := int(first[start]), high := int(last[start:end].max())),
             np.ascontiguousarray(rows[start:end, low:high]))
            for start, end in zip([0, *ends], ends, strict=False)
        ]  # fmt: skip

    def __call__(self, grid: Float32) -> Float32:
        """Return ``rows @ grid @ columns.T``."""
        plane = np.empty((self._height, self._across.shape[1]), np.float32)
        step = max(1, _ONE_THREAD // self._across.size)
        wide = np.empty((len(grid), plane.shape[1]), np.float32)
        for start in range(0, len(grid), step):
            part = slice(start, start + step)
            np.matmul(grid[part], self._across, out=wide[part])
        for rows, cells, weights in self._bands:
            np.matmul(weights, wide[cells], out=plane[rows])
        return plane


def _weigh(small: int, own: int, length: int, *, align_corners: bool) -> Float32:
    """Return the (length, small) weights of grid points in places along an axis."""
    parts = []
    for first in range(0, small, _MOST_PLANES):
        unit = np.eye(small, dtype=np.float32)[:, None, first : first + _MOST_PLANES]
        if own != small:
            unit = interpolate(unit, own, 1, align_corners=align_corners)
        parts.append(interpolate(unit, length, 1, align_corners=False)[:, 0])
    return np.concatenate(parts, axis=1)


def _turn_back(values: npt.NDArray[Any], turns: int) -> npt.NDArray[Any]:
    return np.rot90(values, turns)


def _read(image: Any) -> UInt8:
    """Return the pixels of one of these images or of MediaPipe's own."""
    pixels: UInt8 = image.numpy_view()
    if int(image.image_format) not in (ImageFormat.SRGB, ImageFormat.SRGBA):
        raise ValueError(
            f"image: got the format {ImageFormat(int(image.image_format)).name}, expected SRGB."
        )
    return pixels[:, :, :3]


def _turns(options: Any) -> int:
    """Return by how many quarters the image is to be turned clockwise, 0 to 3."""
    if options is None:
        return 0
    if options.region_of_interest is not None:
        raise ValueError("This task doesn't support region-of-interest.")
    if options.rotation_degrees % 90:
        raise ValueError("Expected rotation to be a multiple of 90°.")
    return int(options.rotation_degrees) // 90 % 4


def _open(base: BaseOptions) -> NamedModel:
    model = base.model_asset_buffer or base.model_asset_path
    if not model:
        raise ValueError("base_options: neither model_asset_path nor model_asset_buffer is given.")
    if base.delegate == BaseOptions.Delegate.GPU:
        raise RuntimeError("delegate: these models run on the CPU here; leave it out.")
    if isinstance(model, str) and Path(model).is_dir():
        raise RuntimeError(f"Unable to map file to memory buffer: {model} is a folder.")
    try:
        return NamedModel(model)
    except (ModelNotFoundError, NoNormalisationError) as error:
        raise FileNotFoundError(f"Unable to open file at {base.model_asset_path}: {error}") from (
            error
        )
    except DeepLabError as error:
        raise ValueError(str(error)) from error


vision = SimpleNamespace(
    ImageProcessingOptions=ImageProcessingOptions,
    ImageSegmenter=ImageSegmenter,
    ImageSegmenterOptions=ImageSegmenterOptions,
    ImageSegmenterResult=ImageSegmenterResult,
    RunningMode=RunningMode,
)
"""What ``mediapipe.tasks.python.vision`` calls so."""

tasks = SimpleNamespace(
    BaseOptions=BaseOptions,
    vision=vision,
    components=SimpleNamespace(containers=SimpleNamespace(rect=SimpleNamespace(RectF=RectF))),
)
"""What ``mediapipe.tasks`` calls so."""

python = tasks
"""What ``from mediapipe.tasks import python`` gives."""
