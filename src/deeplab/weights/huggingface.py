"""State dicts of Hugging Face transformers: ``MobileNetV2ForSemanticSegmentation``.

Source: transformers/models/mobilenet_v2/modeling_mobilenet_v2.py, configuration_mobilenet_v2.py.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from deeplab.errors import InputError, WeightsError
from deeplab.labels import LabelSet, read_label_file
from deeplab.models.config import DeepLabConfig
from deeplab.models.mobilenet_v2 import BLOCKS
from deeplab.weights.naming import (
    Foreign,
    Layer,
    Shapes,
    count_classes,
    mobilenet_v2_width,
    shape_of,
    unused_keys,
)


def recognise(shapes: Shapes, output_stride: int | None) -> Foreign | None:
    """Return the network, or None when the names are not those of transformers.

    Raises:
        WeightsError: a MobileNetV2 of transformers without the segmentation head.
    """
    if "mobilenet_v2.conv_stem.first_conv.convolution.weight" not in shapes:
        return None
    if "segmentation_head.classifier.convolution.weight" not in shapes:
        raise WeightsError(
            "state dict: this MobileNetV2 has no segmentation head. Give one of "
            "MobileNetV2ForSemanticSegmentation."
        )
    projections = ("conv_stem", *(f"layer.{index}" for index in range(len(BLOCKS) - 1)))
    widths = [shape_of(shapes, "mobilenet_v2.conv_stem.first_conv.convolution.weight")[0]]
    for name in projections:
        widths.append(shape_of(shapes, f"mobilenet_v2.{name}.reduce_1x1.convolution.weight")[0])
    multiplier, divisor = mobilenet_v2_width(tuple(widths))
    return Foreign(
        library="transformers",
        config=DeepLabConfig(
            version="v3",
            backbone="mobilenet_v2",
            num_classes=count_classes(shapes, "segmentation_head.classifier.convolution.weight"),
            output_stride=output_stride or 16,
            depth_multiplier=multiplier,
            divisible_by=divisor,
            head_channels=shape_of(shapes, "segmentation_head.conv_projection.convolution.weight")[
                0
            ],
            align_corners=False,
        ),
        layers=tuple(_layers()),
        unused=unused_keys(r"^mobilenet_v2\.conv_1x1\."),
    )


_FAMILIES = {"mobilenet_v2": "mobilenet_v2", "mobilevit": "mobilevit", "mobilevitv2": "mobilevit"}


def check_kind(config: DeepLabConfig, settings: Mapping[str, Any]) -> None:
    """Refuse a ``config.json`` of another network of this library than the weights are of.

    Raises:
        WeightsError: it names another; its settings would be another network's.
    """
    kind = settings.get("model_type")
    vit = config.family.startswith("mobilevit")
    known = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if (known and not config.family.startswith(known)) or (vit and kind and not known):
        raise WeightsError(
            f"config.json: its model_type is {kind!r}, but these weights are of a "
            f"{config.backbone}. Take it away if it is not of these weights, or get both anew."
        )


def apply_settings(config: DeepLabConfig, settings: Mapping[str, Any]) -> DeepLabConfig:
    """Return the network that a ``config.json`` of this library describes.

    Other files of that name leave it as it is. The output stride is asked for before this.

    Raises:
        WeightsError: an activation that the network here does not have.
    """
    if settings.get("model_type") != "mobilenet_v2":
        return config
    if settings.get("hidden_act", "relu6") != "relu6":
        raise WeightsError(
            f"config.json: hidden_act is {settings['hidden_act']!r}, expected 'relu6'; a network "
            "with another activation is not known here."
        )
    return dataclasses.replace(
        config,
        padding="same" if settings.get("tf_padding", True) else "symmetric",
        backbone_bn_eps=settings.get("layer_norm_eps", config.backbone_bn_eps),
    )


def read_labels(settings: Mapping[str, Any]) -> LabelSet | None:
    """Return the classes that ``id2label`` of a ``config.json`` names.

    None where there are none, or only the library's stand-ins, "LABEL_0", "LABEL_1", …
    """
    given = settings.get("id2label")
    if not isinstance(given, dict) or set(given) != {str(index) for index in range(len(given))}:
        return None
    names = [str(given[str(index)]) for index in range(len(given))]
    if all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        return None
    background = 0 if names and names[0].lower() == "background" else None
    try:
        return read_label_file("\n".join(names), background=background)
    except InputError:  # doubled names: no label set
        return None


def _layers() -> Iterator[Layer]:
    yield _layer("backbone.stem", "mobilenet_v2.conv_stem.first_conv")
    yield _layer("backbone.blocks.0.depthwise", "mobilenet_v2.conv_stem.conv_3x3")
    yield _layer("backbone.blocks.0.project", "mobilenet_v2.conv_stem.reduce_1x1")
    names = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
    for index in range(1, len(BLOCKS)):
        for ours, theirs in names.items():
            yield _layer(
                f"backbone.blocks.{index}.{ours}", f"mobilenet_v2.layer.{index - 1}.{theirs}"
            )
    yield _layer("head.pooling.project", "segmentation_head.conv_pool")
    yield _layer("head.branches.0", "segmentation_head.conv_aspp")
    yield _layer("head.project", "segmentation_head.conv_projection")
    yield "classifier", "segmentation_head.classifier.convolution", None


def _layer(ours: str, theirs: str) -> Layer:
    return ours, f"{theirs}.convolution", f"{theirs}.normalization"
