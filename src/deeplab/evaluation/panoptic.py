"""Panoptic quality and parsing covering: scores of segments, from counts that merge.

A segment is a class and an instance; every pixel belongs to one segment or to none. Panoptic
quality counts segments that are found, parsing covering measures how far each is covered. numpy
only. The sums of IoU are float64, so their last digit depends on the order of merging.

Source: 1801.00868 (PQ), section 4; 1902.05093 (PC), section 4; cocodataset/panopticapi,
evaluation.py, and research/deeplab/evaluation/parsing_covering.py for what both leave open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deeplab.errors import DataError, InputError
from deeplab.evaluation.metrics import Counts, Mask, Scores

VOID = 0
"""The id of pixels that belong to no segment."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What an id in a panoptic map is.

    Attributes:
        id: above 0.
        category: 0 .. K-1.
        is_crowd: of the truth: a group that is not told apart; it is neither found nor missed.
    """

    id: int
    category: int
    is_crowd: bool = False


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Means over the classes that occur; NaN where none does.

    Attributes:
        pq: panoptic quality, 0..1: sq times rq for one class.
        sq: segmentation quality: mean IoU of the segments that were found.
        rq: recognition quality: F1 of finding segments.
        pc: parsing covering: IoU of the best segment, weighted by the truth's area.
        classes: how many classes pq, sq and rq are means of.
    """

    pq: float
    sq: float
    rq: float
    pc: float
    classes: int


class PanopticCounts:
    """Segments found, invented and missed, per class.

    Attributes:
        iou: (K,) float64, sum of the IoU of found segments.
        found: (K,) int64, pairs of segments of one class with an IoU above 0.5.
        invented: (K,) int64, predicted segments without a partner.
        missed: (K,) int64, true segments without a partner.
        covered: (K,) float64, sum over true segments of area · best IoU.
        area: (K,) float64, sum of those areas.
    """

    def __init__(self, num_classes: int) -> None:
        self.iou: Scores = np.zeros(num_classes)
        self.found: Counts = np.zeros(num_classes, np.int64)
        self.invented: Counts = np.zeros(num_classes, np.int64)
        self.missed: Counts = np.zeros(num_classes, np.int64)
        self.covered: Scores = np.zeros(num_classes)
        self.area: Scores = np.zeros(num_classes)

    @classmethod
    def of(
        cls,
        truth: Mask,
        prediction: Mask,
        *,
        truth_segments: Sequence[Segment],
        predicted_segments: Sequence[Segment],
        num_classes: int,
        by_picture: bool = True,
    ) -> PanopticCounts:
        """Count one picture.

        Pixels that are void or a crowd's in the truth count for nothing where a prediction covers
        them: void leaves the union, and a predicted segment that is mostly void or a crowd of its
        class is not invented.

        Args:
            truth: (H, W) integer ids; 0 is void.
            prediction: the same.
            truth_segments: what each id of the truth is.
            predicted_segments: what each predicted id is; ``is_crowd`` plays no part.
            num_classes: K.
            by_picture: areas in parsing covering are shares of the picture, so that large pictures
                do not count more, as in the original.

        Raises:
            InputError: the shapes differ.
            DataError: an id is not described, described twice or in no pixel, or of no class.
        """
        if truth.shape != prediction.shape:
            raise InputError(
                f"prediction: got shape {prediction.shape} for a truth of shape {truth.shape}; "
                "bring it to the truth's size first."
            )
        counts = cls(num_classes)
        pair = _Pair(truth, prediction, truth_segments, predicted_segments, num_classes)
        counts._count_quality(pair)
        counts._count_covering(pair, truth.size if by_picture else 1)
        return counts

    def _count_quality(self, pair: _Pair) -> None:
        own = np.where(pair.crowd, -1, pair.true_class)
        same = own[:, None] == pair.found_class[None, :]
        union = pair.true_area[:, None] + pair.found_area - pair.shared - pair.in_void
        iou = np.where(same, pair.shared / np.maximum(union, 1), 0.0)
        true, found = np.nonzero(iou > 0.5)  # at most one partner: segments do not overlap
        np.add.at(self.iou, pair.true_class[true], iou[true, found])
        np.add.at(self.found, pair.true_class[true], 1)
        missed = ~pair.crowd
        missed[true] = False
        np.add.at(self.missed, pair.true_class[missed], 1)
        crowded = pair.crowd[:, None] & (pair.true_class[:, None] == pair.found_class)
        excused = pair.in_void + np.where(crowded, pair.shared, 0).sum(0)
        invented = excused <= 0.5 * pair.found_area
        invented[found] = False
        np.add.at(self.invented, pair.found_class[invented], 1)

    def _count_covering(self, pair: _Pair, size: int) -> None:
        """Source: parsing_covering.py: void leaves the predicted areas; crowds are as void."""
        kept = ~pair.crowd
        shared = pair.shared[kept]
        if not shared.size:
            np.add.at(self.area, pair.true_class[kept], pair.true_area[kept] / size)
            return
        same = pair.true_class[kept][:, None] == pair.found_class
        union = pair.true_area[kept][:, None] + shared.sum(0) - shared
        best = np.where(same, shared / np.maximum(union, 1), 0.0).max(1)
        np.add.at(self.covered, pair.true_class[kept], best * pair.true_area[kept] / size)
        np.add.at(self.area, pair.true_class[kept], pair.true_area[kept] / size)

    def merge(self, other: PanopticCounts) -> PanopticCounts:
        """Add the counts of ``other`` to these, and return these."""
        for name in ("iou", "found", "invented", "missed", "covered", "area"):
            getattr(self, name).__iadd__(getattr(other, name))
        return self

    @property
    def sq(self) -> Scores:
        """(K,) mean IoU of the found segments; 0 where a class occurs and none was found."""
        return self._where_it_occurs(self.iou / np.maximum(self.found, 1))

    @property
    def rq(self) -> Scores:
        """(K,) found segments over the mean of true and predicted ones; NaN without any."""
        return self._where_it_occurs(self.found / np.maximum(self._halves, 0.5))

    @property
    def pq(self) -> Scores:
        """(K,) panoptic quality; NaN for a class in neither truth nor prediction."""
        return self._where_it_occurs(self.iou / np.maximum(self._halves, 0.5))

    @property
    def pc(self) -> Scores:
        """(K,) parsing covering; NaN for a class that the truth does not show."""
        shown = self.area > 0
        return np.asarray(np.where(shown, self.covered / np.where(shown, self.area, 1), np.nan))

    @property
    def _halves(self) -> Scores:
        return np.asarray(self.found + 0.5 * self.invented + 0.5 * self.missed)

    def _where_it_occurs(self, values: Scores) -> Scores:
        return np.asarray(np.where(self._halves > 0, values, np.nan))

    def mean(self, classes: npt.NDArray[np.bool_] | None = None) -> Quality:
        """Return the means over all classes, or those where ``classes`` (K,) is true."""
        chosen = np.ones(len(self.iou), bool) if classes is None else classes

        def over(values: Scores) -> float:
            kept = values[chosen & ~np.isnan(values)]
            return float(kept.mean()) if kept.size else float("nan")

        return Quality(
            pq=over(self.pq),
            sq=over(self.sq),
            rq=over(self.rq),
            pc=over(self.pc),
            classes=int((chosen & (self._halves > 0)).sum()),
        )


class _Pair:
    """Areas of one picture's segments (T true, P predicted), and of what they share.

    ``shared`` is (T, P) pixels, ``in_void`` (P,) predicted pixels on void.
    """

    def __init__(
        self,
        truth: Mask,
        prediction: Mask,
        truth_segments: Sequence[Segment],
        predicted_segments: Sequence[Segment],
        num_classes: int,
    ) -> None:
        true_at, true_area = _places(truth, truth_segments, "truth", num_classes)
        found_at, found_area = _places(prediction, predicted_segments, "prediction", num_classes)
        rows, columns = len(truth_segments) + 1, len(predicted_segments) + 1
        joint = np.bincount((true_at * columns + found_at).ravel(), minlength=rows * columns)
        joint = joint.reshape(rows, columns)
        self.shared, self.in_void = joint[1:, 1:], joint[0, 1:]
        self.true_area, self.found_area = true_area, found_area
        self.true_class = np.array([s.category for s in truth_segments], np.int64)
        self.found_class = np.array([s.category for s in predicted_segments], np.int64)
        self.crowd = np.array([s.is_crowd for s in truth_segments], bool)


def _places(
    ids: Mask, segments: Sequence[Segment], what: str, num_classes: int
) -> tuple[Counts, Counts]:
    """Return the place (1..) of each pixel's segment in the list, 0 for void; and the areas.

    Raises:
        DataError: ids and segments do not belong together.
    """
    known = np.array([VOID, *(segment.id for segment in segments)], np.int64)
    found, inverse = np.unique(ids, return_inverse=True)
    strange = sorted(set(found.tolist()) - set(known.tolist()))
    if strange:
        raise DataError(
            f"{what}: {len(strange)} ids are in the picture, but in no segment: "
            f"{', '.join(map(str, strange[:5]))}{', …' if len(strange) > 5 else ''}."
        )
    if len(set(known.tolist())) < len(known):
        raise DataError(f"{what}: an id is described twice, or is 0, which is void.")
    order = np.argsort(known)
    places = order[np.searchsorted(known[order], found)][inverse.reshape(ids.shape)]
    areas = np.bincount(places.ravel(), minlength=len(known))[1:]
    for segment, area in zip(segments, areas, strict=True):
        if not 0 <= segment.category < num_classes:
            raise DataError(f"{what}: segment {segment.id} is of a class that is not known.")
        if not area:
            raise DataError(f"{what}: segment {segment.id} is described, but has no pixel.")
    return places.astype(np.int64), areas.astype(np.int64)
