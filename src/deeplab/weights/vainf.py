"""State dicts of VainF/DeepLabV3Plus-Pytorch: v3 and v3+ on ResNet-50, 101 and MobileNetV2.

Source: its network/_deeplab.py, network/modeling.py, network/backbone/{resnet,mobilenetv2}.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from deeplab.errors import WeightsError
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
    unused_keys,
)

_LOW_LEVEL_FEATURES = 4  # features 0..3 are kept apart, for the decoder


def recognise(shapes: Shapes, output_stride: int | None) -> Foreign | None:
    """Return the network, or None when the names are not VainF's.

    Raises:
        WeightsError: it is VainF's, but on a backbone that is not known here.
    """
    plus = "classifier.aspp.convs.0.0.weight" in shapes
    if not plus and "classifier.classifier.0.convs.0.0.weight" not in shapes:
        return None
    mobilenet = "backbone.low_level_features.0.0.weight" in shapes
    if not mobilenet and "backbone.layer4.0.conv1.weight" not in shapes:
        raise WeightsError(
            "backbone: of VainF's networks those on ResNet and MobileNetV2 are known here, "
            "not those on HRNet and Xception."
        )
    depth = None if mobilenet else resnet_depth(shapes, "backbone.")
    aspp = "classifier.aspp." if plus else "classifier.classifier.0."
    separable = ".body" if f"{aspp}convs.1.0.body.0.weight" in shapes else None
    last = "classifier.classifier.3" if plus else "classifier.classifier.4"
    config = configure(
        version="v3+" if plus else "v3",
        backbone=backbone_name(depth),
        num_classes=count_classes(shapes, f"{last}.weight"),
        output_stride=output_stride or 16,
        padding="block_input" if mobilenet else "symmetric",
        lost_stride_rate="old",
        backbone_bn_decay=0.99,  # main.py sets momentum 0.01 in the backbone
        atrous_rates=(6, 12, 18),
        aspp_separable=separable is not None,
        post_aspp="none" if plus else ("conv" if separable is None else "separable"),
        dropout=0.1,
        decoder_separable=separable is not None,
        decoder_order="low_level_first",
        align_corners=False,
    )
    backbone = mobilenet_v2_layers(_feature) if depth is None else resnet_layers("backbone.", depth)
    return Foreign(
        library="VainF/DeepLabV3Plus-Pytorch",
        config=config,
        layers=(
            *backbone,
            *aspp_layers(aspp, separable=separable),
            *_head_layers(plus=plus, separable=separable),
            ("classifier", last, None),
        ),
        unused=unused_keys(r"^backbone\.(fc|classifier)\."),
    )


def _head_layers(*, plus: bool, separable: str | None) -> Iterator[Layer]:
    at, ours = (0, "decoder.0.convs.0") if plus else (1, "head.post")
    yield from conv_layers(
        ours, f"classifier.classifier.{at}", f"classifier.classifier.{at + 1}", separable=separable
    )
    if plus:
        yield "decoder.0.low_level", "classifier.project.0", "classifier.project.1"


def _feature(index: int) -> str:
    # Both are slices of one nn.Sequential, and slices keep the numbers.
    level = "low" if index < _LOW_LEVEL_FEATURES else "high"
    return f"backbone.{level}_level_features.{index}"
