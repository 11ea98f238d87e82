"""Weights that are not read here, told by their names, with what to do instead."""

from __future__ import annotations

import re

from deeplab.weights.naming import Shapes

_OWN = re.compile(r"backbone\.(stem\.(\d\.)?|blocks\.0\.)(\w+\.)?(conv|norm)\.weight")


def name_stranger(shapes: Shapes) -> str | None:
    """Return whose weights these are, and what to do; None where nobody here knows."""
    if "decode_head.conv_seg.weight" in shapes:
        return (
            "these are mmsegmentation's (OpenMMLab), but not a DeepLab of it that is known here: "
            "ASPPHead or DepthwiseSeparableASPPHead on ResNet-18, 50 or 101 (v1c) or MobileNetV2. "
            "Export the network to ONNX with mmdeploy; 'deeplab segment' runs .onnx files."
        )
    if any(re.match(r"sem_seg_head\.(decoder|predictor)\.", name) for name in shapes):
        return (
            "these are detectron2's, which are not read here. Export the network to ONNX; "
            "'deeplab segment' runs .onnx files."
        )
    if any(re.match(r"(backbone|head)\..*\._(conv|batch_norm)\.", name) for name in shapes):
        return (
            "these are PaddleSeg's, which are not read here. Export the network to ONNX with "
            "paddle2onnx; 'deeplab segment' runs .onnx files."
        )
    if "segmentation_head.0.weight" in shapes and any(n.startswith("decoder.") for n in shapes):
        return (
            "these are of segmentation-models-pytorch, but of another network than DeepLabV3 and "
            "DeepLabV3Plus (Unet, FPN, …). Export it to ONNX; 'deeplab segment' runs .onnx files."
        )
    if any(_OWN.match(name) for name in shapes):
        return (
            "these are weights of this package without their configuration. Give the release "
            "pair, NAME.safetensors with NAME.json beside it; a training keeps its best one in "
            "its folder."
        )
    return None
