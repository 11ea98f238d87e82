"""State dicts of mmsegmentation: ``ASPPHead`` and ``DepthwiseSeparableASPPHead``, v3 and v3+.

On ResNet-18, 50 and 101, with the 7×7 stem or the three 3×3 of v1c, and on MobileNetV2.

Source: mmseg/models/decode_heads/{aspp_head,sep_aspp_head,decode_head}.py, models/backbones/
{resnet,mobilenet_v2}.py, configs/_base_/models/deeplabv3*.py.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from deeplab.errors import InputError, WeightsError
from deeplab.labels import LabelSet
from deeplab.models.config import DeepLabConfig
from deeplab.models.mobilenet_v2 import BLOCKS
from deeplab.weights.naming import (
    Foreign,
    Layer,
    Shapes,
    count_classes,
    count_indices,
    mobilenet_v2_width,
    resnet_depth,
    resnet_layers,
    shape_of,
    unused_keys,
)

LIBRARY = "mmsegmentation"
_HEAD = "decode_head."
_STRIDE = 8  # Source: every published DeepLab but the two "d16-mg124".
_THRESHOLD = 0.3  # Source: decode_head.py, where out_channels is 1 and none is given.


def recognise(shapes: Shapes, output_stride: int | None) -> Foreign | None:
    """Return the network, or None when the names are not those of mmsegmentation's DeepLab.

    Raises:
        WeightsError: it is its DeepLab, but on a backbone that is not known here.
    """
    if f"{_HEAD}image_pool.1.conv.weight" not in shapes:
        return None
    plus = f"{_HEAD}sep_bottleneck.0.pointwise_conv.conv.weight" in shapes
    mobilenet = "backbone.conv1.conv.weight" in shapes
    resnet = "backbone.layer1.0.conv1.weight" in shapes
    no_decoder = plus and f"{_HEAD}c1_bottleneck.conv.weight" not in shapes
    if not (mobilenet or resnet) or no_decoder:
        raise WeightsError(
            "backbone: of mmsegmentation's DeepLabs those on ResNet-18, 50 and 101 (v1c or not) "
            "and on MobileNetV2 are known here. Export another one to ONNX with mmdeploy; 'deeplab "
            "segment' runs .onnx files."
        )
    depth = None if mobilenet else resnet_depth(shapes, "backbone.")
    deep = "backbone.stem.0.weight" in shapes
    stride = output_stride or _STRIDE
    branches = count_indices(shapes, r"decode_head\.aspp_modules\.(\d+)\.")
    settings: dict[str, Any] = {}
    if depth is None:
        widths = [shape_of(shapes, "backbone.conv1.conv.weight")[0], *_mobilenet_widths(shapes)]
        multiplier, divisor = mobilenet_v2_width(tuple(widths))
        settings |= {"depth_multiplier": multiplier, "divisible_by": divisor}
    else:
        stem = (
            [f"backbone.stem.{at}.weight" for at in (0, 3, 6)]
            if deep
            else ["backbone.conv1.weight"]
        )
        settings["stem_channels"] = tuple(shape_of(shapes, name)[0] for name in stem)
        settings["basic_rates"] = "first"
    if plus:
        settings |= {
            "low_level_channels": shape_of(shapes, f"{_HEAD}c1_bottleneck.conv.weight")[0],
            "decoder_channels": shape_of(shapes, f"{_HEAD}conv_seg.weight")[1],
        }
    config = DeepLabConfig(
        version="v3+" if plus else "v3",
        backbone="mobilenet_v2" if mobilenet else f"resnet_v1_{depth}{'_beta' if deep else ''}",
        num_classes=count_classes(shapes, f"{_HEAD}conv_seg.weight"),
        output_stride=stride,
        padding="symmetric",
        lost_stride_rate="first_of_group" if mobilenet else "old",
        stride_unit="first",
        backbone_bn_eps=1e-5,
        backbone_bn_decay=0.9,
        head_bn_decay=0.9,
        head_channels=shape_of(shapes, f"{_HEAD}image_pool.1.conv.weight")[0],
        atrous_rates=(12, 24, 36)[: branches - 1],
        rates_stated_at=_STRIDE,
        aspp_separable=plus,
        projection="3x3",
        low_level="block",
        pixel_mean=(123.675, 116.28, 103.53),
        pixel_std=(58.395, 57.12, 57.375),
        align_corners=False,
        **settings,
    )
    backbone = _mobilenet_layers() if depth is None else _resnet_layers(depth, deep=deep)
    return Foreign(
        library=LIBRARY,
        config=config,
        layers=(
            *backbone,
            *_head_layers(branches, plus=plus),
            ("classifier", f"{_HEAD}conv_seg", None),
        ),
        # Older trainers keep the plain weights as buffers "ema_…" beside the averaged ones.
        unused=unused_keys(r"^auxiliary_head\.", r"^ema_", r"^decode_head\.loss", r"^data_prepro"),
        threshold=_THRESHOLD,
    )


def _mobilenet_widths(shapes: Shapes) -> Iterator[int]:
    for name, spec in zip(_mobilenet_blocks(), BLOCKS, strict=True):
        last = 2 if spec.expansion > 1 else 1
        yield shape_of(shapes, f"{name}.conv.{last}.conv.weight")[0]


def _mobilenet_blocks() -> Iterator[str]:
    """Yield their name of each block: a layer for every width."""
    layer, index, width = 0, 0, 0
    for spec in BLOCKS:
        layer, index = (layer, index + 1) if spec.channels == width else (layer + 1, 0)
        width = spec.channels
        yield f"backbone.layer{layer}.{index}"


def _mobilenet_layers() -> Iterator[Layer]:
    yield "backbone.stem", "backbone.conv1.conv", "backbone.conv1.bn"
    for number, (theirs, spec) in enumerate(zip(_mobilenet_blocks(), BLOCKS, strict=True)):
        parts = (
            ["expand", "depthwise", "project"] if spec.expansion > 1 else ["depthwise", "project"]
        )
        for at, part in enumerate(parts):
            name = f"{theirs}.conv.{at}"
            yield f"backbone.blocks.{number}.{part}", f"{name}.conv", f"{name}.bn"


def _resnet_layers(depth: int, *, deep: bool) -> Iterator[Layer]:
    if deep:
        for conv, at in enumerate((0, 3, 6)):
            yield f"backbone.stem.{conv}", f"backbone.stem.{at}", f"backbone.stem.{at + 1}"
    for layer in resnet_layers("backbone.", depth):
        if not deep or not layer[0].startswith("backbone.stem."):
            yield layer


def _head_layers(branches: int, *, plus: bool) -> Iterator[Layer]:
    yield from _conv("head.pooling.project", "image_pool.1")
    for branch in range(branches):
        ours, theirs = f"head.branches.{branch}", f"aspp_modules.{branch}"
        yield from _conv(ours, theirs, separable=plus and branch > 0)
    yield from _conv("head.project", "bottleneck")
    if plus:
        yield from _conv("decoder.0.low_level", "c1_bottleneck")
        for conv in range(2):
            yield from _conv(f"decoder.0.convs.{conv}", f"sep_bottleneck.{conv}", separable=True)


def _conv(ours: str, theirs: str, *, separable: bool = False) -> Iterator[Layer]:
    for part in ("depthwise", "pointwise") if separable else ("",):
        mine, name = (f"{ours}.{part}", f"{theirs}.{part}_conv") if part else (ours, theirs)
        yield mine, f"{_HEAD}{name}.conv", f"{_HEAD}{name}.bn"


# ------------------------------------------------------------------- what the trainer noted


def apply_settings(foreign: Foreign, facts: Mapping[str, Any]) -> Foreign:
    """Return the network as the trainer's own settings have it, which the checkpoint keeps.

    Args:
        foreign: what was told by the weights.
        facts: the outermost dictionary of the checkpoint.

    Raises:
        WeightsError: the settings are of a network that is not known here.
    """
    meta = facts.get("meta")
    text = meta.get("cfg", meta.get("config")) if isinstance(meta, Mapping) else None
    model = _read_settings(text) if isinstance(text, str) else {}
    if not model:
        return foreign
    backbone, head = (_part(model, name) for name in ("backbone", "decode_head"))
    values: dict[str, Any] = {"align_corners": head.get("align_corners", False) is True}
    if foreign.config.family == "resnet":
        values |= _resnet_settings(backbone)
    rates = head.get("dilations")
    if isinstance(rates, tuple | list) and all(isinstance(rate, int) for rate in rates):
        stride = values.get("output_stride", foreign.config.output_stride)
        values |= {"atrous_rates": tuple(rates)[1:], "rates_stated_at": stride}
    values |= _normalisation(_part(model, "data_preprocessor"))
    threshold = head.get("threshold") or foreign.threshold
    return dataclasses.replace(
        foreign,
        config=dataclasses.replace(foreign.config, **values),
        threshold=float(threshold) if isinstance(threshold, int | float) else foreign.threshold,
        found=(*foreign.found, "the network's settings, noted by its trainer"),
    )


def read_labels(facts: Mapping[str, Any]) -> LabelSet | None:
    """Return the classes that a checkpoint names: "dataset_meta", in older ones "CLASSES"."""
    meta = facts.get("meta")
    if not isinstance(meta, Mapping):
        return None
    named = meta.get("dataset_meta")
    given = {
        str(k).lower(): v
        for k, v in {**meta, **(named if isinstance(named, Mapping) else {})}.items()
    }
    names, palette = given.get("classes"), given.get("palette")
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        return None
    colours: tuple[Any, ...] = ()
    if isinstance(palette, tuple | list) and len(palette) == len(names):
        colours = tuple(tuple(colour) for colour in palette if isinstance(colour, tuple | list))
    background = 0 if names and names[0].lower() == "background" else None
    for given_colours in (colours, ()):
        try:
            return LabelSet(tuple(names), colours=given_colours, background=background)
        except (InputError, TypeError, ValueError):  # doubled names, or no colours
            continue
    return None


def _part(model: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = model.get(name)
    return found if isinstance(found, Mapping) else {}


def _resnet_settings(backbone: Mapping[str, Any]) -> dict[str, Any]:
    strides, dilations = backbone.get("strides"), backbone.get("dilations")
    grid = backbone.get("multi_grid")
    if backbone.get("style", "pytorch") != "pytorch" or backbone.get("dcn"):
        raise WeightsError(
            "backbone: mmsegmentation's ResNet of the style 'caffe', or with deformable "
            "convolutions, is not known here."
        )
    values: dict[str, Any] = {
        "lost_stride_rate": "old" if backbone.get("contract_dilation") else "new"
    }
    if isinstance(strides, tuple | list) and all(isinstance(stride, int) for stride in strides):
        stride = 4
        for factor in strides:
            stride *= factor
        values["output_stride"] = stride
    if grid is not None:
        # Theirs are the rates themselves; ours multiply those of the block: 1, 2, 2 at stride 16.
        known = (tuple(grid), tuple(dilations or ())) == ((1, 2, 4), (1, 1, 1, 2))
        if not known or values["lost_stride_rate"] != "old":
            raise WeightsError(
                f"backbone: mmsegmentation's multi_grid {grid} with dilations {dilations} is not "
                "known here; (1, 2, 4) at output stride 16 is."
            )
        values["multi_grid"] = (1, 1, 2)
    return values


def _normalisation(given: Mapping[str, Any]) -> dict[str, Any]:
    mean, std = given.get("mean"), given.get("std")
    if not all(isinstance(v, tuple | list) and len(v) == 3 for v in (mean, std)):
        return {}
    assert mean is not None
    assert std is not None
    if given.get("bgr_to_rgb", True):
        return {"pixel_mean": tuple(map(float, mean)), "pixel_std": tuple(map(float, std))}
    return {
        "pixel_mean": tuple(map(float, mean[::-1])),
        "pixel_std": tuple(map(float, std[::-1])),
        "channel_order": "bgr",
    }


def _read_settings(text: str) -> Mapping[str, Any]:
    """Return the dictionary ``model`` of a settings file in Python, which is read and not run."""
    try:
        tree = ast.parse(text[:1_000_000])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and [getattr(t, "id", "") for t in node.targets] == [
            "model"
        ]:
            value = _plain(node.value)
            return value if isinstance(value, dict) else {}
    return {}


def _plain(node: ast.expr) -> Any:
    """Return a value of literals and ``dict(…)``; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_plain(item) for item in node.elts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
        return ast.literal_eval(node)
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "dict":
        return {word.arg: _plain(word.value) for word in node.keywords if word.arg}
    return None
