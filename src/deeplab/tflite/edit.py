"""Change the graph of a ``.tflite`` file: steps, tensors, constants and metadata. No torch.

The file is taken apart with the published schema and put together again. What the changed graph
does not need is left behind; metadata, signatures and the files packed behind the model stay.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt

from deeplab.errors import ModelError
from deeplab.tflite.file import DTYPES, IDENTIFIER, TfliteFile, import_schema

# Positions of fields in the tables SubGraph and TensorMap.
# Source: tensorflow/compiler/mlir/lite/schema/schema.fbs.
_SUBGRAPH_OUTPUTS, _SUBGRAPH_OPERATORS = 8, 10
_MAP_TENSOR = 6

_OPTIONS = {
    "ADD": "AddOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "REVERSE_V2": "ReverseV2Options",
}
"""The steps that can be added, and the table of their options."""


_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of packed files: equal models make equal files."""


def cut(file: TfliteFile, output: int) -> bytes:
    """Return the model with ``output`` as its only output and everything after it removed.

    Three places of the flatbuffer are overwritten: the number in the list of outputs, the length of
    the list of operators, and where the signature says which tensor its output is. The weights and
    all other bytes stay as they are, so the tensor has exactly the values it has inside the whole
    model.

    Raises:
        ModelError: other outputs, or steps not needed for ``output`` that cannot be dropped.
    """
    last = file.producer(output)
    if last is None or len(file.outputs) != 1:
        raise ModelError(f"{file.name}: tensor {output} cannot become the only output.")
    data = bytearray(file.data)
    model = import_schema().Model.GetRootAs(file.data, 0)
    graph = model.Subgraphs(0)
    outputs = graph._tab.Vector(graph._tab.Offset(_SUBGRAPH_OUTPUTS))
    operators = graph._tab.Vector(graph._tab.Offset(_SUBGRAPH_OPERATORS))
    struct.pack_into("<i", data, outputs, output)
    struct.pack_into("<I", data, operators - 4, last.index + 1)
    for number in range(model.SignatureDefsLength()):
        signature = model.SignatureDefs(number)
        if signature.SubgraphIndex() == 0 and signature.OutputsLength() == 1:
            place = signature.Outputs(0)._tab
            if at := place.Offset(_MAP_TENSOR):  # a zero is not stored, but means the input
                struct.pack_into("<I", data, place.Pos + at, output)
    return bytes(data)


class GraphEdit:
    """The main graph of a file, taken apart to be changed.

    Tensors and steps keep the numbers of the file until :meth:`finish`; new ones follow.

    Raises:
        ModelError: the file is damaged.
    """

    def __init__(self, file: TfliteFile) -> None:
        self._file = file
        self._schema = import_schema()
        try:
            self._model = self._schema.ModelT.InitFromObj(self._schema.Model.GetRootAs(file.data))
        except Exception as error:  # offsets that lead nowhere raise nearly anything
            raise ModelError(f"{file.name}: the TFLite model is damaged ({error}).") from error
        for buffer in self._model.buffers:
            if buffer.offset > 1:  # kept behind the flatbuffer, as large models do
                stored = file.data[buffer.offset : buffer.offset + buffer.size]
                buffer.data = np.frombuffer(stored, np.uint8)
                buffer.offset = buffer.size = 0
        self._graph = self._model.subgraphs[0]
        self._steps: list[list[Any]] = [[step] for step in self._graph.operators]
        self._same: dict[int, int] = {}
        self._files: dict[str, bytes] = {}

    def add_tensor(self, name: str, shape: Sequence[int], *, type: str = "FLOAT32") -> int:
        """Add a tensor that a step will compute; return its number."""
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), list(shape), 0
        tensor.type = getattr(self._schema.TensorType, type)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def add_constant(self, name: str, values: npt.NDArray[Any], *, type: str = "FLOAT32") -> int:
        """Add values to store in a type that numpy has too; return the tensor's number."""
        number = self.add_tensor(name, values.shape, type=type)
        self._graph.tensors[number].buffer = self._store(values.astype(DTYPES[type]).tobytes())
        return number

    def set_constant(self, number: int, values: npt.NDArray[Any]) -> None:
        """Store other values in a constant of the file, as many as before, in its own type."""
        dtype = DTYPES[self._file.tensors[number].type]
        self._graph.tensors[number].buffer = self._store(values.astype(dtype).tobytes())

    def make_step(
        self, name: str, inputs: Iterable[int], outputs: Iterable[int], **options: Any
    ) -> Any:
        """Return a new step for :meth:`replace`; options by their names in the schema."""
        step = self._schema.OperatorT()
        step.opcodeIndex = self._find_code(name)
        step.inputs, step.outputs = list(inputs), list(outputs)
        step.builtinOptions = getattr(self._schema, f"{_OPTIONS[name]}T")()
        step.builtinOptionsType = getattr(self._schema.BuiltinOptions, _OPTIONS[name])
        for option, value in options.items():
            field = re.sub(r"_(.)", lambda found: found[1].upper(), option)
            assert hasattr(step.builtinOptions, field), option
            setattr(step.builtinOptions, field, value)
        return step

    def replace(self, index: int, steps: Sequence[Any]) -> None:
        """Put new steps in the place of the file's step ``index``."""
        self._steps[index] = list(steps)

    def drop(self, index: int) -> None:
        """Leave out the file's step ``index``; who reads its output reads its first input."""
        (step,) = self._steps[index]
        self._same[step.outputs[0]] = step.inputs[0]
        self._steps[index] = []

    def set_entry(self, name: str, content: bytes) -> None:
        """Set a metadata entry, see ``TfliteFile.entries``."""
        entry = self._schema.MetadataT()
        entry.name, entry.buffer = name.encode(), self._store(content)
        others = [other for other in self._model.metadata or [] if other.name != entry.name]
        self._model.metadata = [*others, entry]

    def add_file(self, name: str, content: bytes) -> None:
        """Pack a file behind the model; one of the same name is replaced."""
        self._files[name] = content

    def add_input(self, number: int) -> None:
        """Let a tensor be given from outside; the step that computed it is left out."""
        for step in (step for group in self._steps for step in group):
            if number in step.outputs:
                self._steps = [[s for s in group if s is not step] for group in self._steps]
        self._graph.inputs = [*self._graph.inputs, number]

    def finish(self, *outputs: int) -> bytes:
        """Return the file with these outputs alone, and nothing that they do not need."""
        chosen = [self._follow(output) for output in outputs]
        if len(chosen) > 1 or len(self._graph.inputs) > len(self._file.inputs):
            self._model.signatureDefs = None  # they name one input and one output
        steps = [step for group in self._steps for step in group]
        for step in steps:
            step.inputs = [self._follow(number) for number in _listed(step.inputs)]
        needed, kept = {*chosen}, []
        for step in reversed(steps):
            if needed & {*step.outputs}:
                needed |= {*step.inputs}
                kept.append(step)
        graph = self._graph
        graph.operators = kept[::-1]
        graph.outputs = chosen
        self._renumber_tensors()
        self._renumber_codes()
        self._renumber_buffers()
        builder = _Builder(len(self._file.data) + (1 << 16))
        builder.Finish(self._model.Pack(builder), IDENTIFIER)
        return _pack_files(bytes(builder.Output()), self._file, self._files)

    def _store(self, content: bytes) -> int:
        """Add bytes to the file; return the buffer's number."""
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(content, np.uint8)
        self._model.buffers.append(buffer)
        return len(self._model.buffers) - 1

    def _find_code(self, name: str) -> int:
        """Return the place of an operator in the list of those used; the newest version of it."""
        number = getattr(self._schema.BuiltinOperator, name)
        codes = self._model.operatorCodes
        found = [
            (code.version, place)
            for place, code in enumerate(codes)
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number
        ]
        if found:
            return int(max(found)[1])
        code = self._schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = number
        code.version = 1
        codes.append(code)
        return len(codes) - 1

    def _follow(self, number: int) -> int:
        while number in self._same:
            number = self._same[number]
        return number

    def _renumber_tensors(self) -> None:
        graph = self._graph
        used = {*graph.inputs, *graph.outputs}
        used |= {i for step in graph.operators for i in (*step.inputs, *step.outputs)}
        new = _places(used - {-1})
        for step in graph.operators:
            step.inputs = [new.get(i, -1) for i in step.inputs]
            step.outputs = [new[i] for i in step.outputs]
            step.intermediates = None  # of recurrent networks' calibration only
        graph.tensors = [graph.tensors[i] for i in new]
        graph.inputs = [new[i] for i in graph.inputs]
        graph.outputs = [new[i] for i in graph.outputs]
        for signature in self._model.signatureDefs or []:
            if signature.subgraphIndex:
                continue
            for given in signature.inputs or []:
                given.tensorIndex = new[given.tensorIndex]
            for given in signature.outputs or []:
                given.tensorIndex = graph.outputs[0]

    def _renumber_codes(self) -> None:
        model = self._model
        steps = [step for graph in model.subgraphs for step in graph.operators or []]
        new = _places({step.opcodeIndex for step in steps})
        for step in steps:
            step.opcodeIndex = new[step.opcodeIndex]
        model.operatorCodes = [model.operatorCodes[i] for i in new]

    def _renumber_buffers(self) -> None:
        model = self._model
        holders = [tensor for graph in model.subgraphs for tensor in graph.tensors or []]
        holders += model.metadata or []
        named = _listed(model.metadataBuffer)
        new = _places({0, *named} | {holder.buffer for holder in holders})
        for holder in holders:
            holder.buffer = new[holder.buffer]
        model.metadataBuffer = [new[i] for i in named] or None
        model.buffers = [model.buffers[i] for i in new]


class _Builder(flatbuffers.Builder):  # type: ignore[misc]
    """Puts every list of bytes at a multiple of 16, as the schema asks of weights.

    Python's code for the schema does not know the attribute ``force_align``. Equal lists of zero
    points are stored once: with a scale per channel they are as many zeros of eight bytes, a tenth
    of an int8 file.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._stored: dict[bytes, Any] = {}

    def CreateNumpyVector(self, x: npt.NDArray[Any]) -> Any:  # noqa: N802
        if x.dtype != np.int64:
            return super().CreateNumpyVector(x)
        content = x.tobytes()
        if content not in self._stored:
            self._stored[content] = super().CreateNumpyVector(x)
        return self._stored[content]

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: N802
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)


def _places(numbers: Iterable[int]) -> dict[int, int]:
    """Return the new place of each number, when only these are kept, in their order."""
    return {number: place for place, number in enumerate(sorted(numbers))}


def _listed(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


def _pack_files(model: bytes, file: TfliteFile, new: Mapping[str, bytes]) -> bytes:
    """Pack the files behind ``file`` behind ``model`` too, as they were packed there, and others.

    New ones are not compressed: some readers map them into memory as they lie.
    """
    if not (file.associated_files or new):
        return model
    packed = io.BytesIO(model)
    packed.seek(0, io.SEEK_END)
    with zipfile.ZipFile(packed, "a") as target:
        if file.associated_files:
            with zipfile.ZipFile(io.BytesIO(file.data)) as source:
                for info in source.infolist():
                    if info.filename not in new:
                        target.writestr(info, source.read(info))
        for name, content in new.items():
            target.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return packed.getvalue()
