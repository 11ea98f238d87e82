"""What the PyTorch libraries' state dicts have in common: naming of backbones and of ASPP.

torchvision's ResNet, MobileNetV2 and ASPP were copied, names and all, by most re-implementations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deeplab.errors import WeightsError
from deeplab.models.config import DeepLabConfig
from deeplab.models.mobilenet import make_divisible
from deeplab.models.mobilenet_v2 import BLOCKS
from deeplab.models.resnet import UNITS

Shapes = Mapping[str, tuple[int, ...]]

Layer = tuple[str, str, str | None]
"""Our layer, their convolution, their batch norm; None where there is no norm."""


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A state dict that was recognised: what it is, and which of its layers is which of ours.

    Attributes:
        library: whose it is, for messages.
        config: the network.
        layers: all layers of that network.
        unused: matches the keys that belong to the library's network, but not to ours.
        backbone_only: it is a classifier; ``layers`` ends with the backbone.
        threshold: of a network with one class, the confidence from which on a pixel is an object.
        found: what else was told by the weights, in words.
        prefix: what stands before the names of many layers here, and there, where the rest of
            their names is one.
    """

    library: str
    config: DeepLabConfig
    layers: tuple[Layer, ...]
    unused: re.Pattern[str] = field(default=re.compile(r"\.num_batches_tracked$"))
    backbone_only: bool = False
    threshold: float = 0.5
    found: tuple[str, ...] = ()
    prefix: tuple[str, str] | None = None


# Source: torchvision's reference training; (x/255 − mean) / std of ImageNet.
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)


def configure(**settings: Any) -> DeepLabConfig:
    """Return a network as PyTorch's re-implementations have it, but for ``settings``.

    They share torchvision's backbones: padding on both sides, the first unit of a block strides,
    its batch norms, its ImageNet normalisation; image pooling comes last, a decoder takes the
    output of a block, and separable convolutions have no norm between their halves.
    """
    return DeepLabConfig(**{**_CONVENTIONS, **settings})


_CONVENTIONS: Mapping[str, Any] = {
    "padding": "symmetric",
    "stride_unit": "first",
    "backbone_bn_eps": 1e-5,
    "backbone_bn_decay": 0.9,
    "head_bn_decay": 0.9,
    "separable_norm": False,
    "pooling_first": False,
    "low_level": "block",
    "decoder_convs": 1,
    "pixel_mean": IMAGENET_MEAN,
    "pixel_std": IMAGENET_STD,
}


def backbone_name(depth: int | None) -> str:
    """Return the backbone of a ResNet's depth; None is MobileNetV2."""
    return "mobilenet_v2" if depth is None else f"resnet_v1_{depth}"


def unused_keys(*patterns: str) -> re.Pattern[str]:
    """Return what matches the keys that a library has and our network does not need."""
    return re.compile("|".join((r"\.num_batches_tracked$", *patterns)))


def shape_of(shapes: Shapes, name: str) -> tuple[int, ...]:
    """Return the shape of a weight.

    Raises:
        WeightsError: there is none of that name.
    """
    if name not in shapes:
        raise WeightsError(
            f"state dict: '{name}' is missing, so the network cannot be recognised. Give the "
            "state dict of the whole model, not of a part."
        )
    return shapes[name]


def count_classes(shapes: Shapes, name: str) -> int:
    """Return the classes that the last layer's weights tell apart.

    One channel says "object" or not: two classes. Its weights become those of the second one, and
    the first one's are 0, so that the larger of the two is the same answer.

    Raises:
        WeightsError: there is no such layer.
    """
    return max(2, shape_of(shapes, name)[0])


def count_indices(shapes: Shapes, pattern: str) -> int:
    """Return how many different numbers the group of ``pattern`` matches among the names."""
    return len({match.group(1) for name in shapes if (match := re.match(pattern, name))})


# ------------------------------------------------------------------------------------- backbones


def resnet_depth(shapes: Shapes, prefix: str) -> int:
    """Return 18, 34, 50, 101 or 152.

    Raises:
        WeightsError: the counts of units are those of another network.
    """
    units = tuple(
        count_indices(shapes, rf"{re.escape(prefix)}layer{block}\.(\d+)\.") for block in range(1, 5)
    )
    bottleneck = f"{prefix}layer1.0.conv3.weight" in shapes
    wide = bottleneck and shapes[f"{prefix}layer1.0.conv2.weight"] != (64, 64, 3, 3)
    for depth, known in UNITS.items():
        if units == known and bottleneck == (depth >= 50) and not wide:
            return depth
    raise WeightsError(
        f"backbone: a ResNet with {units} units of {'three' if bottleneck else 'two'} convolutions"
        f"{' of other widths (ResNeXt or Wide ResNet)' if wide else ''} is not known here; "
        "ResNet-18, 34, 50, 101 and 152 are."
    )


def resnet_layers(prefix: str, depth: int) -> Iterator[Layer]:
    """Yield the layers of torchvision's ResNet."""
    yield "backbone.stem.0", f"{prefix}conv1", f"{prefix}bn1"
    for block, units in enumerate(UNITS[depth]):
        for unit in range(units):
            ours, theirs = f"backbone.blocks.{block}.{unit}", f"{prefix}layer{block + 1}.{unit}"
            for conv in (1, 2, 3) if depth >= 50 else (1, 2):
                yield f"{ours}.conv{conv}", f"{theirs}.conv{conv}", f"{theirs}.bn{conv}"
            yield f"{ours}.shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1"


def mobilenet_v2_layers(feature: Callable[[int], str]) -> Iterator[Layer]:
    """Yield the layers of torchvision's MobileNetV2; ``feature(i)`` names its i-th feature."""
    stem = feature(0)
    yield "backbone.stem", f"{stem}.0", f"{stem}.1"
    for index, spec in enumerate(BLOCKS):
        ours, theirs = f"backbone.blocks.{index}", f"{feature(index + 1)}.conv"
        parts = ["expand", "depthwise"] if spec.expansion > 1 else ["depthwise"]
        for at, part in enumerate(parts):
            yield f"{ours}.{part}", f"{theirs}.{at}.0", f"{theirs}.{at}.1"
        yield f"{ours}.project", f"{theirs}.{len(parts)}", f"{theirs}.{len(parts) + 1}"
    last = feature(len(BLOCKS) + 1)
    yield "backbone.last", f"{last}.0", f"{last}.1"


def mobilenet_v2_width(widths: tuple[int, ...]) -> tuple[float, int]:
    """Return (depth multiplier, divisor) from the channels of stem and blocks.

    Raises:
        WeightsError: no multiplier gives those channels.
    """
    return mobilenet_width("MobileNetV2", widths, (32, *(spec.channels for spec in BLOCKS)))


def mobilenet_width(
    name: str, widths: Sequence[int], nominal: Sequence[int], *, divisors: Sequence[int] = (8, 1)
) -> tuple[float, int]:
    """Return (depth multiplier, divisor) from channels, and those at depth multiplier 1.

    Raises:
        WeightsError: no multiplier gives those channels.
    """
    guesses = (1.0, 0.5, 0.75, 1.4, 0.35, 1.3, 0.25, 2.0, widths[-1] / nominal[-1])
    for multiplier in guesses:
        for divisor in divisors:
            minimum = 8 if divisor == 8 else 1
            expected = tuple(make_divisible(n * multiplier, divisor, minimum) for n in nominal)
            if expected == tuple(widths):
                return multiplier, divisor
    raise WeightsError(
        f"backbone: {name} with channels {tuple(widths)} has no depth multiplier known here; "
        f"at 1.0 they are {tuple(nominal)}."
    )


# ------------------------------------------------------------------------------------------ head


def aspp_layers(prefix: str, *, separable: str | None = None) -> Iterator[Layer]:
    """Yield the layers of torchvision's ASPP: 1×1, three rates, pooling last.

    ``separable`` is what stands between branch and half ("0." or "0.body.") where they are so.
    """
    yield "head.branches.0", f"{prefix}convs.0.0", f"{prefix}convs.0.1"
    for branch in (1, 2, 3):
        yield from conv_layers(
            f"head.branches.{branch}",
            f"{prefix}convs.{branch}.0",
            f"{prefix}convs.{branch}.1",
            separable=separable,
        )
    yield "head.pooling.project", f"{prefix}convs.4.1", f"{prefix}convs.4.2"
    yield "head.project", f"{prefix}project.0", f"{prefix}project.1"


def conv_layers(
    ours: str, conv: str, norm: str, *, separable: str | None = None
) -> Iterator[Layer]:
    """Yield one convolution, or the two halves of a separable one without a norm between."""
    if separable is None:
        yield ours, conv, norm
    else:
        yield f"{ours}.depthwise", f"{conv}{separable}.0", None
        yield f"{ours}.pointwise", f"{conv}{separable}.1", norm
