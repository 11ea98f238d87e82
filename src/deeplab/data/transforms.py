"""The original's preprocessing of a photo together with its label.

Training: resize to range, random scale, pad at the bottom and right with the mean colour and the
ignore label, random crop, random flip. Everything random comes from the generator that is passed
in, so the same seed gives the same crop in whatever process. Pictures stay uint8; the network
normalises them itself.

Source: research/deeplab/input_preprocess.py and core/preprocess_utils.py of the original. Photos
are resized bilinearly and labels to the nearest, both with aligned corners and without smoothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance
from torch.nn import functional

from deeplab.data.masks import IGNORE, UInt8
from deeplab.data.sample import Sample
from deeplab.errors import InputError

Array = npt.NDArray[Any]
ArrayType = TypeVar("ArrayType", bound=npt.NDArray[Any])

MEAN_PIXEL = (127.5, 127.5, 127.5)
"""Zero after the (2/255)x − 1 of MobileNet, Xception and the beta ResNets."""


# -- sizes ---------------------------------------------------------------------------------------


def size_in_range(
    height: int,
    width: int,
    *,
    min_size: int,
    max_size: int | None = None,
    factor: int | None = None,
    keep_aspect_ratio: bool = True,
) -> tuple[int, int]:
    """Return the (height, width) to which the original resizes a picture.

    The shorter side becomes ``min_size``, unless the longer one would exceed ``max_size``; then
    that one becomes ``max_size``. With ``factor`` both are rounded up to k·factor + 1.
    Without ``keep_aspect_ratio`` both become the longer one.

    Source: core/preprocess_utils.py, ``resize_to_range``; float32 as there.
    """
    single = np.float32
    limit = None if max_size is None else single(max_size)
    if limit is not None and factor is not None:
        limit = limit - (limit - single(1)) % single(factor)
    scale = single(min_size) / single(min(height, width))
    new = _floor_scaled(height, width, scale)
    if limit is not None and max(new) > limit:
        new = _floor_scaled(height, width, limit / single(max(height, width)))
    if factor is not None:
        new = (_round_up(new[0], factor), _round_up(new[1], factor))
    return new if keep_aspect_ratio else (max(new), max(new))


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return the (height, width) of a picture after random scaling by ``scale``.

    Source: core/preprocess_utils.py, ``randomly_scale_image_and_label``; float32, truncated.
    """
    return _floor_scaled(height, width, np.float32(scale))


def _floor_scaled(height: int, width: int, scale: np.floating[Any]) -> tuple[int, int]:
    return max(1, int(np.float32(height) * scale)), max(1, int(np.float32(width) * scale))


def _round_up(size: int, factor: int) -> int:
    return size + (factor - (size - 1) % factor) % factor


# -- pictures and labels -------------------------------------------------------------------------


def resize_image(image: ArrayType, height: int, width: int) -> ArrayType:
    """Resize bilinearly with aligned corners, without smoothing.

    Args:
        image: (H, W, C), uint8 or float32, any range. float32 is exact to rounding; uint8 stays
            uint8, is several times faster, and within one level of it.
        height: rows of the result.
        width: columns of the result.
    """
    if image.shape[:2] == (height, width):
        return image
    # The batch axis comes first: only so torch sees channels last, and is six times faster.
    source = torch.from_numpy(np.require(image, requirements=("C", "W")))[None].permute(0, 3, 1, 2)
    resized = functional.interpolate(source, (height, width), mode="bilinear", align_corners=True)
    result: ArrayType = np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())  # type: ignore[assignment]
    return result


def resize_label(label: UInt8, height: int, width: int) -> UInt8:
    """Resize (H, W) or (H, W, K) uint8 to the nearest pixel, corners aligned; halves round up."""
    if label.shape[:2] == (height, width):
        return label
    rows = nearest_indices(label.shape[0], height)
    columns = nearest_indices(label.shape[1], width)
    return np.take(label[rows], columns, axis=1)


def nearest_indices(source: int, target: int) -> npt.NDArray[np.intp]:
    """Return which of ``source`` positions each of ``target`` ones takes, corners aligned."""
    scale = np.float32((source - 1) / (target - 1)) if target > 1 else np.float32(0)
    nearest = np.floor(np.arange(target, dtype=np.float32) * scale + np.float32(0.5))
    indices: npt.NDArray[np.intp] = np.minimum(nearest.astype(np.intp), source - 1)
    return indices


def pad_image(
    image: ArrayType, height: int, width: int, mean_pixel: tuple[float, ...] = MEAN_PIXEL
) -> ArrayType:
    """Pad (H, W, C) at the bottom and right with the mean colour; uint8 gets it rounded."""
    if image.shape[:2] == (height, width):
        return image
    colour = np.asarray(mean_pixel, np.float32)
    padded = np.empty((height, width, image.shape[2]), image.dtype)
    # 127.5 becomes 128: half a level beside the mean, 1/255 after normalisation.
    padded[:] = np.floor(colour + 0.5) if image.dtype == np.uint8 else colour
    padded[: image.shape[0], : image.shape[1]] = image
    return padded  # type: ignore[return-value]


def pad_label(label: UInt8, height: int, width: int) -> UInt8:
    """Pad (H, W) or (H, W, K) at the bottom and right with 255."""
    if label.shape[:2] == (height, width):
        return label
    padded = np.full((height, width, *label.shape[2:]), IGNORE, np.uint8)
    padded[: label.shape[0], : label.shape[1]] = label
    return padded


def _size(sample: Sample) -> tuple[int, int]:
    return sample.label.shape[0], sample.label.shape[1]


# -- in training -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ResizeToRange:
    """The settings of :func:`size_in_range`; see there."""

    min_size: int
    max_size: int | None = None
    factor: int | None = None
    keep_aspect_ratio: bool = True

    def __call__(self, sample: Sample) -> Sample:
        """Resize a photo and its label."""
        height, width = size_in_range(
            *_size(sample),
            min_size=self.min_size,
            max_size=self.max_size,
            factor=self.factor,
            keep_aspect_ratio=self.keep_aspect_ratio,
        )
        return Sample(
            image=resize_image(sample.image, height, width),
            label=resize_label(sample.label, height, width),
            id=sample.id,
        )


@dataclass(frozen=True, kw_only=True)
class ColourJitter:
    """Random brightness, contrast and saturation; each factor lies in 1 ± its setting, 0..1."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        for field, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InputError(f"colour_jitter.{field}: got {value}, expected 0 to 1.")

    def __call__(self, image: UInt8, generator: np.random.Generator) -> UInt8:
        """Return (H, W, 3) uint8 RGB in other light."""
        brightness, contrast, saturation = (
            1 + setting * generator.uniform(-1, 1)
            for setting in (self.brightness, self.contrast, self.saturation)
        )
        if self.brightness or self.contrast:
            # Both are one straight line through the mean grey, so one table does both.
            grey = image[::8, ::8].mean() * brightness
            line = (np.arange(256) * brightness - grey) * contrast + grey
            image = np.clip(line + 0.5, 0, 255).astype(np.uint8)[image]
        if self.saturation:
            image = np.array(ImageEnhance.Color(Image.fromarray(image)).enhance(saturation))
        return image


@dataclass(frozen=True, kw_only=True)
class RareClassCrops:
    """Sometimes lay the crop over a pixel of a rare class.

    Attributes:
        classes: the ids of the rare classes.
        probability: how often to do so in a picture that shows one of them, 0..1. Of several, each
            is chosen alike, and each of its pixels.
    """

    classes: tuple[int, ...]
    probability: float = 0.5

    def __post_init__(self) -> None:
        if not self.classes:
            raise InputError("rare_class_crops.classes: names no class.")
        if not 0 <= self.probability <= 1:
            raise InputError(
                f"rare_class_crops.probability: got {self.probability}, expected 0 to 1."
            )

    def draw(self, label: UInt8, generator: np.random.Generator) -> tuple[int, int] | None:
        """Return (row, column) of a pixel that the crop shall hold, or None."""
        if generator.random() >= self.probability:
            return None
        counts = np.bincount(label.ravel(), minlength=256)
        present = [index for index in self.classes if counts[index]]
        if not present:
            return None
        chosen = present[generator.integers(len(present))]
        rank = int(generator.integers(counts[chosen]))
        row, column = divmod(int(np.flatnonzero(label == chosen)[rank]), label.shape[1])
        return row, column


@dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """Sample -> randomly scaled, cropped and flipped sample of a fixed size.

    Attributes:
        crop_size: (height, width) of the result; k · output stride + 1.
        resize: resize to range first; None leaves the photos' own sizes.
        min_scale, max_scale, scale_step: the random scale is one of min_scale, min_scale + step,
            …, max_scale; any number between them when the step is 0. Source:
            core/preprocess_utils.py, ``get_random_scale``; 0.5, 2 and 0.25 are the original's.
        flip: mirror every second picture.
        mean_pixel: RGB, 0..255, of the padding.
        colour_jitter, rare_class_crops: not in the original; None leaves them out.
    """

    crop_size: tuple[int, int]
    resize: ResizeToRange | None = None
    min_scale: float = 0.5
    max_scale: float = 2.0
    scale_step: float = 0.25
    flip: bool = True
    mean_pixel: tuple[float, ...] = MEAN_PIXEL
    colour_jitter: ColourJitter | None = None
    rare_class_crops: RareClassCrops | None = None

    def __post_init__(self) -> None:
        if min(self.crop_size) < 1:
            raise InputError(f"crop_size: got {self.crop_size}, expected (height, width) above 0.")
        if not 0 < self.min_scale <= self.max_scale or self.scale_step < 0:
            raise InputError(
                f"scales: got {self.min_scale} to {self.max_scale} in steps of {self.scale_step}, "
                "expected 0 < min_scale <= max_scale and scale_step >= 0."
            )

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return ``crop_size`` of the sample: mean-padded, 255 where there is no label."""
        if sample.image.dtype == np.uint16:  # which torch cannot resize; float32 holds it exactly
            sample = replace(sample, image=sample.image.astype(np.float32))
        if self.resize is not None:
            sample = self.resize(sample)
        height, width = scaled_size(*_size(sample), self._draw_scale(generator))
        label = resize_label(sample.label, height, width)
        image = resize_image(sample.image, height, width)
        pixel = None
        if self.rare_class_crops is not None:
            pixel = self.rare_class_crops.draw(label, generator)
        rows, columns = (
            _draw_window(side, crop, None if pixel is None else pixel[axis], generator)
            for axis, (side, crop) in enumerate(zip(label.shape[:2], self.crop_size, strict=True))
        )
        image, label = image[rows, columns], label[rows, columns]
        if self.colour_jitter is not None:
            image = self.colour_jitter(image, generator)
        # The original pads before it crops; the outcome is the same, with less to copy.
        image = pad_image(image, *self.crop_size, self.mean_pixel)
        label = pad_label(label, *self.crop_size)
        if self.flip and generator.random() < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        return Sample(
            image=np.ascontiguousarray(image), label=np.ascontiguousarray(label), id=sample.id
        )

    def _draw_scale(self, generator: np.random.Generator) -> float:
        if self.min_scale == self.max_scale:
            return self.min_scale
        if self.scale_step == 0:
            return float(generator.uniform(self.min_scale, self.max_scale))
        steps = int((self.max_scale - self.min_scale) / self.scale_step + 1)
        return float(np.linspace(self.min_scale, self.max_scale, steps)[generator.integers(steps)])


def _draw_window(side: int, crop: int, pixel: int | None, generator: np.random.Generator) -> slice:
    """Draw where the crop lies along one axis, over ``pixel`` if there is one."""
    low, high = 0, max(0, side - crop)
    if pixel is not None:
        low, high = max(low, pixel - crop + 1), min(high, pixel)
    start = int(generator.integers(low, high + 1))
    return slice(start, min(start + crop, side))
