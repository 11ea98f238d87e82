from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from deeplab.errors import InputError
from deeplab.evaluation.objects import ObjectCounts
from deeplab.photo.regions import connect_equal

BACKGROUND, HORSE, COW, DOG = range(4)
EIGHT = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]


def flood(label: np.ndarray) -> np.ndarray:
    """Number the regions one after the other, pixel by pixel."""
    numbers = np.full(label.shape, -1)
    for start in np.ndindex(label.shape):
        if numbers[start] >= 0:
            continue
        numbers[start] = number = numbers.max() + 1
        queue = deque([start])
        while queue:
            row, column = queue.popleft()
            for down, right in EIGHT:
                place = row + down, column + right
                inside = 0 <= place[0] < label.shape[0] and 0 <= place[1] < label.shape[1]
                if inside and numbers[place] < 0 and label[place] == label[row, column]:
                    numbers[place] = number
                    queue.append(place)
    return numbers


def spiral(side: int) -> np.ndarray:
    """One wall that winds inwards, one pixel wide, with a way between."""
    label = np.zeros((side, side), np.uint8)
    row, column, down, right, steps = 0, 0, 0, 1, side - 1
    label[0, 0] = 1
    for turn in range(side):
        for _ in range(steps):
            row, column = row + down, column + right
            label[row, column] = 1
        down, right = right, -down
        if turn % 2 == 0 and turn:
            steps -= 2
        if steps < 2:
            break
    return label


@pytest.mark.parametrize("seed", range(20))
def test_regions_are_those_of_a_flood(seed: int) -> None:
    random = np.random.default_rng(seed)
    label = random.choice([0, 1, 255], random.integers(1, 16, 2)).astype(np.uint8)
    np.testing.assert_array_equal(connect_equal(label), flood(label))


@pytest.mark.parametrize("turn", range(4))
def test_a_long_winding_way_is_one_region(turn: int) -> None:
    label = np.rot90(spiral(41), turn)
    regions = connect_equal(label)
    np.testing.assert_array_equal(regions, flood(label))
    assert len(np.unique(regions[label == 1])) == 1


def scene(*parts: tuple[slice, int], start: int = HORSE) -> tuple[np.ndarray, np.ndarray]:
    """Return the truth, a horse of 60 × 50 pixels, and what was found in its rows."""
    label = np.zeros((100, 100), np.uint8)
    label[20:80, 20:70] = start
    mask = label.copy()
    for rows, found in parts:
        mask[20:80, 20:70][rows] = found
    return label, mask


@pytest.mark.parametrize(
    ("parts", "two_coloured"),
    [
        ([], 0),
        ([(np.s_[30:], COW)], 1),
        ([(np.s_[:6], COW)], 1),  # a tenth
        ([(np.s_[:5], COW)], 0),  # less
        ([(np.s_[:], COW)], 0),  # wrong, but in one piece
        ([(np.s_[:30], COW), (np.s_[30:], DOG)], 1),  # no part of it is right
        ([(np.s_[30:], BACKGROUND)], 0),  # half is not found
        ([(np.s_[6:], BACKGROUND), (np.s_[:6], COW)], 0),
    ],
)
def test_two_classes_that_cover_a_tenth_each_are_two_colours(
    parts: list[tuple[slice, int]], two_coloured: int
) -> None:
    label, mask = scene(*parts)
    assert ObjectCounts.of(label, mask) == ObjectCounts(objects=1, two_coloured=two_coloured)


def test_objects_of_two_classes_that_touch_are_two_objects() -> None:
    label, mask = scene((np.s_[30:], COW))
    assert ObjectCounts.of(mask, mask) == ObjectCounts(objects=2)
    assert ObjectCounts.of(label, mask) == ObjectCounts(objects=1, two_coloured=1)


def test_outlines_part_objects_and_are_none() -> None:
    label, mask = scene()
    label[48:50] = 255
    mask[50:] = COW
    assert ObjectCounts.of(label, mask) == ObjectCounts(objects=2)


def test_specks_are_no_objects() -> None:
    label = np.zeros((100, 100), np.uint8)
    label[:7, :7], label[50:58, 50:58] = HORSE, HORSE
    assert ObjectCounts.of(label, label).objects == 1


def test_without_background_everything_is_an_object() -> None:
    label = np.zeros((40, 40), np.uint8)
    label[20:] = 1
    mask = label.copy()
    mask[:10] = 2
    assert ObjectCounts.of(label, mask, background=None) == ObjectCounts(objects=2, two_coloured=1)


def test_nothing_to_count() -> None:
    label = np.full((20, 20), 255, np.uint8)
    assert ObjectCounts.of(label, np.zeros_like(label)) == ObjectCounts()
    with pytest.raises(InputError, match="objects"):
        ObjectCounts.of(label, np.zeros((20, 21), np.uint8))
    with pytest.raises(InputError, match="objects"):
        ObjectCounts.of(label.ravel(), label.ravel())
