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


def name_file(head: bytes, suffix: str) -> str | None:
    """Return what a file of another kind is, and what to do; None where nobody here knows."""
    if head.startswith(b"\x89HDF"):
        return (
            "is a file of Keras (.h5), which is not read here. Give the TensorFlow checkpoint, or "
            "export the network: tf.lite.TFLiteConverter.from_keras_model(model) makes a .tflite "
            "that 'deeplab segment' runs as it is."
        )
    if suffix in (".onnx", ".xml", ".pte", ".mlpackage", ".engine", ".trt"):
        return (
            f"is a deployed network ({suffix}), not weights to go on from. Run it as it is, where "
            "'deeplab segment' can, or give the checkpoint that it was exported from."
        )
    if head.startswith((b"<!DOC", b"<html", b"<HTML", b"<!doc")):
        return "is a web page: the download went wrong. Download the file itself."
    if head.startswith(b"version https://"[: len(head)]) and head:
        return "is a Git LFS pointer: the file itself was not downloaded. Run 'git lfs pull'."
    if not head:
        return "is empty: the download or the copy went wrong."
    return None


def name_folder(names: tuple[str, ...]) -> str | None:
    """Return what a folder of another kind is, and what to do; None where nobody here knows."""
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        return (
            "is a checkpoint of torch.distributed in parts (FSDP). Join them first: python -m "
            "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth"
        )
    if "zero_to_fp32.py" in names or "latest" in names:
        return (
            "is a checkpoint of DeepSpeed. Join its parts first: python zero_to_fp32.py . "
            "weights.pth; or give the file mp_rank_00_model_states.pt in it."
        )
    if "optimizer.pt" in names or "trainer_state.json" in names:
        return "is a folder of a training, but without model.safetensors or pytorch_model.bin."
    return None
