"""``.tflite`` files of DeepLab v3 on a MobileNet, float or integer, back into a trainable network.

Such a file has no names to go by, and batch norm is folded into weights and biases. So the graph
is walked from the photo to the classes, each convolution is told by its place, and each bias goes
into a batch norm that does nothing else: mean 0, variance 1 − epsilon, scale 1.
"""

from __future__ import annotations

from pathlib import Path

import torch

from deeplab.errors import ConfigError, ModelError, ModelNotFoundError, WeightsError
from deeplab.models.config import DeepLabConfig
from deeplab.models.deeplab import build
from deeplab.tflite import file as tflite_file
from deeplab.tflite.file import TfliteFile
from deeplab.tflite.metadata import Metadata, read_metadata
from deeplab.tflite.optimise import read_record
from deeplab.weights.report import ImportReport
from deeplab.weights.tflite_backbones import Backbone, walk_backbone
from deeplab.weights.tflite_card import read_frame, read_labels
from deeplab.weights.tflite_head import walk_head
from deeplab.weights.tflite_walk import CONVOLUTIONS, KNOWN, Walk


def read_tflite(path: str | Path) -> tuple[DeepLabConfig, dict[str, torch.Tensor], ImportReport]:
    """Return configuration, state dict and report of a ``.tflite`` file.

    A classifier gives the backbone only, and the report says so.

    Raises:
        ModelNotFoundError: there is no such file.
        WeightsError: it is cut off, or no network that is known here.
    """
    try:
        file = tflite_file.read(path)
    except ModelNotFoundError:
        raise
    except ModelError as error:
        raise WeightsError(str(error)) from error
    return from_tflite(file)


def from_tflite(
    file: TfliteFile,
) -> tuple[DeepLabConfig, dict[str, torch.Tensor], ImportReport]:
    """Return configuration, state dict and report of a file that is read; see `read_tflite`."""
    try:
        return _import(file)
    except (ModelError, ConfigError) as error:
        words = str(error).removeprefix(f"{file.name}: ")
        if record := read_record(file):
            words = (
                "'deeplab optimize' has rewritten its graph; import the file it was made from "
                f"(sha256 {record.source}). ({words})"
            )
        raise WeightsError(f"{file.name}: {words}") from error


def _import(file: TfliteFile) -> tuple[DeepLabConfig, dict[str, torch.Tensor], ImportReport]:
    if len(file.inputs) != 1 or len(file.tensors[file.inputs[0]].shape) != 4:
        raise WeightsError(f"the network does not take one picture. {KNOWN}")
    walk = Walk(file)
    backbone = walk_backbone(walk)
    settings = walk_head(walk, backbone)
    backbone_only = "num_classes" not in settings
    # A classifier's labels are of no use here, and may be too many for a mask.
    metadata = None if backbone_only else read_metadata(file)
    config, assumed = _configure(walk, backbone, settings, metadata)
    state, missing = _convert(walk, config)
    wanted = [name for name in missing if not (backbone_only and not name.startswith("backbone."))]
    if wanted:
        raise WeightsError(f"no operator of the file is {wanted[0]}. {KNOWN}")
    used = {walk.weights(operator) for operator in walk.operators()}
    convolutions = [op for op in file.operators if op.name in CONVOLUTIONS]
    rest = [op for op in convolutions if walk.weights(op) not in used]
    report = ImportReport(
        kept=tuple(file.tensors[walk.weights(op)].name for op in walk.layers.values()),
        found=_describe(walk, backbone, config, backbone_only=backbone_only),
        ignored=tuple(file.tensors[walk.weights(op)].name for op in rest),
        missing=tuple(missing),
        backbone_only=backbone_only,
        labels=None if backbone_only else read_labels(file),
        input_spec=None if backbone_only else read_frame(file),
        assumed=assumed,
    )
    return config, state, report


def _describe(
    walk: Walk, backbone: Backbone, config: DeepLabConfig, *, backbone_only: bool
) -> tuple[str, ...]:
    """Return what the file turned out to be: its network, and how it stores the weights."""
    network = f"{config.backbone} of depth multiplier {config.depth_multiplier:g}"
    if not backbone_only:
        network = f"DeepLab {config.version} on {network}, {config.num_classes} classes"
    tensors = [walk.file.tensors[walk.weights(op)] for op in walk.layers.values()]
    scales = {len(t.quantization.scale) > 1 for t in tensors if t.quantization is not None}
    stored = " and ".join(sorted({tensor.type.lower() for tensor in tensors}))
    if scales:
        stored += f", dequantised per {'channel' if True in scales else 'tensor'}"
    return (
        f"{network}, at output stride {backbone.output_stride}",
        f"weights of {stored}, with batch norm folded into them",
    )


# ------------------------------------------------------------------------------- configuration


def _configure(
    walk: Walk, backbone: Backbone, settings: dict[str, object], metadata: Metadata | None
) -> tuple[DeepLabConfig, dict[str, str]]:
    """Return the configuration, and what of it the file does not say."""
    assumed: dict[str, str] = {}
    output_stride = backbone.output_stride
    picture = walk.file.tensors[walk.file.inputs[0]]
    values = dict(settings)
    if picture.quantization is not None:
        # The integers are the photo's own 0..255: their meaning is the normalisation.
        signed = 128.0 if picture.type == "INT8" else 0.0
        values["pixel_mean"] = (float(picture.quantization.zero_point[0]) + signed,) * 3
        values["pixel_std"] = (float(1 / picture.quantization.scale[0]),) * 3
    elif metadata and metadata.mean and metadata.std:
        # One number stands for all channels.
        values["pixel_mean"], values["pixel_std"] = (
            given if len(given) == 3 else given[:1] * 3 for given in (metadata.mean, metadata.std)
        )
    elif values:
        assumed["normalisation"] = "(x − 127.5) / 127.5, as the original's"
    config = DeepLabConfig(
        backbone=backbone.name,
        depth_multiplier=backbone.depth_multiplier,
        divisible_by=backbone.divisible_by,
        # A classifier's stride of 32 is not what a segmentation wants.
        output_stride=output_stride if settings else 16,
        **{"version": "v3", **values},  # type: ignore[arg-type]
    )
    return config, assumed


# -------------------------------------------------------------------------------------- weights


def _convert(walk: Walk, config: DeepLabConfig) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the state dict of what was found, and the keys of what was not."""
    with torch.device("meta"):
        expected = build(config).state_dict()
    epsilons = {"backbone": config.backbone_bn_eps or 0.0}
    state: dict[str, torch.Tensor] = {}
    missing = []
    for key, wanted in expected.items():
        path, _, leaf = key.rpartition(".")
        layer, _, part = path.rpartition(".")
        if part not in ("conv", "norm"):
            layer, part = path, "conv"
        operator = walk.layers.get(layer)
        if operator is None:
            missing.append(key)
            continue
        if part == "conv" and leaf == "weight":
            axes = (3, 0, 1, 2) if operator.name == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2)
            value = torch.from_numpy(walk.kernel(layer).transpose(axes).copy())
        elif leaf == "bias":
            value = torch.from_numpy(walk.bias(layer).copy())  # the file's are read-only
        else:
            constant = {
                "weight": 1.0,
                "running_mean": 0.0,
                "running_var": 1.0 - epsilons.get(key.split(".")[0], config.head_bn_eps),
            }[leaf]
            value = torch.full(wanted.shape, constant)
        if value.shape != wanted.shape:
            raise WeightsError(
                f"{layer}: the file has the shape {tuple(value.shape)}, a {config.backbone} of "
                f"depth multiplier {config.depth_multiplier} has {tuple(wanted.shape)}. {KNOWN}"
            )
        state[key] = value
    return state, missing
