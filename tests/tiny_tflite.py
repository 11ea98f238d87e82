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
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 2 if name == "BROADCAST_TO" else 1
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


class Graph(Builder):
    """Networks of 1×1 convolutions on a square, with what other tools put around them."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def convolve(self, source: int, weights: np.ndarray) -> int:
        target = self.tensor((1, self.side, self.side, len(weights)))
        options = schema.Conv2DOptionsT()
        options.strideW = options.strideH = 1
        bias = self.tensor((len(weights),), values=np.zeros(len(weights), np.float32))
        inputs = [source, self.tensor(weights.shape, values=weights), bias]
        self.operator("CONV_2D", inputs, [target], options)
        return target

    def step(self, name: str, source: int, *, kind: int = 0, scale: float | None = None) -> int:
        options = {"SOFTMAX": schema.SoftmaxOptionsT, "QUANTIZE": schema.QuantizeOptionsT}.get(name)
        made = options() if options else None
        if name == "SOFTMAX":
            made.beta = 1.0
        target = self.tensor(self.graph.tensors[source].shape, kind, scale=scale)
        self.operator(name, [source], [target], made)
        return target

    def turn(self, source: int, order: tuple[int, ...]) -> int:
        shape = [self.graph.tensors[source].shape[axis] for axis in order]
        target = self.tensor(shape)
        axes = self.tensor((4,), schema.TensorType.INT32, np.array(order, np.int32))
        self.operator("TRANSPOSE", [source, axes], [target], schema.TransposeOptionsT())
        return target


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


def pooled_network(
    *,
    frame: int = 33,
    pool: int | None = None,
    spread: str = "RESIZE_BILINEAR",
    pooled_first: bool = True,
    maps: int = 2,
    precision: type = np.float32,
    kernel: int = 1,
    axis: int = 3,
    read_twice: bool = False,
    idle: bool = True,
    seed: int = 0,
) -> bytes:
    """Return a small DeepLab v3: features, the pooled image and ``maps`` others, their projection.

    ``pool`` is the side of the pooling's window, the whole map by default; ``spread`` the step that
    brings the pooled cell to the map's size.
    """
    rng = np.random.default_rng(seed)
    build = Builder()
    grid = -(-frame // 8)
    pool = pool or grid

    def constant(values: np.ndarray) -> int:
        kind = {np.float32: schema.TensorType.FLOAT32, np.float16: schema.TensorType.FLOAT16}
        stored = build.tensor(values.shape, kind[precision], values.astype(precision))
        if precision is np.float32:
            return stored
        wide = build.tensor(values.shape)
        build.operator("DEQUANTIZE", [stored], [wide], schema.DequantizeOptionsT())
        return wide

    def convolve(source: int, channels: int, side: int = 1, stride: int = 1, relu: int = 1) -> int:
        _, height, width, depth = build.graph.tensors[source].shape
        weights = rng.normal(size=(channels, side, side, depth)) / (side * depth**0.5)
        target = build.tensor((1, -(-height // stride), -(-width // stride), channels))
        options = schema.Conv2DOptionsT()
        options.strideW = options.strideH = stride
        options.fusedActivationFunction = relu
        bias = build.tensor((channels,), values=rng.normal(size=channels).astype(np.float32))
        build.operator("CONV_2D", [source, constant(weights), bias], [target], options)
        return target

    def resize(source: int, side: int, name: str = "RESIZE_BILINEAR") -> int:
        _, height, _, depth = build.graph.tensors[source].shape
        target = build.tensor((1, side, side, depth))
        values = {"TILE": [1, side // height, side // height, 1], "BROADCAST_TO": [1, side, side,
                  depth]}.get(name, [side, side])  # fmt: skip
        size = build.tensor((len(values),), schema.TensorType.INT32, np.array(values, np.int32))
        options = None
        if name.startswith("RESIZE"):
            options = getattr(schema, name.title().replace("_", "") + "OptionsT")()
            options.alignCorners = True
        build.operator(name, [source, size], [target], options)
        return target

    picture = build.tensor((1, frame, frame, 3))
    features = convolve(picture, 8, 3, stride=8)
    pooling = schema.Pool2DOptionsT()
    pooling.filterHeight = pooling.filterWidth = pool
    pooling.strideH = pooling.strideW = 1
    pooling.padding = schema.Padding.VALID
    pooled = build.tensor((1, grid - pool + 1, grid - pool + 1, 8))
    build.operator("AVERAGE_POOL_2D", [features], [pooled], pooling)
    parts = [resize(convolve(pooled, 6), grid, spread)]
    others = [convolve(features, 5 + i, 3) for i in range(maps)]
    parts = parts + others if pooled_first else others + parts
    depth = sum(int(build.graph.tensors[part].shape[3]) for part in parts)
    joined = build.tensor((1, grid, grid, depth))
    joining = schema.ConcatenationOptionsT()
    joining.axis = axis
    build.operator("CONCATENATION", parts, [joined], joining)
    projected = convolve(joined, 7, kernel)
    last = convolve(projected, 4, relu=0)
    if read_twice:
        other, summed = convolve(joined, 4, relu=0), build.tensor((1, grid, grid, 4))
        build.operator("ADD", [last, other], [summed], schema.AddOptionsT())
        last = summed
    if idle:
        last = convolve(resize(last, grid), 4, relu=0)
    return build.finish([picture], [resize(resize(last, grid), frame)])


def with_files(model: bytes, files: dict[str, bytes]) -> bytes:
    """Return the model with files packed behind it, as the metadata tools do."""
    packed = io.BytesIO(model)
    packed.seek(0, io.SEEK_END)
    with zipfile.ZipFile(packed, "a") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()
