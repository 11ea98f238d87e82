from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from deeplab.errors import ImageSizeError, InputError
from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.photo.upsample import Region, argmax_bilinear
from deeplab.tiles import Tiles
from deeplab.tiles.pictures import ArrayPicture, Seen
from deeplab.tiles.windows import Windows

LABELS = LabelSet(tuple("abcde"))
TABLE = np.random.default_rng(0).standard_normal((256, 5)).astype(np.float32)


def sample(frame: np.ndarray, points: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Look at single pixels alone, so that any window answers the same at the same place."""
    places = []
    for side, count in zip(frame.shape[:2], points, strict=True):
        step = (side - 1) / max(1, count - 1) if align_corners else side / count
        places.append((np.arange(count) * step + (0 if align_corners else step / 2)).astype(int))
    return TABLE[frame[places[0]][:, places[1], 0]]


def tiles(picture, *, frame, points, align_corners=True, run=None, **options) -> Tiles:
    return Tiles(
        ArrayPicture(picture),
        labels=LABELS,
        spec=InputSpec(height=frame[0], width=frame[1]),
        grid=points,
        align_corners=align_corners,
        run=run or (lambda window: sample(window, points, align_corners)),
        workers=2,
        **options,
    )


def assemble(parts, size) -> np.ndarray:
    mask, seen = np.zeros(size, np.uint8), np.zeros(size, int)
    for top, left, part in parts:
        where = slice(top, top + part.shape[0]), slice(left, left + part.shape[1])
        mask[where] = part
        seen[where] += 1
    assert (seen == 1).all(), "each pixel comes once"
    return mask


@settings(max_examples=15, deadline=None, phases=[Phase.generate])
@given(st.data())
def test_equals_the_network_on_the_whole_picture(data):
    draw = data.draw
    align = draw(st.booleans())
    step = draw(st.sampled_from([1, 4, 8]))
    points = draw(st.integers(2, 9)), draw(st.integers(2, 9))
    frame = tuple((p - 1) * step + 1 if align else p * step for p in points)
    size = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    made = tiles(
        picture, frame=frame, points=points, align_corners=align,
        overlap=draw(st.sampled_from([0.0, 0.25, 0.5, 0.9])),
    )  # fmt: skip
    rows, columns = made._rows, made._columns
    whole = np.full((rows.whole_frame, columns.whole_frame, 3), 127, np.uint8)
    seen = made.seen_size
    whole[: seen[0], : seen[1]] = Seen(made.picture, seen, (127,) * 3).read(0, 0, *seen)
    logits = sample(whole, (rows.whole, columns.whole), align)
    result = made.segmentation()
    np.testing.assert_allclose(result.logits, logits, atol=1e-5)
    expected = argmax_bilinear(
        result.logits, *size, align_corners=align, region=Region(*whole.shape[:2], 0, 0, *seen)
    )
    np.testing.assert_array_equal(result.mask, expected)
    made._strip = draw(st.sampled_from([7, 40, 16384]))
    done = []
    parts = made.parts(progress=lambda *n: done.append(n))
    np.testing.assert_array_equal(assemble(parts, size), expected)
    assert done == [(i + 1, made.windows) for i in range(made.windows)]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 5000), st.integers(1, 80), st.floats(0.5, 20), st.floats(0, 0.9), st.booleans()
)
def test_windows_cover_the_picture_and_their_weights_sum_to_one(size, points, step, overlap, align):
    frame = max(1, round((points - 1) * step) + 1 if align else round(points * step))
    windows = Windows(size, frame, points, align, overlap)
    total = np.zeros(windows.whole)
    for start, weights in zip(windows.starts, windows.weights, strict=True):
        total[start : start + points] += weights
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    assert windows.whole_frame >= size
    assert windows.first_pixel(len(windows.starts) - 1) + frame >= size - 1
    shared = points - np.diff(windows.starts)
    assert (shared >= windows.shared).all()


@pytest.mark.parametrize("scale", [0.13, 0.5, 0.77, 1.6])
def test_a_resized_picture_does_not_depend_on_the_region(scale):
    rng = np.random.default_rng(3)
    picture = ArrayPicture(rng.integers(0, 256, (211, 307, 3), dtype=np.uint8))
    size = round(211 * scale), round(307 * scale)
    whole = Seen(picture, size, (0, 0, 0)).read(0, 0, *size).astype(int)
    top, left, bottom, right = size[0] // 3, size[1] // 4, size[0] - 2, size[1] - 5
    part = Seen(picture, size, (0, 0, 0)).read(top, left, bottom, right).astype(int)
    assert np.abs(part - whole[top:bottom, left:right]).max() <= 1  # of 8-bit rounding


# --- seams ----------------------------------------------------------------------------------------

STRIPES = np.repeat(
    (np.sin(np.arange(400) / 9) * 100 + 127).astype(np.uint8)[:, None], 900, axis=1
)  # fmt: skip


def blurry(frame: np.ndarray) -> np.ndarray:
    """A network with wide kernels and zero padding, which is blind beside its window."""
    value = frame[::8, ::8, 0].astype(np.float32) / 255
    padded = np.pad(value, 3)
    total = sum(np.roll(padded, (i, j), (0, 1)) for i in range(-3, 4) for j in range(-3, 4))
    mean = total[3:-3, 3:-3] / 49
    centres = np.linspace(0.2, 0.8, 5, dtype=np.float32)
    return -np.abs(mean[:, :, None] - centres) * 10


def seams(mask: np.ndarray) -> list[int]:
    """Return the columns at which many rows change their class at once, on level stripes."""
    changes = (mask[:, 1:] != mask[:, :-1]).mean(axis=0)
    return [int(x) + 1 for x in np.flatnonzero(changes > 0.04)]


def test_no_seam_is_found_where_hard_tiles_have_them():
    frame, points = (257, 257), (33, 33)
    inside = slice(40, 360), slice(40, 860)  # the picture's own border is one
    hard = np.zeros((400, 900), np.uint8)
    for top in (0, 256):
        for left in (0, 256, 512, 768):
            window = STRIPES[top : top + 257, left : left + 257]
            one = tiles(window, frame=frame, points=points, run=blurry).segmentation().mask
            hard[top : top + 256, left : left + 256] = one[:256, :256]
    assert seams(hard[inside]), "the test must be able to find one"
    blended = tiles(STRIPES, frame=frame, points=points, run=blurry)
    assert blended.windows > 4
    assert not seams(blended.segmentation().mask[inside])


# --- arrays, limits -------------------------------------------------------------------------------


@dataclass
class MadeOnTheFly:
    """A picture that is nowhere; what is asked for is computed."""

    shape: tuple[int, ...]
    dtype = np.dtype(np.uint8)
    largest: int = 0

    def __getitem__(self, where):
        rows, columns = where
        y, x = np.ogrid[rows, columns]
        part = ((y * 7 + x * 13) % 256).astype(np.uint8)
        self.largest = max(self.largest, part.size)
        return np.repeat(part[:, :, None], 3, axis=2)


def test_anything_that_can_be_sliced_is_read_by_region():
    picture = MadeOnTheFly((1000, 3000, 3))
    made = tiles(picture, frame=(65, 65), points=(9, 9), overlap=0.0)
    made._strip = 512
    assert sum(part.mask.size for part in made) == 3_000_000
    assert picture.largest < 65 * 1000


def test_four_times_the_pixels_need_no_more_memory():
    peaks = []
    for side in (1200, 2400):
        made = tiles(MadeOnTheFly((side, side, 3)), frame=(129, 129), points=(17, 17), scale=0.5)
        made._strip = 512
        tracemalloc.start()
        assert sum(part.mask.size for part in made) == side * side
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize(
    ("picture", "options", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), {}, "picture: got ndarray of shape"),
        (np.zeros((0, 4, 3), np.uint8), {}, "not empty"),
        (np.zeros((4, 4, 3), np.uint8), {"overlap": 1.0}, "overlap: got 1.0, expected"),
        (np.zeros((4, 4, 3), np.uint8), {"overlap": float("nan")}, "overlap: got nan"),
        (np.zeros((4, 4, 3), np.uint8), {"scale": 0.0}, "scale: got 0.0, expected"),
        (np.zeros((4, 4, 3), np.uint8), {"scale": float("nan")}, "scale: got nan"),
    ],
)
def test_bad_arguments_are_named(picture, options, message):
    with pytest.raises(InputError, match=message):
        tiles(picture, frame=(65, 65), points=(9, 9), **options)


def test_memory_makes_strips_narrower_until_it_does_not_do():
    picture = MadeOnTheFly((4000, 100_000, 3))
    wide = tiles(picture, frame=(513, 513), points=(65, 65))
    narrow = tiles(picture, frame=(513, 513), points=(65, 65), memory=200_000_000)
    assert narrow._strip < wide._strip
    assert narrow._strip % 512 == 0
    from_top = ArrayPicture(picture, from_top=True)
    options = {"labels": LABELS, "spec": InputSpec(height=513, width=513), "grid": (65, 65),
               "align_corners": True, "run": blurry, "workers": 1}  # fmt: skip
    assert Tiles(from_top, **options)._strip >= 100_000, "it is read once"
    assert Tiles(from_top, **options, memory=200_000_000)._strip % 512 == 0
    with pytest.raises(
        ImageSizeError, match=r"there are 100 MB of memory for it; .* need 1\d\d MB"
    ):
        tiles(picture, frame=(513, 513), points=(65, 65), memory=100_000_000)
