"""State dicts of kazuto1011/deeplab-pytorch: DeepLab v2 on ResNet-101, converted from Caffe.

Source: its libs/models/{deeplabv2,resnet,msc}.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from deeplab.errors import WeightsError
from deeplab.models.config import DeepLabConfig
from deeplab.models.resnet import UNITS
from deeplab.weights.naming import (
    Foreign,
    Layer,
    Shapes,
    count_classes,
    count_indices,
    unused_keys,
)

_PARTS = {"conv1": "reduce", "conv2": "conv3x3", "conv3": "increase", "shortcut": "shortcut"}


def recognise(shapes: Shapes, output_stride: int | None) -> Foreign | None:
    """Return the network, or None when the names are not kazuto1011's.

    Raises:
        WeightsError: it is kazuto1011's, but not v2 on ResNet-50 or 101.
    """
    for prefix in ("base.", "scale.", ""):  # "base." is the wrapper that runs several scales
        if f"{prefix}layer1.conv1.conv.weight" in shapes:
            break
    else:
        return None
    if f"{prefix}aspp.c0.weight" not in shapes:
        raise WeightsError(
            "state dict: of kazuto1011's networks DeepLab v2 is known here (with aspp.c0, "
            "aspp.c1, …); for v3 and v3+ use weights of torchvision or the TensorFlow release."
        )
    units = tuple(
        count_indices(shapes, rf"{re.escape(prefix)}layer{block}\.block(\d+)\.")
        for block in range(2, 6)
    )
    depths = [depth for depth, known in UNITS.items() if known == units and depth >= 50]
    if not depths:
        raise WeightsError(
            f"backbone: a ResNet with {units} units is not known here; ResNet-50 and 101 are."
        )
    branches = count_indices(shapes, rf"{re.escape(prefix)}aspp\.c(\d+)\.")
    config = DeepLabConfig(
        version="v2",
        backbone=f"resnet_v1_{depths[0]}",
        num_classes=count_classes(shapes, f"{prefix}aspp.c0.weight"),
        output_stride=output_stride or 8,
        # Source: configs/*.yaml, ATROUS_RATES.
        atrous_rates=(6, 12, 18, 24)[:branches],
        padding="symmetric",
        image_pyramid=(1.0, 0.5, 0.75) if prefix else (),
        align_corners=False,
    )
    return Foreign(
        library="kazuto1011/deeplab-pytorch",
        config=config,
        layers=tuple(_layers(prefix, units, branches)),
        unused=unused_keys(),
    )


def _layers(prefix: str, units: tuple[int, ...], branches: int) -> Iterator[Layer]:
    def layer(ours: str, theirs: str) -> Layer:
        return ours, f"{prefix}{theirs}.conv", f"{prefix}{theirs}.bn"

    yield layer("backbone.stem.0", "layer1.conv1")
    for block, count in enumerate(units):
        for unit in range(count):
            for ours, theirs in _PARTS.items():
                yield layer(
                    f"backbone.blocks.{block}.{unit}.{ours}",
                    f"layer{block + 2}.block{unit + 1}.{theirs}",
                )
    for branch in range(branches):
        yield f"head.branches.{branch}", f"{prefix}aspp.c{branch}", None
