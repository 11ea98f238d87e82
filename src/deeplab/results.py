"""What a network saw in one photo: the mask, the labels, the probabilities; save and draw."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.images import Geometry, Photo
from deeplab.labels import LabelSet

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True)
class Segmentation:
    """The result for one photo.

    Attributes:
        mask: (H, W) uint8 class ids, at the photo's own size.
        labels: names and colours of the class ids.
        photo: the photo, decoded again at full size when something is drawn on it.
        geometry: where the photo lay in the network's frame.
        logits: (h, w, K) float32, the network's low-resolution answer for the whole frame; None
            for networks that give a label map only.
        align_corners: how ``logits`` lie on the frame.
        timings: milliseconds spent in "decode" (with the resize), "network" and "mask".
    """

    mask: UInt8
    labels: LabelSet
    photo: Photo
    geometry: Geometry
    logits: Float32 | None
    align_corners: bool
    timings: dict[str, float]

    @property
    def name(self) -> str:
        """The photo's path, or what it was made from."""
        return self.photo.name

    @cached_property
    def shares(self) -> dict[str, float]:
        """The classes that are present and the share of the picture each covers, largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=256)
        order = sorted(np.flatnonzero(counts), key=lambda index: (-counts[index], index))
        return {self.labels.names[i]: float(counts[i] / self.mask.size) for i in order}

    def probability(self, name: str) -> Float32:
        """Return the softmax probability of one class: (H, W) float32, 0..1."""
        raise NotImplementedError(name)

    def overlay(self, **options: Any) -> Image.Image:
        """Return the photo under its mask, see :func:`deeplab.draw.overlay`."""
        raise NotImplementedError(options)

    def save_mask(self, path: str | PathLike[str]) -> None:
        """Write the mask as a palette PNG: pixel value = class id."""
        raise NotImplementedError(path)
