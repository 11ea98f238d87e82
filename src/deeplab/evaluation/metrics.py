"""Scores of a segmentation, computed from counts that merge exactly.

Everything is an int64 count until the last moment, so a score does not depend on the batch size,
on the order of the images or on how many processes shared the work. numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import DataError, InputError

Mask = npt.NDArray[np.integer[Any]]
Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


class ConfusionMatrix:
    """Counts of (true class, predicted class) over pixels.

    Attributes:
        counts: (K, K) int64; row is the truth, column the prediction. Ignored pixels are in none.
    """

    def __init__(self, counts: int | Counts) -> None:
        """Start empty with ``counts`` classes, or from a (K, K) array of counts."""
        if isinstance(counts, int):
            counts = np.zeros((counts, counts), np.int64)
        self.counts: Counts = counts.astype(np.int64)

    @classmethod
    def of(
        cls, label: Mask, mask: Mask, num_classes: int, *, ignore_index: int = 255
    ) -> ConfusionMatrix:
        """Count one picture.

        Args:
            label: truth, any shape, integer: class ids or ``ignore_index``.
            mask: prediction, the same shape, integer class ids.
            num_classes: K.
            ignore_index: the label of pixels that do not count.

        Raises:
            InputError: the shapes differ, or the prediction leaves 0 .. K-1.
            DataError: the truth holds an id that is neither a class nor ``ignore_index``.
        """
        if label.shape != mask.shape:
            raise InputError(
                f"mask: got shape {mask.shape} for a label of shape {label.shape}; "
                "bring the prediction to the label's size first."
            )
        kept = label != ignore_index
        truth, prediction = label[kept].astype(np.int64), mask[kept].astype(np.int64)
        if truth.size:
            if truth.min() < 0 or truth.max() >= num_classes:
                strange = sorted(set(np.unique(truth)) - set(range(num_classes)))
                raise DataError(
                    f"label: got the ids {[int(i) for i in strange[:8]]}, expected 0 to "
                    f"{num_classes - 1} or {ignore_index} (ignored). `deeplab data check` finds "
                    "the files."
                )
            if prediction.min() < 0 or prediction.max() >= num_classes:
                raise InputError(
                    f"mask: got predictions from {prediction.min()} to {prediction.max()}, "
                    f"expected 0 to {num_classes - 1}."
                )
        flat = np.bincount(truth * num_classes + prediction, minlength=num_classes**2)
        return cls(flat.reshape(num_classes, num_classes))

    def merge(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Add the counts of ``other`` to these, and return these."""
        self.counts += other.counts
        return self

    @property
    def totals(self) -> ClassTotals:
        """Intersection, truth and prediction per class: all that the scores need."""
        return ClassTotals(
            intersection=self.counts.diagonal().copy(),
            truth=self.counts.sum(1),
            prediction=self.counts.sum(0),
        )


@dataclass(frozen=True, kw_only=True)
class ClassTotals:
    """Pixels per class: (..., K) int64 each; leading axes are pictures or resamples."""

    intersection: Counts
    truth: Counts
    prediction: Counts

    def __add__(self, other: ClassTotals) -> ClassTotals:
        return ClassTotals(
            intersection=self.intersection + other.intersection,
            truth=self.truth + other.truth,
            prediction=self.prediction + other.prediction,
        )

    @property
    def iou(self) -> Scores:
        """(..., K) float64; NaN for a class in neither truth nor prediction: no score exists."""
        union = self.truth + self.prediction - self.intersection
        return _ratio(self.intersection, union)

    @property
    def precision(self) -> Scores:
        """(..., K) float64: share of the predicted pixels that are right; NaN without any."""
        return _ratio(self.intersection, self.prediction)

    @property
    def recall(self) -> Scores:
        """(..., K) float64: share of the true pixels that are found; NaN without any."""
        return _ratio(self.intersection, self.truth)

    @property
    def f1(self) -> Scores:
        """(..., K) float64: harmonic mean of precision and recall, also called Dice."""
        return _ratio(2 * self.intersection, self.truth + self.prediction)

    def mean_iou(self, classes: Sequence[int] | None = None) -> Scores:
        """Mean over the classes that occur in truth or prediction, or over those of ``classes``.

        A class that was predicted but never true counts with 0. NaN only where no class of the
        selection occurs at all.
        """
        iou = self.iou if classes is None else self.iou[..., list(classes)]
        present = ~np.isnan(iou)
        count = present.sum(-1)
        total = np.where(present, iou, 0.0).sum(-1)
        return _ratio(total, count)

    @property
    def pixel_accuracy(self) -> Scores:
        """Share of the counted pixels with the right class."""
        return _ratio(self.intersection.sum(-1), self.truth.sum(-1))

    @property
    def frequency_weighted_iou(self) -> Scores:
        """IoU weighted by each class's share of the truth."""
        share = _ratio(self.truth, self.truth.sum(-1, keepdims=True))
        return np.asarray((share * np.nan_to_num(self.iou)).sum(-1))


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Scores:
    """Return part / whole, NaN where there is nothing to divide by; no warning."""
    nothing = np.full(np.broadcast(part, whole).shape, np.nan)
    return np.asarray(np.divide(part, whole, out=nothing, where=whole > 0))


def stack(totals: Sequence[ClassTotals]) -> ClassTotals:
    """Put the totals of N pictures into one of shape (N, K)."""
    return ClassTotals(
        intersection=np.stack([one.intersection for one in totals]),
        truth=np.stack([one.truth for one in totals]),
        prediction=np.stack([one.prediction for one in totals]),
    )


def bootstrap_interval(
    pictures: ClassTotals,
    *,
    classes: Sequence[int] | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of the mIoU under resampling of whole pictures.

    Args:
        pictures: (N, K) totals, one row per picture.
        classes: class ids of the mean; None for all that occur.
        resamples: how many data sets of N pictures are drawn, with replacement.
        confidence: share of the resampled scores inside the interval.
        seed: of the draw, so the interval is reproducible.

    Pixels of a picture depend on one another, pictures hardly do: hence pictures are drawn.
    """
    count = len(pictures.truth)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    scores = ClassTotals(
        intersection=draws @ pictures.intersection,
        truth=draws @ pictures.truth,
        prediction=draws @ pictures.prediction,
    ).mean_iou(classes)
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(scores, [tail, 1 - tail])
    return float(low), float(high)


def boundary_band(label: Mask, width: int) -> npt.NDArray[np.bool_]:
    """Return the pixels at most ``width`` from a border between two labels, as (H, W) bool.

    The ignored label draws borders too (VOC outlines its objects with it); distance is the
    larger of the row and column distance. Scores inside the band are the trimap of the papers.
    Source: DeepLab v3+ (arXiv 1802.02611) section 4.4, after Kohli et al. 2009.
    """
    if width < 1:
        raise InputError(f"trimap: got a band of width {width}, expected 1 pixel or more.")
    border = np.zeros(label.shape, np.int32)
    rows, columns = label[1:] != label[:-1], label[:, 1:] != label[:, :-1]
    border[1:] |= rows
    border[:-1] |= rows
    border[:, 1:] |= columns
    border[:, :-1] |= columns
    # A pixel beside a border is at distance 1, hence width - 1. Box sums by cumulative sums.
    for axis in (0, 1):
        sums = np.cumsum(border, axis=axis, dtype=np.int64)
        size = label.shape[axis]
        last = np.minimum(np.arange(size) + width - 1, size - 1)
        first = np.arange(size) - width
        before = np.take(sums, np.maximum(first, 0), axis=axis)
        before[(slice(None),) * axis + (first < 0,)] = 0
        border = (np.take(sums, last, axis=axis) - before > 0).astype(np.int32)
    return border.astype(bool)
