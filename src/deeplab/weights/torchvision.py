"""State dicts of torchvision: ``deeplabv3_resnet50``, ``_resnet101``, ``_mobilenet_v3_large``.

Its ImageNet classifiers on those backbones, and on MobileNetV2, give a backbone to train from.

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
    count_classes,
    mobilenet_v2_layers,
    resnet_depth,
    resnet_layers,
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
        num_classes=count_classes(shapes, "classifier.4.weight"),
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
    backbone = (
        _mobilenet_v3_layers(shapes, "backbone.")
        if depth is None
        else resnet_layers("backbone.", depth)
    )
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


def recognise_classifier(shapes: Shapes, output_stride: int | None) -> Foreign | None:
    """Return the backbone of an ImageNet classifier, or None when the names are not torchvision's.

    Raises:
        WeightsError: a ResNet whose depth is not known here.
    """
    if "layer1.0.conv1.weight" in shapes and "conv1.weight" in shapes:
        depth = resnet_depth(shapes, "")
        backbone, layers = f"resnet_v1_{depth}", tuple(resnet_layers("", depth))
    elif "features.1.conv.0.0.weight" in shapes:
        backbone, layers = "mobilenet_v2", tuple(mobilenet_v2_layers(lambda i: f"features.{i}"))
    elif "features.1.block.0.0.weight" in shapes:
        size = "large" if "features.16.0.weight" in shapes else "small"
        backbone = f"mobilenet_v3_{size}"
        layers = tuple(_mobilenet_v3_layers(shapes, "features."))
    else:
        return None
    v3 = backbone.startswith("mobilenet_v3")
    config = DeepLabConfig(
        version="v3",
        backbone=backbone,
        output_stride=output_stride or 16,
        padding="symmetric",
        stride_unit="first",
        gate_slope=1 / 6,
        backbone_bn_eps=1e-3 if v3 else 1e-5,
        backbone_bn_decay=0.99 if v3 else 0.9,
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
    )
    return Foreign(
        library="torchvision (classifier)",
        config=config,
        layers=layers,
        unused=unused_keys(r"^(fc|classifier)\.", r"^features\.18\."),
        backbone_only=True,
    )


def _mobilenet_v3_layers(shapes: Shapes, prefix: str) -> Iterator[Layer]:
    yield "backbone.stem", f"{prefix}0.0", f"{prefix}0.1"
    index = 1
    while f"{prefix}{index}.block.0.0.weight" in shapes:
        ours, theirs = f"backbone.blocks.{index - 1}", f"{prefix}{index}.block"
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
    yield "backbone.last", f"{prefix}{index}.0", f"{prefix}{index}.1"
