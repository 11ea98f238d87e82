"""``.tflite`` files of DeepLab v3 on MobileNetV2, float or integer, back into a trainable network.

Such a file has no names to go by, and batch norm is folded into weights and biases. So the graph
is walked from the photo to the classes, each convolution is told by its place, and each bias goes
into a batch norm that does nothing else: mean 0, variance 1 − epsilon, scale 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from deeplab import tflite_file
from deeplab.errors import ConfigError, ModelError, ModelNotFoundError, WeightsError
from deeplab.models.config import DeepLabConfig
from deeplab.models.deeplab import build
from deeplab.models.layers import plan_strides
from deeplab.models.mobilenet_v2 import BLOCKS
from deeplab.tflite_file import Operator, TfliteFile
from deeplab.tflite_metadata import Metadata, read_metadata
from deeplab.weights.naming import mobilenet_v2_width
from deeplab.weights.report import ImportReport

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_POOLINGS = ("AVERAGE_POOL_2D", "MEAN")
_RESIZES = ("RESIZE_BILINEAR", "TILE", "BROADCAST_TO")
_PRECISIONS = ("QUANTIZE", "DEQUANTIZE")


@dataclass
class _Walk:
    """What was found on the way: our layers in order, and the operator that is each."""

    file: TfliteFile
    layers: dict[str, Operator] = field(default_factory=dict)
    _sources: dict[int, int] = field(default_factory=dict)
    _readers: dict[int, list[Operator]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for operator in self.file.operators:
            if not operator.inputs or not operator.outputs:
                raise WeightsError(f"a {operator.name} reads or writes nothing: damaged file.")
            if operator.name in _PRECISIONS:
                self._sources[operator.outputs[0]] = self.source(operator.inputs[0])
                continue
            for tensor in operator.inputs:
                self._readers.setdefault(self.source(tensor), []).append(operator)

    def source(self, tensor: int) -> int:
        """Return the tensor that this one is, but for its precision."""
        return self._sources.get(tensor, tensor)

    def readers(self, tensor: int) -> list[Operator]:
        """Return the operators that read a tensor, at whatever precision."""
        return self._readers.get(self.source(tensor), [])

    def weights(self, operator: Operator) -> int:
        """Return the tensor of a convolution's weights."""
        if len(operator.inputs) < 2 or operator.inputs[1] < 0:
            raise WeightsError(f"a {operator.name} has no weights: damaged file.")
        return self.source(operator.inputs[1])

    def take(self, layer: str, operator: Operator) -> int:
        """Note an operator as a layer and return the tensor it writes."""
        self.layers[layer] = operator
        return operator.outputs[0]

    def only(self, tensor: int, *kinds: str, what: str) -> Operator:
        """Return the one reader of a tensor, which must be of one of these kinds."""
        readers = self.readers(tensor)
        if len(readers) != 1 or readers[0].name not in kinds:
            raise WeightsError(
                f"{what}: expected {' or '.join(kinds)}, got "
                f"{' and '.join(reader.name for reader in readers) or 'nothing'}. {_KNOWN}"
            )
        return readers[0]

    def shape(self, operator: Operator) -> tuple[int, ...]:
        """Return the shape of a convolution's weights: OHWI, or 1HWC where it is depthwise."""
        tensor = self.file.tensors[self.weights(operator)]
        if not tensor.is_constant or len(tensor.shape) != 4:
            raise WeightsError(f"the weights of a {operator.name} are not in the file. {_KNOWN}")
        return tensor.shape

    def kernel(self, operator: Operator) -> npt.NDArray[np.float32]:
        """Return a convolution's weights, in the layout of ``shape``."""
        self.shape(operator)
        return self.file.tensors[self.weights(operator)].dequantize()


_KNOWN = (
    "Known here are .tflite files of DeepLab v3 on MobileNetV2 (any depth multiplier, float or "
    "integer) and MobileNetV2 classifiers. For another network import its checkpoint."
)


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
        raise WeightsError(f"{file.name}: {words}") from error


def _import(file: TfliteFile) -> tuple[DeepLabConfig, dict[str, torch.Tensor], ImportReport]:
    if len(file.inputs) != 1 or len(file.tensors[file.inputs[0]].shape) != 4:
        raise WeightsError(f"the network does not take one picture. {_KNOWN}")
    walk = _Walk(file)
    features = _walk_backbone(walk)
    settings = _walk_head(walk, features)
    backbone_only = "num_classes" not in settings
    # A classifier's labels are of no use here, and may be too many for a mask.
    metadata = None if backbone_only else read_metadata(file)
    config, assumed = _configure(walk, settings, metadata)
    state, missing = _convert(walk, config)
    wanted = [name for name in missing if not (backbone_only and not name.startswith("backbone."))]
    if wanted:
        raise WeightsError(f"no operator of the file is {wanted[0]}. {_KNOWN}")
    used = {id(operator) for operator in walk.layers.values()}
    rest = [op for op in file.operators if op.name in _CONVOLUTIONS and id(op) not in used]
    report = ImportReport(
        kept=tuple(file.tensors[walk.weights(op)].name for op in walk.layers.values()),
        ignored=tuple(file.tensors[walk.weights(op)].name for op in rest),
        missing=tuple(missing),
        backbone_only=backbone_only,
        labels=metadata.labels if metadata else None,
        assumed=assumed,
    )
    return config, state, report


def _stride(operator: Operator) -> int:
    """Return the stride of a convolution; rows and columns alike."""
    return int(operator.options.get("stride_h", 1))


def _rate(operator: Operator) -> int:
    """Return the dilation of a convolution; rows and columns alike."""
    return int(operator.options.get("dilation_h_factor", 1))


# ------------------------------------------------------------------------------------- the walk


def _walk_backbone(walk: _Walk) -> int:
    """Note stem and inverted residuals; return the tensor of the last features."""
    stem = walk.only(walk.file.inputs[0], "CONV_2D", what="the first operator")
    if _stride(stem) != 2 or walk.shape(stem)[1:3] != (3, 3):
        raise WeightsError(f"the first convolution is not 3×3 with stride 2. {_KNOWN}")
    x = walk.take("backbone.stem", stem)
    for index, spec in enumerate(BLOCKS):
        what = f"backbone, block {index}"
        y = x
        if spec.expansion > 1:
            expand = [op for op in walk.readers(y) if op.name == "CONV_2D"]
            if len(expand) != 1:
                raise WeightsError(f"{what}: {len(expand)} convolutions to expand it. {_KNOWN}")
            if walk.shape(expand[0])[1:3] != (1, 1):
                raise WeightsError(
                    f"{what}: the expansion is {walk.shape(expand[0])[1]}×"
                    f"{walk.shape(expand[0])[2]}, which is MobileNet EdgeTPU, not MobileNetV2. "
                    f"{_KNOWN}"
                )
            y = walk.take(f"backbone.blocks.{index}.expand", expand[0])
        depthwise = walk.only(y, "DEPTHWISE_CONV_2D", "CONV_2D", what=what)
        if depthwise.name == "CONV_2D":
            raise WeightsError(
                f"{what}: a whole convolution where MobileNetV2 filters each channel; this is "
                f"another network, such as MobileNet EdgeTPU. {_KNOWN}"
            )
        y = walk.take(f"backbone.blocks.{index}.depthwise", depthwise)
        project = walk.only(y, "CONV_2D", what=what)
        y = walk.take(f"backbone.blocks.{index}.project", project)
        sums = [op for op in walk.readers(y) if op.name == "ADD"]
        sums = [op for op in sums if x in map(walk.source, op.inputs)]
        x = sums[0].outputs[0] if sums else y
    return x


def _walk_head(walk: _Walk, features: int) -> dict[str, object]:
    """Note the head's convolutions; return what they say about the configuration."""
    readers = walk.readers(features)
    pooling = [op for op in readers if op.name in _POOLINGS]
    convs = [op for op in readers if op.name in _CONVOLUTIONS]
    others = [op.name for op in readers if op.name not in (*_POOLINGS, *_CONVOLUTIONS)]
    if not pooling and len(convs) == 1:  # a classifier goes on with one 1×1 convolution
        return {}
    if len(pooling) != 1 or not convs or others:
        kinds = ", ".join(op.name for op in readers)
        raise WeightsError(f"the features go to {kinds or 'nothing'}: no DeepLab v3. {_KNOWN}")
    project = walk.only(pooling[0].outputs[0], "CONV_2D", what="image pooling")
    resized = walk.only(
        walk.take("head.pooling.project", project), *_RESIZES, "CONCATENATION", what="image pooling"
    )
    pooled = project.outputs[0] if resized.name == "CONCATENATION" else resized.outputs[0]
    join = walk.only(pooled, "CONCATENATION", what="image pooling")
    order = [walk.source(tensor) for tensor in join.inputs]
    rates: list[int] = []
    branches = {walk.source(pooled): "pooling"}
    separable = False
    for conv in sorted(convs, key=_rate):
        last = conv
        layer = f"head.branches.{len(branches) - 1}"
        if conv.name == "DEPTHWISE_CONV_2D":
            separable = True
            last = walk.only(walk.take(f"{layer}.depthwise", conv), "CONV_2D", what=layer)
            layer += ".pointwise"
        branches[walk.take(layer, last)] = layer
        if _rate(conv) > 1:
            rates.append(_rate(conv))
    if order != list(branches):
        raise WeightsError(
            f"the branches are joined in an order that is not the original's. {_KNOWN}"
        )
    x = walk.take("head.project", walk.only(join.outputs[0], "CONV_2D", what="projection"))
    classes = walk.only(x, "CONV_2D", what="classes")
    logits = walk.take("classifier", classes)
    resize = walk.only(logits, "RESIZE_BILINEAR", what="logits")
    return {
        "num_classes": walk.shape(classes)[0],
        "head_channels": walk.shape(walk.layers["head.project"])[0],
        "atrous_rates": tuple(rates),
        "aspp_separable": separable,
        "align_corners": bool(resize.options.get("align_corners")),
        "pooling": pooling[0],
    }


# ------------------------------------------------------------------------------- configuration


def _configure(
    walk: _Walk, settings: dict[str, object], metadata: Metadata | None
) -> tuple[DeepLabConfig, dict[str, str]]:
    """Return the configuration, and what of it the file does not say."""
    assumed: dict[str, str] = {}
    strides = [op for layer, op in walk.layers.items() if layer.startswith("backbone.")]
    output_stride = int(np.prod([_stride(op) for op in strides]))
    picture = walk.file.tensors[walk.file.inputs[0]]
    values = dict(settings)
    pooling = values.pop("pooling", None)
    if isinstance(pooling, Operator) and pooling.name == "AVERAGE_POOL_2D":
        values["image_pooling_crop_size"] = (
            (int(pooling.options.get("filter_height", 1)) - 1) * output_stride + 1,
            (int(pooling.options.get("filter_width", 1)) - 1) * output_stride + 1,
        )
    if values.get("atrous_rates"):
        values["rates_stated_at"] = output_stride
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
    names = ["backbone.stem", *(f"backbone.blocks.{i}.project" for i in range(len(BLOCKS)))]
    widths = tuple(int(walk.shape(walk.layers[name])[0]) for name in names)
    multiplier, divisor = mobilenet_v2_width(widths)
    classifier = output_stride == 32
    config = DeepLabConfig(
        version="v3",
        backbone="mobilenet_v2",
        depth_multiplier=multiplier,
        divisible_by=divisor,
        output_stride=16 if classifier else output_stride,
        **values,  # type: ignore[arg-type]
    )
    _check_plan(walk, 32 if classifier else output_stride)
    return config, assumed


def _check_plan(walk: _Walk, output_stride: int) -> None:
    """Refuse a backbone whose strides and rates are not the original's."""
    plan = plan_strides([2, *(spec.stride for spec in BLOCKS)], output_stride)
    names = ["backbone.stem", *(f"backbone.blocks.{i}.depthwise" for i in range(len(BLOCKS)))]
    for name, expected in zip(names, plan, strict=True):
        got = (_stride(walk.layers[name]), _rate(walk.layers[name]))
        if got != expected:
            raise WeightsError(
                f"{name} has (stride, rate) {got}, expected {expected} at output stride "
                f"{output_stride}. {_KNOWN}"
            )


# -------------------------------------------------------------------------------------- weights


def _convert(walk: _Walk, config: DeepLabConfig) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the state dict of what was found, and the keys of what was not."""
    with torch.device("meta"):
        expected = build(config).state_dict()
    epsilons = {"backbone": config.backbone_bn_eps or 0.0, "head": config.head_bn_eps}
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
            value = torch.from_numpy(walk.kernel(operator).transpose(axes).copy())
        elif leaf == "bias":
            value = torch.from_numpy(_bias(walk, operator).copy())  # the file's are read-only
        else:
            constant = {
                "weight": 1.0,
                "running_mean": 0.0,
                "running_var": 1.0 - epsilons[key.split(".")[0]],
            }[leaf]
            value = torch.full(wanted.shape, constant)
        if value.shape != wanted.shape:
            raise WeightsError(
                f"{layer}: the file has the shape {tuple(value.shape)}, a MobileNetV2 of depth "
                f"multiplier {config.depth_multiplier} has {tuple(wanted.shape)}. {_KNOWN}"
            )
        state[key] = value
    return state, missing


def _bias(walk: _Walk, operator: Operator) -> npt.NDArray[np.float32]:
    number = walk.source(operator.inputs[2]) if len(operator.inputs) > 2 else -1
    if number < 0 or not walk.file.tensors[number].is_constant:
        channels = 3 if operator.name == "DEPTHWISE_CONV_2D" else 0
        return np.zeros(walk.shape(operator)[channels], np.float32)
    return walk.file.tensors[number].dequantize().copy()
