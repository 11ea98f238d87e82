"""Augmentations: labels go where their pictures go, and all is a function of the generator."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab.data.augment import Own, Rotate, affine, warp
from deeplab.data.loader import train_loader
from deeplab.data.mixing import Augmented
from deeplab.data.objects import ObjectDataset
from deeplab.data.rand_augment import _COLOURS, _MOVES, RandAugment
from deeplab.data.sample import Sample
from deeplab.data.transforms import TrainTransform
from deeplab.errors import InputError
from deeplab.labels import LabelSet
from deeplab.training.augment_settings import AugmentSettings, augment

FILL = (128.0, 128.0, 128.0)
LABELS = LabelSet(names=("background", "red", "green"))
GEOMETRIC: dict[str, dict[str, Any]] = {
    "rotate": {"rotate": 30.0},
    "perspective": {"perspective": 0.2},
    "mosaic": {"mosaic": 1.0},
    "copy_paste": {"copy_paste": 1.0},
}
PHOTOMETRIC: dict[str, dict[str, Any]] = {
    "blur": {"blur": 3.0},
    "noise": {"noise": 30.0},
    "jpeg": {"jpeg": 5},
}


def _told(seed: int = 0, size: tuple[int, int] = (60, 80)) -> Sample:
    """A pair whose picture says in its colours what its label is."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 3, (size[0] // 20, size[1] // 20), dtype=np.uint8)
    label = coarse.repeat(20, 0).repeat(20, 1)
    return Sample(image=np.repeat(label[..., None] * 100 + 20, 3, 2), label=label, id=str(seed))


class _Pairs:
    """Six such pairs, as a data set of files would be."""

    labels = LABELS
    split = "train"
    ids = tuple(map(str, range(6)))
    images = masks = ()
    encoding: Any = None

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        return _told(index)


def _transform(**settings: Any) -> TrainTransform | Augmented:
    plain = TrainTransform(crop_size=(49, 65), mean_pixel=FILL)
    return augment(plain, AugmentSettings(**settings), LABELS)


def _batch(transform: TrainTransform | Augmented, workers: int = 0, step: int = 0) -> Any:
    loader = train_loader(
        _Pairs(), transform, batch_size=6, steps=3, seed=1, first_step=step, workers=workers
    )
    return next(iter(loader))


@pytest.mark.parametrize("name", GEOMETRIC)
def test_labels_move_with_the_picture_and_what_is_outside_is_ignored(name: str) -> None:
    batch = _batch(_transform(**GEOMETRIC[name]))
    image, label = batch.image.numpy()[:, 0].astype(int), batch.label.numpy()
    assert batch.image.shape == (6, 3, 49, 65)
    assert set(np.unique(label)) <= {0, 1, 2, 255}
    known = label != 255
    # Borders are blended in the picture and sharp in the label; the rest agrees.
    agrees = np.abs(image - (label * 100 + 20)) <= 50
    assert agrees[known].mean() > 0.96
    assert (np.abs(image - 128)[~known] <= 60).mean() > 0.8
    assert (batch.label != _batch(_transform(rotate=0.0)).label).any()


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_light_changes_no_label(name: str) -> None:
    plain, changed = _batch(_transform()), _batch(_transform(**PHOTOMETRIC[name]))
    assert (plain.label == changed.label).all()
    differ = (plain.image != changed.image).flatten(1).any(1)
    assert differ.any()
    assert not differ.all()  # half of them


def test_a_turn_by_a_right_angle_is_numpys() -> None:
    sample = _told(size=(60, 60))
    sample = dataclasses.replace(
        sample, image=np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    )
    turned = warp(sample, affine(60, 60, degrees=90), fill=FILL)
    quarter = next(k for k in (1, 3) if (np.rot90(sample.label, k) == turned.label).all())
    exact = np.rot90(sample.image, quarter)
    assert np.abs(turned.image.astype(int) - exact).max() <= 1
    floats = Sample(image=sample.image.astype(np.float32), label=sample.label, id="")
    other = warp(floats, affine(60, 60, degrees=90), fill=FILL)
    np.testing.assert_allclose(other.image, exact, atol=1e-3)
    assert other.image.dtype == np.float32


def test_rand_augment_knows_fourteen_operations_and_moves_labels_too() -> None:
    assert len({*_COLOURS, *_MOVES}) == 14
    operation, sample = RandAugment(count=1, strength=0.5, fill=FILL), _told()
    for name in _MOVES:
        moved = operation._apply(name, sample, 1.0)
        known = moved.label != 255
        assert not known.all()
        near = np.abs(moved.image[..., 0].astype(int) - (moved.label * 100 + 20)) <= 50
        assert near[known].mean() > 0.95
    for name in _COLOURS:
        assert (operation._apply(name, sample, 1.0).label == sample.label).all()


def test_a_step_is_the_same_in_workers_and_when_it_is_resumed() -> None:
    everything: dict[str, Any] = {"rand_augment": 2, "rotate": 10.0, "perspective": 0.1}
    for one in (GEOMETRIC["mosaic"], GEOMETRIC["copy_paste"], *PHOTOMETRIC.values()):
        everything |= one
    transform = _transform(**everything)
    alone = _batch(transform, step=1)
    for other in (_batch(transform, workers=2, step=1), _batch(transform, step=1)):
        assert (alone.image == other.image).all()
        assert (alone.label == other.label).all()


def test_nothing_set_is_the_plain_transform() -> None:
    assert isinstance(_transform(), TrainTransform)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rand_strength": 0.9}, r"augment\.rand_strength: got 0\.9, but augment\.rand_augment"),
        ({"pasted_classes": ("red",)}, r"augment\.pasted_classes: .*copy_paste is off"),
        ({"own": ("thing",)}, r"augment\.own: got 'thing', expected FILE\.py:NAME"),
        ({"pipeline": "no.json"}, r"augment\.pipeline: there is no file no\.json"),
        ({"copy_paste": 0.5, "pasted_classes": ("rod",)}, r"no class 'rod'.*'red'"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        _transform(**settings)


def test_other_channels_are_refused_where_a_photo_is_needed() -> None:
    sample = Sample(image=np.zeros((9, 9, 4), np.uint8), label=np.zeros((9, 9), np.uint8), id="")
    with pytest.raises(InputError, match=r"augment\.rand_augment: is for photos.* have 4 of uint8"):
        RandAugment(count=1, strength=1, fill=(0,) * 4)._apply("equalize", sample, 1.0)
    turned = Rotate(degrees=10, fill=(0,) * 4)(sample, np.random.default_rng(0))
    assert turned.image.shape == (9, 9, 4)


def test_what_an_own_augmentation_returns_is_looked_at() -> None:
    def halves(sample: Sample, generator: np.random.Generator) -> Sample:
        return dataclasses.replace(sample, label=sample.label[::2])

    with pytest.raises(InputError, match=r"mine: returned the label as uint8 \(30, 80\), expected"):
        Own(halves, "mine")(_told(), np.random.default_rng(0))


def test_a_pipeline_of_albumentations_is_seeded_and_ignores_what_is_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    albumentations = pytest.importorskip("albumentations", reason="needs deeplab[albumentations]")
    pipeline = albumentations.Compose(
        [
            albumentations.Affine(rotate=(20, 40), p=1),
            albumentations.OneOf([albumentations.GaussNoise(p=1), albumentations.Blur(p=1)], p=1),
        ]
    )
    path = tmp_path / "pipeline.json"
    albumentations.save(pipeline, path, data_format="json")
    one, two = _batch(_transform(pipeline=str(path))), _batch(_transform(pipeline=str(path)))
    assert (one.image == two.image).all()
    assert (one.label == two.label).all()
    label, plain = one.label.numpy(), _batch(_transform()).label.numpy()
    assert set(np.unique(label)) <= {0, 1, 2, 255}
    assert (label == 255).sum() > (plain == 255).sum()
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match=r"other\.json holds no pipeline: "):
        _transform(pipeline=str(tmp_path / "other.json"))


def test_objects_as_data_are_mixed_too() -> None:
    class Few:
        labels = LABELS

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            sample = _told(index)
            return sample.image, sample.label

    dataset = ObjectDataset(Few(), "train")
    loader = train_loader(dataset, _transform(mosaic=1.0), batch_size=3, steps=1, seed=0)
    assert next(iter(loader)).image.shape == (3, 3, 49, 65)
