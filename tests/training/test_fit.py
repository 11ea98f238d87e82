"""The closed-form fit: its algebra, what it chooses, and that it finds classes in features."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab import weights, zoo
from deeplab.data import open_dataset
from deeplab.data.masks import IGNORE
from deeplab.evaluation.protocol import TorchPredictor, evaluate
from deeplab.models import DeepLab, DeepLabConfig, build
from deeplab.photo.images import Geometry, InputSpec
from deeplab.training import fit, fit_exclusive
from deeplab.training.fit import can_fit, fit_classifier, label_cells, look


@functools.cache
def shipped() -> tuple[DeepLabConfig, dict[str, torch.Tensor]]:
    return weights.load(zoo.locate("voc"))


def network(classes: int = 3, **fields: object) -> DeepLab:
    """The network that comes with the package, but for a classifier that nobody trained."""
    torch.manual_seed(0)
    config, state = shipped()
    model = build(
        dataclasses.replace(config, num_classes=classes, **{"mirror_scale": 0.0, **fields})
    )
    kept = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    model.load_state_dict(kept, strict=False)
    return model.eval()


def frame_of(model: DeepLab) -> InputSpec:
    config = model.config
    assert config.pixel_mean is not None
    assert config.pixel_std is not None
    return InputSpec(height=193, width=257, mean=config.pixel_mean, std=config.pixel_std)


def score(model: DeepLab, folder: Path) -> float:
    data = open_dataset(folder, split="val")
    predictor = TorchPredictor(
        network=model.eval(), labels=data.labels, name="x", frame=frame_of(model)
    )
    return evaluate(predictor, data).miou


def test_one_fit_finds_the_classes_of_photos_that_were_not_seen(shapes: Path) -> None:
    model = network()
    before = score(model, shapes)
    seen: list[tuple[int, int]] = []
    report = fit_classifier(
        model,
        open_dataset(shapes, split="train"),
        frame=frame_of(model),
        watch=lambda done, total: seen.append((done, total)),
    )
    assert score(model, shapes) > max(0.7, before + 0.3)
    assert report.left_out_miou > 0.6
    assert report.fitted == ("background", "grey", "white")
    assert (report.kept, report.absent) == ((), ())
    assert seen == [(done, 12) for done in range(1, 13)]
    assert "Fit: 12 photos looked at in" in str(report)
    assert "mIoU 0." in str(report)


def test_the_same_photos_give_the_same_rows(shapes: Path) -> None:
    rows = []
    for _ in range(2):
        model = network()
        fit_classifier(model, open_dataset(shapes, split="train"), frame=frame_of(model))
        assert model.classifier is not None
        rows.append(model.classifier.weight.detach().clone())
    assert torch.equal(*rows)


def test_rows_that_the_start_knows_stay_where_they_judge_better(shapes: Path) -> None:
    data = open_dataset(shapes, split="train")
    model = network()
    fit_classifier(model, data, frame=frame_of(model))
    good = {name: value.clone() for name, value in model.state_dict().items()}
    known = data.labels.names
    report = fit_classifier(model, data, frame=frame_of(model), known=known)
    assert (report.kept, report.fitted) == (known, ())  # the sum of all knows more than its parts
    assert "stay" in str(report)
    assert all(torch.equal(value, good[name]) for name, value in model.state_dict().items())

    assert model.classifier is not None
    torch.nn.init.normal_(model.classifier.weight)
    report = fit_classifier(model, data, frame=frame_of(model), known=known)
    assert report.kept == ()
    assert score(model, shapes) > 0.7

    model.load_state_dict(good)
    report = fit_classifier(model, data, frame=frame_of(model), known=["background"])
    assert report.left_out_miou > 0.6
    assert score(model, shapes) > 0.7


def test_rows_become_likely_logits(shapes: Path) -> None:
    """A fitted network is about as sure as it is right."""
    model, data = network(), open_dataset(shapes, split="val")
    fit_classifier(model, open_dataset(shapes, split="train"), frame=frame_of(model))
    frame, sure, right = frame_of(model), [], []
    for sample in data:
        geometry = Geometry(sample.label.shape, (frame.height, frame.width))
        image = geometry.place(Image.fromarray(sample.image), frame.padding)
        with torch.no_grad():
            logits = model(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
        cells = label_cells(sample.label, geometry, logits.shape[2:])
        chances = logits[0].softmax(0).flatten(1).numpy()[:, cells != IGNORE]
        sure.append(chances.max(0).mean())
        right.append((chances.argmax(0) == cells[cells != IGNORE]).mean())
    assert np.mean(sure) == pytest.approx(np.mean(right), abs=0.12)


def test_a_class_that_no_photo_shows_is_named_and_one_photo_is_enough(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "MOST_PHOTOS", 1)
    model = network()
    report = fit_classifier(model, open_dataset(shapes, split="train"), frame=frame_of(model))
    assert report.photos == 1
    assert len(report.absent) == 1
    assert f"No photo shows {report.absent[0]}" in str(report)
    assert np.isnan(report.left_out_miou)


@pytest.mark.parametrize("mirror_scale", [0.0, 0.75])
def test_features_answer_as_the_network_does(mirror_scale: float) -> None:
    model = network(mirror_scale=mirror_scale)
    image = torch.rand(1, 3, 65, 97) * 255
    assert model.classifier is not None
    with torch.no_grad():
        # Only where one of the two looks must be enlarged do features and logits differ: nowhere.
        torch.testing.assert_close(
            model.classifier(look(model, image)), model(image), atol=1e-4, rtol=1e-4
        )


def test_regression_is_the_minimum_of_its_loss() -> None:
    """At the minimum nothing pulls; and the loss is convex, so there is no other."""
    torch.manual_seed(0)
    rows = torch.cat([torch.randn(200, 5) * 3 + 1, torch.ones(200, 1)], 1)
    truth = (rows[:, :3] + torch.randn(200, 3)).argmax(1)
    weight, prior = torch.rand(200), torch.randn(6, 3)
    found = fit_exclusive.regress(rows, truth, weight, prior, strength=0.05, rounds=200)
    weight = weight / weight.sum()
    mean = weight @ rows[:, :-1]
    spread = (weight @ (rows[:, :-1] - mean).square()).mean()
    chances = (rows @ found).softmax(1) - torch.nn.functional.one_hot(truth, 3)
    pull = rows.T @ (weight[:, None] * chances)
    pull[:-1] += 2 * 0.05 * spread * (found - prior)[:-1]
    assert pull.abs().max() < 1e-3
    # Where the belief is all there is, it is the answer.
    believed = fit_exclusive.regress(rows, truth, weight, prior, strength=1e6, rounds=200)
    torch.testing.assert_close(believed[:-1], prior[:-1], atol=1e-3, rtol=1e-3)


def test_what_the_start_knows_under_another_name_is_found() -> None:
    """A class is likened to what the start calls its pixels."""
    torch.manual_seed(0)
    start = torch.eye(5, 6)  # the start's class i is feature i
    rows = torch.cat([torch.eye(5)[[4, 4, 4, 2, 2, 0, 0, 0, 0, 0]], torch.ones(10, 1)], 1)
    truth = torch.tensor([1, 1, 1, 2, 2, 0, 0, 0, 0, 1])
    likened = fit_exclusive._liken(rows, truth, torch.full((10,), 0.1), start, classes=3)
    assert torch.equal(likened, start[[0, 4, 2]].T)


def test_two_photos_and_a_start_that_knows_are_better_than_two_photos(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = network(), open_dataset(shapes, split="train")
    fit_classifier(model, data, frame=frame_of(model))
    assert model.classifier is not None
    rows = torch.cat([model.classifier.weight.flatten(1), model.classifier.bias[:, None]], 1)
    rows = rows.detach()[[2, 0, 1]]  # the start has them in another order
    monkeypatch.setattr(fit, "MOST_PHOTOS", 2)
    scores = []
    for given in (None, rows):
        report = fit_classifier(model, data, frame=frame_of(model), start_rows=given, seed=1)
        assert not report.absent
        assert report.trust == 0 if given is None else report.trust > 0
        scores.append(score(model, shapes))
    assert scores[1] > scores[0]


def test_cells_take_the_class_under_their_middle() -> None:
    label = np.zeros((40, 60), np.uint8)
    label[:, 30:] = 2
    geometry = Geometry((40, 60), (97, 97))
    cells = label_cells(label, geometry, (13, 13)).reshape(13, 13)
    assert (cells[:9, :6] == 0).all()
    assert (cells[:9, 7:] == 2).all()
    assert (cells[9:] == IGNORE).all()  # below a photo of 65 rows nothing is known


def test_only_networks_with_one_linear_last_layer_are_fitted() -> None:
    assert can_fit(network())
    assert not can_fit(network(image_pyramid=(0.5, 1.0)))
    assert not can_fit(build(DeepLabConfig(version="v2", backbone="resnet_v1_50_beta")))
