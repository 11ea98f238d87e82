"""Read a ``.tflite`` file: tensors, operators, quantisation, metadata. No interpreter, no torch.

A TFLite model is one flatbuffer; files that its metadata mentions (labels) follow it as a zip
archive. Everything is read and checked when the file is opened, because an interpreter may crash
where this module says what is wrong.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import ModelError, ModelNotFoundError

IDENTIFIER = b"TFL3"

_MOST_PACKED = 16 << 20
"""Bytes of all files packed behind a model. The labels of ADE20K have 2 kB."""

DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT32": np.dtype("<f4"), "FLOAT16": np.dtype("<f2"), "FLOAT64": np.dtype("<f8"),
    "INT8": np.dtype("i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"), "UINT8": np.dtype("u1"), "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"), "UINT64": np.dtype("<u8"), "BOOL": np.dtype("?"),
}  # fmt: skip
"""Tensor types that numpy has too."""


@dataclass(frozen=True, eq=False)
class Quantization:
    """``real = (stored - zero_point) * scale``, per tensor or along one axis.

    Attributes:
        scale: (n,) float32; n is 1, or the length of the axis.
        zero_point: (n,) int64.
        axis: the dimension along which ``scale`` runs when n > 1.
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of the graph.

    Attributes:
        index: its number in the graph.
        name: as the converter named it.
        shape: as stored; () for a scalar or an unknown shape.
        type: the schema's name of its type, "FLOAT32", "UINT8", …
        quantization: None for real-valued tensors.
        buffer: the raw stored bytes; empty for tensors that are computed.
        signature: the shape with -1 for sides that may change; () where the file does not say.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    type: str
    quantization: Quantization | None
    buffer: memoryview
    signature: tuple[int, ...] = ()

    @property
    def is_constant(self) -> bool:
        """True where the file stores the tensor's values."""
        return len(self.buffer) > 0

    @property
    def values(self) -> npt.NDArray[Any]:
        """The stored values in the tensor's shape and type, read-only; integers stay integers.

        Raises:
            ModelError: the tensor is computed, of a type numpy lacks, or its size does not fit.
        """
        dtype = DTYPES.get(self.type)
        if dtype is None or not self.is_constant:
            state = f"has type {self.type}" if dtype is None else "is computed, not stored"
            raise ModelError(f"tensor {self.index} '{self.name}': {state}; it has no values here.")
        count = int(np.prod(self.shape, dtype=np.int64))
        if count * dtype.itemsize != len(self.buffer):
            raise ModelError(
                f"tensor {self.index} '{self.name}': stores {len(self.buffer)} bytes, expected "
                f"{count * dtype.itemsize} for shape {self.shape} of {self.type}."
            )
        values: npt.NDArray[Any] = np.frombuffer(self.buffer, dtype=dtype)
        return values.reshape(self.shape)

    def dequantize(self, stored: npt.NDArray[Any] | None = None) -> npt.NDArray[np.float32]:
        """Return real values, float32: of ``stored`` (same quantisation), or of the constant.

        Raises:
            ModelError: there are no values, or the quantisation does not fit them.
        """
        stored = self.values if stored is None else stored
        if self.quantization is None:
            return np.asarray(stored, np.float32)
        quantization = self.quantization
        shape = [1] * stored.ndim
        count, axis = len(quantization.scale), quantization.axis
        if count > 1:
            if not 0 <= axis < stored.ndim or stored.shape[axis] != count:
                raise ModelError(
                    f"tensor {self.index} '{self.name}': has {count} scales along axis {axis} of "
                    f"shape {stored.shape}; the file is damaged."
                )
            shape[axis] = -1
        zero_point = quantization.zero_point.astype(np.float32).reshape(shape)
        real = stored.astype(np.float32) - zero_point
        real *= quantization.scale.reshape(shape)
        return real


@dataclass(frozen=True, eq=False)
class Operator:
    """One step of the graph, in the order of execution.

    Attributes:
        index: its place in that order.
        name: the schema's name, "CONV_2D", "RESIZE_BILINEAR", …; a custom operator's own name.
        inputs: tensor numbers; -1 marks an optional input that is left out.
        outputs: tensor numbers.
        options: the scalar options by their schema name ("stride_w", "dilation_w_factor",
            "align_corners", …); enumerations as their numbers.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, int | float | bool]


@dataclass(frozen=True, eq=False)
class TfliteFile:
    """A TFLite model, read and checked.

    Attributes:
        name: the path, or another name for messages.
        data: the whole file.
        tensors: all tensors of the main graph.
        operators: its steps in order of execution.
        inputs: tensor numbers of the graph's inputs.
        outputs: tensor numbers of the graph's outputs.
        entries: metadata buffers by name; "TFLITE_METADATA" is the standard one.
        signature_keys: names of the signatures, often none.
    """

    name: str
    data: bytes
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    entries: dict[str, bytes]
    signature_keys: tuple[str, ...]

    @cached_property
    def sha256(self) -> str:
        """The file's hash, 64 hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def takes_any_size(self) -> bool:
        """Whether the graph's first input leaves a side open, beside that of the batch."""
        return -1 in self.tensors[self.inputs[0]].signature[1:]

    def producer(self, tensor: int) -> Operator | None:
        """Return the operator that computes a tensor; None for inputs and constants."""
        return next((op for op in self.operators if tensor in op.outputs), None)

    def consumers(self, tensor: int) -> list[Operator]:
        """Return the operators that read a tensor."""
        return [op for op in self.operators if tensor in op.inputs]

    @cached_property
    def associated_files(self) -> dict[str, bytes]:
        """The files packed behind the model (labels, …), by name; {} where there are none.

        Raises:
            ModelError: they are damaged, or unpack to more than labels ever take.
        """
        try:
            archive = zipfile.ZipFile(io.BytesIO(self.data))
        except (zipfile.BadZipFile, NotImplementedError, EOFError):
            return {}
        with archive:
            packed = archive.infolist()
            if sum(info.file_size for info in packed) > _MOST_PACKED:
                raise ModelError(
                    f"{self.name}: the files packed behind the model unpack to more than "
                    f"{_MOST_PACKED >> 20} MiB; labels take a few kilobytes. The file is damaged."
                )
            try:
                # Read no more than is said: what a member really unpacks to may be more.
                return {info.filename: _unpack(archive, info) for info in packed}
            except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError,
                    OSError) as error:  # fmt: skip
                raise ModelError(
                    f"{self.name}: the files packed behind the model are damaged ({error}). "
                    "Download it again."
                ) from None


def read(path: str | PathLike[str]) -> TfliteFile:
    """Read a ``.tflite`` file.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelError: it is not a TFLite model, or it is damaged or cut off.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelNotFoundError(f"model: there is no file {path}.") from None
    except OSError as error:
        reason = "is a folder" if path.is_dir() else f"cannot be read: {error.strerror or error}"
        raise ModelError(f"model: {path} {reason}; expected a .tflite file.") from None
    return parse(data, name=str(path))


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as member:
        return member.read(info.file_size)


def parse(data: bytes, *, name: str = "the model") -> TfliteFile:
    """Read a TFLite model from bytes (see :func:`read`)."""
    if data[4:8] != IDENTIFIER:
        got = "an empty file" if not data else f"{len(data)} bytes that begin with {data[:8]!r}"
        if data.startswith(b"version https://git-lfs"):
            got = "a Git LFS pointer (the file itself was not downloaded)"
        elif data[:64].lstrip().lower().startswith((b"<!doctype", b"<html")):
            got = "a web page (a download that went wrong)"
        raise ModelError(f"{name}: is not a TFLite model: got {got}, expected 'TFL3' at byte 4.")
    try:
        return _parse(data, name)
    except ModelError:
        raise
    except Exception as error:  # offsets that lead nowhere raise nearly anything
        raise ModelError(
            f"{name}: the TFLite model is damaged or cut off ({type(error).__name__}: {error}). "
            "Download it again."
        ) from error


def import_schema() -> ModuleType:
    """Return the published schema of TFLite files, as Python."""
    from ai_edge_litert import schema_py_generated  # 10 ms; not needed for `import deeplab`

    module: ModuleType = schema_py_generated
    return module


def _parse(data: bytes, name: str) -> TfliteFile:
    schema = import_schema()
    model = schema.Model.GetRootAs(data, 0)
    if model.SubgraphsLength() < 1:
        raise ModelError(f"{name}: the TFLite model has no graph.")
    view = memoryview(data)
    graph = model.Subgraphs(0)
    buffers = [_buffer(view, model.Buffers(i)) for i in _range(model.BuffersLength(), view)]
    types = {value: key for key, value in vars(schema.TensorType).items() if isinstance(value, int)}
    tensors = tuple(
        _tensor(i, graph.Tensors(i), types, buffers) for i in _range(graph.TensorsLength(), view)
    )
    codes = _operator_names(schema, model, view)
    operators = tuple(
        _operator(i, graph.Operators(i), codes, schema)
        for i in _range(graph.OperatorsLength(), view)
    )
    entries = {}
    for i in _range(model.MetadataLength(), view):
        entry = model.Metadata(i)
        entries[_text(entry.Name())] = bytes(buffers[entry.Buffer()])
    inputs, outputs = _ints(graph, "Inputs"), _ints(graph, "Outputs")
    _check_graph(name, len(tensors), operators, inputs, outputs)
    signatures = [model.SignatureDefs(i) for i in _range(model.SignatureDefsLength(), view)]
    keys = tuple(_text(signature.SignatureKey()) for signature in signatures)
    return TfliteFile(name, data, tensors, operators, inputs, outputs, entries, keys)


def _range(length: int, view: memoryview) -> range:
    if length * 4 > len(view):  # every element takes at least four bytes
        raise ValueError(f"a list of {length} elements in {len(view)} bytes")
    return range(length)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", errors="replace")


def _ints(table: Any, field: str) -> tuple[int, ...]:
    if getattr(table, f"{field}Length")() == 0:
        return ()
    return tuple(getattr(table, f"{field}AsNumpy")().tolist())


def _buffer(view: memoryview, buffer: Any) -> memoryview:
    if buffer.DataLength():
        start = buffer._tab.Vector(buffer._tab.Offset(4))
        end = start + buffer.DataLength()
    elif buffer.Offset() > 1:  # models above 2 GB keep their weights behind the flatbuffer
        start, end = buffer.Offset(), buffer.Offset() + buffer.Size()
    else:
        return view[:0]
    if end > len(view):
        raise ValueError(f"weights end at byte {end}, the file has {len(view)}")
    return view[start:end]


def _tensor(index: int, tensor: Any, types: dict[int, str], buffers: list[memoryview]) -> Tensor:
    stored = tensor.Quantization()
    quantization = None
    if stored is not None and stored.ScaleLength():
        scale = stored.ScaleAsNumpy().astype(np.float32)
        zero_point = np.zeros(len(scale), np.int64)
        if stored.ZeroPointLength():
            zero_point[:] = stored.ZeroPointAsNumpy()
        quantization = Quantization(scale, zero_point, int(stored.QuantizedDimension()))
    return Tensor(
        index,
        _text(tensor.Name()),
        _ints(tensor, "Shape"),
        types[tensor.Type()],
        quantization,
        buffers[tensor.Buffer()],
        _ints(tensor, "ShapeSignature"),
    )


def _operator_names(schema: ModuleType, model: Any, view: memoryview) -> list[str]:
    builtin = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    names = []
    for i in _range(model.OperatorCodesLength(), view):
        code = model.OperatorCodes(i)
        # Old files keep the number in the first field, new ones in the second; the larger is right.
        name = builtin[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        names.append(_text(code.CustomCode()) if name == "CUSTOM" else name)
    return names


def _operator(index: int, operator: Any, names: list[str], schema: ModuleType) -> Operator:
    options: dict[str, int | float | bool] = {}
    table = operator.BuiltinOptions()
    if table is not None:
        kind = _option_tables(schema)[operator.BuiltinOptionsType()]
        reader = getattr(schema, kind)()
        reader.Init(table.Bytes, table.Pos)
        options = {field: read_field(reader) for field, read_field in _scalar_fields(schema, kind)}
    return Operator(
        index,
        names[operator.OpcodeIndex()],
        _ints(operator, "Inputs"),
        _ints(operator, "Outputs"),
        options,
    )


@cache
def _option_tables(schema: ModuleType) -> dict[int, str]:
    return {v: k for k, v in vars(schema.BuiltinOptions).items() if isinstance(v, int)}


@cache
def _scalar_fields(schema: ModuleType, kind: str) -> list[tuple[str, Callable[[Any], Any]]]:
    """Return (name, reader) of the scalar fields of a generated options table."""
    methods = {k: value for k, value in vars(getattr(schema, kind)).items() if callable(value)}
    fields = []
    for key, value in methods.items():
        plain = key[0].isupper() and not key.startswith("GetRoot") and key != "Init"
        if (
            plain
            and f"{key}Length" not in methods
            and not key.endswith(("Length", "AsNumpy", "IsNone", "BufferHasIdentifier"))
        ):
            snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", key).lower()
            fields.append((snake, value))
    return fields


def _check_graph(
    name: str,
    count: int,
    operators: tuple[Operator, ...],
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
) -> None:
    used = {i for op in operators for i in op.inputs + op.outputs} | {*inputs, *outputs}
    wrong = sorted(i for i in used if not -1 <= i < count)
    if wrong:
        raise ModelError(f"{name}: the graph uses tensors {wrong}, but has only {count}.")
    if not inputs or not outputs:
        raise ModelError(f"{name}: the graph has {len(inputs)} inputs, {len(outputs)} outputs.")
