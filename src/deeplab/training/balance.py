"""Unequal classes: how often each occurs, the weights that level them, and which are rare."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from deeplab.data.counts import ClassCounts
from deeplab.data.masks import UInt8, read_mask
from deeplab.data.sample import Dataset
from deeplab.errors import InputError
from deeplab.labels import LabelSet

RARE_SHARE = 0.02
"""Below this share of the labelled pixels a class gets crops of its own."""


def read_label(dataset: Dataset, index: int) -> UInt8:
    """Return the truth of one pair, see ``Sample.label``; without its photo where that is easy."""
    if dataset.masks and not dataset.labels.overlap:
        return read_mask(dataset.masks[index], dataset.encoding)
    return dataset[index].label


def count_classes(dataset: Dataset, *, threads: int = 4) -> ClassCounts:
    """Read every mask, no photo, and count."""
    classes = len(dataset.labels)

    def count(index: int) -> ClassCounts:
        mask = read_label(dataset, index)
        return ClassCounts.of(np.bincount(mask.ravel(), minlength=256), classes)

    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(count, range(len(dataset)))
        return functools.reduce(operator.add, parts, ClassCounts.none(classes))


def repeat_factors(
    dataset: Dataset, threshold: float, *, threads: int = 4
) -> npt.NDArray[np.float64]:
    """Return (N,) float64, how often each picture is to be drawn in an epoch, 1 or more.

    A class that a share f < ``threshold`` of the pictures show asks for √(threshold / f); a picture
    takes the largest wish of the classes that it shows. Reads every mask, no photo.
    Source: repeat factor sampling, LVIS, 1908.03195, appendix B.
    """
    classes = len(dataset.labels)

    def shows(index: int) -> npt.NDArray[np.bool_]:
        mask = read_label(dataset, index)
        present: npt.NDArray[np.bool_] = np.bincount(mask.ravel(), minlength=256)[:classes] > 0
        return present

    with ThreadPoolExecutor(threads) as pool:
        present = np.stack(list(pool.map(shows, range(len(dataset)))))
    share = np.maximum(present.mean(0), 1 / len(dataset))
    wishes = np.maximum(1.0, np.sqrt(threshold / share))
    factors: npt.NDArray[np.float64] = np.where(present, wishes, 1.0).max(1)
    return factors


def rare_classes(counts: ClassCounts) -> tuple[int, ...]:
    """Return the ids of the classes that occur, but rarely."""
    shares = counts.shares
    return tuple(int(i) for i in np.flatnonzero((shares > 0) & (shares < RARE_SHARE)))


def choose_class_weights(
    setting: Mapping[str, float] | str, labels: LabelSet, counts: ClassCounts | None
) -> npt.NDArray[np.float32] | None:
    """Return the (K,) weights that ``loss.class_weights`` asks for, or None for none.

    Raises:
        InputError: a name that is no class, a weight below 0, or a word that is not "auto".
    """
    if isinstance(setting, str):
        if setting != "auto":
            raise InputError(
                f"loss.class_weights: got '{setting}', expected 'auto' or weights by class name, "
                f"such as {{{labels.names[-1]} = 2.0}}."
            )
        assert counts is not None, "auto is counted first"
        return counts.median_frequency_weights().astype(np.float32)
    if not setting:
        return None
    weights = np.ones(len(labels), np.float32)
    for name, weight in setting.items():
        if weight < 0:
            raise InputError(f"loss.class_weights.{name}: got {weight}, expected 0 or more.")
        weights[labels.index(name)] = weight
    return weights
