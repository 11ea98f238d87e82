from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab.errors import DataError, InputError
from deeplab.evaluation.metrics import (
    ClassTotals,
    ConfusionMatrix,
    bootstrap_interval,
    boundary_band,
    stack,
)


def _brute_force(
    label: np.ndarray, mask: np.ndarray, num_classes: int, ignore_index: int
) -> tuple[list[float | None], float, float]:
    pairs = [
        (int(t), int(p))
        for t, p in zip(label.ravel(), mask.ravel(), strict=True)
        if t != ignore_index
    ]
    ious: list[float | None] = []
    weighted = 0.0
    for k in range(num_classes):
        both = sum(t == k and p == k for t, p in pairs)
        either = sum(t == k or p == k for t, p in pairs)
        ious.append(both / either if either else None)
        weighted += (sum(t == k for t, _ in pairs) / len(pairs)) * (both / either if either else 0)
    return ious, sum(t == p for t, p in pairs) / len(pairs), weighted


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 7), ignore=st.sampled_from([255, 9]))
def test_scores_equal_a_brute_force_count(seed: int, classes: int, ignore: int) -> None:
    random = np.random.default_rng(seed)
    present = random.choice(classes, random.integers(1, classes + 1), replace=False)
    label = random.choice(np.append(present, ignore), (7, 9)).astype(np.uint8)
    label[0, 0] = present[0]
    mask = random.choice(present, (7, 9)).astype(np.uint8)
    totals = ConfusionMatrix.of(label, mask, classes, ignore_index=ignore).totals
    ious, accuracy, weighted = _brute_force(label, mask, classes, ignore)
    got = [None if math.isnan(iou) else iou for iou in totals.iou]
    assert got == pytest.approx(ious)
    scored = [iou for iou in ious if iou is not None]
    assert float(totals.mean_iou()) == pytest.approx(sum(scored) / len(scored))
    assert float(totals.pixel_accuracy) == pytest.approx(accuracy)
    assert float(totals.frequency_weighted_iou) == pytest.approx(weighted)


def test_a_class_only_predicted_counts_as_zero_and_an_absent_one_does_not_count() -> None:
    totals = ConfusionMatrix.of(np.array([0, 0]), np.array([0, 1]), 3).totals
    np.testing.assert_array_equal(totals.iou, [0.5, 0.0, np.nan])
    assert float(totals.mean_iou()) == 0.25
    assert float(totals.mean_iou([0, 2])) == 0.5
    assert math.isnan(float(totals.mean_iou([2])))


def test_nothing_to_count_has_no_score_and_no_warning() -> None:
    totals = ConfusionMatrix.of(np.full((2, 2), 255), np.zeros((2, 2), int), 2).totals
    assert math.isnan(float(totals.mean_iou()))
    assert math.isnan(float(totals.pixel_accuracy))


def test_merging_equals_counting_at_once() -> None:
    random = np.random.default_rng(0)
    label, mask = random.integers(0, 4, (2, 6, 8, 8))
    merged = ConfusionMatrix(4)
    for one in range(6):
        merged.merge(ConfusionMatrix.of(label[one], mask[one], 4))
    np.testing.assert_array_equal(merged.counts, ConfusionMatrix.of(label, mask, 4).counts)


def test_strange_labels_predictions_and_shapes_are_named() -> None:
    with pytest.raises(DataError, match=r"ids \[7\], expected 0 to 2 or 255"):
        ConfusionMatrix.of(np.array([0, 7]), np.array([0, 0]), 3)
    with pytest.raises(InputError, match=r"predictions from 0 to 5"):
        ConfusionMatrix.of(np.array([0, 1]), np.array([0, 5]), 3)
    with pytest.raises(InputError, match=r"shape \(3,\) for a label of shape \(2,\)"):
        ConfusionMatrix.of(np.array([0, 1]), np.array([0, 1, 1]), 3)


def test_bootstrap_interval_holds_the_score_and_repeats() -> None:
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(30):
        label = random.integers(0, 3, (16, 16))
        mask = np.where(random.random((16, 16)) < 0.8, label, 0)
        pictures.append(ConfusionMatrix.of(label, mask, 3).totals)
    stacked = stack(pictures)
    whole = ClassTotals(
        intersection=stacked.intersection.sum(0),
        truth=stacked.truth.sum(0),
        prediction=stacked.prediction.sum(0),
    )
    low, high = bootstrap_interval(stacked)
    assert low < float(whole.mean_iou()) < high
    assert high - low < 0.1
    assert (low, high) == bootstrap_interval(stacked)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_boundary_band_equals_a_brute_force_distance(width: int) -> None:
    label = np.zeros((13, 17), np.uint8)
    label[4:9, 5:8] = 1
    label[0, 16] = 255
    border = []
    for y in range(13):
        for x in range(17):
            near = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
            if any(0 <= b < 13 and 0 <= a < 17 and label[b, a] != label[y, x] for b, a in near):
                border.append((y, x))
    expected = np.zeros((13, 17), bool)
    for y in range(13):
        for x in range(17):
            expected[y, x] = min(max(abs(y - b), abs(x - a)) for b, a in border) < width
    np.testing.assert_array_equal(boundary_band(label, width), expected)


def test_a_picture_of_one_class_has_no_boundary() -> None:
    assert not boundary_band(np.zeros((5, 5), np.uint8), 3).any()
