"""Every version learns four real pictures by heart: data, loss, loop and scores fit together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import ALONE, TinyJudge

from deeplab.data import open_dataset
from deeplab.data.loader import Batch
from deeplab.data.transforms import resize_image, resize_label
from deeplab.evaluation.metrics import ConfusionMatrix
from deeplab.models import DeepLab, build
from deeplab.training.loop import Score, Surroundings, train
from deeplab.training.settings import Settings

SIZE = 65
GOAL = 0.96
NAMES = ("2007_000032", "2007_000063")
# Averages of statistics must follow within a hundred steps, not tens of thousands.
QUICK = {"dropout": 0.0, "backbone_bn_decay": 0.8, "head_bn_decay": 0.8}
MODELS = {
    "v1": {"version": "v1", "backbone": "vgg16", "large_fov_channels": 64, **QUICK},
    "v2": {"version": "v2", "backbone": "resnet_v1_18", **QUICK},
    "v3": {"version": "v3", "backbone": "mobilenet_v2", "depth_multiplier": 0.5, **QUICK},
    "v3+": {
        "version": "v3+", "backbone": "mobilenet_v2", "depth_multiplier": 0.5,
        "head_channels": 32, "decoder_channels": 32, **QUICK,
    },
}  # fmt: skip
RATES = {"v1": 0.005, "v2": 0.01, "v3": 0.05, "v3+": 0.05}


def _four_pictures(folder: Path) -> tuple[Batch, int]:
    """Return the first four pictures with one large object, and how many classes they show."""
    dataset = open_dataset(folder, split="train")
    images, labels, ids = [], [], []
    for index in itertools.count():
        sample = dataset[index]
        counts = np.bincount(sample.label.ravel(), minlength=256)
        shown = np.flatnonzero(counts[1:21]) + 1
        if len(shown) != 1 or counts[shown[0]] < 0.3 * sample.label.size:
            continue
        images.append(resize_image(sample.image, SIZE, SIZE))
        labels.append(resize_label(sample.label, SIZE, SIZE))
        ids.append(sample.id)
        if len(ids) == 4:
            break
    image, label = torch.from_numpy(np.stack(images)), np.stack(labels)
    for new, old in enumerate(sorted(set(np.unique(label)) - {255})):
        label[label == old] = new
    classes = int(label[label != 255].max()) + 1
    return Batch(image.permute(0, 3, 1, 2), torch.from_numpy(label), tuple(ids)), classes


@pytest.mark.reference
@pytest.mark.integration
@pytest.mark.parametrize("version", MODELS)
def test_four_real_pictures_are_learned_by_heart(
    reference: Path, tmp_path: Path, version: str
) -> None:
    batch, classes = _four_pictures(reference / "data/voc")
    settings = Settings.from_dict(
        {
            "name": "four",
            "model": {**MODELS[version], "output_stride": 8},
            "schedule": {"base": RATES[version], "start_steps": 20, "start_ramp": True},
            "optimiser": {"weight_decay": 0.0, "clip_norm": 5.0},
            "run": {
                "steps": 400, "batch_size": 4, "validate_every": 20, "patience": 1,
                "precision": "bfloat16" if version == "v1" else "float32",
            },
        }
    )  # fmt: skip
    torch.manual_seed(0)
    network = build(settings.network(classes))

    def batches(step: int) -> Iterator[Batch]:
        return itertools.repeat(batch)

    class Judge(TinyJudge):
        def validate(self, network: DeepLab, step: int, watch: Callable[[int, int], bool]) -> Score:
            mask = network.upsample(network(batch.image), (SIZE, SIZE)).argmax(1)
            totals = ConfusionMatrix.of(batch.label.numpy(), mask.numpy(), classes).totals
            scores.append(float(totals.mean_iou()))
            # Patience ends the run at the first validation after the goal is reached.
            return Score(miou=1.0 if max(scores) > GOAL else step / 1e6, accuracy=0.0)

    scores: list[float] = []
    train(
        network,
        settings,
        batches=batches,
        around=Surroundings(
            folder=tmp_path, processes=ALONE, judge=Judge(), tell=lambda text: None
        ),
    )
    assert max(scores) > GOAL
