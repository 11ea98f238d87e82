"""The operators and constants of a ``.tflite`` file, as a graph to walk; nothing is run.

Source: tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import WeightsError

# Source: schema.fbs, TensorType.
_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "|u1", 4: "<i8", 7: "<i2", 9: "|i1"}


@dataclass(frozen=True)
class Operator:
    """One operator: its kind ("CONV_2D"), the tensors it reads and writes, its options."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]

    def option(self, name: str, default: int = 0) -> int:
        """Return an option by its name in the schema."""
        return int(self.options.get(name, default))

    @property
    def stride(self) -> int:
        """The stride of a convolution or pooling; rows and columns alike."""
        return self.option("strideH", 1)

    @property
    def rate(self) -> int:
        """The dilation of a convolution; rows and columns alike."""
        return self.option("dilationHFactor", 1)


@dataclass(frozen=True)
class Tensor:
    """Name, shape, and how stored integers become numbers: (stored − zero_point) · scale."""

    name: str
    shape: tuple[int, ...]
    dtype: int
    content: npt.NDArray[np.uint8] | None
    scale: npt.NDArray[np.float64] | None
    zero_point: npt.NDArray[np.float64] | None
    axis: int

    def values(self) -> npt.NDArray[np.float32] | None:
        """Return a constant as float32, dequantised; None when the tensor is computed.

        Raises:
            WeightsError: its type is not known, or its size does not fit its shape.
        """
        if self.content is None:
            return None
        if self.dtype not in _DTYPES:
            raise WeightsError(f"{self.name}: constants of type {self.dtype} are not known here.")
        stored = np.dtype(_DTYPES[self.dtype])
        if self.content.size != stored.itemsize * int(np.prod(self.shape, dtype=np.int64)):
            raise WeightsError(
                f"{self.name}: {self.content.size} bytes do not fit the shape {self.shape} of "
                f"{stored}: damaged file."
            )
        values = self.content.view(stored).reshape(self.shape)
        if self.scale is None or self.zero_point is None:
            return values.astype(np.float32)
        shape = [1] * len(self.shape)
        if self.scale.size > 1:
            shape[self.axis] = -1
        real = (values - self.zero_point.reshape(shape)) * self.scale.reshape(shape)
        return real.astype(np.float32)


@dataclass(frozen=True)
class TFLiteGraph:
    """The first subgraph of a file."""

    operators: tuple[Operator, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @cached_property
    def _readers(self) -> dict[int, list[Operator]]:
        readers: dict[int, list[Operator]] = {}
        for operator in self.operators:
            for tensor in operator.inputs:
                readers.setdefault(tensor, []).append(operator)
        return readers

    @cached_property
    def _writers(self) -> dict[int, Operator]:
        return {tensor: operator for operator in self.operators for tensor in operator.outputs}

    def readers(self, tensor: int) -> list[Operator]:
        """Return the operators that read a tensor, also behind a change of its precision."""
        found = []
        for operator in self._readers.get(tensor, []):
            if operator.kind in ("QUANTIZE", "DEQUANTIZE"):
                found += self.readers(operator.outputs[0])
            else:
                found.append(operator)
        return found

    def source(self, tensor: int) -> int:
        """Return the tensor that this one is, but for its precision."""
        writer = self._writers.get(tensor)
        while writer is not None and writer.kind in ("QUANTIZE", "DEQUANTIZE"):
            tensor = writer.inputs[0]
            writer = self._writers.get(tensor)
        return tensor

    def constant(self, tensor: int) -> npt.NDArray[np.float32] | None:
        """Return a constant as float32, dequantised; None for a computed or absent tensor."""
        return None if tensor < 0 else self.tensors[self.source(tensor)].values()


def parse_tflite(data: bytes | memoryview) -> TFLiteGraph:
    """Return the graph in the bytes of a ``.tflite`` file.

    Raises:
        WeightsError: it is no such file, or is cut off or damaged.
    """
    from ai_edge_litert import schema_py_generated as schema

    if bytes(data[4:8]) != b"TFL3":
        raise WeightsError("this is no .tflite file: its bytes 4 to 8 are not 'TFL3'.")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        return _graph(model, schema)
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise WeightsError(f"the file is cut off or damaged ({error}).") from error


def _graph(model: Any, schema: Any) -> TFLiteGraph:
    kinds = {
        number: name
        for name, number in vars(schema.BuiltinOperator).items()
        if isinstance(number, int)
    }
    graph = model.subgraphs[0]
    operators = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        options = vars(operator.builtinOptions) if operator.builtinOptions is not None else {}
        operators.append(
            Operator(
                # Codes up to 127 stood in a byte first; files have one of the two fields or both.
                kind=kinds[max(code.builtinCode, code.deprecatedBuiltinCode)],
                inputs=tuple(int(tensor) for tensor in operator.inputs),
                outputs=tuple(int(tensor) for tensor in operator.outputs),
                options=options,
            )
        )
    tensors = tuple(_tensor(tensor, model.buffers[tensor.buffer].data) for tensor in graph.tensors)
    count = len(tensors)
    for index in (i for op in operators for i in (*op.inputs, *op.outputs)):
        if not -1 <= index < count:
            raise IndexError(f"tensor {index} of {count}")
    return TFLiteGraph(
        tuple(operators),
        tensors,
        tuple(int(tensor) for tensor in graph.inputs),
        tuple(int(tensor) for tensor in graph.outputs),
    )


def _tensor(tensor: Any, content: Any) -> Tensor:
    quantisation = tensor.quantization
    scale = zero = None
    if quantisation is not None and quantisation.scale is not None and len(quantisation.scale):
        scale = np.asarray(quantisation.scale, np.float64)
        points = quantisation.zeroPoint
        zero = np.zeros_like(scale) if points is None else np.asarray(points, np.float64)
    name = tensor.name.decode("utf-8", "replace") if tensor.name is not None else ""
    return Tensor(
        name=name,
        shape=() if tensor.shape is None else tuple(int(size) for size in tensor.shape),
        dtype=int(tensor.type),
        content=None if content is None or len(content) == 0 else np.asarray(content, np.uint8),
        scale=scale,
        zero_point=zero,
        axis=0 if quantisation is None else int(quantisation.quantizedDimension),
    )
