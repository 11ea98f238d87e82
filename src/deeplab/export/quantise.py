"""Fewer bits: float16 weights, or int8 throughout, with ranges measured on photos."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.export import calibration
from deeplab.export.plan import Plan
from deeplab.tflite_file import parse

Ranges = dict[str, dict[str, npt.NDArray[np.float32]]]
"""Tensor name -> its "min" and "max"."""


def to_float16(content: bytes) -> bytes:
    """Return a float32 TFLite model with its weights in float16: half the size."""
    from ai_edge_quantizer import qtyping, quantizer

    work = quantizer.Quantizer(content)
    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    for name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        work.update_quantization_recipe(
            regex=".*",
            operation_name=qtyping.TFLOperationName(name),
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=weights,
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            algorithm_key=quantizer.AlgorithmName.FLOAT_CASTING,
        )
    return _done(work.quantize(enable_progress_bar=False, enable_progress_report=False))


def to_int8(content: bytes, plan: Plan) -> tuple[bytes, tuple[str, ...]]:
    """Return a float32 TFLite model in int8, and the layers that stayed float."""
    ranges = measure_ranges(content, calibration.frames(plan))
    kept = plan.keep_float
    return quantise(content, ranges, keep_float=kept, integer_io=plan.integer_io), tuple(kept)


def quantise(
    content: bytes, ranges: Ranges, *, keep_float: Collection[str], integer_io: bool
) -> bytes:
    """Return the int8 model for known ranges.

    Args:
        content: the float32 model.
        ranges: from :func:`measure_ranges`.
        keep_float: names of layers that stay float.
        integer_io: give and take integers.
    """
    from ai_edge_quantizer import qtyping, quantizer

    work = quantizer.Quantizer(content)
    everything = qtyping.TFLOperationName.ALL_SUPPORTED
    work.add_static_config(
        regex=".*", operation_name=everything, activation_num_bits=8, weight_num_bits=8
    )
    for name in keep_float:
        work.update_quantization_recipe(
            regex=f"^{re.escape(name)};?$",
            operation_name=everything,
            algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE,
        )
    if not integer_io:
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            work.update_quantization_recipe(
                regex=".*",
                operation_name=end,
                algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE,
            )
    return _done(work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False))


def measure_ranges(content: bytes, frames: Iterable[npt.NDArray[np.float32]]) -> Ranges:
    """Run the float model on every frame and return the range of every computed tensor.

    The range is the mean over the frames of what each one reaches: an outlier on one photo does
    not make the steps coarser for all. Weights are left out: with a range given, the quantiser
    would take one scale for all of their channels.
    """
    from ai_edge_litert.interpreter import Interpreter

    computed = {tensor.name for tensor in parse(content).tensors if not tensor.is_constant}

    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    image = interpreter.get_input_details()[0]["index"]
    lows: dict[str, list[float]] = {}
    highs: dict[str, list[float]] = {}
    details = [d for d in interpreter.get_tensor_details() if d["name"] in computed]
    for frame in frames:
        interpreter.set_tensor(image, frame)
        interpreter.invoke()
        for detail in details:
            values = interpreter.get_tensor(detail["index"])
            lows.setdefault(detail["name"], []).append(float(values.min()))
            highs.setdefault(detail["name"], []).append(float(values.max()))
    return {
        name: {"min": _number(np.mean(lows[name])), "max": _number(np.mean(highs[name]))}
        for name in lows
    }


def _number(value: Any) -> npt.NDArray[np.float32]:
    return np.full((1, 1, 1, 1), value, np.float32)


def _done(result: Any) -> bytes:
    return bytes(result.quantized_model)
