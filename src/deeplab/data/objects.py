"""Any object that gives photos with their truth, as a data set: for those who have no folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deeplab.data.channels import channels_of
from deeplab.data.masks import IGNORE, MaskEncoding, UInt8
from deeplab.data.sample import Sample
from deeplab.errors import DataError
from deeplab.labels import LabelSet
from deeplab.photo.band_pictures import read_values
from deeplab.photo.bands import Values


class ObjectDataset:
    """What an object gives, checked pair by pair.

    The object has ``labels`` (a :class:`LabelSet`, or the names of the classes), a length, and
    gives for every index a :class:`Sample` or a pair (image, label): (H, W, 3) uint8 RGB and
    (H, W) integers, class ids or 255 for ignored.

    Attributes:
        labels, split, ids, images, masks: see :class:`Dataset`; there are no files.
        channels, rgb: the object's, where its pictures are no photos, see
            :mod:`deeplab.data.channels`: (H, W, C) arrays of numbers.
    """

    images: Sequence[Path] = ()
    masks: Sequence[Path] = ()

    def __init__(self, source: Any, split: str) -> None:
        """Look at what the object says of itself; no pair is asked for.

        Raises:
            DataError: it has no labels, no length, or gives nothing by index.
        """
        missing = [
            name for name in ("labels", "__len__", "__getitem__") if not hasattr(source, name)
        ]
        if missing:
            raise DataError(
                f"data: a {type(source).__name__} has no {', '.join(missing)}. Expected a folder, "
                "or an object with `labels`, a length, and (image, label) for every index."
            )
        labels = source.labels
        if not isinstance(labels, LabelSet):
            labels = LabelSet(tuple(labels))
        self._source = source
        self.labels = dataclasses.replace(labels, ignore_index=IGNORE)
        self.encoding = MaskEncoding((0, 1) if labels.overlap else tuple(range(len(labels))))
        self.split = str(getattr(source, "split", split))
        self.channels = channels_of(source)
        self.rgb = tuple(getattr(source, "rgb", ()))

    @property
    def ids(self) -> Sequence[str]:
        """The name of every pair: the object's, or numbers."""
        given = getattr(self._source, "ids", None)
        return [str(index) for index in range(len(self))] if given is None else list(given)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        """Return one pair.

        Raises:
            DataError: it is no photo with its truth.
        """
        given = self._source[index]
        name = str(index)
        if isinstance(given, Sample):
            image, label, name = given.image, given.label, given.id
        else:
            try:
                image, label = given
            except (TypeError, ValueError):
                raise DataError(
                    f"data: got {type(given).__name__} at index {index}, expected (image, label)."
                ) from None
        image, label = np.asarray(image), np.asarray(label)
        if self.channels:
            image = self._check_values(image, index)
        elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(
                f"data: the image at index {index} is {image.shape} {image.dtype}, expected "
                "(height, width, 3) uint8, RGB."
            )
        if self.labels.overlap and label.ndim == 3:
            return Sample(image=image, label=self._check_planes(label, image, index), id=name)
        if label.shape != image.shape[:2] or not np.issubdtype(label.dtype, np.integer):
            raise DataError(
                f"data: the label at index {index} is {label.shape} {label.dtype}, expected whole "
                f"numbers of the image's size {image.shape[:2]}."
            )
        if label.size and not (int(label.min()) >= 0 and int(label.max()) <= IGNORE):
            raise DataError(
                f"data: the label at index {index} goes from {label.min()} to {label.max()}, "
                f"expected class ids from 0, or {IGNORE} for ignored."
            )
        return Sample(image=image, label=label.astype(np.uint8), id=name)

    def _check_planes(self, label: UInt8, image: Values, index: int) -> UInt8:
        wanted = (*image.shape[:2], len(self.labels))
        if label.shape != wanted or not np.isin(label, (0, 1, IGNORE)).all():
            raise DataError(
                f"data: the label at index {index} is {label.shape}, expected {wanted} of 0, 1 or "
                f"{IGNORE} for ignored: a mask for each class, as they overlap."
            )
        return label.astype(np.uint8)

    def values(self, index: int) -> Values:
        """Return the numbers of a picture that is no photo: (H, W, C)."""
        given = self._source[index]
        image = given.image if isinstance(given, Sample) else given[0]
        return self._check_values(np.asarray(image), index)

    def _check_values(self, image: np.ndarray[Any, Any], index: int) -> Values:
        _, values = read_values(image)
        if values.shape[2] != self.channels:
            raise DataError(
                f"data: the image at index {index} has the shape {image.shape}, expected (height, "
                f"width, {self.channels})."
            )
        return values
