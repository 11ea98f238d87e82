"""Release pairs of untrained networks that answer with more than noise."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from deeplab.models import DeepLabConfig, build
from deeplab.photo.images import InputSpec
from deeplab.weights import release
from deeplab.zoo.example_photos import list_example_photos

PHOTOS = list_example_photos()
CONFIG = DeepLabConfig(
    version="v3+",
    backbone="mobilenet_v2",
    depth_multiplier=0.5,
    divisible_by=8,
    num_classes=5,
    head_channels=32,
    decoder_channels=32,
    decoder_convs=1,
)
SIZE = (129, 97)


def draw_weights(config: DeepLabConfig, seed: int = 0) -> dict[str, Tensor]:
    """Return weights with batch norms as after a training, and classes that all occur."""
    torch.manual_seed(seed)
    state = build(config).state_dict()
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.3)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif "norm.weight" in name:
            value.uniform_(0.7, 1.6)
        elif "norm.bias" in name:
            value.normal_(0.2, 0.4)
        elif "classifier.weight" in name:
            value.normal_(0, 1.0)
    return state


def write_pair(folder: Path, config: DeepLabConfig = CONFIG, *, seed: int = 0) -> Path:
    """Write a pair and return its JSON."""
    height, width = SIZE
    done = release.save(
        folder / "tiny",
        config,
        draw_weights(config, seed),
        labels=release.LabelSet(
            ("ground", "water", "wood", "road", "roof"),
            colours=((9, 9, 9), (0, 0, 200), (0, 90, 0), (90, 90, 90), (200, 0, 0)),
        ),
        input_spec=InputSpec(height=height, width=width, fit="stretch"),
        licence="CC0-1.0",
    )
    return done.path.with_suffix(".json")
