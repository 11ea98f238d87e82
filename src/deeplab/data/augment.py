"""More pictures out of few: what may happen to a pair in training beside scale, crop and flip.

An augmentation is a function of (sample, generator) that returns a sample of the same size. All
that is random comes from the generator, which is seeded by (seed, epoch, picture): so a training
that goes on sees what it would have seen. Labels move with the picture, by the nearest pixel; what
comes from outside it is ignored.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from deeplab.data.masks import IGNORE, UInt8
from deeplab.data.sample import Sample
from deeplab.errors import InputError

Augmentation = Callable[[Sample, np.random.Generator], Sample]
Matrix = npt.NDArray[np.float64]


def warp(sample: Sample, back: Matrix, *, fill: Sequence[float]) -> Sample:
    """Move picture and label; what lies outside gets ``fill`` and is ignored.

    Args:
        sample: a pair.
        back: (3, 3), from the (x, y, 1) of a result's pixel to that of the source.
        fill: the colour of what lies outside, one number a channel.
    """
    height, width = sample.label.shape[-2:]
    # PIL maps the middles of pixels, (x + 1/2, y + 1/2), onto each other.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = half @ back @ np.linalg.inv(half)
    data = tuple((matrix / matrix[2, 2]).ravel()[:8])

    def move(plane: npt.NDArray[Any], colour: Any, resample: Image.Resampling) -> Any:
        return np.asarray(
            Image.fromarray(plane).transform(
                (width, height), Image.Transform.PERSPECTIVE, data, resample, fillcolor=colour
            )
        )

    image = sample.image
    if image.dtype == np.uint8 and image.shape[2] == 3:
        red, green, blue = (round(value) for value in fill)
        moved = move(image, (red, green, blue), Image.Resampling.BILINEAR)
    else:  # other channels, one by one
        planes = [
            move(
                image[..., index].astype(np.float32), float(fill[index]), Image.Resampling.BILINEAR
            )
            for index in range(image.shape[2])
        ]
        moved = np.stack(planes, -1)
        if image.dtype.kind in "ui":
            moved = np.rint(moved)
        moved = moved.astype(image.dtype)
    label = move(sample.label, IGNORE, Image.Resampling.NEAREST)
    return Sample(image=moved, label=label, id=sample.id)


def affine(
    height: int,
    width: int,
    *,
    degrees: float = 0.0,
    shear: tuple[float, float] = (0.0, 0.0),
    shift: tuple[float, float] = (0.0, 0.0),
) -> Matrix:
    """Return the matrix of :func:`warp` that turns around the middle, shears and shifts (x, y)."""
    turn = math.radians(degrees)
    middle = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    cos, sin = math.cos(turn), math.sin(turn)
    inner = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) @ np.array(
        [[1, shear[0], shift[0]], [shear[1], 1, shift[1]], [0, 0, 1]]
    )
    result: Matrix = middle @ inner @ np.linalg.inv(middle)
    return result


@dataclass(frozen=True, kw_only=True)
class Rotate:
    """Turn by an angle between minus and plus ``degrees``."""

    degrees: float
    fill: tuple[float, ...]

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Turn picture and label."""
        angle = self.degrees * generator.uniform(-1, 1)
        return warp(sample, affine(*sample.label.shape[-2:], degrees=angle), fill=self.fill)


@dataclass(frozen=True, kw_only=True)
class Perspective:
    """Move each corner inwards by up to ``strength`` of the sides, as if seen from elsewhere."""

    strength: float
    fill: tuple[float, ...]

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Move picture and label."""
        height, width = sample.label.shape[-2:]
        inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (width - 1, height - 1)
        moved = corners + inwards * generator.uniform(0, self.strength, (4, 2)) * (width, height)
        return warp(sample, _homography(corners, moved), fill=self.fill)


def _homography(source: Matrix, target: Matrix) -> Matrix:
    """Return (3, 3), which maps four (x, y) onto four others."""
    rows, right = [], []
    for (x, y), (u, v) in zip(source.tolist(), target.tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return np.append(np.linalg.solve(np.array(rows, float), np.array(right)), 1.0).reshape(3, 3)


@dataclass(frozen=True, kw_only=True)
class Blur:
    """Blur half of the pictures, by a Gaussian of up to ``sigma`` pixels."""

    sigma: float

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Blur the picture."""
        if generator.random() < 0.5:
            return sample
        filtered = ImageFilter.GaussianBlur(float(generator.uniform(0, self.sigma)))
        image = as_photo(sample.image, "augment.blur").filter(filtered)
        return dataclasses.replace(sample, image=np.asarray(image))


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Add Gaussian noise of up to ``levels`` (0..255) to half of the pictures."""

    levels: float

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Add it to the picture."""
        if generator.random() < 0.5:
            return sample
        as_photo(sample.image, "augment.noise")
        deviation = np.float32(generator.uniform(0, self.levels))
        noise = generator.standard_normal(sample.image.shape, np.float32) * deviation
        image = np.clip(np.rint(sample.image + noise), 0, 255).astype(np.uint8)
        return dataclasses.replace(sample, image=image)


@dataclass(frozen=True, kw_only=True)
class Jpeg:
    """Write half of the pictures as JPEG, of a quality from ``quality`` to 95, and read them."""

    quality: int

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Spoil the picture."""
        if generator.random() < 0.5:
            return sample
        file = io.BytesIO()
        quality = int(generator.integers(self.quality, 96))
        as_photo(sample.image, "augment.jpeg").save(file, "JPEG", quality=quality)
        spoilt = Image.open(file, formats=("JPEG",)).convert("RGB")
        return dataclasses.replace(sample, image=np.asarray(spoilt))


def as_photo(image: npt.NDArray[Any], name: str) -> Image.Image:
    """Return a photo for Pillow.

    Raises:
        InputError: it is none; ``name`` is what needs one.
    """
    if image.dtype != np.uint8 or image.shape[2] != 3:
        raise InputError(
            f"{name}: is for photos, 8 bits and three channels; these pictures have "
            f"{image.shape[2]} of {image.dtype}. Leave it out."
        )
    return Image.fromarray(image)


@dataclass(frozen=True)
class Own:
    """An augmentation of the reader's own, with a look at what it returns.

    Attributes:
        function: (sample, generator) to a sample.
        name: of it, for messages.
    """

    function: Augmentation
    name: str

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Apply it.

        Raises:
            InputError: what it returns is no sample of the same size and kind.
        """
        found = self.function(sample, generator)
        if not isinstance(found, Sample):
            raise InputError(f"{self.name}: returned {type(found).__name__}, expected a Sample.")
        for what in ("image", "label"):
            before, after = getattr(sample, what), getattr(found, what)
            if getattr(after, "shape", None) != before.shape or after.dtype != before.dtype:
                got = f"{getattr(after, 'dtype', type(after))} {getattr(after, 'shape', '')}"
                raise InputError(
                    f"{self.name}: returned the {what} as {got}, expected {before.dtype} "
                    f"{before.shape}, as it was given."
                )
        return found


def labels_as_bytes(label: npt.NDArray[Any]) -> UInt8:
    """Return labels that another library has moved, as uint8."""
    return np.ascontiguousarray(label, dtype=np.uint8)
