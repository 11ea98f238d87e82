"""How often each class occurs, and what follows: class weights and rare classes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deeplab.data.masks import read_mask
from deeplab.data.sample import Dataset
from deeplab.errors import InputError

RARE_SHARE = 0.02
"""Below this share of the labelled pixels a class counts as rare."""


@dataclass(frozen=True)
class ClassCounts:
    """Pixels of each class, and pixels of the pictures in which it occurs: (K,) int64 each."""

    pixels: npt.NDArray[np.int64]
    around: npt.NDArray[np.int64]

    def median_frequency_weights(self) -> npt.NDArray[np.float64]:
        """Return median(f) / f, where f is a class's share of the pictures that show it.

        A class that never occurs has weight 0. Source: Eigen and Fergus, arXiv 1411.4734, section
        6.3.2; the weights of SegNet.
        """
        present = self.pixels > 0
        frequency = self.pixels[present] / self.around[present]
        weights = np.zeros(len(self.pixels))
        weights[present] = np.median(frequency) / frequency
        return weights

    def rare_classes(self) -> tuple[int, ...]:
        """Return the ids of the classes that occur, but rarely."""
        share = self.pixels / max(int(self.pixels.sum()), 1)
        return tuple(int(i) for i in np.flatnonzero((share > 0) & (share < RARE_SHARE)))


def count_classes(dataset: Dataset, *, threads: int = 4) -> ClassCounts:
    """Read every mask (no photo) and count."""
    classes = len(dataset.labels)

    def count(index: int) -> npt.NDArray[np.int64]:
        mask = read_mask(dataset.masks[index], dataset.encoding)
        counted: npt.NDArray[np.int64] = np.bincount(mask.ravel(), minlength=256)[:classes]
        return counted

    with ThreadPoolExecutor(threads) as pool:
        counts = np.stack(list(pool.map(count, range(len(dataset)))))
    labelled = counts.sum(1, keepdims=True)
    return ClassCounts(counts.sum(0), (labelled * (counts > 0)).sum(0))


def choose_class_weights(
    setting: Sequence[float | str], counts: ClassCounts | None, classes: int
) -> npt.NDArray[np.float32] | None:
    """Return the (K,) weights that ``loss.class_weights`` asks for, or None for none.

    Raises:
        InputError: another number of weights than classes, or a word that is not "auto".
    """
    if not setting:
        return None
    if tuple(setting) == ("auto",):
        assert counts is not None
        return counts.median_frequency_weights().astype(np.float32)
    numbers = [value for value in setting if not isinstance(value, str)]
    if len(numbers) != len(setting) or len(numbers) != classes:
        raise InputError(
            f"loss.class_weights: got {list(setting)}, expected {classes} numbers or ['auto']."
        )
    return np.array(numbers, np.float32)
