"""Some pairs of a data set several times an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deeplab.data.masks import MaskEncoding
from deeplab.data.sample import Dataset, Sample
from deeplab.labels import LabelSet


class RepeatedDataset:
    """A data set that names each pair as often as its factor says.

    A factor of 2.4 is two times or, with a chance of 0.4, three; drawn once, by the seed. Every
    mention is a place of its own in an epoch and so is cropped and mirrored in its own way.

    Attributes:
        labels, split, ids, images, masks, encoding: those of the data set, repeated.
    """

    def __init__(self, dataset: Dataset, factors: npt.NDArray[np.float64], *, seed: int) -> None:
        """Draw the repeats.

        Args:
            dataset: what to read.
            factors: (N,) float, how often each of its pairs is wanted in an epoch, 0 or more.
            seed: any non-negative number.
        """
        self._dataset = dataset
        whole = np.floor(factors)
        more = np.random.default_rng(seed).random(len(factors)) < factors - whole
        times = (whole + more).astype(np.int64)
        self._places: list[int] = np.repeat(np.arange(len(factors)), times).tolist()
        self.labels: LabelSet = dataset.labels
        self.split: str = dataset.split
        self.encoding: MaskEncoding = dataset.encoding

    @property
    def ids(self) -> Sequence[str]:
        """The name of the pair at every place."""
        return [self._dataset.ids[place] for place in self._places]

    @property
    def images(self) -> Sequence[Path]:
        """The photo at every place."""
        images = self._dataset.images
        return [images[place] for place in self._places] if images else []

    @property
    def masks(self) -> Sequence[Path]:
        """The mask at every place."""
        masks = self._dataset.masks
        return [masks[place] for place in self._places] if masks else []

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        """Return one pair."""
        return self._dataset[self._places[index]]
