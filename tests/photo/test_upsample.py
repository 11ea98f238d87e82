"""The full-size mask against a brute force that builds what it must never build."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab.errors import InputError
from deeplab.photo.upsample import (
    Region,
    argmax_bilinear,
    argmax_on,
    interpolate,
    place_axis,
    softmax_rows,
)

Float64 = npt.NDArray[np.float64]


def place(
    grid: int, size: int, *, align_corners: bool, span: tuple[int, int, int] | None
) -> Float64:
    """Return where each of ``size`` output pixels lies on the grid, by the textbook formulas."""
    pixel = np.arange(size, dtype=np.float64)
    frame = size
    if span is not None:
        frame, first, end = span
        pixel = np.clip((pixel + 0.5) * (end - first) / size + first - 0.5, first, end - 1)
    if align_corners:
        pixel = pixel * (grid - 1) / (frame - 1) if frame > 1 else 0 * pixel
    else:
        pixel = (pixel + 0.5) * grid / frame - 0.5
    return np.clip(pixel, 0, grid - 1)


def brute_force(
    logits: npt.NDArray[np.float32],
    height: int,
    width: int,
    *,
    align_corners: bool,
    region: Region | None = None,
) -> Float64:
    """Return (height, width, K) float64: every class interpolated everywhere."""
    h, w, _ = logits.shape
    rows = (region.frame_height, region.top, region.bottom) if region else None
    columns = (region.frame_width, region.left, region.right) if region else None
    y = place(h, height, align_corners=align_corners, span=rows)
    x = place(w, width, align_corners=align_corners, span=columns)
    i, j = y.astype(int), x.astype(int)
    below, right = np.minimum(i + 1, h - 1), np.minimum(j + 1, w - 1)
    down, across = (y - i)[:, None, None], (x - j)[None, :, None]
    grid = logits.astype(np.float64)
    top = grid[i][:, j] + across * (grid[i][:, right] - grid[i][:, j])
    bottom = grid[below][:, j] + across * (grid[below][:, right] - grid[below][:, j])
    return top + down * (bottom - top)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, object]:
    h, w = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    num_classes = draw(st.sampled_from([1, 2, 3, 4, 5, 9, 21, 150, 256]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    smoothness = draw(st.sampled_from(["noise", "smooth", "flat"]))
    logits = rng.standard_normal((h, w, num_classes))
    if smoothness == "smooth":  # a few clear winners, as a network gives
        logits[..., : min(3, num_classes)] += 3 * rng.standard_normal(min(3, num_classes))
    elif smoothness == "flat":
        logits = logits[:1, :1] + 1e-3 * logits
    region = None
    if draw(st.booleans()):
        frame_height, frame_width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        top, left = draw(st.integers(0, frame_height - 1)), draw(st.integers(0, frame_width - 1))
        bottom = draw(st.integers(top + 1, frame_height))
        right = draw(st.integers(left + 1, frame_width))
        region = Region(frame_height, frame_width, top, left, bottom, right)
    return {
        "logits": logits.astype(np.float32),
        "height": draw(st.integers(1, 70)),
        "width": draw(st.integers(1, 70)),
        "align_corners": draw(st.booleans()),
        "region": region,
    }


@settings(max_examples=2000, deadline=None)
@given(problems())
def test_equals_brute_force(problem):
    expected = brute_force(**problem).argmax(axis=2)
    assert np.array_equal(argmax_bilinear(**problem), expected)


@settings(max_examples=500, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([2, 3, 5, 9]),
    st.sampled_from([2, 3, 5]),
    st.sampled_from([2, 3, 21]),
    st.sampled_from([1, 2, 4, 8]),
)
def test_lowest_class_wins_exact_ties(seed, h, w, num_classes, factor):
    # Integer logits at power-of-two ratios: every number is exact, so ties are real ties.
    rng = np.random.default_rng(seed)
    logits = rng.integers(-2, 3, (h, w, num_classes)).astype(np.float32)
    size = (h - 1) * factor + 1, (w - 1) * factor + 1
    expected = brute_force(logits, *size, align_corners=True).argmax(axis=2)
    assert np.array_equal(argmax_bilinear(logits, *size, align_corners=True), expected)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60), st.booleans())
def test_ties_at_any_ratio_choose_a_winner(seed, height, width, align_corners):
    # Where rounding decides between equal classes, the choice must still be among the equals.
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, 2, (5, 4, 6)).astype(np.float32)
    mask = argmax_bilinear(logits, height, width, align_corners=align_corners)
    values = brute_force(logits, height, width, align_corners=align_corners)
    chosen = np.take_along_axis(values, mask[..., None].astype(int), axis=2)[..., 0]
    assert (values.max(axis=2) - chosen).max() <= 1e-12


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(33, 33), (257, 257), (720, 1280), (20, 3000), (3000, 20)])
def test_equals_brute_force_at_real_sizes(size, align_corners):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((33, 33, 6)).astype(np.float32)
    expected = brute_force(logits, *size, align_corners=align_corners).argmax(axis=2)
    assert np.array_equal(argmax_bilinear(logits, *size, align_corners=align_corners), expected)


def test_agrees_with_opencv_half_pixel_resize():
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((17, 23, 5)).astype(np.float32)
    stack = cv2.resize(logits, (311, 205), interpolation=cv2.INTER_LINEAR)
    top_two = np.sort(stack, axis=2)[..., -2:]
    clear = top_two[..., 1] - top_two[..., 0] > 1e-4  # OpenCV rounds its weights
    mask = argmax_bilinear(logits, 205, 311, align_corners=False)
    assert clear.mean() > 0.99
    assert np.array_equal(mask[clear], stack.argmax(axis=2)[clear])


def test_region_equals_resizing_the_finer_frame():
    # 33 -> 257 with aligned corners is an exact x8, so going through the 257-pixel frame, cropping
    # the letterbox and resizing the crop must give the same mask as going there directly.
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((33, 33, 4)).astype(np.float32)
    frame = brute_force(logits, 257, 257, align_corners=True).astype(np.float32)
    stack = cv2.resize(frame[:193], (640, 480), interpolation=cv2.INTER_LINEAR)
    top_two = np.sort(stack, axis=2)[..., -2:]
    clear = top_two[..., 1] - top_two[..., 0] > 1e-3
    region = Region(257, 257, 0, 0, 193, 257)
    mask = argmax_bilinear(logits, 480, 640, align_corners=True, region=region)
    assert clear.mean() > 0.98
    assert np.array_equal(mask[clear], stack.argmax(axis=2)[clear])


@settings(max_examples=200, deadline=None)
@given(problems())
def test_interpolate_and_softmax_sample_where_the_mask_does(problem):
    values = brute_force(**problem)
    assert np.allclose(interpolate(**problem), values, atol=1e-4)
    weights = np.exp(values - values.max(axis=2, keepdims=True))
    expected = weights / weights.sum(axis=2, keepdims=True)
    bands = list(softmax_rows(**problem))
    assert [rows.start for rows, _ in bands] == [0, *(rows.stop for rows, _ in bands[:-1])]
    assert np.allclose(np.concatenate([band for _, band in bands]), expected, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(0, 1 << 30))
def test_parts_equal_the_whole(problem, seed):
    whole = argmax_bilinear(**problem)
    logits, region = problem["logits"], problem["region"]
    spans = (None, None) if region is None else (
        (region.frame_height, region.top, region.bottom),
        (region.frame_width, region.left, region.right),
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    places = []
    for grid, size, span in zip(logits.shape[:2], whole.shape, spans, strict=True):
        first = int(rng.integers(size))
        end = int(rng.integers(first, size)) + 1
        axis = place_axis(grid, size, problem["align_corners"], span)
        places.append((slice(first, end), *axis.part(first, end)))
    (rows, near_rows, y), (columns, near_columns, x) = places
    part = argmax_on(logits[near_rows, near_columns], y, x)
    np.testing.assert_array_equal(part, whole[rows, columns])


def test_a_hundred_megapixels_need_little_more_than_the_mask():
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((33, 33, 21)).astype(np.float32)
    logits[4:20, 6:25, 7] += 6  # an object before clutter
    tracemalloc.start()
    try:
        mask = argmax_bilinear(logits, 10_000, 10_000, align_corners=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - mask.nbytes < 64 * 2**20


@pytest.mark.parametrize(
    ("logits", "size", "region", "message"),
    [
        (np.zeros((4, 4), np.float32), (8, 8), None, r"got shape \(4, 4\)"),
        (np.zeros((1, 4, 4, 2), np.float32), (8, 8), None, "without a batch dimension"),
        (np.zeros((4, 4, 2), np.int64), (8, 8), None, "int64"),
        (np.zeros((4, 0, 2), np.float32), (8, 8), None, "expected"),
        (np.zeros((4, 4, 257), np.float32), (8, 8), None, "257 classes, expected at most 256"),
        (np.full((4, 4, 2), np.nan, np.float32), (8, 8), None, "NaN"),
        (np.full((4, 4, 2), np.inf, np.float32), (8, 8), None, "infinite"),
        (np.zeros((4, 4, 2), np.float32), (0, 8), None, "0 x 8"),
        (np.zeros((4, 4, 2), np.float32), (8, 8), Region(9, 9, 0, 0, 10, 9), "leaves its frame"),
        (np.zeros((4, 4, 2), np.float32), (8, 8), Region(9, 9, 3, 0, 3, 9), "empty"),
    ],
)
def test_bad_arguments_are_named(logits, size, region, message):
    with pytest.raises(InputError, match=message):
        argmax_bilinear(logits, *size, align_corners=True, region=region)
