"""Parameters and multiply-adds of a ``.tflite`` file, read from its graph; nothing is run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deeplab.errors import ModelError
from deeplab.tflite.file import TfliteFile

# A fully connected layer is what some writers make of a 1×1 convolution.
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")

_NEARLY = 0.15
"""So far may the logarithm of a stride be from a whole number: rows are rounded up."""


@dataclass(frozen=True, kw_only=True)
class ScopeCount:
    """What the convolutions of one scope cost.

    Attributes:
        name: the first component of their tensors' names, or "network" where names have none.
        parameters: values of weights and biases.
        macs: multiply-adds.
    """

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class GraphCount:
    """What a file's convolutions cost.

    Attributes:
        scopes: in the order of the graph.
        precision: in what the weights are stored: "float32", "float16", "int8", "uint8", or
            several joined by "+".
        size: (height, width) of the picture.
        output_stride: input rows per row of the coarsest features.
        logits_size: (height, width) of the last convolution's output.
        num_classes: its channels.
    """

    scopes: tuple[ScopeCount, ...]
    precision: str
    size: tuple[int, int]
    output_stride: int
    logits_size: tuple[int, int]
    num_classes: int


def count_graph(file: TfliteFile) -> GraphCount:
    """Count the convolutions of a ``.tflite`` file.

    Raises:
        ModelError: there are none, or the input is no picture.
    """
    totals: dict[str, list[int]] = {}
    counted: set[int] = set()  # a tensor that two operators read is stored once
    precisions: list[str] = []
    maps: list[tuple[int, ...]] = []
    # float16 files keep their weights behind an operator that widens them.
    stored = {op.outputs[0]: op.inputs[0] for op in file.operators if op.name == "DEQUANTIZE"}
    for operator in file.operators:
        if operator.name not in _CONVOLUTIONS:
            continue
        output = file.tensors[operator.outputs[0]]
        constants = [stored.get(tensor, tensor) for tensor in operator.inputs[1:] if tensor >= 0]
        weights = file.tensors[constants[0]]
        total = totals.setdefault(_scope(output.name), [0, 0])
        for tensor in constants:
            total[0] += 0 if tensor in counted else math.prod(file.tensors[tensor].shape)
            counted.add(tensor)
        # Whatever the kernel's layout, every position of the output takes all of it once.
        total[1] += math.prod(weights.shape) * math.prod(output.shape[:-1])
        precisions.append(weights.type.lower())
        if len(output.shape) == 4:
            maps.append(output.shape)
    if not maps:
        raise ModelError(f"{file.name}: holds no convolutions, expected a DeepLab network.")
    photo = file.tensors[file.inputs[0]].shape
    if len(photo) != 4:
        raise ModelError(
            f"{file.name}: the input has shape {photo}, expected (1, height, width, 3)."
        )
    sides = photo[1:3] if photo[3] == 3 else photo[2:4]  # channels last, or first
    # The pooled image is smaller still, but a map of one row has no stride.
    return GraphCount(
        size=sides,
        scopes=tuple(
            ScopeCount(name=name, parameters=own, macs=macs) for name, (own, macs) in totals.items()
        ),
        precision="+".join(dict.fromkeys(precisions)),
        output_stride=_find_stride(sides[0], {shape[1] for shape in maps}),
        logits_size=(maps[-1][1], maps[-1][2]),
        num_classes=maps[-1][3],
    )


def _scope(name: str) -> str:
    first, slash, _ = name.split(";")[0].partition("/")
    return first if slash else "network"


def _find_stride(height: int, rows: set[int]) -> int:
    """Return the input rows per row of the coarsest features.

    The pooled image is smaller still, but a map of one row has no stride. Nor has that of a second,
    smaller look inside (``image_pyramid``), of whose rows no power of two makes the input's.
    """
    strides, nearly = [], []
    for count in rows - {1}:
        ratios = (
            height / count,
            (height - 1) / (count - 1),
        )  # the latter where corners are aligned
        powers = [math.log2(max(ratio, 1)) for ratio in ratios]
        power = min(powers, key=lambda each: abs(each - round(each)))
        strides.append(2 ** round(powers[0]))
        if abs(power - round(power)) < _NEARLY:
            nearly.append(2 ** round(power))
    return max(nearly or strides, default=max(height, 1))
