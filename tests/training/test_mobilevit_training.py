"""MobileViTs learn four pictures by heart, and go on after a kill with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kills
import numpy as np
import pytest
import red_halves
import torch
from PIL import Image

from deeplab import Segmenter
from deeplab.training.experiment import run_experiment
from deeplab.training.loop import Callbacks
from deeplab.training.settings import Settings
from deeplab.weights import release

QUIET: dict[str, Any] = {"tell": lambda text: None}
SIDE = 33
MODELS: dict[str, dict[str, Any]] = {
    "v1": {"backbone": "mobilevit_xxs"},
    "v2": {"backbone": "mobilevit_v2", "depth_multiplier": 0.25},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The border lies half way between two cells of the logits.
    return red_halves.write(tmp_path_factory.mktemp("data"), SIDE, border=SIDE // 2 + 4)


def settings(data: Path, kind: str, *, steps: int, validate_every: int) -> Settings:
    return Settings.from_dict(
        {
            "name": "red",
            "data": {
                "path": str(data), "crop_size": [SIDE, SIDE], "workers": 0, "check": False,
                "scale_range": [1.0, 1.0],
            },
            "model": {
                **MODELS[kind], "head_channels": 16, "output_stride": 8,
                "backbone_bn_decay": 0.8, "head_bn_decay": 0.8,
            },
            "schedule": {"base": 0.003, "start_steps": 5, "start_ramp": True},
            "optimiser": {"name": "adamw", "weight_decay": 0.0, "clip_norm": 5.0},
            "run": {
                "steps": steps, "batch_size": 4, "validate_every": validate_every,
                "device": "cpu", "validate_frame": True, "log_every": 1, "save_every": 1,
            },
        }
    )  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("kind", MODELS)
def test_four_pictures_are_learned_by_heart_and_the_pair_opens(
    kind: str, data: Path, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    learned = Callbacks(validation=lambda step, score: score.miou > 0.98)
    plan = settings(data, kind, steps=200, validate_every=20)
    run_experiment(plan, tmp_path / "run", callbacks=learned, **QUIET)
    pair = tmp_path / "run" / "red.json"
    found = release.open_release(pair)
    assert found.scores["val"]["miou"] > 0.97
    assert found.config.channel_order == "bgr"
    photo, label = (np.asarray(Image.open(data / n / "1.png")) for n in ("images", "masks"))
    assert (Segmenter(pair)(photo).mask == label).mean() > 0.97


@pytest.mark.parametrize("kind", MODELS)
def test_killed_it_goes_on_with_the_same_bits(kind: str, data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    plan = settings(data, kind, steps=4, validate_every=2)
    assert kills.differences(plan, tmp_path, step=2) == []
