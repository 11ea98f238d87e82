"""Weights and a photo that are functions of a name, and the networks that were run with them.

Used here and where the original is run (``tests/oracles/write_original.py``), so numpy alone.
``RandomState`` is the generator whose numbers numpy promises not to change.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_DECODER = {"decoder_output_stride": "4"}
_FOUR = {"nas_stem_output_num_conv_filters": 4}

CASES: dict[str, dict[str, Any]] = {
    "hnasnet": {
        "flags": {"model_variant": "nas_hnasnet", **_DECODER, **_FOUR},
        "output_stride": 8,
        "atrous_rates": [3],
        "size": (65, 97),
    },
    "hnasnet_two_taps": {
        "flags": {
            "model_variant": "nas_hnasnet",
            "decoder_output_stride": "8,4",
            "nas_stem_output_num_conv_filters": 5,
            "nas_remove_os32_stride": "true",
        },
        "output_stride": 8,
        "atrous_rates": None,
        "size": (65, 65),
    },
    "hnasnet_head": {
        "flags": {
            "model_variant": "nas_hnasnet",
            "nas_stem_output_num_conv_filters": 3,
            "nas_use_classification_head": "true",
            "aspp_with_batch_norm": "false",
        },
        "output_stride": 16,
        "atrous_rates": None,
        "size": (65, 65),
    },
    "pnasnet": {
        "flags": {"model_variant": "nas_pnasnet", **_DECODER, **_FOUR},
        "output_stride": 16,
        "atrous_rates": [6],
        "size": (56, 73),
    },
    "pnasnet_os8": {
        "flags": {"model_variant": "nas_pnasnet", "nas_stem_output_num_conv_filters": 3},
        "output_stride": 8,
        "atrous_rates": None,
        "size": (65, 65),
    },
    "pnasnet_os32": {
        "flags": {"model_variant": "nas_pnasnet", "nas_stem_output_num_conv_filters": 3,
                  "decoder_output_stride": "16"},
        "output_stride": 32,
        "atrous_rates": None,
        "size": (65, 97),
    },
    "xception_bounded": {
        "flags": {"model_variant": "xception_41", **_DECODER, "use_bounded_activation": "true"},
        "output_stride": 16,
        "atrous_rates": [6],
        "size": (56, 73),
        "scale": {"gamma": 1.1},  # so that there is something to cut off
    },
    "resnet_standardised": {
        "flags": {"model_variant": "resnet_v1_18_beta", **_DECODER},
        "output_stride": 16,
        "atrous_rates": [6],
        "size": (56, 73),
        "weight_standardization": True,
        "scale": {"moving_variance": 900.0},  # standardised filters are large
    },
}  # fmt: skip
"""Flags of the original (numbers as text), and what its scripts are given beside them."""

for _case in CASES.values():
    _case["num_classes"] = 4
    _case.setdefault("scale", {})


def seeded_weight(
    name: str, shape: tuple[int, ...], scale: Mapping[str, float]
) -> npt.NDArray[np.float32]:
    """Return the value of a variable of the original: (height, width, in, out) for convolutions.

    ``scale`` multiplies the variables of a kind ("gamma").
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    kind = name.rsplit("/", 1)[-1]
    factor = scale.get(kind, 1.0)
    if kind in ("gamma", "moving_variance"):
        return (factor * random.uniform(0.8, 1.2, shape)).astype(np.float32)
    if kind in ("beta", "moving_mean", "biases"):
        return random.uniform(-0.1, 0.1, shape).astype(np.float32)
    depthwise = kind == "depthwise_weights"
    inputs = math.prod(shape[:2]) * (1 if depthwise else shape[2])
    limit = math.sqrt(3 * 1.5 / inputs)
    value = random.uniform(-limit, limit, shape)
    if not depthwise and shape[2] > 4:  # behind a ReLU the mean would swamp everything else
        value -= value.mean((0, 1, 2), keepdims=True)
    return value.astype(np.float32)


def seeded_image(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a photo (height, width, 3): smooth colours, an edge, and noise."""
    random = np.random.RandomState(height * 1000 + width)
    rows, columns = np.mgrid[0:height, 0:width]
    colours = np.stack((rows * 3, columns * 2 + rows, 255 - columns * 3), 2) % 256
    colours[height // 3 : height // 2, width // 4 : width // 2] = (250, 30, 90)
    noise = random.randint(-12, 13, colours.shape)
    return np.clip(colours + noise, 0, 255).astype(np.uint8)
