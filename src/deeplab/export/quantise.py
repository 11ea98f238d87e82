"""Fewer bits: float16 or int8 weights, or int8 throughout, with ranges measured on photos.

What rounding does to the network is kept small in three ways. Channels that use a small part of
their tensor's range are made larger, and the next layer's weights smaller (:func:`equalise`).
Depthwise filters are rounded so that their sums stay (:func:`keep_sums`). And the means: rounding
shifts every channel's mean a little, the same way on every photo, and such shifts add up from layer
to layer. They are measured on photos and taken out of the biases, which keep all their bits
(:func:`correct_biases`). Source: 1906.04721 section 4.2 (there from the statistics of batch norms).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.export.layer_names import layer_of
from deeplab.export.quiet import quiet
from deeplab.photo.images import InputSpec
from deeplab.tflite.edit import GraphEdit, cut
from deeplab.tflite.file import Operator, TfliteFile, parse

Float32 = npt.NDArray[np.float32]
Range = dict[str, Float32]
"""A tensor's "min" and "max"."""
Ranges = dict[str, Range]
"""The ranges of tensors by name."""

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_RELUS = (1, 3)
"""ReLU and ReLU6, by their numbers in the schema."""
_MOVERS = ("RESIZE_BILINEAR", "REVERSE_V2")
"""Steps that give no value beyond those that they take; the integers mean the same behind them."""

_SMALLEST_RANGE = 1e-6
"""Of a tensor that is the same everywhere; a range of nothing would be divided by."""

_HEADROOM = 0.95
"""Of a range is used by the largest value seen; an activation cuts off at 6."""

_MOST = 16.0
"""The largest factor for a channel; one that is nearly always zero must not blow up."""


def halve_weights(content: bytes) -> bytes:
    """Return a float32 TFLite model with its weights in float16: half the size.

    Depthwise weights stay as they are: they are a thirtieth of all, but each of them alone
    decides over a channel, and half of the difference that float16 makes comes from them.
    """
    from ai_edge_quantizer import qtyping, quantizer

    work = quantizer.Quantizer(content)
    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    work.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.CONV_2D,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=weights,
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=quantizer.AlgorithmName.FLOAT_CASTING,
    )
    return _finish(work)


def shrink_weights(content: bytes) -> bytes:
    """Return a float32 TFLite model with int8 weights, a scale per channel: a quarter of the size.

    What flows between the layers stays float32. A convolution finds the range of what it is given
    anew on every photo, and computes in integers ("dynamic range"). Depthwise weights stay as they
    are, see :func:`halve_weights`; besides, no fast kernel takes them like this.
    """
    from ai_edge_quantizer import qtyping, quantizer

    work = quantizer.Quantizer(content)
    work.add_dynamic_config(regex=".*", operation_name=qtyping.TFLOperationName.CONV_2D, num_bits=8)
    return _finish(work)


def list_layers(content: bytes) -> list[str]:
    """Return the names of the convolutions of a model, in their order, each once."""
    file = parse(content)
    names = (layer_of(file.tensors[op.outputs[0]].name) for op in _convolutions(file))
    return [*dict.fromkeys(names)]


def quantise(
    content: bytes, ranges: Ranges, *, keep_float: Collection[str], integer_io: bool
) -> bytes:
    """Return the int8 model for known ranges, weights with one scale per channel.

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
            regex=f"^{re.escape(name)}(:[0-9]+)?;?$",
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
    return _finish(work, ranges)


def measure_ranges(
    content: bytes, frames: Iterable[Float32], *, spec: InputSpec | None = None
) -> Ranges:
    """Run the float model on every frame and return the range of every computed tensor.

    The range is what nearly every photo stays within, two deviations beyond the mean of what each
    one reaches: cutting values off costs more than coarser steps, but a single outlier shall not
    make them coarser for all. Weights are left out: with a range given, the quantiser would take
    one scale for all of their channels.

    Args:
        content: the float32 model.
        frames: (1, H, W, 3) float32 each, normalised.
        spec: how they are normalised. The range of the picture is then known, and its 256 values
            are the 256 values of eight bits.
    """
    lows: dict[str, list[float]] = {}
    highs: dict[str, list[float]] = {}

    def look(name: str, values: Float32) -> None:
        lows.setdefault(name, []).append(float(values.min()))
        highs.setdefault(name, []).append(float(values.max()))

    file = parse(content)
    computed = [tensor.name for tensor in file.tensors if not tensor.is_constant]
    _run(content, frames, computed, look)
    ranges = {name: _find_range(np.array(lows[name]), np.array(highs[name])) for name in lows}
    if spec is not None:
        mean, std = np.asarray(spec.mean), np.asarray(spec.std)
        ranges[file.tensors[file.inputs[0]].name] = {
            "min": _number(((0 - mean) / std).min()),
            "max": _number(((255 - mean) / std).max()),
        }
    for step in file.operators:
        if step.name in _MOVERS:
            source, moved = (file.tensors[i].name for i in (step.inputs[0], step.outputs[0]))
            ranges[moved] = ranges[source]
    return ranges


def equalise(content: bytes, frames: Sequence[Float32]) -> bytes:
    """Return the float model with channels that use their tensor's range alike.

    All channels of a tensor share one scale in int8, so those with small values have few steps.
    Behind ReLU and ReLU6 (below 6) a channel may be larger where the next convolution's weights
    for it are smaller. A depthwise convolution has a scale for every channel and loses nothing by
    that; an ordinary one shares its scale among them, so there half of the way is gone.

    Args:
        content: the float32 model.
        frames: (1, H, W, 3) float32 each, normalised; they tell each channel's largest value.

    Source: 1906.04721 section 4.1, there from the weights alone.
    """
    file = parse(content)
    pairs = _equalisable(file)
    names = {file.tensors[layer.outputs[0]].name: n for n, p in enumerate(pairs) for layer, _ in p}
    peaks: list[Float32] = [np.full(1, _SMALLEST_RANGE, np.float32)] * len(pairs)

    def look(name: str, values: Float32) -> None:
        peaks[names[name]] = np.maximum(peaks[names[name]], values.max((0, 1, 2)))

    _run(content, frames, names, look)
    edit = GraphEdit(file)
    changed: dict[int, Float32] = {}
    for ((layer, reader), *_), peak in zip(pairs, peaks, strict=True):
        factor = np.clip(_HEADROOM * peak.max() / peak, 1, _MOST)
        if reader.name == "CONV_2D":
            factor = np.sqrt(factor)
        # Channels are the last axis of depthwise weights and of what a convolution takes, but the
        # first of what it gives.
        along = (-1,) if layer.name == "DEPTHWISE_CONV_2D" else (-1, 1, 1, 1)
        for index, by in (
            (layer.inputs[1], factor.reshape(along)),
            (layer.inputs[2], factor),
            (reader.inputs[1], 1 / factor),
        ):
            values = changed.get(index, file.tensors[index].values)
            changed[index] = (values * by).astype(np.float32)
    for index, values in changed.items():
        edit.set_constant(index, values)
    return edit.finish(file.outputs[0])


def _equalisable(file: TfliteFile) -> list[list[tuple[Operator, Operator]]]:
    """Return each convolution with its only reader, another one; together where weights are shared.

    A network that looks at two scales runs every layer twice with the same weights.
    """
    uses = Counter(index for layer in _convolutions(file) for index in layer.inputs[1:])
    found: dict[tuple[int, ...], list[tuple[Operator, Operator]]] = {}
    for layer in _convolutions(file):
        readers = file.consumers(layer.outputs[0])
        if (
            layer.options["fused_activation_function"] in _RELUS
            and len(readers) == 1
            and readers[0].name in _CONVOLUTIONS
        ):
            constants = (*layer.inputs[1:], readers[0].inputs[1])
            found.setdefault(constants, []).append((layer, readers[0]))
    return [p for constants, p in found.items() if all(uses[i] == len(p) for i in constants)]


def keep_sums(content: bytes, small: bytes) -> bytes:
    """Return ``small`` with depthwise weights rounded so that the sum of each filter stays.

    Neighbours in a picture are nearly alike, so a filter answers mostly with its sum; of one that
    looks for edges, large weights cancel, and nine roundings of their own would not. The weights
    nearest to the other integer are rounded to that one.

    Args:
        content: the float32 model.
        small: the same in int8; layers that stayed float are left alone.
    """
    source, target = parse(content), parse(small)
    edit = GraphEdit(target)
    for real, layer in zip(_convolutions(source), _convolutions(target), strict=True):
        weight = target.tensors[layer.inputs[1]]
        if layer.name == "DEPTHWISE_CONV_2D" and weight.type == "INT8":
            assert weight.quantization is not None
            wanted = source.tensors[real.inputs[1]].values / weight.quantization.scale
            edit.set_constant(weight.index, _round_with_sum(wanted))
    return edit.finish(target.outputs[0])


def _round_with_sum(wanted: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int8]:
    """Round (1, height, width, channels) weights; each channel's sum by less than one half."""
    exact = wanted.reshape(-1, wanted.shape[-1])
    rounded = np.clip(np.round(exact), -127, 127)
    missing = np.round((exact - rounded).sum(0))
    for channel in np.flatnonzero(missing):
        step = np.sign(missing[channel])
        gain = (exact - rounded)[:, channel] * step
        gain[np.abs(rounded[:, channel] + step) > 127] = -np.inf
        chosen = np.argsort(-gain, kind="stable")[: int(abs(missing[channel]))]
        rounded[chosen, channel] += step
    return rounded.reshape(wanted.shape).astype(np.int8)


def correct_biases(content: bytes, small: bytes, frames: Sequence[Float32]) -> bytes:
    """Return the smaller model with the shifts of its channels' means taken out, layer by layer.

    Only layers without an activation are corrected: there a shift of the output is a shift of the
    bias. In MobileNets these are what the residual sums are made of, and the classes.

    Args:
        content: the float32 model.
        small: what was made of it; the convolutions are in the same order.
        frames: (1, H, W, 3) float32 each, normalised.
    """
    file = parse(content)
    layers = _convolutions(file)
    linear = [n for n, op in enumerate(layers) if not op.options["fused_activation_function"]]
    names = {file.tensors[layers[n].outputs[0]].name: n for n in linear}
    sums: dict[int, Float32] = {}

    def look(name: str, values: Float32) -> None:
        sums[names[name]] = sums.get(names[name], 0) + values.mean((0, 1, 2)) / len(frames)

    _run(content, frames, [*names], look)
    for number in linear:
        small = _correct_bias(parse(small), number, sums[number], frames)
    return small


def _correct_bias(
    file: TfliteFile, number: int, wanted: Float32, frames: Sequence[Float32]
) -> bytes:
    """Return the model with the bias changed of which the mean output is not ``wanted``."""
    layer = _convolutions(file)[number]
    means = _mean_output(file, layer, frames)
    bias = file.tensors[layer.inputs[2]]
    corrected = bias.dequantize() - (means - wanted)
    if bias.quantization is not None:
        corrected = np.round(corrected / bias.quantization.scale)
    edit = GraphEdit(file)
    edit.set_constant(bias.index, corrected)
    return edit.finish(file.outputs[0])


def copy_biases(source: bytes, target: bytes) -> bytes:
    """Return ``target`` with the biases of ``source``, which has the same convolutions."""
    given, taker = parse(source), parse(target)
    edit = GraphEdit(taker)
    pairs = zip(_convolutions(given), _convolutions(taker), strict=True)
    for theirs, ours in pairs:
        edit.set_constant(ours.inputs[2], given.tensors[theirs.inputs[2]].values)
    return edit.finish(taker.outputs[0])


def _convolutions(file: TfliteFile) -> list[Operator]:
    return [op for op in file.operators if op.name in _CONVOLUTIONS]


def _mean_output(file: TfliteFile, layer: Operator, frames: Sequence[Float32]) -> Float32:
    """Return the mean over places and frames of a layer's channels, by running up to it."""
    from ai_edge_litert.interpreter import Interpreter

    output = file.tensors[layer.outputs[0]]
    interpreter = Interpreter(model_content=cut(file, output.index), num_threads=1)
    interpreter.allocate_tensors()
    total = np.zeros(output.shape[-1], np.float32)
    for frame in frames:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], frame)
        interpreter.invoke()
        answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        total += output.dequantize(answer).mean((0, 1, 2)) / len(frames)
    return total


def _run(
    content: bytes,
    frames: Iterable[Float32],
    names: Collection[str],
    look: Callable[[str, Float32], None],
) -> None:
    """Run a model on frames and show the named tensors of each run to ``look``."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():  # it warns of the memory that it needs
        interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
    image = interpreter.get_input_details()[0]["index"]
    wanted = [d for d in interpreter.get_tensor_details() if d["name"] in {*names}]
    for frame in frames:
        interpreter.set_tensor(image, frame)
        interpreter.invoke()
        for detail in wanted:
            look(detail["name"], interpreter.get_tensor(detail["index"]))


def _find_range(lows: npt.NDArray[np.float64], highs: npt.NDArray[np.float64]) -> Range:
    low, high = lows.mean() - 2 * lows.std(), highs.mean() + 2 * highs.std()
    if lows.min() >= 0:  # behind an activation, which ends at 0 and may end above too
        low, high = 0.0, min(high, highs.max())
    high = max(high, low + _SMALLEST_RANGE)
    return {"min": _number(low), "max": _number(high)}


def _number(value: Any) -> Float32:
    return np.full((1, 1, 1, 1), value, np.float32)


def _finish(work: Any, ranges: Ranges | None = None) -> bytes:
    with quiet():
        done = work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(done.quantized_model)
