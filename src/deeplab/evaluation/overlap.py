"""How overlapping classes are measured: each by itself, and its threshold chosen where asked for.

Counted is, for every class, how many pixels have a logit between each two of ``CANDIDATES``, those
that are of the class and those that are not. From that follow the IoU at every candidate and the
best threshold; counts of pictures, and of processes, add up. Ignored pixels are in none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deeplab.data.masks import IGNORE
from deeplab.data.sample import Dataset
from deeplab.errors import DataError, InputError
from deeplab.labels import LabelSet
from deeplab.photo.bands import Values
from deeplab.photo.confidence import Scores
from deeplab.photo.overlapping import logit_rows, to_logits

CANDIDATES: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Thresholds that are tried, as probabilities."""

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]


class Looker(Protocol):
    """What answers with a network's coarse logits."""

    labels: LabelSet
    thresholds: tuple[float, ...]

    def look(self, photo: Values) -> Scores:
        """Return the logits of one look, and where the photo lies in them."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the protocol."""
        ...


@dataclass(kw_only=True)
class OverlapCounts:
    """Pixels by class, truth and logit.

    Attributes:
        counts: (K, len(edges) + 1, 2) int64: pixels of each class whose logit lies below the first
            edge, from it to the second, …; not of the class, and of it.
        edges: probabilities, ascending.
    """

    counts: Int64
    edges: tuple[float, ...] = CANDIDATES

    @classmethod
    def none(cls, classes: int, edges: Sequence[float] = CANDIDATES) -> OverlapCounts:
        """Return the counts of no picture at all."""
        edges = tuple(sorted(set(edges)))
        return cls(counts=np.zeros((classes, len(edges) + 1, 2), np.int64), edges=edges)

    def add(self, label: UInt8, looks: Sequence[Scores]) -> None:
        """Count a picture.

        Args:
            label: (H, W, K) uint8 truth, 0, 1, or 255 for ignored.
            looks: the network's answer.

        Raises:
            InputError: it has another number of classes.
        """
        height, width, classes = label.shape
        if classes != len(self.counts):
            raise InputError(f"label: got {classes} masks, expected {len(self.counts)}.")
        edges, bins = to_logits(self.edges), len(self.edges) + 1
        for rows, logits in logit_rows(looks, height, width):
            place = np.searchsorted(edges, logits, side="right")
            truth = label[rows]
            for index in range(classes):
                known = truth[:, :, index] != IGNORE
                both = 2 * place[:, :, index][known] + truth[:, :, index][known]
                self.counts[index] += np.bincount(both, minlength=2 * bins).reshape(bins, 2)

    def merge(self, other: OverlapCounts) -> OverlapCounts:
        """Add the counts of another part of the same data set to these, and return these."""
        self.counts += other.counts
        return self

    @property
    def _above(self) -> Int64:
        """(K, len(edges), 2): pixels at or above each edge."""
        above: Int64 = self.counts[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
        return above

    @property
    def ious(self) -> Float64:
        """(K, len(edges)) IoU of each class at each edge; NaN where a class is not in the truth."""
        above, true = self._above, self.counts[:, :, 1].sum(1)[:, None]
        union = true + above[:, :, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(true > 0, above[:, :, 1] / union, np.nan)

    def complement_iou(self, edge: int) -> Float64:
        """(K,) IoU of what is not of each class, at an edge: of the background of one object."""
        below, wrong = self.counts.sum(1)[:, 0], self._above[:, edge]
        missed = self.counts[:, :, 1].sum(1) - wrong[:, 1]
        with np.errstate(invalid="ignore", divide="ignore"):
            iou: Float64 = (below - wrong[:, 0]) / (below + missed)
            return iou

    def choose(self) -> tuple[int, ...]:
        """Return the edge with the best IoU of each class; of equal ones the nearest to 0.5."""
        distance = np.abs(np.asarray(self.edges) - 0.5)
        chosen = []
        for iou in self.ious:
            best = np.nan_to_num(iou, nan=0.0)
            ties = np.flatnonzero(best >= best.max() - 1e-12)
            chosen.append(int(ties[distance[ties].argmin()]))
        return tuple(chosen)

    def accuracy(self, chosen: Sequence[int]) -> float:
        """Return the share of all labelled entries that are right, every class at its edge."""
        above = self._above[np.arange(len(chosen)), list(chosen)]
        totals = self.counts.sum(1)
        right = above[:, 1].sum() + (totals[:, 0] - above[:, 0]).sum()
        return float(right / max(1, totals.sum()))


@dataclass(kw_only=True)
class OverlapEvaluation:
    """What was counted at a network's own thresholds.

    Attributes:
        labels: the classes.
        thresholds: of each.
        iou: of each; NaN where it is not in the truth.
        accuracy: share of the labelled entries, pixels times classes, that are right.
        pictures: how many.
        protocol: what influences the scores.
    """

    labels: LabelSet
    thresholds: tuple[float, ...]
    iou: Float64
    accuracy: float
    pictures: int
    protocol: dict[str, Any] = field(default_factory=dict)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur."""
        return float(np.nanmean(self.iou)) if np.isfinite(self.iou).any() else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""
        named = zip(self.labels.names, map(float, self.iou), strict=True)
        return {
            "miou": self.miou,
            "pixel_accuracy": self.accuracy,
            "iou": {name: None if np.isnan(iou) else iou for name, iou in named},
            "thresholds": dict(zip(self.labels.names, self.thresholds, strict=True)),
            "pictures": self.pictures,
            "protocol": self.protocol,
        }


def evaluate_overlapping(
    predictor: Looker,
    dataset: Dataset,
    *,
    each: Callable[[], None] = lambda: None,
) -> OverlapEvaluation:
    """Score a network of overlapping classes at its thresholds.

    Raises:
        InputError: the data set's classes are others, or exclude each other.
        DataError: it is empty.
    """
    check_overlap(predictor.labels, dataset.labels)
    thresholds = predictor.thresholds
    if not len(dataset):
        raise DataError(f"data: the split '{dataset.split}' is empty; nothing to evaluate.")
    counts = OverlapCounts.none(len(thresholds), thresholds)
    for index in range(len(dataset)):
        sample = dataset[index]
        counts.add(sample.label, [predictor.look(sample.image)])
        each()
    chosen = [counts.edges.index(threshold) for threshold in thresholds]
    return OverlapEvaluation(
        labels=dataset.labels,
        thresholds=tuple(thresholds),
        iou=counts.ious[np.arange(len(chosen)), chosen],
        accuracy=counts.accuracy(chosen),
        pictures=len(dataset),
        protocol={**predictor.describe(), "split": dataset.split, "ignored label": IGNORE},
    )


def check_overlap(network: LabelSet, data: LabelSet) -> None:
    """Refuse a network and a data set whose classes are not the same ones, overlapping in both.

    Raises:
        InputError: they are not.
    """
    if network.overlap != data.overlap:
        one, other = ("network", "data set") if network.overlap else ("data set", "network")
        raise InputError(
            f"labels: the classes of the {one} overlap, those of the {other} exclude each other; "
            "they cannot be compared."
        )
    if network.names != data.names:
        raise InputError(
            f"labels: the network's classes are {', '.join(network.names)}, the data set's "
            f"{', '.join(data.names)}; overlapping classes must be the same, in the same order."
        )
