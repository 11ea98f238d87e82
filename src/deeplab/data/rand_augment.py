"""RandAugment: some of fourteen operations, drawn anew for each picture, all of one strength."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from deeplab.data.augment import affine, as_photo, warp
from deeplab.data.sample import Sample

_COLOURS: dict[str, Callable[[Image.Image, float, float], Image.Image]] = {
    "identity": lambda image, strength, sign: image,
    "autocontrast": lambda image, strength, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, sign: ImageOps.equalize(image),
    "posterize": lambda image, strength, sign: ImageOps.posterize(image, 8 - round(4 * strength)),
    "solarize": lambda image, strength, sign: ImageOps.solarize(image, round(256 - 256 * strength)),
    "colour": lambda image, strength, sign: ImageEnhance.Color(image).enhance(
        1 + sign * 0.9 * strength
    ),
    "contrast": lambda image, strength, sign: ImageEnhance.Contrast(image).enhance(
        1 + sign * 0.9 * strength
    ),
    "brightness": lambda image, strength, sign: ImageEnhance.Brightness(image).enhance(
        1 + sign * 0.9 * strength
    ),
    "sharpness": lambda image, strength, sign: ImageEnhance.Sharpness(image).enhance(
        1 + sign * 0.9 * strength
    ),
}
_MOVES = ("rotate", "shear x", "shear y", "translate x", "translate y")


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Apply ``count`` operations of a strength of 0..1, drawn with repetition.

    Source: 1909.13719 section 3; the ranges are AutoAugment's, 1805.09501 table 6.
    """

    count: int
    strength: float
    fill: tuple[float, ...]

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Change picture and label."""
        names = (*_COLOURS, *_MOVES)
        for _ in range(self.count):
            name = names[int(generator.integers(len(names)))]
            sign = 1.0 if generator.random() < 0.5 else -1.0
            sample = self._apply(name, sample, sign)
        return sample

    def _apply(self, name: str, sample: Sample, sign: float) -> Sample:
        if name in _COLOURS:
            photo = as_photo(sample.image, "augment.rand_augment")
            image = np.asarray(_COLOURS[name](photo, self.strength, sign))
            return dataclasses.replace(sample, image=image)
        height, width = sample.label.shape[-2:]
        size = sign * self.strength
        matrix = {
            "rotate": lambda: affine(height, width, degrees=30 * size),
            "shear x": lambda: affine(height, width, shear=(0.3 * size, 0.0)),
            "shear y": lambda: affine(height, width, shear=(0.0, 0.3 * size)),
            "translate x": lambda: affine(height, width, shift=(0.45 * size * width, 0.0)),
            "translate y": lambda: affine(height, width, shift=(0.0, 0.45 * size * height)),
        }[name]()
        return warp(sample, matrix, fill=self.fill)
