from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from synthetic import SyntheticClip, make_camera_clip, make_clip

from deeplab import Segmenter
from deeplab.evaluation.metrics import ConfusionMatrix
from deeplab.photo.images import Geometry
from deeplab.photo.upsample import argmax_bilinear
from deeplab.video.flicker import FlickerMeter, flickering, reduced_size, sample
from deeplab.video.motion import find_motion
from deeplab.video.read import FramePhoto
from deeplab.video.steady import Steadier

UInt8 = npt.NDArray[np.uint8]


def luma(frame: UInt8) -> UInt8:
    height, width = reduced_size(*frame.shape[:2])
    grey = Image.fromarray(frame).convert("L").resize((width, height), Image.Resampling.BOX)
    return np.asarray(grey)


def masks_of(clip: SyntheticClip, segmenter: Segmenter) -> tuple[list[UInt8], list[UInt8]]:
    """Return the masks frame by frame, and the steady ones."""
    steadier, plain, steady = Steadier(), [], []
    spec = segmenter.spec
    for frame in clip.frames:
        result = segmenter(frame)
        assert result.logits is not None
        geometry = Geometry(frame.shape[:2], (spec.height, spec.width))
        seen = geometry.place(Image.fromarray(frame), spec.padding)
        logits = steadier.smooth(result.logits, seen)
        plain.append(result.mask)
        steady.append(
            argmax_bilinear(logits, *frame.shape[:2], align_corners=True, region=geometry.region)
        )
    return plain, steady


def flicker(clip: SyntheticClip, masks: list[UInt8]) -> float:
    meter = FlickerMeter()
    for index, (frame, mask) in enumerate(zip(clip.frames, masks, strict=True)):
        meter.add(index, luma(frame), sample(mask, reduced_size(*mask.shape)))
    assert meter.score is not None
    return meter.score


def mean_iou(truth: list[UInt8], masks: list[UInt8]) -> float:
    counts = ConfusionMatrix(21)
    for label, mask in zip(truth, masks, strict=True):
        counts.merge(ConfusionMatrix.of(label, mask, 21))
    present = np.unique(truth[0])
    return float(counts.totals.mean_iou([int(index) for index in present]))


def lag(truth: list[UInt8], masks: list[UInt8]) -> int:
    """Return which earlier truth the right part of the masks, where things move, fits best."""
    part = slice(None), slice(truth[0].shape[1] * 9 // 20, None)
    fits = []
    for late in range(4):
        pairs = zip(truth[4 - late : len(truth) - late], masks[4:], strict=True)
        fits.append(np.mean([((a > 0) == (b > 0))[part].mean() for a, b in pairs]))
    return int(np.argmax(fits))


def compare(
    clip: SyntheticClip, segmenter: Segmenter
) -> tuple[list[UInt8], tuple[float, float], tuple[float, float]]:
    """Return the steady masks; the flicker and the mIoU of the plain ones and of these."""
    plain, steady = masks_of(clip, segmenter)
    before, after = flicker(clip, plain), flicker(clip, steady)
    scores = mean_iou(clip.truth, plain), mean_iou(clip.truth, steady)
    print(f"flicker {before:.3%} -> {after:.3%}, mIoU {scores[0]:.4f} -> {scores[1]:.4f}")
    return steady, (before, after), scores


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["slow", "walk", "run", "fast"])
def test_half_the_flicker_at_no_cost_on_clips_whose_truth_is_known(kind: str) -> None:
    segmenter = Segmenter("voc-fast", threads=1)
    clip = make_clip(kind, segmenter)
    steady, (before, after), scores = compare(clip, segmenter)
    assert flicker(clip, clip.truth) < 0.2 * before  # what the measure itself gets wrong
    assert after <= 0.5 * before
    assert scores[1] >= scores[0] - 1e-4
    assert lag(clip.truth, steady) <= 1
    if kind == "fast":
        assert lag(clip.truth, steady) == 0


@pytest.mark.integration
@pytest.mark.parametrize(("kind", "share"), [("pan", 0.55), ("hand", 0.65)])
def test_less_flicker_where_the_camera_moves(kind: str, share: float) -> None:
    """Nothing was tuned on these two. A class that is wrong for long is held there as well."""
    segmenter = Segmenter("voc-fast", threads=1)
    clip = make_camera_clip(kind, segmenter)
    _, (before, after), scores = compare(clip, segmenter)
    assert after <= share * before
    assert scores[1] >= scores[0] - 0.015


@pytest.mark.reference
@pytest.mark.integration
def test_half_the_flicker_of_a_street(reference: Path) -> None:
    segmenter = Segmenter("voc-fast", threads=1)
    steadier, meters = Steadier(), (FlickerMeter(), FlickerMeter())
    spec = segmenter.spec
    street = reference / "photos" / "pexels_video.mp4"
    with segmenter.video(street, steady=False, seconds=8) as video:
        for frame in video:
            result = frame.segmentation
            assert result.logits is not None
            assert isinstance(result.photo, FramePhoto)
            seen = result.geometry.place(result.photo.decode(), spec.padding)
            size = reduced_size(*result.mask.shape)
            steady = argmax_bilinear(
                steadier.smooth(result.logits, seen),
                *size,
                align_corners=True,
                region=result.geometry.region,
            )
            for meter, mask in zip(meters, (sample(result.mask, size), steady), strict=True):
                meter.add(frame.index, result.photo.luma(size), mask)
    before, after = (meter.score or 0 for meter in meters)
    print(f"flicker {before:.3%} -> {after:.3%}")
    assert 0 < after <= 0.5 * before


def test_a_still_scene_is_calmed_and_motion_is_followed_at_once() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(60, 200, (66, 66, 3)).astype(np.uint8)
    mean = 0.5 * rng.normal(size=(17, 17, 4)).astype(np.float32)
    steadier = Steadier()
    answers = [mean + rng.normal(size=mean.shape).astype(np.float32) for _ in range(20)]
    steady = [steadier.smooth(answer, frame) for answer in answers]
    assert steady[0] is answers[0]

    def changes(values: list[npt.NDArray[np.float32]]) -> float:
        ids = np.stack([one.argmax(axis=2) for one in values[5:]])
        return float((ids[1:] != ids[:-1]).mean())

    assert changes(steady) < 0.4 * changes(answers)
    moved = steadier.smooth(answers[0], 255 - frame // 8)
    assert np.array_equal(moved.argmax(axis=2), answers[0].argmax(axis=2))
    steadier.reset()
    assert steadier.smooth(answers[1], frame) is answers[1]


def scenery(*size: int, seed: int = 0) -> UInt8:
    """Return ground whose grains are six pixels wide."""
    rng = np.random.default_rng(seed)
    grains = rng.integers(40, 216, (-(-size[0] // 6), -(-size[1] // 6), 3), np.uint8)
    return grains.repeat(6, axis=0).repeat(6, axis=1)[: size[0], : size[1]]


def test_a_camera_that_turns_and_a_thing_that_moves_are_both_followed() -> None:
    rng = np.random.default_rng(0)
    ground, thing = scenery(300, 300), scenery(96, 96, seed=1)

    def frame(top: int, left: int, at: int) -> UInt8:
        seen = ground[top : top + 240, left : left + 240].astype(int)
        seen[72:168, at : at + 96] = thing
        return np.clip(seen + rng.normal(0, 3, seen.shape), 0, 255).astype(np.uint8)

    still = find_motion(frame(30, 30, 60), frame(30, 30, 60), (30, 30))
    assert not still.amount.any()
    assert not still.down.any()
    motion = find_motion(frame(30, 30, 60), frame(26, 36, 70), (30, 30))
    inside, outside = (slice(11, 19), slice(11, 19)), (slice(1, 7), slice(1, 28))
    # In grid points of eight pixels: where the picture was in the frame before.
    assert (motion.right[inside] == -10 / 8).all()
    assert (motion.down[inside] == 0).all()
    assert (motion.right[outside] == 6 / 8).mean() > 0.95
    assert (motion.down[outside] == -4 / 8).mean() > 0.95
    assert motion.amount[inside].mean() < 0.4
    other = find_motion(frame(30, 30, 60), 255 - frame(30, 30, 60), (30, 30))
    assert other.amount.mean() > 0.7


def test_what_moves_takes_its_average_along() -> None:
    rng = np.random.default_rng(0)
    ground = scenery(240, 400)
    mean = 0.7 * rng.normal(size=(30, 50, 4)).astype(np.float32)
    steadier, answers, steady = Steadier(), [], []
    for step in range(12):  # by one grid point
        answer = mean[:, step : step + 30] + rng.normal(size=(30, 30, 4)).astype(np.float32)
        answers.append(answer)
        steady.append(steadier.smooth(answer, ground[:, 8 * step : 8 * step + 240]))

    def changes(values: list[npt.NDArray[np.float32]]) -> float:
        ids = [one.argmax(axis=2) for one in values[4:]]
        pairs = zip(ids[1:], ids[:-1], strict=True)
        return float(np.mean([(now[:, :-1] != then[:, 1:]).mean() for now, then in pairs]))

    assert changes(steady) < 0.6 * changes(answers)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 5), (33, 40), (5, 200)])
def test_motion_in_pictures_of_any_size(size: tuple[int, int]) -> None:
    before, now = scenery(*size), scenery(*size, seed=1)
    for grid in ((5, 5), (1, 1), (9, 3)):
        motion = find_motion(before, now, grid)
        assert motion.amount.shape == motion.down.shape == motion.right.shape == grid
        assert ((motion.amount >= 0) & (motion.amount <= 1)).all()


def test_a_class_is_given_up_only_for_one_that_is_clearly_likelier() -> None:
    frame = np.full((33, 33, 3), 90, np.uint8)

    def answer(first: float) -> npt.NDArray[np.float32]:
        return np.full((5, 5, 2), (first, 1 - first), np.float32)

    steadier = Steadier()
    for _ in range(50):
        steadier.smooth(answer(0.6), frame, softmaxed=True)
    for _ in range(50):  # hardly likelier
        told = steadier.smooth(answer(0.49), frame, softmaxed=True)
    assert (told.argmax(axis=2) == 0).all()
    for _ in range(50):
        told = steadier.smooth(answer(0.4), frame, softmaxed=True)
    assert (told.argmax(axis=2) == 1).all()
    assert told.sum(axis=2) == pytest.approx(1, abs=0.1)


def test_what_flickers_and_what_does_not() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 96)).astype(np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    mask[16:40, 24:56] = 7
    assert flickering((picture, mask), (picture, mask)) == 0
    other = mask.copy()
    other[:8, :12] = 3
    assert flickering((picture, mask), (picture, other)) == pytest.approx(8 * 12 / (64 * 96))
    # The whole picture moves by 5 pixels, and its mask with it: nothing flickers inside.
    shifted = [np.roll(a, 5, axis=1) for a in (picture, mask)]
    assert flickering((picture, mask), (shifted[0], shifted[1])) < 0.002
    # It moves, and the mask stays: both of its sides are wrong.
    assert flickering((picture, mask), (shifted[0], mask)) == pytest.approx(
        2 * 5 * 24 / (64 * 96), rel=0.3
    )
    # Another picture: whatever the mask does, it has a reason.
    changed = rng.integers(0, 256, (64, 96)).astype(np.uint8)
    assert flickering((picture, mask), (changed, other)) == 0


def test_every_so_many_pairs_are_looked_at() -> None:
    picture, masks = np.zeros((8, 8), np.uint8), [np.full((8, 8), i, np.uint8) for i in range(9)]
    for every, pairs in ((1, 8), (2, 4), (4, 2)):
        meter = FlickerMeter(every=every)
        assert meter.score is None
        for index, mask in enumerate(masks):
            if meter.wants(index):
                meter.add(index, picture, mask)
        assert (meter.pairs, meter.score) == (pairs, 1)
