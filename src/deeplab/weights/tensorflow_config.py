"""Which network of the original it is: from its flags, or from the names of its variables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deeplab.errors import ConfigError, WeightsError
from deeplab.models.backbones import DERIVED
from deeplab.models.config import DeepLabConfig
from deeplab.models.config_fields import DPC_TOP1, CellBranch
from deeplab.models.deeplab import build


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
    nas: dict[str, Any] = {}
    if variant.startswith("nas_"):
        nas = {
            "nas_channels": int(flags.get("nas_stem_output_num_conv_filters", 20)),
            "nas_classification_head": _flag_bool(flags, "nas_use_classification_head", False),
            "nas_remove_os32_stride": _flag_bool(flags, "nas_remove_os32_stride", False),
            "drop_path_keep_prob": float(flags.get("drop_path_keep_prob", 1.0)),
        }
    if atrous_rates and not _flag_bool(flags, "aspp_with_batch_norm", True):
        raise ConfigError(
            "--aspp_with_batch_norm=false with atrous rates sums one classifier per rate, which is "
            "not here. Remove the flag, or the rates."
        )
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
        **nas,
        bounded_activation=_flag_bool(flags, "use_bounded_activation", False),
        divisible_by=DERIVED if divisible_by is None else int(divisible_by),
        depth_multiplier=float(flags.get("depth_multiplier", 1.0)),
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


def guess_config(variables: Mapping[str, NDArray[Any]]) -> DeepLabConfig:
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
    nas = _guess_nas(backbone, shapes) if backbone.startswith("nas_") else {}
    values: dict[str, Any] = {
        "backbone": backbone,
        "depth_multiplier": multiplier,
        "num_classes": num_classes,
        "output_stride": 32 if seg else 16,
        **nas,
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
    if "MobilenetEdgeTPU" in roots:
        last = shapes.get("MobilenetEdgeTPU/expanded_conv_21/project/weights", (1, 1, 0, 192))[-1]
        return "mobilenet_edgetpu", last / 192
    if "MobilenetV3" in roots:
        large = any(name.startswith("MobilenetV3/expanded_conv_14/") for name in shapes)
        return f"mobilenet_v3_{'large' if large else 'small'}_seg", 1.0
    for root in ("pnasnet", "hnasnet"):
        if root in roots:
            return f"nas_{root}", 1.0
    for root in sorted(roots):
        if re.fullmatch(r"xception_(41|65|71)", root):
            return root, 1.0
        if re.fullmatch(r"resnet_v1_(18|50|101)", root):
            return root + ("_beta" if f"{root}/conv1_1/weights" in shapes else ""), 1.0
    raise WeightsError(
        f"No backbone of the original among the scopes: {', '.join(sorted(roots)[:8])}. "
        "Known are MobilenetV2, MobilenetV3, MobilenetEdgeTPU, resnet_v1_18/50/101, "
        "xception_41/65/71, pnasnet and hnasnet."
    )


def _guess_nas(backbone: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Find width, output stride and head of a NAS backbone; whether it strides to 32 is untold."""
    root = backbone.removeprefix("nas_")
    widths = [shapes.get(f"{root}/cell_{n}/1x1/weights", (0,))[-1] for n in (0, 4, 8)]
    first = widths[0]
    if first < 1:
        raise WeightsError(f"{root}/cell_0/1x1/weights: is missing; this is no whole {root}.")
    head = f"{root}/classification_head_conv/weights" in shapes
    if backbone == "nas_hnasnet":
        return {"nas_channels": first, "nas_classification_head": head, "output_stride": 8}
    stride = {1: 8, 2: 16, 4: 32}.get(widths[2] // first, 16)
    if widths[1] == first:
        stride = 8
    return {
        "nas_channels": first // 2,
        "nas_classification_head": head,
        "output_stride": stride,
    }
