"""Soft edges: against known alpha, and what must stay as it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from deeplab.errors import InputError
from deeplab.photo.edges import soft_cutout, working_size

UInt8 = npt.NDArray[np.uint8]


def disc(size: tuple[int, int], middle: tuple[float, float], radius: float, soft: float):
    y, x = np.mgrid[: size[0], : size[1]]
    return np.clip(0.5 + (radius - np.hypot(y - middle[0], x - middle[1])) / soft, 0, 1)


@pytest.fixture(scope="module")
def scene() -> tuple[npt.NDArray[np.float64], UInt8, npt.NDArray[np.bool_]]:
    """A red disc with a soft border before a blue ground, and a mask that is 5 pixels off."""
    size = 360, 480
    rng = np.random.default_rng(0)
    alpha = disc(size, (180, 240), 110, 6)
    photo = alpha[..., None] * (200, 60, 50) + (1 - alpha[..., None]) * (40, 90, 180)
    photo = np.clip(photo + rng.normal(0, 6, photo.shape), 0, 255).astype(np.uint8)
    return alpha, photo, disc(size, (183, 236), 108, 1) > 0.5


def test_alpha_is_nearer_to_the_truth_than_a_blurred_mask(scene):
    alpha, photo, inside = scene
    soft = soft_cutout(photo, inside)
    blurred = Image.fromarray(inside.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(0.9))
    before = np.abs(np.asarray(blurred) / 255 - alpha).sum()
    after = np.abs(soft[..., 3] / 255 - alpha).sum()
    assert after < 0.5 * before


def test_the_grounds_colours_are_taken_out(scene):
    alpha, photo, inside = scene
    soft = soft_cutout(photo, inside).astype(float)
    border = (alpha > 0.3) & (alpha < 0.8) & (soft[..., 3] > 40)
    assert border.sum() > 500
    red = np.array([200, 60, 50])
    plain = np.abs(photo[border] - red).mean()
    assert np.abs(soft[border][:, :3] - red).mean() < 0.5 * plain


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 120), st.integers(1, 120), st.integers(0, 99))
def test_far_from_the_border_nothing_changes(height, width, seed):
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    inside = disc((height, width), tuple(rng.uniform(0, 200, 2)), rng.uniform(0, 150), 1) > 0.5
    result = soft_cutout(photo, inside)
    step = -(-height // working_size(height, width)[0])
    reach = 5 * step + 2  # a mean over 7 cells, and the neighbour between which values lie
    field = np.pad(inside, reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(field, (2 * reach + 1, 2 * reach + 1))
    far = windows.all(axis=(2, 3)) == windows.any(axis=(2, 3))
    np.testing.assert_array_equal(result[far][:, :3], photo[far])
    np.testing.assert_array_equal(result[far][:, 3], np.where(inside[far], 255, 0))
    for all_or_none in (0, 1):
        same = soft_cutout(photo, np.full((height, width), all_or_none, np.uint8))
        assert (same[..., 3] == 255 * all_or_none).all()


def test_what_is_thin_is_kept():
    photo = np.full((360, 480, 3), 120, np.uint8)
    photo += np.random.default_rng(0).integers(0, 60, photo.shape, dtype=np.uint8)
    inside = np.zeros((360, 480), np.uint8)
    inside[40:300, 200:206] = 1
    got = soft_cutout(photo, inside)[..., 3] > 127
    assert (got == (inside != 0)).mean() > 0.999


def test_sizes_that_do_not_fit_are_refused():
    photo = np.zeros((90, 120, 3), np.uint8)
    with pytest.raises(InputError, match="inside: got shape"):
        soft_cutout(photo, np.zeros((90, 121), np.uint8))
    with pytest.raises(InputError, match="probability: got shape"):
        soft_cutout(photo, np.zeros((90, 120), np.uint8), probability=np.zeros((3, 4), np.float32))
    with pytest.raises(InputError, match="image: got float64"):
        soft_cutout(photo / 255, np.zeros((90, 120), np.uint8))  # type: ignore[arg-type]
