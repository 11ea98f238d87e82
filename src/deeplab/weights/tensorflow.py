"""Variables of the original TensorFlow release, and its flags, in our terms.

The original names a convolution by its scope: ``SCOPE/weights`` (height, width, in, out),
``SCOPE/depthwise_weights`` (height, width, channel, 1), ``SCOPE/biases`` and
``SCOPE/BatchNorm/{gamma,beta,moving_mean,moving_variance}``. ``scopes`` says which scope belongs
to which of our layers; everything else follows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from deeplab.errors import WeightsError
from deeplab.models.config import DeepLabConfig
from deeplab.models.deeplab import DeepLab, build
from deeplab.models.nas import CELLS, NASNet
from deeplab.weights.checkpoints import check_finite
from deeplab.weights.report import ImportReport
from deeplab.weights.tensorflow_config import guess_config

Variables = Mapping[str, NDArray[Any]]

# Variables that training leaves beside the weights: slots, averages, steps, fake quantisation.
_BOOKKEEPING = re.compile(
    r"(^|/)(global_step|beta1_power|beta2_power)$"
    r"|/(Momentum|Adam|Adam_1|RMSProp|RMSProp_1|biased|local_step)$"
    r"|/ExponentialMovingAverage$"
    r"|quant(_\d+)?/(min|max)(/|$)"
)
EMA = "/ExponentialMovingAverage"
"""What the name of a weight's moving average ends with."""
_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def from_tensorflow(variables: Variables, config: DeepLabConfig) -> dict[str, torch.Tensor]:
    """Return the state dict of ``build(config)`` from variables of the original.

    Args:
        variables: name to array, as in a checkpoint: convolutions are HWIO.
        config: the network; ``guess_config`` finds one where it is not known.

    Raises:
        WeightsError: a variable is missing, left over, or of another shape.
    """
    return read_tensorflow(variables, config)[1]


def read_tensorflow(
    variables: Variables,
    config: DeepLabConfig | None = None,
    *,
    prefer_ema: bool = False,
    strict: bool = True,
) -> tuple[DeepLabConfig, dict[str, torch.Tensor], ImportReport]:
    """Return configuration, state dict, and what was kept, ignored and missed.

    Args:
        variables: name to array, convolutions in HWIO.
        config: the network; None guesses it from names and shapes.
        prefer_ema: take the moving average of a weight where there is one.
        strict: refuse missing and left-over variables. Otherwise they are reported only: a
            classification checkpoint gives a backbone.

    Raises:
        WeightsError: as ``from_tensorflow``.
    """
    config = config or guess_config(variables)
    expected = expected_variables(config)
    state: dict[str, torch.Tensor] = {}
    kept, missing, wrong = [], [], []
    for key, (name, shape) in expected.items():
        source = name + EMA if prefer_ema and name + EMA in variables else name
        if source not in variables:
            missing.append(name)
            continue
        # A constant of a graph may stand for gigabytes: its size is looked at first.
        fits = np.size(variables[source]) == math.prod(shape)
        value = _to_torch(variables[source], source, name) if fits else None
        if value is None or tuple(value.shape) != shape:
            wrong.append(f"{source} has {tuple(np.shape(variables[source]))}")
            continue
        state[key] = value
        kept.append(source)
    known = set(kept) | {name for name, _ in expected.values()}
    rest = [name for name in variables if name not in known]
    ignored = [name for name in rest if _BOOKKEEPING.search(name)]
    ignored += [name for name in known if name in variables and name not in kept and prefer_ema]
    unexpected = [name for name in rest if not _BOOKKEEPING.search(name)]
    if wrong or (strict and (missing or unexpected)) or not kept:
        raise WeightsError(_complain(config, missing=missing, unexpected=unexpected, wrong=wrong))
    report = ImportReport(
        kept=tuple(kept), ignored=tuple(ignored + unexpected), missing=tuple(missing)
    )
    return config, state, report


def _to_torch(found: NDArray[Any], source: str, name: str) -> torch.Tensor | None:
    """Return a variable in our layout; None where it has not the axes of its kind.

    Raises:
        WeightsError: its values are no weights.
    """
    value = np.asarray(found)
    if value.dtype.kind != "f":
        raise WeightsError(
            f"'{source}' holds {value.dtype}, expected floats. Give the network as it was before "
            "it was quantised or packed."
        )
    axes = None
    if name.endswith("/depthwise_weights"):
        axes = (2, 3, 0, 1)  # HWC1 to C1HW
    elif name.endswith(("/weights", "/pointwise_weights")):
        axes = (3, 2, 0, 1)  # HWIO to OIHW
    if axes is not None:
        if value.ndim != len(axes):
            return None
        value = value.transpose(axes)
    with np.errstate(over="ignore"):
        weight = torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))
    check_finite(source, weight)
    return weight


def _complain(
    config: DeepLabConfig, *, missing: list[str], unexpected: list[str], wrong: list[str]
) -> str:
    parts = []
    for what, names in (("missing", missing), ("unexpected", unexpected), ("other shape", wrong)):
        if names:
            shown = ", ".join(sorted(names)[:8]) + (", …" if len(names) > 8 else "")
            parts.append(f"{what} ({len(names)}): {shown}")
    return (
        f"these variables are not a {config.version} {config.backbone} of this configuration: "
        f"{'; '.join(parts)}. Check version, backbone, depth_multiplier, num_classes and "
        "decoder_output_stride, or let guess_config(variables) find them; strict=False takes what "
        "fits."
    )


def expected_variables(config: DeepLabConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return, for each key of our state dict, the original's name and our shape."""
    with torch.device("meta"):
        model = build(config)
    table = dict(scopes(model))
    expected = {}
    for key, value in model.state_dict().items():
        layer, part, leaf = _split(key)
        scope = table[layer]
        if isinstance(scope, NasNames):
            name = f"{scope.norm}/{_NORM[leaf]}" if part == "norm" else scope.weights
        elif part == "norm":
            name = f"{scope}/BatchNorm/{_NORM[leaf]}"
        elif leaf == "bias":
            name = f"{scope}/biases"
        else:
            depthwise = value.shape[1] == 1 and layer.endswith("depthwise")
            name = f"{scope}/{'depthwise_weights' if depthwise else 'weights'}"
        expected[key] = (name, tuple(value.shape))
    return expected


def _split(key: str) -> tuple[str, str, str]:
    """``a.b.conv.weight`` to (``a.b``, ``conv``, ``weight``); ``classifier.weight`` likewise."""
    layer, _, leaf = key.rpartition(".")
    head, _, part = layer.rpartition(".")
    return (head, part, leaf) if part in ("conv", "norm") else (layer, "conv", leaf)


class NasNames(NamedTuple):
    """What a convolution of a NAS backbone is called, and its batch norm, which stands apart."""

    weights: str
    norm: str = ""


def scopes(model: DeepLab) -> Iterator[tuple[str, str | NasNames]]:
    """Yield (our layer, the original's scope) for every convolution of a network.

    Raises:
        WeightsError: the original has no such network.
    """
    config = model.config
    if config.version in ("v1", "v2"):
        raise WeightsError(
            f"The TensorFlow release has no {config.version}; it has v3 and v3+. "
            "Import these weights from a PyTorch state dict."
        )
    yield from _BACKBONE_SCOPES[config.family](model)
    yield from _head_scopes(model)
    yield from _decoder_scopes(config)
    yield "classifier", "logits/semantic"


_MOBILENETS = {
    "mobilenet_v2": "MobilenetV2",
    "mobilenet_v3": "MobilenetV3",
    "mobilenet_edgetpu": "MobilenetEdgeTPU",
}


def _mobilenet_scopes(model: DeepLab) -> Iterator[tuple[str, str]]:
    root = _MOBILENETS[model.config.family]
    yield "backbone.stem", f"{root}/Conv"
    yield "backbone.last", f"{root}/Conv_1"
    for index in range(len(model.backbone.blocks)):  # type: ignore[arg-type]
        scope = f"{root}/expanded_conv" + (f"_{index}" if index else "")
        for part in ("expand", "depthwise", "project"):
            yield f"backbone.blocks.{index}.{part}", f"{scope}/{part}"
        yield f"backbone.blocks.{index}.squeeze.reduce", f"{scope}/squeeze_excite/Conv"
        yield f"backbone.blocks.{index}.squeeze.expand", f"{scope}/squeeze_excite/Conv_1"


def _resnet_scopes(model: DeepLab) -> Iterator[tuple[str, str]]:
    root = model.config.backbone.removesuffix("_beta")
    stem = ["conv1_1", "conv1_2", "conv1_3"] if model.config.backbone != root else ["conv1"]
    for index, name in enumerate(stem):
        yield f"backbone.stem.{index}", f"{root}/{name}"
    unit_name = "lite_bottleneck_v1" if root == "resnet_v1_18" else "bottleneck_v1"
    for block, units in enumerate(model.backbone.blocks):  # type: ignore[arg-type]
        for unit in range(len(units)):
            scope = f"{root}/block{block + 1}/unit_{unit + 1}/{unit_name}"
            for part in ("conv1", "conv2", "conv3", "shortcut"):
                yield f"backbone.blocks.{block}.{unit}.{part}", f"{scope}/{part}"


def _xception_scopes(model: DeepLab) -> Iterator[tuple[str, str]]:
    root = model.config.backbone
    yield "backbone.stem.0", f"{root}/entry_flow/conv1_1"
    yield "backbone.stem.1", f"{root}/entry_flow/conv1_2"
    for flow in ("entry", "middle", "exit"):
        for index in range(len(getattr(model.backbone, flow))):
            block, unit = (1, index + 1) if flow == "middle" else (index + 1, 1)
            scope = f"{root}/{flow}_flow/block{block}/unit_{unit}/xception_module"
            layer = f"backbone.{flow}.{index}"
            yield f"{layer}.shortcut", f"{scope}/shortcut"
            for conv in range(3):
                for half in ("depthwise", "pointwise"):
                    yield (
                        f"{layer}.separable.{conv}.{half}",
                        f"{scope}/separable_conv{conv + 1}_{half}",
                    )


def _nas_scopes(model: DeepLab) -> Iterator[tuple[str, NasNames]]:
    backbone = model.backbone
    assert isinstance(backbone, NASNet)
    root = model.config.backbone.removeprefix("nas_")
    for index in range(3):
        name = f"{root}/conv{index}"
        yield f"backbone.stem.{index}", NasNames(f"{name}/weights", f"{name}_bn")
    for number in range(len(backbone.cells)):
        cell = f"{root}/cell_{number}"
        ours = f"backbone.cells.{number}"
        yield f"{ours}.entry", NasNames(f"{cell}/1x1/weights", f"{cell}/beginning_bn")
        yield f"{ours}.previous", NasNames(f"{cell}/prev_1x1/weights", f"{cell}/prev_bn")
        for index, operation in enumerate(CELLS[model.config.backbone]):
            side = f"{cell}/comb_iter_{index // 2}/{'right' if index % 2 else 'left'}"
            kernel = f"{operation.kernel}x{operation.kernel}"
            branch = f"{ours}.branches.{index}.convs"
            if operation.kind == "separable":
                for conv in range(2):
                    name = f"{side}/separable_{kernel}_{conv + 1}"
                    norm = f"{side}/bn_sep_{kernel}_{conv + 1}"
                    layer = f"{branch}.{conv}"
                    yield f"{layer}.depthwise", NasNames(f"{name}/depthwise_weights")
                    yield f"{layer}.pointwise", NasNames(f"{name}/pointwise_weights", norm)
            elif operation.kind == "atrous":
                names = NasNames(f"{side}/atrous_{kernel}/weights", f"{side}/bn_atr_{kernel}")
                yield f"{branch}.0", names
            else:
                yield f"{branch}.0", NasNames(f"{side}/1x1/weights", f"{side}/bn_1")
    first = 2 * 4 * 2 ** backbone.levels[-1]  # the stride that the first one leads to
    for index in range(len(backbone.head)):
        last = index == len(backbone.head) - 1
        name = f"{root}/" + ("classification_head" if last else f"downsample_os{first << index}")
        yield f"backbone.head.{index}", NasNames(f"{name}_conv/weights", f"{name}_bn")


_BACKBONE_SCOPES: dict[str, Callable[[DeepLab], Iterator[tuple[str, str | NasNames]]]] = {
    "nas": _nas_scopes,
    **dict.fromkeys(_MOBILENETS, _mobilenet_scopes),
    "resnet": _resnet_scopes,
    "xception": _xception_scopes,
}


def _head_scopes(model: DeepLab) -> Iterator[tuple[str, str]]:
    config = model.config
    if config.dense_prediction_cell:
        root = "meta_architecture"
        yield "head.project", f"{root}/concat_projection"
        for index in range(len(config.dense_prediction_cell)):
            yield from _conv_scopes(f"head.branches.{index}", f"{root}/branch{index}")
    else:
        yield "head.pooling.project", "image_pooling"
        yield "head.project", "concat_projection"
        for index in range(1 + len(config.atrous_rates or ())):
            yield from _conv_scopes(f"head.branches.{index}", f"aspp{index}")


def _decoder_scopes(config: DeepLabConfig) -> Iterator[tuple[str, str]]:
    separable = config.decoder_separable and not config.decoder_output_is_logits
    for stage in range(len(config.decoder_output_stride or ())):
        suffix = f"_{stage}" if stage else ""
        layer = f"decoder.{stage}"
        yield f"{layer}.low_level", f"decoder/feature_projection0{suffix}"
        for index in range(config.decoder_convs):
            if separable or config.decoder_merge == "sum":
                scope = f"decoder/decoder_conv{index}{suffix}"
            else:  # slim.repeat nests and counts from 1
                scope = f"decoder/decoder_conv0{suffix}/decoder_conv0{suffix}_{index + 1}"
            yield from _conv_scopes(f"{layer}.convs.{index}", scope)


def _conv_scopes(layer: str, scope: str) -> Iterator[tuple[str, str]]:
    """A convolution that may be separable: only the names that exist will be asked for."""
    yield layer, scope
    yield f"{layer}.depthwise", f"{scope}_depthwise"
    yield f"{layer}.pointwise", f"{scope}_pointwise"
