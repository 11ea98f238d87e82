"""Biases that raise the mean IoU after training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_network, tiny_settings

from deeplab.data.sample import Sample
from deeplab.errors import InputError
from deeplab.evaluation.metrics import ConfusionMatrix
from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.training.weak_classes import WEAKEST, choose_offsets, prefer_weak_classes
from deeplab.weights.release import open_release, save

LABELS = LabelSet(("background", "chair", "cat"))


@dataclasses.dataclass
class Pictures:
    """Random pictures with the labels of the first ``classes`` classes."""

    classes: int = 3
    split: str = "val"
    labels: LabelSet = LABELS

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        random = np.random.default_rng(index)
        label = random.integers(0, self.classes, (33, 33), dtype=np.uint8)
        image = random.integers(0, 256, (33, 33, 3), dtype=np.uint8)
        return Sample(image=image, label=label, id=str(index))


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    network = tiny_network(tiny_settings())
    spec = InputSpec(height=33, width=33)
    save(
        tmp_path / "tiny", network.config, network.state_dict(), labels=LABELS, input_spec=spec,
        provenance={"step": 7}, licence="Apache-2.0",
    )  # fmt: skip
    return tmp_path / "tiny"


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_iou_of_right_probabilities_rises(seed: int) -> None:
    """A network that is exactly as sure as it is right, and mostly unsure of one class."""
    random = np.random.default_rng(seed)
    logits = random.normal([2, 0, 0], [1, 1, 4], (200_000, 3))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    label = (random.random((len(logits), 1)) > chances.cumsum(1)).sum(1)

    def iou(given: np.ndarray) -> np.ndarray:
        return ConfusionMatrix.of(label, given.argmax(1), 3).totals.iou

    before = iou(logits)
    after = iou(logits + choose_offsets(before))
    assert after.mean() > before.mean() + 0.01
    assert after[before.argmin()] > before.min() + 0.03


def test_the_offsets_are_minus_log_iou_and_bounded() -> None:
    offsets = choose_offsets(np.array([0.9, 0.3, 0.0]), 1.0)
    np.testing.assert_allclose(offsets, [0, np.log(3), np.log(0.9 / WEAKEST)])
    np.testing.assert_allclose(choose_offsets(np.array([0.9, 0.3]), 0.5), [0, np.log(3) / 2])


def test_a_pair_gets_new_biases_and_says_so_once(pair: Path) -> None:
    old, told = open_release(pair).state_dict(), list[str]()
    prefer_weak_classes(pair, Pictures(), Pictures(), spare=["cat"], tell=told.append)
    after = open_release(pair)
    new = after.state_dict()
    changed = [name for name in old if not torch.equal(old[name], new[name])]
    assert changed == ["classifier.bias"]
    note = after.provenance["weak_classes"]
    added = (new["classifier.bias"] - old["classifier.bias"]).tolist()
    assert added == pytest.approx([note["offsets"][name] for name in LABELS.names], abs=1e-4)
    assert added[LABELS.index("cat")] == min(added) == 0 < max(added)
    assert (after.provenance["step"], after.licence) == (7, "Apache-2.0")
    assert after.scores["val"]["protocol"]["input"] == "letterbox to 33×33"
    assert len(told) == 2

    content = pair.with_suffix(".safetensors").read_bytes()
    prefer_weak_classes(pair, Pictures(), Pictures(), tell=told.append)
    assert told[-1] == "Weak classes: preferred already."
    assert pair.with_suffix(".safetensors").read_bytes() == content


def test_a_class_that_no_picture_shows_is_refused(pair: Path) -> None:
    with pytest.raises(InputError, match="no picture shows cat; give more"):
        prefer_weak_classes(pair, Pictures(classes=2), Pictures())
    assert "weak_classes" not in open_release(pair).provenance
