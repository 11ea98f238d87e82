"""Variables of the original TensorFlow release, and its flags, in our terms.

The original names a convolution by its scope: ``SCOPE/weights`` (height, width, in, out),
``SCOPE/depthwise_weights`` (height, width, channel, 1), ``SCOPE/biases`` and
``SCOPE/BatchNorm/{gamma,beta,moving_mean,moving_variance}``. ``scopes`` says which scope belongs
to which of our layers; everything else follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deeplab.errors import ConfigError, WeightsError
from deeplab.models.config import DPC_TOP1, CellBranch, DeepLabConfig
from deeplab.models.deeplab import DeepLab, build
from deeplab.weights.report import ImportReport

Variables = Mapping[str, NDArray[Any]]

# Variables that training leaves beside the weights: slots, averages, steps, fake quantisation.
_BOOKKEEPING = re.compile(
    r"(^|/)(global_step|beta1_power|beta2_power)$"
    r"|/(Momentum|Adam|Adam_1|RMSProp|RMSProp_1|biased|local_step)$"
    r"|/ExponentialMovingAverage$"
    r"|quant(_\d+)?/(min|max)(/|$)"
)
_EMA = "/ExponentialMovingAverage"
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
        source = name + _EMA if prefer_ema and name + _EMA in variables else name
        if source not in variables:
            missing.append(name)
            continue
        value = _to_torch(np.asarray(variables[source]), name)
        if tuple(value.shape) != shape:
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


def _to_torch(value: NDArray[Any], name: str) -> torch.Tensor:
    if name.endswith("/depthwise_weights"):
        value = value.transpose(2, 3, 0, 1)  # HWC1 to C1HW
    elif name.endswith("/weights"):
        value = value.transpose(3, 2, 0, 1)  # HWIO to OIHW
    return torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))


def _complain(
    config: DeepLabConfig, *, missing: list[str], unexpected: list[str], wrong: list[str]
) -> str:
    lines = [f"These variables are not a {config.version} {config.backbone} of this configuration:"]
    for what, names in (("missing", missing), ("unexpected", unexpected), ("other shape", wrong)):
        if names:
            shown = ", ".join(sorted(names)[:8]) + (", …" if len(names) > 8 else "")
            lines.append(f"  {what} ({len(names)}): {shown}")
    lines.append(
        "Check version, backbone, depth_multiplier, num_classes and decoder_output_stride, or let "
        "guess_config(variables) find them; strict=False takes what fits."
    )
    return "\n".join(lines)


def expected_variables(config: DeepLabConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return, for each key of our state dict, the original's name and our shape."""
    with torch.device("meta"):
        model = build(config)
    table = dict(scopes(model))
    expected = {}
    for key, value in model.state_dict().items():
        layer, part, leaf = _split(key)
        scope = table[layer]
        if part == "norm":
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


def scopes(model: DeepLab) -> Iterator[tuple[str, str]]:
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


def _mobilenet_scopes(model: DeepLab) -> Iterator[tuple[str, str]]:
    root = "MobilenetV2" if model.config.family == "mobilenet_v2" else "MobilenetV3"
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


_BACKBONE_SCOPES = {
    "mobilenet_v2": _mobilenet_scopes,
    "mobilenet_v3": _mobilenet_scopes,
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


# -- which network it is -------------------------------------------------------------------------


def config_from_flags(
    flags: Mapping[str, Any],
    *,
    num_classes: int,
    output_stride: int,
    atrous_rates: Sequence[int] | None = None,
) -> DeepLabConfig:
    """Turn the flags of the original's scripts into a configuration.

    Args:
        flags: flag name to value; strings are read as the flags would read them. Flags about
            data, training and evaluation play no part.
        num_classes: of the data set.
        output_stride: as given to train.py or eval.py.
        atrous_rates: as given there, that is, at ``output_stride``.

    Raises:
        ConfigError: a flag asks for something that is not here.

    Source: deeplab/common.py.
    """
    variant = str(flags.get("model_variant", "mobilenet_v2"))
    for flag, reason in _REFUSED_FLAGS.items():
        if _flag_bool(flags, flag, False):
            raise ConfigError(f"--{flag}: {reason} Remove the flag.")
    if variant.startswith(("nas_", "mobilenet_edgetpu", "mnas")):
        raise ConfigError(f"--model_variant={variant}: the NAS and EdgeTPU backbones are not here.")
    strides = _flag_ints(flags, "decoder_output_stride")
    sum_merge = _flag_bool(flags, "decoder_use_sum_merge", False)
    squeeze = _flag_bool(flags, "aspp_with_squeeze_and_excitation", False)
    divisible_by = flags.get("divisible_by")
    pool_crop = _flag_ints(flags, "image_pooling_crop_size")
    pool_stride = _flag_ints(flags, "image_pooling_stride") or (1, 1)
    return DeepLabConfig(
        version="v3+" if strides else "v3",
        backbone=variant,
        num_classes=num_classes,
        output_stride=output_stride,
        depth_multiplier=float(flags.get("depth_multiplier", 1.0)),
        divisible_by=None if divisible_by is None else int(divisible_by),
        multi_grid=_flag_ints(flags, "multi_grid") or (1, 1, 1),
        aspp=_flag_bool(flags, "aspp_with_batch_norm", True),
        atrous_rates=tuple(atrous_rates or ()),
        rates_stated_at=output_stride,
        head_channels=int(flags.get("aspp_convs_filters", 256)),
        aspp_separable=_flag_bool(flags, "aspp_with_separable_conv", True),
        image_pooling=_flag_bool(flags, "add_image_level_feature", True),
        image_pooling_crop_size=_pair(pool_crop, "image_pooling_crop_size") if pool_crop else None,
        image_pooling_stride=_pair(pool_stride, "image_pooling_stride"),
        squeeze_excitation=squeeze,
        hard_gate=_flag_bool(flags, "image_se_uses_qsigmoid", False),
        concat_projection=_flag_bool(flags, "aspp_with_concat_projection", True),
        dense_prediction_cell=_flag_cell(flags.get("dense_prediction_cell_json")),
        head_bn_decay=float(flags.get("batch_norm_decay", 0.9997)),
        decoder_output_stride=strides,
        decoder_channels=int(flags.get("decoder_filters", 256)),
        decoder_separable=_flag_bool(flags, "decoder_use_separable_conv", True),
        decoder_merge="sum" if sum_merge else "concat",
        decoder_output_is_logits=_flag_bool(flags, "decoder_output_is_logits", False),
        logits_kernel_size=int(flags.get("logits_kernel_size", 1)),
        image_pyramid=tuple(float(scale) for scale in flags.get("image_pyramid") or ()),
        merge_method=flags.get("merge_method", "max"),
    )


_REFUSED_FLAGS = {
    "use_bounded_activation": "ReLU6 in place of ReLU is not here.",
    "nas_use_classification_head": "the NAS backbones are not here.",
}


def _flag_bool(flags: Mapping[str, Any], name: str, default: bool) -> bool:
    value = flags.get(name, default)
    if isinstance(value, str):
        return value.lower() in ("1", "true", "t", "yes", "y")
    return default if value is None else bool(value)


def _flag_ints(flags: Mapping[str, Any], name: str) -> tuple[int, ...]:
    value = flags.get(name)
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        value = value.split(",")
    return tuple(int(item) for item in value) if isinstance(value, Sequence) else (int(value),)


def _pair(values: tuple[int, ...], name: str) -> tuple[int, int]:
    if len(values) != 2:
        raise ConfigError(f"--{name}: got {values}. Give height,width, such as 513,513.")
    return values[0], values[1]


def _flag_cell(value: Any) -> tuple[CellBranch, ...]:
    """Read a Dense Prediction Cell: the branches of the JSON file, or the published file's name."""
    if not value:
        return ()
    if isinstance(value, str):
        if value.endswith("dense_prediction_cell_branch5_top1_cityscapes.json"):
            return DPC_TOP1
        raise ConfigError(
            f"--dense_prediction_cell_json={value}: only the published cell is known by name. "
            "Read the file and give its list of branches."
        )
    branches = []
    for branch in value:
        if branch.get("op", "conv") != "conv":
            raise ConfigError(
                f"--dense_prediction_cell_json: operation '{branch['op']}' is not here. "
                "Use a cell of convolutions."
            )
        kernel = int(branch["kernel"])
        rate = tuple(branch.get("rate", (1, 1)))
        branches.append(
            CellBranch(rate=(rate[0], rate[1]), input=int(branch["input"]), kernel=kernel)
        )
    return tuple(branches)


def guess_config(variables: Variables) -> DeepLabConfig:
    """Find the configuration of a checkpoint from the names and shapes of its variables.

    Rates, multi-grid, the trained output stride and the pooling window leave no trace in the
    variables: they are the published models' own. Change them with ``dataclasses.replace``.

    Raises:
        WeightsError: the backbone is not one of the original's.
    """
    shapes = {name: np.shape(value) for name, value in variables.items()}
    backbone, multiplier = _guess_backbone(shapes)
    cell = "meta_architecture/branch0_depthwise/depthwise_weights" in shapes
    gated = "image_pooling/biases" in shapes
    branches = sum(f"aspp{i}{kind}" in shapes for i in range(1, 9) for kind in _ASPP_KINDS)
    stages = sum(f"decoder/feature_projection0{s}/weights" in shapes for s in ("", "_1", "_2"))
    projection = shapes.get("decoder/feature_projection0/weights", (1, 1, 0, 48))
    as_logits = "decoder/feature_projection0/biases" in shapes
    logits = shapes.get("logits/semantic/weights", shapes.get("logits/semantic/biases"))
    decoder_conv = next(
        (
            s
            for n, s in shapes.items()
            if re.match(r"decoder/decoder_conv0(_pointwise)?/(.*/)?w", n)
        ),
        (1, 1, 0, 256),
    )
    filters = int(decoder_conv[-1])
    num_classes = filters if as_logits else 21 if logits is None else int(logits[-1])
    seg = backbone.endswith("_seg")
    values: dict[str, Any] = {
        "backbone": backbone,
        "depth_multiplier": multiplier,
        "num_classes": num_classes,
        "output_stride": 32 if seg else 16,
        "head_channels": int(shapes.get("aspp0/weights", (256,))[-1]),
        "squeeze_excitation": gated,
        "hard_gate": gated,
        "concat_projection": not gated,
        "image_pooling_crop_size": (769, 769) if seg else None,
        "image_pooling_stride": (4, 5) if seg else (1, 1),
        "dense_prediction_cell": DPC_TOP1 if cell else (),
        "decoder_channels": filters,
        "decoder_separable": "decoder/decoder_conv0/decoder_conv0_1/weights" not in shapes,
        "decoder_merge": "sum" if as_logits else "concat",
        "decoder_output_is_logits": as_logits,
    }
    if not cell and logits is not None:
        values["aspp"] = "aspp0/weights" in shapes
        values["atrous_rates"] = _guess_rates(branches)
        values["aspp_separable"] = "aspp1/weights" not in shapes
        values["image_pooling"] = "image_pooling/weights" in shapes
    if not stages:
        return DeepLabConfig(version="v3", **values)
    strides = _guess_strides(stages, int(projection[2]), values)
    return DeepLabConfig(version="v3+", decoder_output_stride=strides, **values)


_ASPP_KINDS = ("/weights", "_depthwise/depthwise_weights")


def _guess_rates(branches: int) -> tuple[int, ...]:
    if branches in (0, 3):
        return (6, 12, 18)[:branches]
    raise WeightsError(
        f"The checkpoint has {branches} atrous branches; the published models have 3 (rates 6, 12, "
        "18) or none, and rates leave no trace in a checkpoint. Give a configuration."
    )


def _guess_strides(stages: int, channels: int, values: dict[str, Any]) -> tuple[int, ...]:
    """Find the strides whose low-level features have the channels that the decoder reads."""
    for strides in ((4,), (8,), (16,), (8, 4), (16, 8), (16, 8, 4), (16, 4)):
        if len(strides) == stages:
            config = DeepLabConfig(version="v3+", decoder_output_stride=strides, **values)
            with torch.device("meta"):
                taps = build(config).backbone.tap_channels(strides[0])
            if taps == channels:
                return strides
    raise WeightsError(
        f"The decoder reads {channels} low-level channels, which {values['backbone']} has at no "
        "stride. Give a configuration with decoder_output_stride."
    )


def _guess_backbone(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, float]:
    roots = {name.split("/")[0] for name in shapes}
    if "MobilenetV2" in roots:
        last = shapes.get("MobilenetV2/expanded_conv_16/project/weights", (1, 1, 0, 320))[-1]
        return "mobilenet_v2", last / 320
    if "MobilenetV3" in roots:
        large = any(name.startswith("MobilenetV3/expanded_conv_14/") for name in shapes)
        return f"mobilenet_v3_{'large' if large else 'small'}_seg", 1.0
    for root in sorted(roots):
        if re.fullmatch(r"xception_(41|65|71)", root):
            return root, 1.0
        if re.fullmatch(r"resnet_v1_(18|50|101)", root):
            return root + ("_beta" if f"{root}/conv1_1/weights" in shapes else ""), 1.0
    raise WeightsError(
        f"No backbone of the original among the scopes: {', '.join(sorted(roots)[:8])}. "
        "Known are MobilenetV2, MobilenetV3, resnet_v1_18/50/101 and xception_41/65/71."
    )
