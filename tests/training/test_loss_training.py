"""Every term of the loss teaches four pictures by heart, alone; and trainings with them resume."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ALONE, TinyJudge, shapes_settings, tiny_settings
from torch import nn

from deeplab.data.loader import Batch
from deeplab.evaluation.metrics import ConfusionMatrix
from deeplab.export import export
from deeplab.models import DeepLab, build
from deeplab.models.pieces import name_piece
from deeplab.training.experiment import run_experiment
from deeplab.training.loop import Callbacks, Score, StepNews, Surroundings, train
from deeplab.training.loss_settings import NAMES
from deeplab.training.settings import Settings

QUIET: dict[str, Any] = {"tell": lambda text: None}
GOAL = 0.97


def small_network(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(),
        nn.Conv2d(12, classes, 1),
    )  # fmt: skip


def _four_pictures() -> Batch:
    """Noisy discs of two classes on noise, with an ignored line around each."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:33, :33]
    images, labels = [], []
    for index in range(4):
        row, column = random.integers(10, 23, 2)
        radius = np.hypot(y - row, x - column)
        label = np.where(radius < 9, 1 + index % 2, 0)
        image = random.integers(0, 60, (3, 33, 33)) + np.array([0, 90, 180])[label]
        labels.append(np.where(abs(radius - 9) < 0.5, 255, label))
        images.append(image)
    label = torch.from_numpy(np.stack(labels).astype(np.uint8))
    image = torch.from_numpy(np.stack(images).astype(np.uint8))
    return Batch(image, label, ("a", "b", "c", "d"))


@pytest.mark.parametrize("name", NAMES)
def test_a_term_alone_teaches_four_pictures_by_heart(name: str, tmp_path: Path) -> None:
    batch = _four_pictures()
    settings = tiny_settings(
        # The boundary loss is made to stand beside another: 1812.07032, equation 6.
        loss={"terms": {"dice": 1.0, "boundary": 0.01} if name == "boundary" else {name: 1.0}},
        optimiser={"name": "adamw"},
        schedule={"base": 0.01, "policy": "one_cycle"},
        run={"steps": 150, "validate_every": 10, "patience": 1, "save_every": 10**6},
        model={},
    )
    values = settings.to_dict() | {"model": {"own": name_piece(small_network, "network")}}
    settings = Settings.from_dict(values)
    torch.manual_seed(0)
    network = build(settings.network(3))
    scores: list[float] = []

    class Judge(TinyJudge):
        def validate(self, network: DeepLab, step: int, watch: Callable[[int, int], bool]) -> Score:
            mask = network(batch.image).argmax(1)
            totals = ConfusionMatrix.of(batch.label.numpy(), mask.numpy(), 3).totals
            scores.append(float(totals.mean_iou()))
            return Score(miou=1.0 if max(scores) > GOAL else step / 1e6, accuracy=0.0)

    def batches(step: int) -> Iterator[Batch]:
        return itertools.repeat(batch)

    around = Surroundings(folder=tmp_path, processes=ALONE, judge=Judge(), **QUIET)
    train(network, settings, batches=batches, around=around)
    assert max(scores) > GOAL


class Killed(BaseException):
    """What a kill does, without the process."""


EVERYTHING: dict[str, Any] = {
    "loss": {
        "terms": dict.fromkeys(NAMES, 0.2), "auxiliary": 0.4, "label_smoothing": 0.1,
        "class_weights": {"white": 2.0},
    },
    "optimiser": {"name": "adamw", "layer_decay": 0.9, "ema_decay": 0.9},
    "schedule": {"policy": "one_cycle", "base": 0.003},
    "augment": {
        "rotate": 10.0, "perspective": 0.1, "mosaic": 0.3, "copy_paste": 0.5, "blur": 1.0,
        "noise": 5.0, "jpeg": 30, "rand_augment": 1,
    },
}  # fmt: skip
LION: dict[str, Any] = {
    "loss": {"terms": {"lovasz": 1.0}, "over": "picture"},
    "optimiser": {"name": "lion"},
    "schedule": {"policy": "multi_step", "milestones": [2], "base": 1e-3},
}


@pytest.mark.parametrize("tables", [EVERYTHING, LION], ids=["everything", "lion"])
def test_a_killed_training_ends_with_the_same_bits_and_is_exported(
    tables: dict[str, Any], shapes: Path, tmp_path: Path
) -> None:
    model = {"dropout": 0.1}
    settings = shapes_settings(shapes, **tables, model=model, run={"save_every": 1, "steps": 4})

    def kill(news: StepNews) -> None:
        if news.step == 3:
            raise Killed

    run_experiment(settings, tmp_path / "whole", **QUIET)
    with pytest.raises(Killed):
        run_experiment(settings, tmp_path / "killed", callbacks=Callbacks(step=kill), **QUIET)
    run_experiment(settings, tmp_path / "killed", **QUIET)
    one, two = (
        torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "killed")
    )
    assert one["network"].keys() == two["network"].keys()
    assert all(torch.equal(one["network"][name], two["network"][name]) for name in one["network"])
    assert str(one["optimiser"]) == str(two["optimiser"])
    released = (tmp_path / "whole/tiny.safetensors").read_bytes()
    assert (tmp_path / "killed/tiny.safetensors").read_bytes() == released
    assert b"auxiliary" not in released[:100_000]
    assert any(name.startswith("auxiliary.") for name in one["network"]) == (tables is EVERYTHING)
    if tables is EVERYTHING:
        photos = sorted((shapes / "images/val").iterdir())
        made = export(tmp_path / "whole/tiny.json", "onnx", file=tmp_path / "a.onnx", photos=photos)
        assert made.certificate is not None


def test_two_processes_have_the_loss_and_the_gradient_of_one() -> None:
    """Of all terms, those over all pictures of a step included."""
    port = str(20_000 + os.getpid() % 20_000)
    ranks = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("loss_ranks.py"))],
            env={
                **os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
            },
        )
        for rank in (0, 1)
    ]  # fmt: skip
    assert [one.wait(300) for one in ranks] == [0, 0]
