"""Calibration: of numbers whose truth is drawn by them, and through model files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab import Segmenter
from deeplab.data import open_dataset
from deeplab.errors import InputError
from deeplab.evaluation.calibration import (
    calibrate,
    choose_temperature,
    draw_reliability,
    measure,
    write_temperature,
)
from deeplab.labels import LabelSet
from tiny_tflite import tiny_network

LABELS = LabelSet(("ground", "cat", "dog", "tree"))


def drawn(temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right as often as they say, times a temperature: too sure by that."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (40_000, 5))
    weights = np.exp(logits)
    weights /= weights.sum(axis=1, keepdims=True)
    truth = (weights.cumsum(axis=1) < rng.uniform(size=(len(weights), 1))).sum(axis=1)
    return (logits * temperature).astype(np.float32), truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found_and_mends(temperature):
    logs, truth = drawn(temperature)
    found = choose_temperature(logs, truth)
    assert found == pytest.approx(temperature, rel=0.03)
    assert measure(logs, truth, temperature=found).error < 0.01
    if temperature != 1:
        assert measure(logs, truth, temperature=1).error > 0.08


def test_the_error_is_the_mean_gap():
    logs = np.log(np.array([[0.9, 0.1]] * 10 + [[0.3, 0.7]] * 10, np.float32))
    truth = np.array([0] * 5 + [1] * 5 + [1] * 10)
    assert measure(logs, truth, temperature=1).error == pytest.approx((0.4 + 0.3) / 2, abs=1e-6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind / "val").mkdir(parents=True)
    for number in range(4):
        small = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        photo = Image.fromarray(small).resize((70, 50), Image.Resampling.BICUBIC)
        photo.save(tmp_path / "data" / "images" / "val" / f"{number}.png")
        mask = rng.integers(0, 4, (50, 70), dtype=np.uint8)
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / "val" / f"{number}.png")
    (tmp_path / "data" / "labels.txt").write_text("ground\ncat\ndog\ntree\n")
    return tmp_path / "data"


def test_a_file_keeps_the_temperature_that_was_written_into_it(folder, tmp_path):
    model = tmp_path / "tiny.tflite"
    model.write_bytes(tiny_network(frame=33, stride=4))
    photo = np.asarray(Image.open(folder / "images" / "val" / "0.png"))
    segmenter = Segmenter(model, labels=LABELS, threads=1)
    dataset = open_dataset(folder, split="val")
    found = calibrate(segmenter, dataset)
    assert (found.chosen_on, found.reported_on) == (2, 2)
    assert found.temperature > 1.5, "of a truth that is noise nothing is sure"
    assert found.after.log_loss < found.before.log_loss
    assert found.after.error < found.before.error
    assert draw_reliability(found).startswith("<svg")
    before = segmenter(photo)
    assert write_temperature(model, segmenter.card, found.temperature) == model
    again = Segmenter(model, labels=LABELS, threads=1)
    assert again.temperature == found.temperature
    after = again(photo)
    np.testing.assert_array_equal(after.mask, before.mask)
    assert after.confidence.mean() < before.confidence.mean()
    twice = calibrate(again, dataset)
    assert twice.temperature == pytest.approx(found.temperature, rel=1e-3), "not on top of it"


def test_what_cannot_be_calibrated_is_refused(folder, tmp_path):
    model = tmp_path / "tiny.tflite"
    model.write_bytes(tiny_network(frame=33, stride=4))
    dataset = open_dataset(folder, split="val")
    other = LabelSet(("ground", "cat", "dog", "bush"))
    stranger = Segmenter(model, labels=other, threads=1)
    with pytest.raises(InputError, match="not the same classes"):
        calibrate(stranger, dataset)
    twice = Segmenter(model, labels=LABELS, threads=1, flip=True)
    with pytest.raises(InputError, match="single look"):
        calibrate(twice, dataset)
    foreign = tmp_path / "a.pte"
    foreign.write_bytes(b"")
    segmenter = Segmenter(model, labels=LABELS, threads=1)
    with pytest.raises(InputError, match=r"into a\.pte"):
        write_temperature(foreign, segmenter.card, 2.0)
    assert write_temperature("voc", segmenter.card, 2.0) is None, "shipped files stay"
