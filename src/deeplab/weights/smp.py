"""State dicts of segmentation-models-pytorch: ``DeepLabV3`` and ``DeepLabV3Plus``.

Source: segmentation_models_pytorch/decoders/deeplabv3/{model,decoder}.py, encoders/_utils.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deeplab.errors import WeightsError
from deeplab.models.backbones import DERIVED, TIMM
from deeplab.models.config import DeepLabConfig
from deeplab.weights.naming import (
    Foreign,
    Layer,
    Shapes,
    aspp_layers,
    backbone_name,
    configure,
    conv_layers,
    count_classes,
    mobilenet_v2_layers,
    resnet_depth,
    resnet_layers,
    shape_of,
    unused_keys,
)


def recognise(
    shapes: Shapes, output_stride: int | None, *, backbone: str | None = None
) -> Foreign | None:
    """Return the network, or None when the names are not smp's DeepLab.

    Args:
        shapes: of all weights.
        output_stride: None takes the library's default.
        backbone: ``timm/NAME`` of an encoder that smp has of timm, which names do not tell.

    Raises:
        WeightsError: it is smp's, but on an encoder that is not known here.
    """
    aspps = {"decoder.aspp.0.": "v3+", "decoder.aspp.": "v3", "decoder.0.": "v3"}
    found = [prefix for prefix in aspps if f"{prefix}convs.0.0.weight" in shapes]
    if not found or "segmentation_head.0.weight" not in shapes:
        return None
    aspp = found[0]
    plus = aspps[aspp] == "v3+"
    mobilenet = "encoder.features.1.conv.0.0.weight" in shapes
    timm = _timm_prefix(shapes, backbone)
    if not mobilenet and timm is None and "encoder.layer1.0.conv1.weight" not in shapes:
        raise WeightsError(
            "backbone: of smp's encoders the ResNets (18, 34, 50, 101, 152) and 'mobilenet_v2' "
            "are known here, and those of timm (tu-NAME): name it as --backbone timm/NAME, or keep "
            "the config.json of save_pretrained beside the file."
        )
    depth = None if mobilenet or timm is not None else resnet_depth(shapes, "encoder.")
    separable = "" if f"{aspp}convs.1.0.0.weight" in shapes else None
    head = shape_of(shapes, "segmentation_head.0.weight")
    # Source: the default of encoder_output_stride in model.py; the rates do not follow it.
    stride = output_stride or (16 if plus else 8)
    config = configure(
        version="v3+" if plus else "v3",
        **({"backbone": backbone_name(depth)} if timm is None else {"backbone": backbone, **_TIMM}),
        num_classes=count_classes(shapes, "segmentation_head.0.weight"),
        output_stride=stride,
        last_conv=mobilenet,
        lost_stride_rate="new" if timm is None else "old",
        head_channels=shape_of(shapes, f"{aspp}project.0.weight")[0],
        atrous_rates=(12, 24, 36),
        rates_stated_at=stride,
        aspp_separable=separable is not None,
        post_aspp="separable" if plus else "conv",
        dropout=0.5,
        low_level_channels=shapes["decoder.block1.0.weight"][0] if plus else 48,
        decoder_channels=head[1],
        logits_kernel_size=head[2],
        align_corners=True,
    )
    if timm is not None:
        layers: Iterable[Layer] = ()
    elif depth is None:
        layers = mobilenet_v2_layers(lambda index: f"encoder.features.{index}")
    else:
        layers = resnet_layers("encoder.", depth)
    return Foreign(
        library="segmentation-models-pytorch",
        config=config,
        layers=(
            *layers,
            *aspp_layers(aspp, separable=separable),
            *_head_layers(aspp, plus=plus),
            ("classifier", "segmentation_head.0", None),
        ),
        unused=unused_keys(r"^classification_head\.", r"^encoder\.(fc|classifier)\."),
        prefix=None if timm is None else ("backbone.net.", timm),
    )


_TIMM: Mapping[str, Any] = {
    "padding": "same", "stride_unit": "last", "low_level": "inner", "backbone_bn_eps": DERIVED,
    "pixel_mean": DERIVED, "pixel_std": DERIVED,
}  # fmt: skip
"""Of the conventions of PyTorch's re-implementations, what timm decides by itself."""


def _timm_prefix(shapes: Shapes, backbone: str | None) -> str | None:
    """Return what stands before the names of an encoder of timm's; None where there is none.

    Source: encoders/timm_universal.py; before 0.4, timm- encoders had no "model." in their names.
    """
    if backbone is None:
        return None
    inside = any(name.startswith("encoder.model.") for name in shapes)
    return "encoder.model." if inside else "encoder."


def name_backbone(settings: Mapping[str, Any]) -> str | None:
    """Return ``timm/NAME`` where a ``config.json`` of this library says that it is the encoder.

    Source: encoders/__init__.py, get_encoder.
    """
    name = settings.get("encoder_name")
    if not isinstance(name, str) or "decoder_atrous_rates" not in settings:
        return None
    if name.startswith("tu-"):
        return TIMM + name.removeprefix("tu-")
    if name.startswith(("timm-regnet", "timm-res2", "timm-resnest", "timm-gernet")):
        return TIMM + name.removeprefix("timm-")
    if name.startswith("timm-mobilenetv3"):
        return f"{TIMM}tf_{name.removeprefix('timm-')}"
    return None


def apply_settings(config: DeepLabConfig, settings: Mapping[str, Any]) -> DeepLabConfig:
    """Return the network that a ``config.json`` of this library describes.

    Other files of that name leave it as it is. The output stride is asked for before this.

    Raises:
        WeightsError: the rates are no numbers.
    """
    if "decoder_atrous_rates" not in settings or "encoder_name" not in settings:
        return config
    rates = settings["decoder_atrous_rates"]
    if not isinstance(rates, list) or not all(isinstance(rate, int) for rate in rates):
        raise WeightsError(f"config.json: decoder_atrous_rates is {rates!r}, expected numbers.")
    return dataclasses.replace(config, atrous_rates=tuple(rates))


def _head_layers(aspp: str, *, plus: bool) -> Iterator[Layer]:
    if plus:
        yield from conv_layers("head.post", "decoder.aspp.1", "decoder.aspp.2", separable="")
        yield "decoder.0.low_level", "decoder.block1.0", "decoder.block1.1"
        yield from conv_layers(
            "decoder.0.convs.0", "decoder.block2.0", "decoder.block2.1", separable=""
        )
    elif aspp == "decoder.0.":  # before 0.4 the decoder was one nn.Sequential
        yield "head.post", "decoder.1", "decoder.2"
    else:
        yield "head.post", "decoder.conv", "decoder.bn"
