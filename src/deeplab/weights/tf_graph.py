"""Frozen TensorFlow graphs (``frozen_inference_graph.pb``), read without TensorFlow.

The variables are constants of the graph; strides, rates, epsilons and pooling windows stand in
its operators, so a graph tells more about a network than a checkpoint does.
Source: tensorflow/core/framework/{graph,node_def,attr_value,tensor}.proto.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import WeightsError
from deeplab.weights.archive import map_file
from deeplab.weights.protobuf import (
    Value,
    as_bytes,
    as_int,
    as_text,
    read_fields,
    read_message,
    read_varint,
)
from deeplab.weights.tf_checkpoint import Variables, as_array, parse_shape

_VARIABLE = re.compile(
    r"(weights|depthwise_weights|biases|gamma|beta|moving_mean|moving_variance)$"
)
# Scopes of the head and the decoder; everything else that convolves belongs to the backbone.
# Source: deeplab/model.py, deeplab/core/dense_prediction_cell.py.
_HEAD = re.compile(
    r"(.*/)?(logits|image_pooling|aspp\d|concat_projection|decoder|meta_architecture)(_\d+)?(/|_)"
)


@dataclass(frozen=True)
class Node:
    """One operator: its name, kind, the names of its inputs, and its attributes."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, memoryview]

    def ints(self, name: str) -> tuple[int, ...]:
        """Return a list of integers among the attributes; empty when there is none."""
        value = self._fields(name)
        if 1 not in value:
            return ()
        return tuple(_ints(read_message(as_bytes(value[1][0], name)).get(3, []), name))

    def flag(self, name: str) -> bool:
        """Return a boolean attribute; False when there is none."""
        return bool(self._fields(name).get(5, [0])[0])

    def number(self, name: str) -> float | None:
        """Return a float attribute; None when there is none."""
        value = self._fields(name).get(4)
        return None if value is None else _float(as_int(value[0], name))

    def array(self) -> npt.NDArray[np.generic]:
        """Return the value of a Const.

        Raises:
            WeightsError: the value is not numeric, or is damaged.
        """
        value = self._fields("value")
        if 8 not in value:
            raise WeightsError(f"{self.name}: a Const without a value: damaged file.")
        try:
            return _parse_tensor(as_bytes(value[8][0], "tensor"))
        except WeightsError as error:
            raise WeightsError(f"{self.name}: {error}") from error

    def _fields(self, name: str) -> dict[int, list[Value]]:
        return read_message(self.attributes[name]) if name in self.attributes else {}


@dataclass(frozen=True)
class Graph:
    """The operators of a frozen graph by name."""

    nodes: dict[str, Node]

    def variable_names(self) -> set[str]:
        """Return the names of the network's weights."""
        return {
            name
            for name, node in self.nodes.items()
            if node.op == "Const" and _VARIABLE.search(name)
        }

    def variables(self) -> Variables:
        """Return the network's weights by variable name, as the checkpoint had them."""
        names = self.variable_names()
        return {name: node.array() for name, node in self.nodes.items() if name in names}

    def constant(self, name: str) -> npt.NDArray[np.generic] | None:
        """Return a constant, also through Identity; None when ``name`` is computed."""
        node = self.nodes.get(_plain(name))
        for _ in self.nodes:  # a damaged graph may lead in a circle
            if node is None or node.op != "Identity" or not node.inputs:
                break
            node = self.nodes.get(_plain(node.inputs[0]))
        return node.array() if node is not None and node.op == "Const" else None


def read_graph(path: str | Path) -> Graph:
    """Return the operators of a frozen ``.pb``.

    Raises:
        ModelNotFoundError: there is no such file.
        WeightsError: it is cut off, no graph, or a SavedModel.
    """
    try:
        return parse_graph(map_file(Path(path)))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def parse_graph(data: memoryview) -> Graph:
    """Return the operators in the bytes of a GraphDef; see :func:`read_graph`."""
    if bytes(data[:1]) == b"\x08":
        raise WeightsError(
            "this is a SavedModel, not a frozen graph. Give its 'variables' folder instead: "
            "that holds an ordinary checkpoint."
        )
    nodes: dict[str, Node] = {}
    for number, value in read_fields(data):
        if number == 1:
            node = _parse_node(as_bytes(value, "node"))
            nodes[node.name] = node
    if not nodes:
        raise WeightsError("no operators found: this is no TensorFlow graph (GraphDef).")
    return Graph(nodes)


# ----------------------------------------------------------------------------- what a graph tells


def read_settings(graph: Graph) -> dict[str, Any]:
    """Return fields of the network configuration that the operators of ``graph`` tell.

    That is: output_stride, atrous_rates with rates_stated_at, multi_grid,
    image_pooling_crop_size, image_pooling_stride, align_corners, backbone_bn_eps, head_bn_eps;
    each only where the graph shows it.
    """
    rates: dict[str, tuple[int, int]] = {}
    epsilons: dict[bool, set[float]] = {True: set(), False: set()}
    settings: dict[str, Any] = {}
    for node in graph.nodes.values():
        if node.op in ("Conv2D", "DepthwiseConv2dNative"):
            rates[node.name] = _rate(graph, node)
        elif node.op.startswith("FusedBatchNorm"):
            epsilons[_HEAD.match(node.name) is not None].add(node.number("epsilon") or 0.0)
        elif node.op == "ResizeBilinear":
            settings["align_corners"] = node.flag("align_corners")
    output_stride = _output_stride(graph)
    settings["output_stride"] = output_stride
    for field, in_head in (("backbone_bn_eps", False), ("head_bn_eps", True)):
        if len(epsilons[in_head]) == 1:
            settings[field] = epsilons[in_head].pop()
    aspp = {
        int(match.group(1)): rate[0]
        for name, rate in rates.items()
        if (match := re.match(r"aspp([1-9])(_depthwise)?/", name))
    }
    if aspp:
        settings["atrous_rates"] = tuple(aspp[index] for index in sorted(aspp))
        settings["rates_stated_at"] = output_stride
    settings.update(_read_multi_grid(rates))
    settings.update(_read_pooling(graph, output_stride))
    return settings


def _output_stride(graph: Graph) -> int:
    """Return how many input pixels one step of the backbone's last features spans."""
    strides: dict[str, int] = {}
    largest = 1
    for node in _in_order(graph):
        inputs = [strides.get(_plain(name), 1) for name in node.inputs]
        own = node.ints("strides")[1] if node.op in _STRIDED and node.ints("strides") else 1
        head = _HEAD.match(node.name) is not None or node.op == "AvgPool"
        strides[node.name] = max(inputs, default=1) * (1 if head else own)
        if node.op in _CONVOLUTIONS and not head:
            largest = max(largest, strides[node.name])
    return largest


_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_STRIDED = (*_CONVOLUTIONS, "MaxPool")


def _in_order(graph: Graph) -> Iterator[Node]:
    """Yield every node after its inputs, whatever the order of the file."""
    done: set[str] = set()
    for start in graph.nodes.values():
        stack = [start]
        while stack:
            node = stack[-1]
            if node.name in done:
                stack.pop()
                continue
            missing = [
                graph.nodes[_plain(name)]
                for name in node.inputs
                if _plain(name) in graph.nodes and _plain(name) not in done
            ]
            if missing and len(stack) <= len(graph.nodes):
                stack.extend(missing)
                continue
            done.add(node.name)
            yield stack.pop()


def _rate(graph: Graph, node: Node) -> tuple[int, int]:
    """Return the (vertical, horizontal) rate: of the operator, or of the batches around it."""
    dilations = node.ints("dilations")
    if len(dilations) == 4 and max(dilations) > 1:
        return dilations[1], dilations[2]
    source = graph.nodes.get(_plain(node.inputs[0])) if node.inputs else None
    if source is not None and source.op == "SpaceToBatchND" and len(source.inputs) > 1:
        block = graph.constant(source.inputs[1])
        if block is not None and block.shape == (2,):
            return int(block[0]), int(block[1])
    return 1, 1


def _read_multi_grid(rates: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Return the rates of the last block's three units, relative to the smallest."""
    resnet = {
        int(match.group(1)): rate[0]
        for name, rate in rates.items()
        if (match := re.search(r"resnet_v1_\d+/block4/unit_(\d)/.*/conv2(_\d)?/", name))
    }
    xception = {
        int(match.group(1)): rate[0]
        for name, rate in rates.items()
        if (match := re.search(r"exit_flow/block2/.*/separable_conv(\d)_depthwise/", name))
    }
    units = resnet if len(resnet) == 3 else xception
    if len(units) != 3:
        return {}
    base = min(units.values())
    return {"multi_grid": tuple(units[index] // base for index in sorted(units))}


def _read_pooling(graph: Graph, output_stride: int) -> dict[str, Any]:
    """Return the image pooling's window, as the photo size it covers, and its stride."""
    for node in graph.nodes.values():
        window, step = node.ints("ksize"), node.ints("strides")
        if node.op == "AvgPool" and len(window) == 4 and len(step) == 4:
            return {
                "image_pooling_crop_size": (
                    (window[1] - 1) * output_stride + 1,
                    (window[2] - 1) * output_stride + 1,
                ),
                "image_pooling_stride": (step[1], step[2]),
            }
    return {}


# -------------------------------------------------------------------------------- the messages


def _parse_node(message: memoryview) -> Node:
    fields = read_message(message)
    attributes = {}
    for entry in fields.get(5, []):
        pair = read_message(as_bytes(entry, "attribute"))
        if 1 in pair and 2 in pair:
            name = as_text(pair[1][0], "attribute, name")
            attributes[name] = as_bytes(pair[2][0], "attribute, value")
    if 1 not in fields or 2 not in fields:
        raise WeightsError("an operator has no name or no kind: this is no TensorFlow graph.")
    return Node(
        name=as_text(fields[1][0], "node, name"),
        op=as_text(fields[2][0], "node, op"),
        inputs=tuple(as_text(value, "node, input") for value in fields.get(3, [])),
        attributes=attributes,
    )


def _plain(name: str) -> str:
    """Return the node that an input name means: without "^" and output number."""
    return name.removeprefix("^").split(":")[0]


# Field of the typed values by type, and how one of them is stored when packed.
# Source: TensorProto. half_val holds bit patterns, of bfloat16 too.
_TYPED = {1: (5, "f"), 2: (6, "d"), 9: (10, "q"), 10: (11, "q"), 14: (13, "H"), 19: (13, "H"),
          22: (16, "q"), 23: (17, "q")}  # fmt: skip


_ROOM, _TIMES = 1 << 22, 8  # values that few may stand for; else so many times as there are
_LARGEST = 1 << 28  # values in one constant; the largest of the original has 2**24


def _parse_tensor(message: memoryview) -> npt.NDArray[np.generic]:
    fields = read_message(message)
    dtype = as_int(fields.get(1, [0])[0], "tensor, type")
    shape = parse_shape(as_bytes(fields[2][0], "tensor, shape")) if 2 in fields else ()
    if fields.get(4):
        return as_array(as_bytes(fields[4][0], "tensor, content"), dtype, shape)
    field, kind = _TYPED.get(dtype, (7, "q"))
    template = as_array(memoryview(bytes(16))[: _size(dtype)], dtype, ())
    stored: list[float] = []
    for value in fields.get(field, []):
        stored.extend(_numbers(value, kind))
    if kind == "H":
        bits = np.array(stored, np.uint16)
        values = bits.view(np.float16) if dtype == 19 else _widen(bits)
    else:
        values = np.array(stored).astype(template.dtype)
    count = math.prod(shape)
    if len(values) == 0:
        values = np.zeros(1, template.dtype)
    if len(values) > max(count, 1) or count > _LARGEST:
        raise WeightsError(f"{len(values)} values for the shape {shape}: damaged file.")
    # The last value stands for all that follow; where it stands for all, once is enough.
    if len(values) == 1:
        return np.broadcast_to(values[0], shape)
    if count > _ROOM and count > _TIMES * len(values):
        raise WeightsError(f"{len(values)} values stand for {count}: damaged file.")
    return np.concatenate([values, np.repeat(values[-1:], count - len(values))])[:count].reshape(
        shape
    )


def _size(dtype: int) -> int:
    for size in (1, 2, 4, 8, 16):
        try:
            as_array(memoryview(bytes(size)), dtype, ())
        except WeightsError:
            continue
        return size
    raise WeightsError(f"a constant of type {dtype} is no number.")


def _widen(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _numbers(value: Value, kind: str) -> list[float]:
    """Return one value, or a packed list of them."""
    if isinstance(value, int):
        if kind in "fd":
            size = 4 if kind == "f" else 8
            return [struct.unpack("<" + kind, value.to_bytes(size, "little"))[0]]
        return [as_int(value, "value")]
    if kind in "fd":
        size = 4 if kind == "f" else 8
        if len(value) % size:
            raise WeightsError("a list of values is cut off: damaged file.")
        return list(np.frombuffer(value, "<f4" if kind == "f" else "<f8"))
    return list(_ints([value], "values"))


def _ints(values: list[Value], what: str) -> Iterator[int]:
    """Yield integers that come one by one or packed."""
    for value in values:
        if isinstance(value, int):
            yield as_int(value, what)
            continue
        at = 0
        while at < len(value):
            number, at = read_varint(value, at)
            yield as_int(number, what)


def _float(bits: int) -> float:
    """Return the float32 with these bits, as the shortest decimal that means it."""
    return float(str(np.float32(struct.unpack("<f", struct.pack("<I", bits))[0])))
