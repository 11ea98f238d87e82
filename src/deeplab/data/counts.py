"""What the classes of a data set weigh: counts that merge, and the weights that follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deeplab.data.masks import IGNORE

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassCounts:
    """Pixels by class, over any number of labels.

    Attributes:
        pixels: (K,) int64, pixels of each class.
        photos: (K,) int64, photos that show each class.
        photo_pixels: (K,) int64, labelled pixels of the photos that show each class.
        ignored: pixels without a class.
    """

    pixels: Int64
    photos: Int64
    photo_pixels: Int64
    ignored: int

    @classmethod
    def of(cls, histogram: Int64, num_classes: int) -> ClassCounts:
        """Count one photo from the (256,) histogram of its label."""
        pixels = histogram[:num_classes].astype(np.int64)
        shown = (pixels > 0).astype(np.int64)
        return cls(pixels, shown, shown * int(pixels.sum()), int(histogram[IGNORE]))

    @classmethod
    def none(cls, num_classes: int) -> ClassCounts:
        """Return the counts of no photo at all."""
        return cls.of(np.zeros(256, np.int64), num_classes)

    def __add__(self, other: ClassCounts) -> ClassCounts:
        return ClassCounts(
            self.pixels + other.pixels,
            self.photos + other.photos,
            self.photo_pixels + other.photo_pixels,
            self.ignored + other.ignored,
        )

    @property
    def shares(self) -> Float64:
        """(K,) float64: the share of each class in the labelled pixels, 0..1."""
        return self.pixels / max(1, int(self.pixels.sum()))

    @property
    def ignored_share(self) -> float:
        """The share of all pixels that are ignored, 0..1."""
        return self.ignored / max(1, self.ignored + int(self.pixels.sum()))

    def median_frequency_weights(self) -> Float64:
        """Return (K,) float64 class weights: the median frequency over each class's own.

        A class's frequency is its share in the photos that show it. A class that never occurs
        weighs 1; no pixel will ever use it.
        Source: Eigen and Fergus, ICCV 2015, section 6.3.2; as in SegNet.
        """
        present = self.pixels > 0
        weights = np.ones(len(self.pixels))
        if present.any():
            frequency = self.pixels[present] / self.photo_pixels[present]
            weights[present] = np.median(frequency) / frequency
        return weights
