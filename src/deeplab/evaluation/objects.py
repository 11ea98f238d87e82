"""Objects in two colours: half of a horse is a cow, a cat's paws are a dog's.

The mean IoU hardly notices them, people see them first. The truth cuts a photo into connected
objects of one class each; an object is in two colours where the prediction gives it two classes, of
which each covers a good part. numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deeplab.errors import InputError
from deeplab.evaluation.metrics import Mask
from deeplab.photo.regions import connect_equal

SMALLEST_OBJECT = 0.005
"""Share of the photo; what is smaller is not counted as an object."""

SMALLEST_PART = 0.1
"""Share of the object; a class that covers less, as along a border, does not count."""


@dataclass(kw_only=True)
class ObjectCounts:
    """Connected objects of the truth, and how many of them the prediction shows in two colours."""

    objects: int = 0
    two_coloured: int = 0

    @classmethod
    def of(
        cls, label: Mask, mask: Mask, *, background: int | None = 0, ignore_index: int = 255
    ) -> ObjectCounts:
        """Count the objects of one picture.

        An object is what the truth connects, by sides or corners, in one class that is neither
        ``background`` nor ``ignore_index``, if it is at least ``SMALLEST_OBJECT`` of the picture.
        It is in two colours if at least two classes beside the background, right or wrong, cover
        ``SMALLEST_PART`` of it each. Predicted background makes it smaller, not more colourful.

        Args:
            label: truth, (H, W) integer: class ids or ``ignore_index``.
            mask: prediction, (H, W) integer class ids.
            background: the class id that is no object; None where there is none.
            ignore_index: the label of pixels that do not count.

        Raises:
            InputError: the shapes differ or are not (H, W).
        """
        if label.ndim != 2 or label.shape != mask.shape:
            raise InputError(
                f"mask: got shape {mask.shape} for a label of shape {label.shape}; objects are "
                "counted in (height, width) of one size."
            )
        kept = label != ignore_index
        if background is not None:
            kept &= label != background
        if not kept.any():
            return cls()
        parts = connect_equal(label)[kept]
        sizes = np.bincount(parts)
        found = mask[kept].astype(np.int64)
        classes = int(found.max()) + 1
        counts = np.bincount(parts * classes + found, minlength=len(sizes) * classes)
        counts = counts.reshape(len(sizes), classes)
        if background is not None and background < classes:
            counts[:, background] = 0
        large = sizes >= SMALLEST_OBJECT * label.size
        colours = (counts >= SMALLEST_PART * sizes[:, None]).sum(1, where=counts > 0)
        return cls(objects=int(large.sum()), two_coloured=int((large & (colours > 1)).sum()))

    def merge(self, other: ObjectCounts) -> ObjectCounts:
        """Add the counts of ``other`` to these, and return these."""
        self.objects += other.objects
        self.two_coloured += other.two_coloured
        return self
