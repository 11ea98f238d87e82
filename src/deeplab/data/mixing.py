"""One training picture out of several: mosaic, copy-paste; and the order of all that happens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deeplab.data.augment import Augmentation
from deeplab.data.masks import IGNORE
from deeplab.data.sample import Sample
from deeplab.data.transforms import TrainTransform

Draw = Callable[[np.random.Generator], Sample]
"""Another pair of the data set, drawn."""


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """What happens to a pair in training, in this order.

    Attributes:
        transform: resize, scale, crop, flip.
        whole: what happens to the whole picture before that.
        mosaic: probability of putting four pictures together, each in a cell of the crop whose
            middle is drawn. Source: 2004.10934 section 3.4.
        copy_paste: probability of laying the pixels of half of another crop's classes (rounded
            up, drawn) over this one. Source: 2012.07177, with ClassMix's choice (2007.07936), as
            masks know no single objects.
        pasted: the ids of the classes that may be laid over.
        after: what happens to the crop at last.
    """

    transform: TrainTransform
    whole: tuple[Augmentation, ...] = ()
    mosaic: float = 0.0
    copy_paste: float = 0.0
    pasted: tuple[int, ...] = ()
    after: tuple[Augmentation, ...] = ()

    def __call__(self, sample: Sample, generator: np.random.Generator, draw: Draw) -> Sample:
        """Return a crop of the sample, or of it and of others that ``draw`` returns."""
        if self.mosaic and generator.random() < self.mosaic:
            result = self._mosaic(sample, generator, draw)
        else:
            result = self._crop(sample, generator, self.transform)
        if self.copy_paste and generator.random() < self.copy_paste:
            other = self._crop(draw(generator), generator, self.transform)
            result = self._paste(result, other, generator)
        for step in self.after:
            result = step(result, generator)
        return result

    def _crop(
        self, sample: Sample, generator: np.random.Generator, transform: TrainTransform
    ) -> Sample:
        for step in self.whole:
            sample = step(sample, generator)
        return transform(sample, generator)

    def _mosaic(self, sample: Sample, generator: np.random.Generator, draw: Draw) -> Sample:
        height, width = self.transform.crop_size
        row, column = (
            int(generator.integers(side // 4, side - side // 4)) for side in (height, width)
        )
        cells = (
            (slice(0, row), slice(0, column)),
            (slice(0, row), slice(column, width)),
            (slice(row, height), slice(0, column)),
            (slice(row, height), slice(column, width)),
        )
        image, label = None, np.full((height, width), IGNORE, np.uint8)
        for index, (rows, columns) in enumerate(cells):
            size = rows.stop - rows.start, columns.stop - columns.start
            one = sample if index == 0 else draw(generator)
            part = self._crop(one, generator, dataclasses.replace(self.transform, crop_size=size))
            if image is None:
                image = np.empty((height, width, part.image.shape[2]), part.image.dtype)
            image[rows, columns], label[rows, columns] = part.image, part.label
        assert image is not None
        return Sample(image=image, label=label, id=sample.id)

    def _paste(self, sample: Sample, other: Sample, generator: np.random.Generator) -> Sample:
        shown = np.intersect1d(other.label, self.pasted)
        if not len(shown):
            return sample
        chosen = generator.choice(shown, -(-len(shown) // 2), replace=False)
        over = np.isin(other.label, chosen)
        return Sample(
            image=np.where(over[..., None], other.image, sample.image),
            label=np.where(over, other.label, sample.label),
            id=sample.id,
        )
