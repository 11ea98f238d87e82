"""The backbones that ``.tflite`` files are known to hold, told by their operators."""

from __future__ import annotations

from dataclasses import dataclass

from deeplab.errors import WeightsError
from deeplab.models import mobilenet_edgetpu, mobilenet_v2
from deeplab.models.layers import plan_strides
from deeplab.tflite.file import Operator
from deeplab.weights.naming import mobilenet_width
from deeplab.weights.tflite_walk import KNOWN, Walk, rate_of, stride_of


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A backbone that was walked through.

    Attributes:
        name: as in a configuration.
        features: the tensor of its last features.
        output_stride: photo pixels per pixel of those.
        depth_multiplier: of its channels.
        divisible_by: what they are rounded to.
    """

    name: str
    features: int
    output_stride: int
    depth_multiplier: float
    divisible_by: int


def walk_backbone(walk: Walk) -> Backbone:
    """Note the layers of the backbone, and return what it is.

    Raises:
        WeightsError: it is none that is known here, or its strides and rates are not the
            original's.
    """
    stem = walk.earliest(walk.file.inputs[0], "CONV_2D")
    others = {op.name for op in walk.readers(walk.file.inputs[0])} - {"CONV_2D"}
    if stem is None or others - {"RESIZE_BILINEAR", "REVERSE_V2"}:  # those begin a second look
        stem = walk.only(walk.file.inputs[0], "CONV_2D", what="the first operator")
    if stride_of(stem) != 2 or walk.shape(stem)[1:3] != (3, 3):
        raise WeightsError(f"the first convolution is not 3×3 with stride 2. {KNOWN}")
    x = walk.take("backbone.stem", stem)
    # MobileNetV2 filters each channel of the stem, MobileNet EdgeTPU only projects them.
    second = walk.only(x, "DEPTHWISE_CONV_2D", "CONV_2D", what="backbone, block 0")
    if second.name == "CONV_2D":
        return _walk_edgetpu(walk, x)
    return _walk_v2(walk, x)


def _walk_v2(walk: Walk, x: int) -> Backbone:
    spatial = [walk.layers["backbone.stem"]]
    width = walk.shape(spatial[0])[0]
    for index, spec in enumerate(mobilenet_v2.BLOCKS):
        layer, y = f"backbone.blocks.{index}", x
        if spec.expansion > 1:
            y = walk.take(f"{layer}.expand", _expansion(walk, y, layer))
        spatial.append(walk.only(y, "DEPTHWISE_CONV_2D", what=layer))
        y = walk.take(f"{layer}.depthwise", spatial[-1])
        x, width = _project(walk, layer, x, y, width=width, adds=stride_of(spatial[-1]) == 1)
        walk.blocks[index] = walk.source(x)
    blocks = mobilenet_v2.BLOCKS
    multiplier, divisor = mobilenet_width(
        "MobileNetV2", _widths(walk, len(blocks)), (32, *(spec.channels for spec in blocks))
    )
    return Backbone(
        name="mobilenet_v2",
        features=x,
        output_stride=_check_plan(walk, spatial, [2, *(spec.stride for spec in blocks)]),
        depth_multiplier=multiplier,
        divisible_by=divisor,
    )


def _walk_edgetpu(walk: Walk, x: int) -> Backbone:
    blocks = mobilenet_edgetpu.BLOCKS
    spatial = [walk.layers["backbone.stem"]]
    width = walk.shape(spatial[0])[0]
    for index, spec in enumerate(blocks):
        layer, y = f"backbone.blocks.{index}", x
        if spec.expansion > 1:
            expand = _expansion(walk, y, layer, kernel=spec.kernel if spec.fused else 1)
            y = walk.take(f"{layer}.expand", expand)
        if spec.fused:  # the first block is nothing but its projection
            filters = walk.only(y, "CONV_2D", what=layer) if spec.expansion == 1 else expand
        else:
            filters = walk.only(y, "DEPTHWISE_CONV_2D", what=layer)
            y = walk.take(f"{layer}.depthwise", filters)
        spatial.append(filters)
        adds = spec.residual and stride_of(filters) == 1
        x, width = _project(walk, layer, x, y, width=width, adds=adds)
        walk.blocks[index] = walk.source(x)
    x = walk.take("backbone.last", walk.only(x, "CONV_2D", what="the last convolution"))
    multiplier, divisor = mobilenet_width(
        "MobileNet EdgeTPU",
        _widths(walk, len(blocks)),
        (32, *(spec.channels for spec in blocks)),
        divisors=(8,),
    )
    return Backbone(
        name="mobilenet_edgetpu",
        features=x,
        output_stride=_check_plan(walk, spatial, [2, *(spec.stride for spec in blocks)]),
        depth_multiplier=multiplier,
        divisible_by=divisor,
    )


def _expansion(walk: Walk, x: int, layer: str, *, kernel: int = 1) -> Operator:
    """Return the convolution that expands a block's input; a sum may read it too."""
    found = [op for op in walk.readers(x) if op.name == "CONV_2D"]
    if not 1 <= len(found) <= 2:  # one may be the decoder's
        raise WeightsError(f"{layer}: {len(found)} convolutions to expand it. {KNOWN}")
    found.sort(key=lambda op: op.index)
    size = walk.shape(found[0])[1:3]
    if size != (kernel, kernel):
        raise WeightsError(
            f"{layer}: the expansion is {size[0]}×{size[1]}, expected {kernel}×{kernel}. {KNOWN}"
        )
    return found[0]


def _project(walk: Walk, layer: str, x: int, y: int, *, width: int, adds: bool) -> tuple[int, int]:
    """Note the projection of a block; return what the next block reads, and its channels.

    ``adds``: the block adds its input where that has as many channels.
    """
    project = walk.earliest(y, "CONV_2D")  # the decoder may read these features too
    if project is None or {op.name for op in walk.readers(y)} != {"CONV_2D"}:
        project = walk.only(y, "CONV_2D", what=layer)
    y = walk.take(f"{layer}.project", project)
    channels = walk.shape(project)[0]
    sums = [op for op in walk.readers(y) if op.name == "ADD"]
    sums = [op for op in sums if walk.source(x) in map(walk.source, op.inputs)]
    expected = adds and channels == width
    if len(sums) != expected:
        raise WeightsError(
            f"{layer}: its input is added {len(sums)} times, expected {int(expected)}. {KNOWN}"
        )
    return sums[0].outputs[0] if sums else y, channels


def _widths(walk: Walk, blocks: int) -> tuple[int, ...]:
    """Return the channels of the stem and of each block."""
    names = ["backbone.stem", *(f"backbone.blocks.{index}.project" for index in range(blocks))]
    return tuple(int(walk.shape(walk.layers[name])[0]) for name in names)


def _check_plan(walk: Walk, spatial: list[Operator], strides: list[int]) -> int:
    """Return the output stride; refuse strides and rates that are not the original's at it.

    ``spatial`` are the operators that stride and dilate: the stem's, and one of each block.
    """
    output_stride = 1
    for operator in spatial:
        output_stride *= stride_of(operator)
    names = {id(operator): name for name, operator in walk.layers.items()}
    for operator, expected in zip(spatial, plan_strides(strides, output_stride), strict=True):
        got = (stride_of(operator), rate_of(operator))
        if got != expected:
            raise WeightsError(
                f"{names[id(operator)]} has (stride, rate) {got}, expected {expected} at output "
                f"stride {output_stride}. {KNOWN}"
            )
    return output_stride
