"""Refuse a ``.tflite`` graph that no converter writes, before an interpreter meets it.

Interpreters trust their files: a required input that is left out, a tensor that is computed twice
or never, or a scale of zero ends the process without a word. What is checked here is what the
schema does not: that the graph can be run at all, in the order in which it stands.
"""

from __future__ import annotations

import math

import numpy as np

from deeplab.errors import ModelError
from deeplab.tflite.file import DTYPES, Operator, Tensor, TfliteFile

MOST_BYTES = 1 << 31
"""Of one tensor. The largest of a DeepLab, at 2049 pixels, have a quarter of that."""

_ONE = (1, 1)
_TWO = (2, 2)
_ARITIES: dict[str, tuple[int, int]] = {
    **dict.fromkeys(
        ("ABS", "AVERAGE_POOL_2D", "CAST", "CEIL", "DEPTH_TO_SPACE", "DEQUANTIZE", "ELU", "EXP",
         "FLOOR", "GELU", "HARD_SWISH", "L2_NORMALIZATION", "L2_POOL_2D", "LEAKY_RELU", "LOG",
         "LOGISTIC", "LOG_SOFTMAX", "MAX_POOL_2D", "NEG", "QUANTIZE", "RELU", "RELU6",
         "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND", "RSQRT", "SHAPE", "SOFTMAX", "SPACE_TO_DEPTH",
         "SQRT", "SQUARE", "SQUEEZE", "TANH", "UNPACK"),
        _ONE,
    ),
    **dict.fromkeys(
        ("ADD", "ARG_MAX", "ARG_MIN", "BROADCAST_TO", "DIV", "EQUAL", "EXPAND_DIMS", "FILL",
         "FLOOR_DIV", "GATHER", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "MAXIMUM", "MEAN",
         "MINIMUM", "MIRROR_PAD", "MUL", "NOT_EQUAL", "PAD", "POW", "PRELU", "REDUCE_MAX",
         "REDUCE_MIN", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "SPLIT",
         "SQUARED_DIFFERENCE", "SUB", "SUM", "TILE", "TRANSPOSE"),
        _TWO,
    ),
    **dict.fromkeys(
        ("BATCH_TO_SPACE_ND", "PADV2", "SELECT", "SELECT_V2", "SLICE", "SPACE_TO_BATCH_ND"), (3, 3)
    ),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), (2, 3)),
    "TRANSPOSE_CONV": (3, 4),
    "RESHAPE": (1, 2),
    "STRIDED_SLICE": (4, 4),
    **dict.fromkeys(("ADD_N", "CONCATENATION", "PACK"), (1, 1 << 16)),
}  # fmt: skip
"""Operator -> (fewest, most) inputs. Source: TensorFlow, lite/kernels (``NumInputs`` of each)."""

_OPTIONAL = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
"""Operator -> the only input that may be left out: its bias."""

_SEVERAL_OUTPUTS = ("SPLIT", "SPLIT_V", "UNPACK")


def check_graph(file: TfliteFile) -> None:
    """Refuse a graph that cannot be run as it stands.

    Raises:
        ModelError: which step or tensor is wrong, and how.
    """
    for tensor in file.tensors:
        _check_tensor(file, tensor)
    ready = {tensor.index for tensor in file.tensors if tensor.is_constant}
    stored_inputs = sorted(ready & {*file.inputs})
    if stored_inputs:
        raise _damaged(file, f"tensors {stored_inputs} are inputs and stored at once")
    ready |= {*file.inputs}
    computed: set[int] = set()
    for step in file.operators:
        _check_inputs(file, step)
        missing = [i for i in step.inputs if i >= 0 and i not in ready and not _is_state(file, i)]
        if missing:
            raise _damaged(file, f"step {step.index} ({step.name}) reads tensors {missing}, which "
                                 "nothing before it computes")  # fmt: skip
        if not step.outputs or (len(step.outputs) > 1 and step.name in _ARITIES
                                and step.name not in _SEVERAL_OUTPUTS):  # fmt: skip
            raise _damaged(file, f"step {step.index} ({step.name}) has {len(step.outputs)} outputs")
        twice = sorted(
            {i for i in step.outputs if i < 0 or i in ready or step.outputs.count(i) > 1}
        )
        if twice:
            raise _damaged(file, f"step {step.index} ({step.name}) computes tensors {twice}, which "
                                 "are there already")  # fmt: skip
        ready |= {*step.outputs}
        computed |= {*step.outputs}
    absent = sorted({*file.outputs} - computed)
    if absent:
        raise _damaged(file, f"its outputs {absent} are computed by no step")


def _check_inputs(file: TfliteFile, step: Operator) -> None:
    fewest, most = _ARITIES.get(step.name, (0, 1 << 16))
    if not fewest <= len(step.inputs) <= most:
        wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        raise _damaged(
            file,
            f"step {step.index} ({step.name}) has {len(step.inputs)} inputs, expected {wanted}",
        )
    if step.name not in _ARITIES:
        return
    left_out = [place for place, index in enumerate(step.inputs) if index < 0]
    if left_out not in ([], [_OPTIONAL.get(step.name)]):
        raise _damaged(file, f"step {step.index} ({step.name}) lacks its inputs {left_out}")


def _check_tensor(file: TfliteFile, tensor: Tensor) -> None:
    where = f"tensor {tensor.index} '{tensor.name[:60]}'"
    if any(side < 0 for side in tensor.shape):
        raise _damaged(file, f"{where} has the shape {list(tensor.shape)}")
    dtype = DTYPES.get(tensor.type)
    if dtype is not None:
        size = math.prod(tensor.shape) * dtype.itemsize
        if size > MOST_BYTES:
            raise _damaged(file, f"{where} would take {size:,} bytes")
        if tensor.is_constant and size != len(tensor.buffer):
            raise _damaged(
                file, f"{where} stores {len(tensor.buffer)} bytes, but its shape needs {size}"
            )
    quantization = tensor.quantization
    if quantization is None:
        return
    scale, zero_point = quantization.scale, quantization.zero_point
    if not np.isfinite(scale).all() or (scale <= 0).any():
        raise _damaged(file, f"{where} has scales that are no positive numbers")
    axis, count = quantization.axis, len(scale)
    if count > 1 and not (0 <= axis < len(tensor.shape) and tensor.shape[axis] == count):
        raise _damaged(file, f"{where} has {count} scales, which fit none of its axes")
    if dtype is not None and dtype.kind in "iu" and dtype.itemsize <= 2:
        limits = np.iinfo(dtype)
        if (zero_point < limits.min).any() or (zero_point > limits.max).any():
            raise _damaged(file, f"{where} has a zero point beyond {tensor.type}")


def _is_state(file: TfliteFile, index: int) -> bool:
    """Whether a tensor is an empty constant, such as the axes of a squeeze that has none."""
    return 0 in file.tensors[index].shape


def _damaged(file: TfliteFile, words: str) -> ModelError:
    return ModelError(f"{file.name}: the graph is damaged: {words}. Download it again.")
