"""Build tiny TFLite networks for tests: a strided 1×1 convolution, a resize, an argmax."""

from __future__ import annotations

import io
import zipfile

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


class Builder:
    """Collects tensors and operators of one graph."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.graph = schema.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, shape, kind=schema.TensorType.FLOAT32, values=None, scale=None, zero=0) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), kind, 0
        tensor.name = f"tensor{len(self.graph.tensors)}".encode()
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, name: str, inputs, outputs, options=None) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = 1
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self.graph.operators.append(operator)

    def finish(self, inputs, outputs) -> bytes:
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def tiny_network(
    *,
    classes: int = 4,
    frame: int = 9,
    stride: int = 4,
    align_corners: bool = True,
    half_pixel: bool = False,
    resize: bool = True,
    argmax: bool = False,
    seed: int = 0,
) -> bytes:
    """Return a network that looks at every ``stride``-th pixel: real input, -1..1."""
    rng = np.random.default_rng(seed)
    build = Builder()
    grid = -(-frame // stride)
    picture = build.tensor((1, frame, frame, 3))
    weights = rng.normal(size=(classes, 1, 1, 3)).astype(np.float32)
    bias = rng.normal(scale=0.1, size=classes).astype(np.float32)
    last = build.tensor((1, grid, grid, classes))
    options = schema.Conv2DOptionsT()
    options.strideW = options.strideH = stride
    inputs = [picture, build.tensor(weights.shape, values=weights)]
    inputs.append(build.tensor(bias.shape, values=bias))
    build.operator("CONV_2D", inputs, [last], options)
    if resize:
        size = np.array([frame, frame], np.int32)
        resized = build.tensor((1, frame, frame, classes))
        options = schema.ResizeBilinearOptionsT()
        options.alignCorners, options.halfPixelCenters = align_corners, half_pixel
        inputs = [last, build.tensor((2,), schema.TensorType.INT32, size)]
        build.operator("RESIZE_BILINEAR", inputs, [resized], options)
        last = resized
    if argmax:
        side = build.graph.tensors[last].shape[1]
        ids = build.tensor((1, side, side), schema.TensorType.INT64)
        options = schema.ArgMaxOptionsT()
        options.outputType = schema.TensorType.INT64
        axis = build.tensor((1,), schema.TensorType.INT32, np.array([3], np.int32))
        build.operator("ARG_MAX", [last, axis], [ids], options)
        last = ids
    return build.finish([picture], [last])


def with_files(model: bytes, files: dict[str, bytes]) -> bytes:
    """Return the model with files packed behind it, as the metadata tools do."""
    packed = io.BytesIO(model)
    packed.seek(0, io.SEEK_END)
    with zipfile.ZipFile(packed, "a") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()
