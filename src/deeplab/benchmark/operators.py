"""How long every operator of a network takes.

PyTorch and OpenVINO say it themselves. LiteRT's Python package has no profiler, so there every
operator becomes a model of its own and hands its tensors to the next: the same kernels on the same
numbers in the same order, and the last answer is the whole network's, which is checked.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError, ModelError
from deeplab.runtimes.network import Network, Precision, UInt8
from deeplab.tflite import file as tflite_file
from deeplab.tflite.file import Operator, TfliteFile

if TYPE_CHECKING:
    from deeplab.runtimes.tflite_network import TfliteNetwork

Tell = Callable[[int, int], None]
Values = dict[int, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """One operator over all runs.

    Attributes:
        type: "CONV_2D", "aten::conv2d", …
        name: of what it computes, or the shapes that it is given; as the engine tells.
        kilobytes: of what it computes; None where the engine does not tell.
        ms: milliseconds of every run; zeros for what is computed once, when the file is opened.
    """

    type: str
    name: str
    kilobytes: float | None
    ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The operators of a network, in the order in which they run.

    Attributes:
        method: how they were timed, in words.
        operators: all of them.
        whole_ms: milliseconds of the network in one piece, of runs between those; empty where the
            operators were timed inside it.
    """

    method: str
    operators: tuple[OperatorTime, ...]
    whole_ms: tuple[float, ...]


PROFILED = ("litert", "openvino", "torch")
"""Runtimes whose operators can be timed."""


def profile(
    network: Network,
    path: Path,
    frame: UInt8,
    *,
    runs: int,
    threads: int,
    tell: Tell,
    precision: Precision = "float32",
) -> Profile:
    """Time the operators of an opened network.

    Args:
        network: from a segmenter.
        path: its file.
        frame: (height, width, 3) uint8 RGB, 0..255, of the network's size.
        runs: how many times.
        threads: per frame.
        tell: called with (runs done, runs).
        precision: in what it computes.

    Raises:
        ModelError: its operators, one by one, compute something else.
    """
    from deeplab.runtimes import litert, openvino, torch

    if network.device != "cpu" and not isinstance(network, torch.TorchNetwork):
        raise InputError(
            f"operators: they are timed on the CPU only, not on '{network.device}'; leave out "
            "--device or --enable-op-profiling."
        )
    if isinstance(network, litert.LiteRTNetwork):
        return _profile_litert(network.network, frame, runs=runs, threads=threads, tell=tell)
    if isinstance(network, torch.TorchNetwork):
        return _profile_engine(
            partial(network.time_operators, frame), "PyTorch's profiler", runs=runs, tell=tell
        )
    counting = openvino.open(
        path,
        threads=threads,
        assume=network.spec,
        size=None if path.suffix == ".tflite" else (network.spec.height, network.spec.width),
        precision=precision,
        count_time=True,
    )
    return _profile_engine(
        partial(openvino.time_operators, counting, frame),
        "OpenVINO's own counters",
        runs=runs,
        tell=tell,
    )


def _profile_engine(
    trace: Callable[[], list[tuple[str, str, float]]], method: str, *, runs: int, tell: Tell
) -> Profile:
    """Ask an engine that tells; it runs the same operators every time."""
    trace()  # warm-up
    traced = []
    for number in range(runs):
        traced.append(trace())
        tell(number + 1, runs)
    operators = tuple(
        OperatorTime(
            type=steps[0][0], name=steps[0][1], kilobytes=None, ms=tuple(ms for *_, ms in steps)
        )
        for steps in zip(*traced, strict=True)
    )
    return Profile(method=method, operators=operators, whole_ms=())


def _profile_litert(
    network: TfliteNetwork, frame: UInt8, *, runs: int, threads: int, tell: Tell
) -> Profile:
    file = tflite_file.parse(network.content, name=network.file.name)
    parts = _take_apart(file)
    steps = [_Step(part, threads) for part in parts if not part.constant]
    whole = _Step(_whole(file), threads)
    picture = np.ascontiguousarray(network.feed(frame))
    for number in range(-1, runs):  # the first round warms up
        values: Values = {file.inputs[0]: picture}
        for step in steps:
            step.run(values, keep=number >= 0)
        chained = values[file.outputs[0]]
        whole.run(values, keep=number >= 0)
        if not _same(chained, values[file.outputs[0]]):
            raise ModelError(
                f"{network.file.name}: its operators one by one do not give the network's answer, "
                "so their times would say nothing; leave --enable-op-profiling out."
            )
        tell(max(number, 0) + 1, runs)
    times = {step.part.operator.index: tuple(step.ms) for step in steps}
    return Profile(
        method="every operator as a LiteRT model of its own, in turn",
        operators=tuple(
            OperatorTime(
                type=operator.name,
                name=file.tensors[operator.outputs[0]].name,
                kilobytes=_kilobytes(file, operator),
                ms=times.get(operator.index, (0.0,) * runs),
            )
            for operator in file.operators
        ),
        whole_ms=tuple(whole.ms),
    )


@dataclass(frozen=True)
class _Part:
    """A piece of a graph as a model: its last operator, its file, its tensors in the whole."""

    operator: Operator
    content: bytes
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constant: bool = False


class _Step:
    """A part, opened in LiteRT."""

    def __init__(self, part: _Part, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.part = part
        self.ms: list[float] = []
        self._interpreter = Interpreter(model_content=part.content, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._inputs = [one["index"] for one in self._interpreter.get_input_details()]
        self._outputs = [one["index"] for one in self._interpreter.get_output_details()]

    def run(self, values: Values, *, keep: bool) -> None:
        """Run on what is in ``values`` and add what it gives; only the running is timed."""
        for tensor, place in zip(self.part.inputs, self._inputs, strict=True):
            self._interpreter.set_tensor(place, values[tensor])
        start = time.perf_counter()
        self._interpreter.invoke()
        ms = 1e3 * (time.perf_counter() - start)
        if keep:
            self.ms.append(ms)
        for tensor, place in zip(self.part.outputs, self._outputs, strict=True):
            values[tensor] = self._interpreter.get_tensor(place)


def _same(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> bool:
    """Return whether two answers are one; real numbers may differ in their last digits."""
    if not np.issubdtype(wanted.dtype, np.floating):
        return np.array_equal(found, wanted)
    return bool(np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max())


def _whole(file: TfliteFile) -> _Part:
    return _Part(file.operators[-1], file.data, file.inputs, file.outputs)


def _take_apart(file: TfliteFile) -> list[_Part]:
    """Return every operator as a model of its own.

    What depends on nothing but the file (widened float16 weights, …) is computed when a file is
    opened; such operators go into the model of whoever needs them.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.data, 0))
    constant = {tensor.index for tensor in file.tensors if tensor.is_constant} | {-1}
    makers: dict[int, Operator] = {}
    parts = []
    for operator in file.operators:
        if constant.issuperset(operator.inputs):
            constant.update(operator.outputs)
            makers.update(dict.fromkeys(operator.outputs, operator))
            parts.append(_Part(operator, b"", (), (), constant=True))
            continue
        inputs = tuple(dict.fromkeys(i for i in operator.inputs if i not in constant))
        needed = [*_find_makers(operator, makers), operator]
        content = _write_part(schema, model, file, needed, inputs, operator.outputs)
        parts.append(_Part(operator, content, inputs, operator.outputs))
    return parts


def _find_makers(operator: Operator, makers: dict[int, Operator]) -> list[Operator]:
    """Return the constant operators that an operator needs, in their order."""
    found: dict[int, Operator] = {}
    for tensor in operator.inputs:
        if tensor in makers:
            maker = makers[tensor]
            found.update({one.index: one for one in [*_find_makers(maker, makers), maker]})
    return [found[index] for index in sorted(found)]


def _write_part(
    schema: Any,
    model: Any,
    file: TfliteFile,
    operators: Sequence[Operator],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> bytes:
    import flatbuffers

    whole = model.subgraphs[0]
    used = sorted({i for one in operators for i in (*one.inputs, *one.outputs) if i >= 0})
    places = {tensor: place for place, tensor in enumerate(used)} | {-1: -1}
    part, graph = schema.ModelT(), schema.SubGraphT()
    part.version, part.subgraphs, part.operatorCodes = 3, [graph], model.operatorCodes
    part.buffers, graph.tensors, graph.operators = [schema.BufferT()], [], []
    for index in used:
        tensor = copy.copy(whole.tensors[index])
        tensor.buffer = 0
        if file.tensors[index].is_constant:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(file.tensors[index].buffer, np.uint8)
            tensor.buffer = len(part.buffers)
            part.buffers.append(buffer)
        graph.tensors.append(tensor)
    for one in operators:
        operator = copy.copy(whole.operators[one.index])
        operator.inputs = [places[tensor] for tensor in one.inputs]
        operator.outputs = [places[tensor] for tensor in one.outputs]
        graph.operators.append(operator)
    graph.inputs = [places[tensor] for tensor in inputs]
    graph.outputs = [places[tensor] for tensor in outputs]
    builder = flatbuffers.Builder(1024)
    builder.Finish(part.Pack(builder), tflite_file.IDENTIFIER)
    return bytes(builder.Output())


def _kilobytes(file: TfliteFile, operator: Operator) -> float | None:
    total = 0
    for index in operator.outputs:
        tensor = file.tensors[index]
        if tensor.type not in tflite_file.DTYPES:
            return None
        total += int(np.prod(tensor.shape)) * tflite_file.DTYPES[tensor.type].itemsize
    return total / 1e3
