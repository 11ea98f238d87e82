"""Keep decoded pairs in memory, so that an epoch decodes nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from deeplab.data.sample import Dataset, Sample

_CHUNK = 64


class MemoryDataset:
    """A data set whose first pairs are in memory, as many as fit; the rest is read when asked for.

    Filled before data workers start, so forked workers share the one copy.

    Attributes:
        labels, split, ids, images, masks, encoding: those of the data set.
        kept: how many pairs are in memory.
        bytes: how much memory they take.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        max_bytes: int,
        threads: int = 4,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Read pairs until ``max_bytes`` are used.

        Args:
            dataset: what to read.
            max_bytes: four bytes a pixel are used.
            threads: how many decode at a time.
            progress: called with (pairs read, pairs in all).

        Raises:
            ImageError, DataError: a pair is broken.
        """
        self._dataset = dataset
        self._samples: list[Sample] = []
        self.bytes = 0
        self.labels, self.split, self.encoding = dataset.labels, dataset.split, dataset.encoding
        self.ids, self.images, self.masks = dataset.ids, dataset.images, dataset.masks
        indices = iter(range(len(dataset)))
        with ThreadPoolExecutor(threads) as pool:
            while self.bytes < max_bytes and (chunk := list(islice(indices, _CHUNK))):
                for sample in pool.map(dataset.__getitem__, chunk):
                    size = sample.image.nbytes + sample.label.nbytes
                    if self.bytes + size > max_bytes:
                        return
                    self.bytes += size
                    self._samples.append(sample)
                if progress is not None:
                    progress(self.kept, len(dataset))

    @property
    def kept(self) -> int:
        """How many pairs are in memory."""
        return len(self._samples)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """Return one pair; its arrays are shared, do not write into them."""
        if 0 <= index < self.kept:
            return self._samples[index]
        return self._dataset[index]
