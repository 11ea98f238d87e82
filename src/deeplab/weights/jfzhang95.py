"""State dicts of jfzhang95/pytorch-deeplab-xception: v3+ on ResNet-101 and MobileNetV2.

Source: its modeling/{deeplab,aspp,decoder}.py, modeling/backbone/{resnet,mobilenet}.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from deeplab.errors import WeightsError
from deeplab.models.mobilenet_v2 import BLOCKS
from deeplab.weights.naming import (
    Foreign,
    Layer,
    Shapes,
    backbone_name,
    configure,
    count_classes,
    resnet_depth,
    resnet_layers,
    unused_keys,
)


def recognise(shapes: Shapes, output_stride: int | None) -> Foreign | None:
    """Return the network, or None when the names are not jfzhang95's.

    Raises:
        WeightsError: it is jfzhang95's, but on a backbone that is not known here.
    """
    if "aspp.aspp1.atrous_conv.weight" not in shapes or "decoder.last_conv.8.weight" not in shapes:
        return None
    mobilenet = "backbone.features.0.0.weight" in shapes
    # Its DRN has the names of a ResNet, and more of them.
    resnet = "backbone.layer4.0.conv3.weight" in shapes and "backbone.bn1.weight" in shapes
    if not mobilenet and (
        not resnet or any(name.startswith("backbone.layer5.") for name in shapes)
    ):
        raise WeightsError(
            "backbone: of jfzhang95's networks those on ResNet and MobileNetV2 are known here, "
            "not those on Xception and DRN."
        )
    depth = None if mobilenet else resnet_depth(shapes, "backbone.")
    stride = output_stride or 16
    config = configure(
        version="v3+",
        backbone=backbone_name(depth),
        num_classes=count_classes(shapes, "decoder.last_conv.8.weight"),
        output_stride=stride,
        multi_grid=(1, 1, 1) if mobilenet else (1, 2, 4),
        padding="block_input_only" if mobilenet else "symmetric",
        lost_stride_rate="old_in_group" if mobilenet else "new",
        atrous_rates=(6, 12, 18),
        aspp_separable=False,
        dropout=0.5,
        decoder_separable=False,
        decoder_convs=2,
        align_corners=True,
    )
    backbone = _mobilenet_v2_layers() if depth is None else resnet_layers("backbone.", depth)
    return Foreign(
        library="jfzhang95/pytorch-deeplab-xception",
        config=config,
        layers=(*backbone, *_head_layers(), ("classifier", "decoder.last_conv.8", None)),
        # Its two halves of the features are there a second time, under names of their own.
        unused=unused_keys(r"^backbone\.(low|high)_level_features\.", r"^backbone\.fc\."),
    )


def _head_layers() -> Iterator[Layer]:
    for branch in range(4):
        theirs = f"aspp.aspp{branch + 1}"
        yield f"head.branches.{branch}", f"{theirs}.atrous_conv", f"{theirs}.bn"
    yield "head.pooling.project", "aspp.global_avg_pool.1", "aspp.global_avg_pool.2"
    yield "head.project", "aspp.conv1", "aspp.bn1"
    yield "decoder.0.low_level", "decoder.conv1", "decoder.bn1"
    for conv, at in enumerate((0, 4)):
        theirs = "decoder.last_conv"
        yield f"decoder.0.convs.{conv}", f"{theirs}.{at}", f"{theirs}.{at + 1}"


def _mobilenet_v2_layers() -> Iterator[Layer]:
    yield "backbone.stem", "backbone.features.0.0", "backbone.features.0.1"
    for index, spec in enumerate(BLOCKS):
        ours, theirs = f"backbone.blocks.{index}", f"backbone.features.{index + 1}.conv"
        parts = (
            ["expand", "depthwise", "project"] if spec.expansion > 1 else ["depthwise", "project"]
        )
        for at, part in enumerate(parts):
            yield f"{ours}.{part}", f"{theirs}.{3 * at}", f"{theirs}.{3 * at + 1}"
