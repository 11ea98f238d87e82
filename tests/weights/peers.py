"""Weights drawn by name, so that a peer's own network elsewhere and ours here hold the same."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from deeplab.models import DeepLabConfig, build
from deeplab.weights.naming import Layer


def draw(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return weights whose features keep their size from layer to layer, whatever the network."""
    return {name: torch.from_numpy(_draw(name, shape)) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    chance = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        fan_in = int(np.prod(shape[1:]))
        return chance.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_in))
    if name.endswith(("running_var", "weight")):
        return (chance.random(shape, np.float32) + 1) / 2
    return chance.standard_normal(shape, np.float32) / 10


def digest(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return a number for names and shapes, whatever their order."""
    return zlib.crc32(repr(sorted((name, tuple(shape)) for name, shape in shapes.items())).encode())


def image(height: int, width: int) -> torch.Tensor:
    """Return a picture (1, 3, height, width) uint8 with edges at several sizes."""
    rows, columns = np.mgrid[:height, :width]
    picture = [(rows * a + columns * b) % 97 * 2 + (rows // 8 + columns // 8) % 2 * 40
               for a, b in ((3, 5), (7, 2), (1, 11))]  # fmt: skip
    return torch.from_numpy(np.stack(picture).astype(np.uint8))[None]


def shapes_of(config: DeepLabConfig, layers: Iterable[Layer]) -> dict[str, tuple[int, ...]]:
    """Return the peer's names of all weights of a network of ours, and their shapes."""
    table = {ours: (conv, norm) for ours, conv, norm in layers}
    with torch.device("meta"):
        expected = build(config).state_dict()
    shapes = {}
    for key, value in expected.items():
        path, _, leaf = key.rpartition(".")
        layer, _, part = path.rpartition(".")
        if part not in ("conv", "norm"):
            layer, part = path, "conv"
        shapes[f"{table[layer][part == 'norm']}.{leaf}"] = tuple(value.shape)
    return shapes
