"""Rows with a picture and a mask as a data set: those of Hugging Face ``datasets``, for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from deeplab.data.sample import Sample
from deeplab.errors import DataError
from deeplab.labels import LabelSet
from deeplab.photo import images


class Rows:
    """What ``deeplab.train`` takes as ``data`` and ``val``, from rows that are tables by name.

    >>> rows = datasets.load_dataset("segments/sidewalk-semantic", split="train")
    >>> Rows(rows, labels=names, mask="label")

    Attributes:
        labels: the classes.
        ids: the name of every row.
    """

    def __init__(
        self,
        rows: Any,
        *,
        labels: LabelSet | Sequence[str],
        image: str = "image",
        mask: str = "label",
        name: str | None = None,
    ) -> None:
        """Look at the names of the columns; no row is decoded.

        Args:
            rows: has a length, and gives for every index a mapping.
            labels: names of the classes, in the order of their ids.
            image: the column with the picture, as Pillow's or as an array (H, W, 3) uint8 RGB.
            mask: the column with the class ids, as Pillow's or as an array; 255 is ignored.
            name: a column whose texts name the rows; None numbers them.

        Raises:
            DataError: there is no such column.
        """
        known = list(getattr(rows, "column_names", None) or (rows[0] if len(rows) else ()))
        for column in filter(None, (image, mask, name)):
            if column not in known:
                raise DataError(f"data: there is no column '{column}'. There are: {known}.")
        self._rows, self._image, self._mask = rows, image, mask
        self.labels = labels if isinstance(labels, LabelSet) else LabelSet(tuple(labels))
        count = range(len(rows))
        # Asking for one column does not decode the pictures of the others.
        self.ids = [str(one) for one in rows[name]] if name else [str(index) for index in count]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Return one pair.

        Raises:
            DataError: the mask holds colours instead of class ids.
            ImageError: the picture is none that is read as a photo.
        """
        row = self._rows[index]
        image, mask = row[self._image], row[self._mask]
        if isinstance(image, Image.Image):
            image = images.read(image)  # whatever its depth: Pillow makes white of 16 bits
        if isinstance(mask, Image.Image) and mask.mode not in ("L", "P", "I", "I;16", "1"):
            raise DataError(
                f"data: the mask of row {self.ids[index]} is {mask.mode}: colours instead of class "
                "ids. `deeplab data convert` makes ids of colours."
            )
        label = np.asarray(mask)
        if label.dtype == bool:
            label = label.astype(np.uint8)
        return Sample(image=np.asarray(image), label=label, id=self.ids[index])
