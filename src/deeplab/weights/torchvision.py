"""State dicts of torchvision: ``deeplabv3_resnet50``, ``_resnet101``, ``_mobilenet_v3_large``.

Source: torchvision/models/segmentation/deeplabv3.py, models/resnet.py, models/mobilenetv3.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from deeplab.errors import WeightsError
from deeplab.models.config import DeepLabConfig
from deeplab.weights.naming import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Foreign,
    Layer,
    Shapes,
    aspp_layers,
    resnet_depth,
    resnet_layers,
    shape_of,
    unused_keys,
)


def recognise(shapes: Shapes, output_stride: int | None) -> Foreign | None:
    """Return the network, or None when the names are not torchvision's.

    Raises:
        WeightsError: it is torchvision's, but no DeepLab that is known here.
    """
    if "classifier.low_classifier.weight" in shapes or "classifier.cbr.0.weight" in shapes:
        raise WeightsError(
            "state dict: this is torchvision's LRASPP, which is no DeepLab. "
            "Use deeplabv3_mobilenet_v3_large."
        )
    if "classifier.0.convs.0.0.weight" not in shapes:
        return None
    mobilenet = "backbone.0.0.weight" in shapes
    depth = None if mobilenet else resnet_depth(shapes, "backbone.")
    # torchvision dilates so that ResNets end at 8 and MobileNetV3 at 16, with the same rates.
    stride = output_stride or (16 if mobilenet else 8)
    config = DeepLabConfig(
        version="v3",
        backbone="mobilenet_v3_large" if mobilenet else f"resnet_v1_{depth}",
        num_classes=shape_of(shapes, "classifier.4.weight")[0],
        output_stride=stride,
        padding="symmetric",
        lost_stride_rate="new" if mobilenet else "old",
        stride_unit="first",
        gate_slope=1 / 6,
        backbone_bn_eps=1e-3 if mobilenet else 1e-5,
        backbone_bn_decay=0.99 if mobilenet else 0.9,
        head_bn_decay=0.9,
        atrous_rates=(12, 24, 36),
        rates_stated_at=stride,
        aspp_separable=False,
        pooling_first=False,
        post_aspp="conv",
        dropout=0.5,
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
        align_corners=False,
    )
    backbone = _mobilenet_v3_layers(shapes) if depth is None else resnet_layers("backbone.", depth)
    return Foreign(
        library="torchvision",
        config=config,
        layers=(
            *backbone,
            *aspp_layers("classifier.0."),
            ("head.post", "classifier.1", "classifier.2"),
            ("classifier", "classifier.4", None),
        ),
        unused=unused_keys(r"^aux_classifier\."),
    )


def _mobilenet_v3_layers(shapes: Shapes) -> Iterator[Layer]:
    yield "backbone.stem", "backbone.0.0", "backbone.0.1"
    index = 1
    while f"backbone.{index}.block.0.0.weight" in shapes:
        ours, theirs = f"backbone.blocks.{index - 1}", f"backbone.{index}.block"
        squeeze = [at for at in (1, 2) if f"{theirs}.{at}.fc1.weight" in shapes]
        parts = ["expand"] if f"{theirs}.{2 + len(squeeze)}.0.weight" in shapes else []
        parts += ["depthwise", *["squeeze"] * len(squeeze), "project"]
        for at, part in enumerate(parts):
            if part == "squeeze":
                yield f"{ours}.squeeze.reduce", f"{theirs}.{at}.fc1", None
                yield f"{ours}.squeeze.expand", f"{theirs}.{at}.fc2", None
            else:
                yield f"{ours}.{part}", f"{theirs}.{at}.0", f"{theirs}.{at}.1"
        index += 1
    yield "backbone.last", f"backbone.{index}.0", f"backbone.{index}.1"
