"""Objects of a mask: their boxes and outlines give back what they were made of."""

from __future__ import annotations

import numpy as np
import pytest

from deeplab import LabelSet
from deeplab.errors import InputError
from deeplab.photo import outlines
from deeplab.photo.outlines import find_objects

LABELS = LabelSet(("ground", "cat", "dog", "tree"))


def fill(rings: list[list[tuple[int, int]]], shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels around whose centre an odd number of rings goes."""
    inside = np.zeros(shape, int)
    for ring in rings:
        for (x, y), (next_x, next_y) in zip(ring, ring[1:] + ring[:1], strict=True):
            assert (x == next_x) != (y == next_y)  # along rows and columns in turn
            if x == next_x:
                inside[min(y, next_y) : max(y, next_y), x:] += 1
    return inside % 2 == 1


def shoelace(ring: list[tuple[int, int]]) -> float:
    x, y = np.array(ring).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


@pytest.mark.parametrize("seed", range(6))
def test_rings_and_boxes_give_back_the_mask(seed: int) -> None:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 4, (7, 9), dtype=np.uint8)
    mask = np.kron(coarse, np.ones((3, 2), np.uint8))
    noisy = generator.random(mask.shape) < 0.1
    mask[noisy] = generator.integers(0, 6, int(noisy.sum()))  # ids without a name too
    again = np.zeros_like(mask)
    found = find_objects(mask, labels=LABELS, outlines=True)
    for one in found:
        pixels = fill(list(one.rings), mask.shape)
        assert (mask[pixels] == one.class_id).all()
        assert not again[pixels].any()  # no pixel twice
        again[pixels] = one.class_id
        assert pixels.sum() == one.area == sum(map(shoelace, one.rings))
        rows, columns = np.nonzero(pixels)
        x, y, width, height = one.box
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())
    assert (again == np.where(mask < 4, mask, 0)).all()
    assert [one.area for one in found] == sorted((one.area for one in found), reverse=True)


def test_a_ring_has_corners_only_and_a_hole_goes_the_other_way() -> None:
    mask = np.ones((5, 6), np.uint8)
    mask[2:4, 2:4] = 0
    (found,) = find_objects(mask, labels=LABELS, outlines=True)
    outer, hole = found.rings
    assert sorted(outer) == [(0, 0), (0, 5), (6, 0), (6, 5)]
    assert sorted(hole) == [(2, 2), (2, 4), (4, 2), (4, 4)]
    assert (shoelace(outer), shoelace(hole)) == (30, -4)


def test_corners_connect_and_small_objects_are_left_out() -> None:
    mask = np.zeros((6, 6), np.uint8)
    mask[0:2, 0:2] = mask[2:4, 2:4] = 1  # they touch at a corner
    mask[5, 5] = 2
    first, second = find_objects(mask, labels=LABELS, outlines=True)
    assert (first.area, first.box, len(first.rings)) == (8, (0, 0, 4, 4), 2)
    assert (second.area, second.box) == (1, (5, 5, 1, 1))
    assert len(find_objects(mask, labels=LABELS, min_area=2)) == 1
    assert find_objects(np.zeros((3, 3), np.uint8), labels=LABELS, outlines=True) == []


def test_what_is_noise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "MOST_SIDES", 10)
    board = np.indices((6, 6)).sum(0).astype(np.uint8) % 2
    with pytest.raises(InputError, match="more than 10 sides"):
        find_objects(board, labels=LABELS, outlines=True)


def test_it_is_the_outline_that_opencv_finds() -> None:
    cv2 = pytest.importorskip("cv2")
    mask = np.zeros((40, 50), np.uint8)
    cv2.circle(mask, (24, 20), 13, 1, -1)
    (found,) = find_objects(mask, labels=LABELS, outlines=True)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    assert found.box == cv2.boundingRect(contours[0])
