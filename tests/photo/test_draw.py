from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from deeplab.errors import InputError
from deeplab.labels import CAMVID, CITYSCAPES, VOC, LabelSet
from deeplab.photo import draw
from deeplab.photo.display import display_colours, display_palette, to_lab

UInt8 = npt.NDArray[np.uint8]


@st.composite
def photos_and_masks(draw_from: Any) -> tuple[UInt8, UInt8]:
    height, width = draw_from(st.integers(1, 40)), draw_from(st.integers(1, 40))
    seed = draw_from(st.integers(0, 2**32 - 1))
    photo = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    classes = st.sampled_from([0, 0, 1, 8, 15, 16, 20, 255])
    return photo, draw_from(hnp.arrays(np.uint8, (height, width), elements=classes))


def brute_force_near(mask: UInt8, width: int) -> npt.NDArray[np.bool_]:
    """Boundary pixels differ from a 4-neighbour; near is a square of width - 1 around them."""
    height, columns = mask.shape
    boundary = np.zeros(mask.shape, bool)
    for y, x in np.ndindex(mask.shape):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < height and 0 <= u < columns and mask[v, u] != mask[y, x]:
                boundary[y, x] = True
    near = np.zeros(mask.shape, bool)
    reach = width - 1
    for y, x in np.argwhere(boundary):
        near[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = True
    return near


@settings(deadline=None)
@given(photos_and_masks(), st.floats(0, 1))
def test_overlay_tints_the_classes_and_leaves_everything_else_byte_identical(
    pair: tuple[UInt8, UInt8], alpha: float
) -> None:
    photo, mask = pair
    before = photo.copy()
    drawn = np.asarray(draw.overlay(photo, mask, labels=VOC, alpha=alpha, legend=False))
    untouched = (mask == 0) | (mask == 255)
    assert np.array_equal(drawn[untouched], photo[untouched])
    wanted = photo + alpha * (display_palette(VOC)[mask].astype(float) - photo)
    assert np.abs(drawn - wanted)[~untouched].max(initial=0) <= 1.01  # alpha is held in 1/255
    assert np.array_equal(photo, before)


@settings(deadline=None)  # the first one chooses the colours
@given(photos_and_masks())
def test_a_legend_lists_exactly_the_labels_that_are_present(pair: tuple[UInt8, UInt8]) -> None:
    _, mask = pair
    entries = draw.legend_entries(mask, VOC)
    present = [i for i in np.unique(mask) if i not in (0, 255)]
    assert {entry.name for entry in entries} == {VOC.names[i] for i in present}
    for entry in entries:
        index = VOC.index(entry.name)
        assert entry.share == pytest.approx((mask == index).mean())
        assert entry.colour == display_colours(VOC)[index]
    assert [e.share for e in entries] == sorted((e.share for e in entries), reverse=True)


@given(photos_and_masks(), st.integers(1, 12))
def test_contours_lie_near_boundaries_only_and_inside_the_objects(
    pair: tuple[UInt8, UInt8], width: int
) -> None:
    photo, mask = pair
    drawn = np.asarray(draw.contour(photo, mask, labels=VOC, width=width))
    line = brute_force_near(mask, width) & (mask != 0) & (mask != 255)
    assert np.array_equal(drawn[line], display_palette(VOC)[mask][line])
    assert np.array_equal(drawn[~line], photo[~line])


@given(photos_and_masks())
def test_cutout_has_the_mask_as_alpha_and_hides_nothing(pair: tuple[UInt8, UInt8]) -> None:
    photo, mask = pair
    cut = np.asarray(draw.cutout(photo, mask, labels=VOC, soft_edge=0))
    kept = (mask != 0) & (mask != 255)
    assert np.array_equal(cut[..., 3], np.where(kept, 255, 0))
    assert np.array_equal(cut[kept][:, :3], photo[kept])
    assert not cut[~kept].any()
    cats = np.asarray(draw.cutout(photo, mask, labels=VOC, only=["cat"], soft_edge=0))
    assert np.array_equal(cats[..., 3] == 255, mask == 8)


@given(photos_and_masks())
def test_keep_only_makes_the_rest_background(pair: tuple[UInt8, UInt8]) -> None:
    _, mask = pair
    kept, labels = draw.keep_only(mask, ["cat", "person"], labels=VOC)
    assert labels is VOC
    assert np.array_equal(kept, np.where((mask == 8) | (mask == 15), mask, 0))
    streets, labels = draw.keep_only(mask, ["train"], labels=CITYSCAPES)
    assert np.array_equal(streets, np.where(mask == 16, 16, 19))
    assert labels.names == (*CITYSCAPES.names, "everything else")
    assert labels.background == 19


@given(photos_and_masks())
@settings(max_examples=30)
def test_the_other_background_keeps_the_objects_as_they_are(pair: tuple[UInt8, UInt8]) -> None:
    photo, mask = pair
    kept = (mask != 0) & (mask != 255)
    green = draw.replace_background(photo, mask, background=(0, 255, 0), labels=VOC, soft_edge=0)
    assert np.array_equal(np.asarray(green)[kept], photo[kept])
    assert (np.asarray(green)[~kept] == (0, 255, 0)).all()
    blurred = draw.blur_background(photo, mask, labels=VOC, radius=3, soft_edge=0)
    assert np.array_equal(np.asarray(blurred)[kept], photo[kept])


def test_objects_do_not_bleed_into_the_blurred_background() -> None:
    photo = np.full((200, 200, 3), 40, np.uint8)
    mask = np.zeros((200, 200), np.uint8)
    mask[50:150, 50:150] = 15
    photo[mask == 15] = (250, 30, 30)
    blurred = np.asarray(draw.blur_background(photo, mask, labels=VOC, radius=10, soft_edge=0))
    outside = blurred[mask == 0].astype(int)
    assert np.abs(outside - 40).max() <= 12  # a plain blur reaches 145 beside the object
    assert np.abs(outside - 40).mean() < 0.5


def test_a_blur_flattens_the_background() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    blurred = draw.blur_background(photo, np.zeros((100, 100), np.uint8), labels=VOC, radius=5)
    assert np.asarray(blurred).std() < photo.std() / 5


def test_a_soft_edge_is_half_way_at_the_boundary() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20:] = 15
    photo = np.zeros((40, 40, 3), np.uint8)
    alpha = np.asarray(draw.cutout(photo, mask, labels=VOC, soft_edge=8))[20, :, 3].astype(int)
    assert alpha[0] == 0
    assert alpha[-1] == 255
    assert 80 < alpha[19] < 128 < alpha[20] < 175
    assert (np.diff(alpha) >= 0).all()


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_the_legend_is_readable_on_any_picture(grey: int) -> None:
    photo = np.full((400, 600, 3), grey, np.uint8)
    mask = np.full((400, 600), 15, np.uint8)
    drawn = np.asarray(draw.overlay(photo, mask, labels=VOC))
    plain = np.asarray(draw.overlay(photo, mask, labels=VOC, legend=False))
    rows, columns = np.nonzero((drawn != plain).any(axis=2))
    panel = drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].mean(axis=2)
    assert np.median(panel) < 90  # dark ...
    assert (panel > 240).mean() > 0.02  # ... under white letters
    assert (panel.shape[0] * panel.shape[1]) < 0.1 * mask.size


def test_the_legend_grows_with_the_picture_and_is_cut_short_where_room_is_short() -> None:
    names = LabelSet(tuple(f"class {i}" for i in range(256)), background=None)
    mask = np.arange(256, dtype=np.uint8).repeat(4 * 1024).reshape(1024, 1024)
    drawn = draw.overlay(np.zeros((1024, 1024, 3), np.uint8), mask, labels=names)
    assert drawn.size == (1024, 1024)

    def panel_height(height: int, width: int) -> int:
        photo = np.zeros((height, width, 3), np.uint8)
        mask = np.full((height, width), 15, np.uint8)
        with_legend = np.asarray(draw.overlay(photo, mask, labels=VOC))
        without = np.asarray(draw.overlay(photo, mask, labels=VOC, legend=False))
        return int(np.ptp(np.nonzero((with_legend != without).any(axis=2))[0]))

    assert panel_height(1200, 1600) > 2 * panel_height(300, 400)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (30, 30), (20, 2000)])
def test_tiny_and_thin_pictures_draw(shape: tuple[int, int]) -> None:
    photo, mask = np.zeros((*shape, 3), np.uint8), np.full(shape, 15, np.uint8)
    for drawn in (
        draw.overlay(photo, mask, labels=VOC),
        draw.contour(photo, mask, labels=VOC),
        draw.cutout(photo, mask, labels=VOC, soft_edge=3),
        draw.blur_background(photo, mask, labels=VOC),
        draw.replace_background(photo, mask, background=photo[:1, :1], labels=VOC),
    ):
        assert (drawn.height, drawn.width) == shape


def test_names_in_any_script_draw() -> None:
    names = LabelSet(("Hintergrund", "größe", "猫", "قطة", "a\nb", "🐈", ""))
    mask = np.arange(7, dtype=np.uint8).repeat(70 * 10).reshape(70, 70).repeat(5, 0).repeat(5, 1)
    drawn = draw.overlay(np.zeros((350, 350, 3), np.uint8), mask, labels=names)
    assert drawn.size == (350, 350)


def test_pil_photos_are_left_alone() -> None:
    photo = Image.new("RGB", (64, 64), "white")
    draw.overlay(photo, np.full((64, 64), 15, np.uint8), labels=VOC)
    assert photo.tobytes() == b"\xff" * 64 * 64 * 3


def test_wrong_arguments_are_named() -> None:
    photo, mask = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint8)
    with pytest.raises(InputError, match="mask: got 5×4 for a photo of 4×5"):
        draw.overlay(photo, mask.T.copy(), labels=VOC)
    with pytest.raises(InputError, match="expected \\(H, W\\) uint8"):
        draw.overlay(photo, mask.astype(np.int64), labels=VOC)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected \\(H, W, 3\\)"):
        draw.overlay(photo[..., 0], mask, labels=VOC)
    with pytest.raises(InputError, match="alpha: got 2"):
        draw.overlay(photo, mask, labels=VOC, alpha=2)
    with pytest.raises(InputError, match="width: got 0"):
        draw.contour(photo, mask, labels=VOC, width=0)
    with pytest.raises(InputError, match="radius"):
        draw.blur_background(photo, mask, labels=VOC, radius=-1)
    with pytest.raises(InputError, match="Did you mean 'cat'"):
        draw.cutout(photo, mask, labels=VOC, only=["catt"])
    with pytest.raises(InputError, match="no background"):
        draw.cutout(photo, mask, labels=CITYSCAPES)


# --- the colours of the screen ------------------------------------------------------------------


@pytest.mark.parametrize("labels", [VOC, CITYSCAPES, CAMVID, LabelSet(tuple(map(str, range(80))))])
def test_no_class_is_shown_nearly_black_or_grey(labels: LabelSet) -> None:
    shown = [to_lab(c) for i, c in enumerate(display_colours(labels)) if i != labels.background]
    for lightness, a, b in shown:
        assert 0.49 <= lightness <= 0.87
        assert np.hypot(a, b) >= 0.085
    if len(shown) < 30:
        distances = [np.linalg.norm(np.subtract(p, q)) for p in shown for q in shown if p is not q]
        assert min(distances) > 0.08, "told apart"
    kept = [a == b for a, b in zip(display_colours(labels), labels.colours, strict=True)]
    assert sum(kept) >= min(7, len(labels) // 10), "what is seen well stays"
