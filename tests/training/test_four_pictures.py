"""Whatever is set, four pictures are learned by heart: from the folder to the released score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

from deeplab.models.pieces import name_piece
from deeplab.training.experiment import run_experiment
from deeplab.training.loop import Callbacks
from deeplab.training.settings import Settings
from deeplab.weights import release

SIDE = 33
WAYS: dict[str, dict[str, Any]] = {
    "sgd": {"optimiser": {"clip_norm": 5.0}, "schedule": {"base": 0.2}},
    "lion, cosine, lovasz": {
        "optimiser": {"name": "lion"}, "schedule": {"base": 0.002, "policy": "cosine"},
        "loss": {"terms": {"lovasz": 1.0}},
    },
    "multi_step, layer_decay, smoothing": {
        "optimiser": {"name": "adamw", "layer_decay": 0.9}, "loss": {"label_smoothing": 0.1},
        "schedule": {"base": 0.01, "policy": "multi_step", "milestones": [100]},
    },
    "hardest pixels": {"loss": {"top_k": 0.25, "mining_steps": 20}},
    "sum": {"loss": {"terms": {"focal": 1.0, "tversky": 1.0, "boundary": 0.01}}},
    "moved": {"augment": {"rotate": 20.0, "perspective": 0.2}},
    "mixed": {"augment": {"mosaic": 0.5, "copy_paste": 0.5}},
    "spoilt": {"augment": {"blur": 1.0, "noise": 5.0, "jpeg": 50}},
    "albumentations": {"augment": {"pipeline": "pipeline.json", "rand_augment": 1}},
}  # fmt: skip
"""What is not said is AdamW, at 0.01."""


def small_network(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(),
        nn.Conv2d(12, classes, 1),
    )  # fmt: skip


@pytest.fixture(scope="module")
def four_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs of two classes on noise, and a pipeline of Albumentations."""
    folder = tmp_path_factory.mktemp("four")
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for index in range(4):
        row, column = random.integers(12, 21, 2)
        label = np.where(np.hypot(y - row, x - column) < 10, 1 + index % 2, 0).astype(np.uint8)
        image = random.integers(0, 50, (SIDE, SIDE, 3)) + np.array([0, 90, 200])[label][..., None]
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"{index}.png")
        Image.fromarray(label).save(folder / "masks" / f"{index}.png")
    names = '["0", "1", "2", "3"]'
    (folder / "dataset.toml").write_text(
        f'classes = ["background", "grey", "white"]\n[splits]\ntrain = {names}\nval = {names}\n'
    )
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_four_pictures_are_learned_by_heart(way: str, four_pictures: Path, tmp_path: Path) -> None:
    tables = {name: dict(values) for name, values in WAYS[way].items()}
    if way == "albumentations":
        import albumentations

        pipeline = albumentations.Compose([albumentations.HorizontalFlip(p=0.5)])
        albumentations.save(pipeline, tmp_path / "pipeline.json")
        tables["augment"]["pipeline"] = str(tmp_path / "pipeline.json")
    settings = Settings.from_dict(
        {
            "name": "four",
            "model": {"own": name_piece(small_network, "network")},
            "data": {
                "path": str(four_pictures), "crop_size": [SIDE, SIDE], "workers": 0,
                "check": False, "scale_range": [1.0, 1.0],
            },
            "run": {
                "steps": 160, "batch_size": 4, "validate_every": 20, "log_every": 50,
                "save_every": 1000, "device": "cpu", "validate_frame": True,
            },
            "optimiser": {"name": "adamw"}, "schedule": {"base": 0.01}, **tables,
        }
    )  # fmt: skip
    learned = Callbacks(validation=lambda step, score: score.miou > 0.98)
    run_experiment(settings, tmp_path / "run", callbacks=learned, tell=lambda text: None)
    found = release.open_release(tmp_path / "run/four.json")
    assert found.scores["val"]["miou"] > 0.97
