"""State dicts of Hugging Face transformers: MobileViT and MobileViTV2.

``MobileViT(V2)ForSemanticSegmentation`` is a DeepLab v3; ``…ForImageClassification`` and
``…Model`` give the backbone.

Source: transformers/models/mobilevit/modeling_mobilevit.py, configuration_mobilevit.py, and the
same of mobilevitv2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from deeplab.errors import ConfigError, WeightsError
from deeplab.models.config import DeepLabConfig
from deeplab.models.mobilenet import make_divisible
from deeplab.models.mobilevit import DEPTHS, SIZES
from deeplab.models.mobilevit_v2 import stage_channels
from deeplab.weights.naming import Foreign, Layer, Shapes, count_classes, shape_of, unused_keys

_STEM = "conv_stem.convolution.weight"
_CLASSIFIER = "segmentation_head.classifier.convolution.weight"
_EXPANSION = "encoder.layer.1.layer.0.expand_1x1.convolution.weight"

# What leaves no trace in weights, and is the same in every network that is known here.
# Source: configuration_mobilevit.py, configuration_mobilevitv2.py.
_FIXED: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "num_attention_heads": (4,),
    "patch_size": (2,),
    "layer_norm_eps": (1e-5,),
}
_TYPES = ("mobilevit", "mobilevitv2")


def recognise(shapes: Shapes, output_stride: int | None) -> Foreign | None:
    """Return the network, or None when the names are not those of transformers' MobileViTs.

    Raises:
        WeightsError: it is one of a size that is not known here.
    """
    for prefix in ("mobilevit.", "mobilevitv2.", ""):
        if f"{prefix}{_STEM}" in shapes and f"{prefix}{_EXPANSION}" in shapes:
            break
    else:
        return None
    second = f"{prefix}encoder.layer.2.transformer.layer.0.attention.qkv_proj.convolution.weight"
    v2 = second in shapes
    settings = _read_width(shapes, prefix) if v2 else {"backbone": _read_size(shapes, prefix)}
    backbone_only = _CLASSIFIER not in shapes
    head = "segmentation_head.aspp.project.convolution.weight"
    config = DeepLabConfig(
        version="v3",
        **settings,
        num_classes=21 if backbone_only else count_classes(shapes, _CLASSIFIER),
        # Source: what apple/deeplabv3-mobilevit-* and apple/mobilevitv2-1.0-voc-deeplabv3 state.
        output_stride=output_stride or 16,
        padding="symmetric",
        odd_patches="zero" if v2 else "resize",
        head_channels=256 if backbone_only else shape_of(shapes, head)[0],
        aspp_separable=False,
        pooling_first=False,
        head_bn_decay=0.9,
        align_corners=False,
    )
    layers = (*_backbone_layers(prefix, v2=v2), *(() if backbone_only else _head_layers()))
    return Foreign(
        library="transformers",
        config=config,
        layers=layers,
        unused=unused_keys(*((rf"^{prefix}conv_1x1_exp\.", r"^classifier\.") * backbone_only)),
        backbone_only=backbone_only,
    )


def apply_settings(config: DeepLabConfig, settings: Mapping[str, Any]) -> DeepLabConfig:
    """Return the network that a ``config.json`` of this library describes.

    Other files of that name leave it as it is. The output stride is asked for before this.

    Raises:
        WeightsError: something that the networks here do not have, or no numbers where some belong.
    """
    if settings.get("model_type") not in _TYPES:
        return config
    for name, known in _FIXED.items():
        value = settings.get(name, known[0])
        if value not in known:
            raise WeightsError(
                f"config.json: {name} is {value!r}, expected {known[0]!r}; a MobileViT with "
                "another is not known here."
            )
    try:
        return dataclasses.replace(
            config,
            atrous_rates=tuple(settings.get("atrous_rates", config.atrous_rates)),
            rates_stated_at=settings.get("output_stride", config.rates_stated_at),
            dropout=settings.get("aspp_dropout_prob", config.dropout),
        )
    except (ConfigError, TypeError) as error:
        raise WeightsError(f"config.json: {error}") from error


def _read_size(shapes: Shapes, prefix: str) -> str:
    """Return the backbone whose channels these are."""
    channels = tuple(_channels(shapes, prefix, stages=(1, 3)))
    widths = [shape_of(shapes, f"{prefix}encoder.layer.{n}.layernorm.weight")[0] for n in (2, 3, 4)]
    hidden = shape_of(shapes, f"{prefix}{_EXPANSION}")[0]
    for name, size in SIZES.items():
        wide = make_divisible(size.channels[1] * size.expansion, 8, 8)
        if (channels, tuple(widths), hidden) == (size.channels, size.widths, wide):
            return name
    raise WeightsError(
        f"backbone: a MobileViT of channels {channels} and widths {tuple(widths)} is not known "
        "here; small, x-small and xx-small are."
    )


def _read_width(shapes: Shapes, prefix: str) -> dict[str, Any]:
    """Return backbone and depth multiplier of a MobileViTV2.

    Published are 0.5 to 2 in steps of 0.25; others are told by the widest stage.
    """
    channels = tuple(_channels(shapes, prefix, stages=(1, 2)))
    for multiplier in (1.0, 0.5, 0.75, 1.25, 1.5, 1.75, 2.0, channels[-1] / 512):
        if stage_channels(multiplier) == channels:
            return {"backbone": "mobilevit_v2", "depth_multiplier": multiplier}
    raise WeightsError(
        f"backbone: a MobileViTV2 of channels {channels} has no width multiplier; at 1 they are "
        f"{stage_channels(1.0)}."
    )


def _channels(shapes: Shapes, prefix: str, *, stages: tuple[int, int]) -> Iterator[int]:
    yield shape_of(shapes, f"{prefix}{_STEM}")[0]
    for stage, count in enumerate(stages):
        last = f"{prefix}encoder.layer.{stage}.layer.{count - 1}.reduce_1x1.convolution.weight"
        yield shape_of(shapes, last)[0]
    for stage in (2, 3, 4):
        down = f"{prefix}encoder.layer.{stage}.downsampling_layer.reduce_1x1.convolution.weight"
        yield shape_of(shapes, down)[0]


def _backbone_layers(prefix: str, *, v2: bool) -> Iterator[Layer]:
    yield _layer("backbone.stem", f"{prefix}conv_stem")
    residuals = ["0.layer.0"]
    residuals += [f"1.layer.{n}" for n in range(2 if v2 else 3)]
    residuals += [f"{stage}.downsampling_layer" for stage in (2, 3, 4)]
    names = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
    for index, residual in enumerate(residuals):
        for ours, theirs in names.items():
            yield _layer(
                f"backbone.blocks.{index}.{ours}", f"{prefix}encoder.layer.{residual}.{theirs}"
            )
    for index, depth in enumerate(DEPTHS):
        ours, theirs = f"backbone.transformers.{index}", f"{prefix}encoder.layer.{index + 2}"
        yield _layer(f"{ours}.local", f"{theirs}.conv_kxk")
        yield f"{ours}.embed", f"{theirs}.conv_1x1.convolution", None
        for layer in range(depth):
            yield from _transformer_layers(
                f"{ours}.layers.{layer}", f"{theirs}.transformer.layer.{layer}", v2=v2
            )
        yield f"{ours}.last", f"{theirs}.layernorm", None
        yield _layer(f"{ours}.project", f"{theirs}.conv_projection")
        if not v2:
            yield _layer(f"{ours}.fuse", f"{theirs}.fusion")


def _transformer_layers(ours: str, theirs: str, *, v2: bool) -> Iterator[Layer]:
    names = {"before": "layernorm_before", "after": "layernorm_after"}
    if v2:
        names |= {
            "attend": "attention.qkv_proj.convolution",
            "join": "attention.out_proj.convolution",
            "widen": "ffn.conv1.convolution",
            "narrow": "ffn.conv2.convolution",
        }
    else:
        names |= {name: f"attention.attention.{name}" for name in ("query", "key", "value")}
        names |= {
            "join": "attention.output.dense",
            "widen": "intermediate.dense",
            "narrow": "output.dense",
        }
    for part, name in names.items():
        yield f"{ours}.{part}", f"{theirs}.{name}", None


def _head_layers() -> Iterator[Layer]:
    aspp = "segmentation_head.aspp"
    for branch in range(4):
        yield _layer(f"head.branches.{branch}", f"{aspp}.convs.{branch}")
    yield _layer("head.pooling.project", f"{aspp}.convs.4.conv_1x1")
    yield _layer("head.project", f"{aspp}.project")
    yield "classifier", "segmentation_head.classifier.convolution", None


def _layer(ours: str, theirs: str) -> Layer:
    return ours, f"{theirs}.convolution", f"{theirs}.normalization"
