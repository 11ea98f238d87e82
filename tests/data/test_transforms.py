"""Preprocessing: the original's numbers, and the properties that training relies on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab.data import IGNORE, Sample
from deeplab.data.transforms import (
    MEAN_PIXEL,
    ColourJitter,
    RareClassCrops,
    ResizeToRange,
    TrainTransform,
    nearest_indices,
    pad_image,
    pad_label,
    resize_image,
    resize_label,
    scaled_size,
    size_in_range,
)
from deeplab.errors import InputError
from parity import seeds

RESNET_MEAN_PIXEL = (123.15, 115.90, 103.06)  # of the plain ResNets; see the fixture's notes


@pytest.fixture(scope="module")
def original(reference: Path) -> tuple[dict[str, Any], Any, Any]:
    folder = reference / "parity" / "tf_preprocess"
    return json.loads((folder / "spec.json").read_text()), np.load(folder / "outputs.npz"), seeds()


def sample(height: int, width: int, *, seed: int = 0, classes: int = 5) -> Sample:
    draw = np.random.default_rng(seed)
    return Sample(
        image=draw.integers(0, 256, (height, width, 3), dtype=np.uint8),
        label=draw.integers(0, classes, (height, width), dtype=np.uint8),
        id="drawn",
    )


# -- against the original ------------------------------------------------------------------------


@pytest.mark.reference
def test_sizes_equal_the_original(original: Any) -> None:
    spec, _, _ = original
    for case in spec["resize_to_range_sizes"]:
        got = size_in_range(
            case["height"],
            case["width"],
            min_size=case["min_size"],
            max_size=case["max_size"],
            factor=case["factor"],
            keep_aspect_ratio=case["keep_aspect_ratio"],
        )
        assert list(got) == case["out_hw"], case


@pytest.mark.reference
def test_evaluation_preprocessing_equals_the_original(original: Any) -> None:
    spec, expected, seeded = original
    for case in spec["cases"]:
        number, (height, width) = case["case"], (case["height"], case["width"])
        image = seeded.seeded_image(height, width, case["seed"]).astype(np.float32)
        label = seeded.seeded_labels(height, width, case["num_classes"], case["seed"])
        if case["min_resize_value"] is not None:
            new = size_in_range(
                height,
                width,
                min_size=case["min_resize_value"],
                max_size=case["max_resize_value"],
                factor=case["resize_factor"],
            )
            assert list(new) == case["resized_hw"]
            image, label = resize_image(image, *new), resize_label(label, *new)
        plain = case["model_variant"] in ("resnet_v1_50", None)
        mean = RESNET_MEAN_PIXEL if plain else MEAN_PIXEL
        image = pad_image(image, *case["crop_hw"], mean)
        label = pad_label(label, *case["crop_hw"])
        assert np.abs(image - expected[f"case{number}_image"]).max() < 1e-4
        assert np.array_equal(label, expected[f"case{number}_label"])


@pytest.mark.reference
def test_uint8_evaluation_preprocessing_is_within_one_level(original: Any) -> None:
    spec, expected, seeded = original
    for case in spec["cases"]:
        drawn = Sample(
            image=seeded.seeded_image(case["height"], case["width"], case["seed"]),
            label=seeded.seeded_labels(case["height"], case["width"], 21, case["seed"]),
            id="",
        )
        if case["min_resize_value"] is not None:
            drawn = ResizeToRange(
                min_size=case["min_resize_value"],
                max_size=case["max_resize_value"],
                factor=case["resize_factor"],
            )(drawn)
        plain = case["model_variant"] in ("resnet_v1_50", None)
        mean = RESNET_MEAN_PIXEL if plain else MEAN_PIXEL
        image = pad_image(drawn.image, *case["crop_hw"], mean)
        label = pad_label(drawn.label, *case["crop_hw"])
        difference = image.astype(np.float32) - expected[f"case{case['case']}_image"]
        assert image.dtype == np.uint8
        assert np.abs(difference).max() <= 1.0
        assert abs(difference.mean()) < 0.5
        assert np.array_equal(label, expected[f"case{case['case']}_label"])


@pytest.mark.reference
def test_random_scale_equals_the_original(original: Any) -> None:
    spec, expected, seeded = original
    for case in spec["random_scale"]:
        number, (height, width) = case["scale_case"], (case["height"], case["width"])
        new = scaled_size(height, width, case["scale"])
        assert list(new) == case["out_hw"]
        image = seeded.seeded_image(height, width, case["seed"])
        label = seeded.seeded_labels(height, width, 21, case["seed"])
        exact = resize_image(image.astype(np.float32), *new)
        assert np.abs(exact - expected[f"scale{number}_image"]).max() < 1e-4
        assert np.abs(resize_image(image, *new) - exact).max() <= 1
        assert np.array_equal(resize_label(label, *new), expected[f"scale{number}_label"])


# -- properties ----------------------------------------------------------------------------------


def test_nearest_keeps_corners_and_rounds_halves_up() -> None:
    assert nearest_indices(5, 9).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert nearest_indices(7, 1).tolist() == [0]
    assert nearest_indices(1, 4).tolist() == [0, 0, 0, 0]
    for source, target in ((2, 97), (513, 33), (100, 257)):
        indices = nearest_indices(source, target)
        assert indices[0] == 0
        assert indices[-1] == source - 1
        assert (np.diff(indices) >= 0).all()


def test_the_same_generator_gives_the_same_sample() -> None:
    transform = TrainTransform(
        crop_size=(33, 49),
        colour_jitter=ColourJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        rare_class_crops=RareClassCrops(classes=(3,)),
    )
    source = sample(60, 80)
    first = transform(source, np.random.default_rng(7))
    again = transform(source, np.random.default_rng(7))
    other = transform(source, np.random.default_rng(8))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.label, again.label)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("size", [(20, 30), (33, 49), (70, 90), (20, 90)])
def test_photo_and_label_stay_paired(size: tuple[int, int]) -> None:
    """The photo's colour encodes the label, so any shift between the two shows."""
    label = np.random.default_rng(1).integers(0, 4, size, dtype=np.uint8)
    image = np.repeat(label[..., None] * 60, 3, axis=2)
    transform = TrainTransform(crop_size=(33, 49), min_scale=1, max_scale=1)
    for seed in range(20):
        got = transform(Sample(image=image, label=label, id=""), np.random.default_rng(seed))
        known = got.label != IGNORE
        assert got.image.shape == (33, 49, 3)
        assert np.array_equal(got.image[known][:, 0], got.label[known] * 60)
        assert (got.image[~known] == 128).all()
        assert known.sum() == min(size[0], 33) * min(size[1], 49)


def test_random_scales_are_the_published_seven() -> None:
    transform = TrainTransform(crop_size=(9, 9))
    drawn = {transform._draw_scale(np.random.default_rng(seed)) for seed in range(200)}
    assert drawn == {0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0}


def test_every_crop_position_is_reached_and_half_are_mirrored() -> None:
    label = np.arange(12, dtype=np.uint8).reshape(1, 12).repeat(3, 0)
    source = Sample(image=np.zeros((3, 12, 3), np.uint8), label=label, id="")
    transform = TrainTransform(crop_size=(3, 4), min_scale=1, max_scale=1)
    rows = [transform(source, np.random.default_rng(seed)).label[0].tolist() for seed in range(400)]
    assert {min(row) for row in rows} == set(range(9))
    assert 140 < sum(row[0] > row[-1] for row in rows) < 260


def test_padding_is_mirrored_with_the_picture() -> None:
    source = sample(8, 8)
    transform = TrainTransform(crop_size=(8, 12), min_scale=1, max_scale=1)
    sides = set()
    for seed in range(10):
        label = transform(source, np.random.default_rng(seed)).label
        sides.add((bool((label[:, :4] == IGNORE).all()), bool((label[:, 8:] == IGNORE).all())))
    assert sides == {(True, False), (False, True)}


def test_rare_class_crops_hold_the_rare_class() -> None:
    label = np.zeros((100, 100), np.uint8)
    label[90, 5] = 3
    source = Sample(image=np.zeros((100, 100, 3), np.uint8), label=label, id="")
    always = RareClassCrops(classes=(3, 4), probability=1.0)
    transform = TrainTransform(
        crop_size=(17, 17), min_scale=1, max_scale=2, scale_step=1, rare_class_crops=always
    )
    crops = [transform(source, np.random.default_rng(seed)).label for seed in range(30)]
    assert all((crop == 3).any() for crop in crops)
    never = TrainTransform(crop_size=(17, 17), min_scale=1, max_scale=1)
    plain = [never(source, np.random.default_rng(seed)).label for seed in range(30)]
    assert sum((crop == 3).any() for crop in plain) < 10


def test_jitter_of_nothing_changes_nothing_and_keeps_the_label() -> None:
    source = sample(20, 20)
    still = ColourJitter()(source.image, np.random.default_rng(0))
    assert np.array_equal(still, source.image)
    shaken = ColourJitter(brightness=0.5, contrast=0.5, saturation=0.5)(
        source.image, np.random.default_rng(0)
    )
    assert shaken.dtype == np.uint8
    assert not np.array_equal(shaken, source.image)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="crop_size"):
        TrainTransform(crop_size=(0, 5))
    with pytest.raises(InputError, match="scales"):
        TrainTransform(crop_size=(5, 5), min_scale=2, max_scale=1)
    with pytest.raises(InputError, match="contrast: got 2"):
        ColourJitter(contrast=2)
    with pytest.raises(InputError, match="rare_class_crops"):
        RareClassCrops(classes=())


@pytest.mark.parametrize("size", [(7, 9), (40, 31), (1, 5), (80, 62)])
def test_resizing_equals_its_definition(size: tuple[int, int]) -> None:
    image = sample(20, 31).image
    rows, columns = (
        np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0)
        for old, new in zip((20, 31), size, strict=True)
    )
    top, left = rows.astype(int), columns.astype(int)
    bottom, right = np.minimum(top + 1, 19), np.minimum(left + 1, 30)
    down, along = (rows - top)[:, None, None], (columns - left)[:, None]
    upper = image[top][:, left] * (1 - along) + image[top][:, right] * along
    lower = image[bottom][:, left] * (1 - along) + image[bottom][:, right] * along
    expected = upper * (1 - down) + lower * down
    exact = resize_image(image.astype(np.float32), *size)
    assert np.abs(exact - expected).max() < 1e-3
    fast = resize_image(image, *size)
    assert fast.dtype == np.uint8
    assert fast.flags["C_CONTIGUOUS"]
    assert np.abs(fast - expected).max() <= 1
