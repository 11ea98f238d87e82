"""The smallest network there is: two and two are added. It shows whether a device computes."""

from __future__ import annotations

import flatbuffers

from deeplab.tflite.file import IDENTIFIER, import_schema

SMALLEST_SHAPE = (1, 4, 4, 4)


def make_smallest() -> bytes:
    """Return a ``.tflite`` that adds its float32 input of ``SMALLEST_SHAPE`` to itself."""
    schema = import_schema()
    model, graph, code, step = (
        schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT(),
    )  # fmt: skip
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version = 1
    step.inputs, step.outputs = [0, 0], [1]
    step.builtinOptionsType = schema.BuiltinOptions.AddOptions
    step.builtinOptions = schema.AddOptionsT()
    graph.tensors, graph.operators = [], [step]
    for name in (b"two", b"four"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(SMALLEST_SHAPE), 0
        graph.tensors.append(tensor)
    graph.inputs, graph.outputs = [0], [1]
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())
