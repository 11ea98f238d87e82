"""Small networks as other people's tools write them, for the page to read right or refuse."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tiny_tflite import Graph

SIDE = 17
WEIGHTS = np.random.default_rng(0).normal(size=(4, 1, 1, 3)).astype(np.float32)


def one_channel(kind: str) -> bytes:
    """Return a network whose one number says object or not: "logits", "probabilities", "bytes"."""
    build = Graph(SIDE)
    picture = build.tensor((1, SIDE, SIDE, 3))
    last = build.convolve(picture, WEIGHTS[:1])
    if kind != "logits":
        last = build.step("LOGISTIC", last)
    if kind == "bytes":
        last = build.step("QUANTIZE", last, kind=schema.TensorType.UINT8, scale=1 / 255)
    return build.finish([picture], [last])


def softmax() -> bytes:
    build = Graph(SIDE)
    picture = build.tensor((1, SIDE, SIDE, 3))
    return build.finish([picture], [build.step("SOFTMAX", build.convolve(picture, WEIGHTS))])


def channels_first(*, inside: bool) -> bytes:
    """Return a network whose channels come first: in its answer, and ``inside`` its picture too."""
    build = Graph(SIDE)
    picture = build.tensor((1, 3, SIDE, SIDE) if inside else (1, SIDE, SIDE, 3))
    source = build.turn(picture, (0, 2, 3, 1)) if inside else picture
    return build.finish([picture], [build.turn(build.convolve(source, WEIGHTS), (0, 3, 1, 2))])


def several_heads() -> bytes:
    """Return a network whose first output is an auxiliary one."""
    build = Graph(SIDE)
    picture = build.tensor((1, SIDE, SIDE, 3))
    main, other = build.convolve(picture, WEIGHTS), build.convolve(picture, WEIGHTS[::-1].copy())
    build.graph.tensors[main].name, build.graph.tensors[other].name = b"main", b"aux"
    return build.finish([picture], [other, main])


def any_size() -> bytes:
    build = Graph(SIDE)
    picture = build.tensor((1, SIDE, SIDE, 3))
    last = build.convolve(picture, WEIGHTS)
    build.graph.tensors[picture].shapeSignature = [1, -1, -1, 3]
    build.graph.tensors[last].shapeSignature = [1, -1, -1, 4]
    return build.finish([picture], [last])


def for_edge_tpu() -> bytes:
    build = Graph(SIDE)
    picture, last = build.tensor((1, SIDE, SIDE, 3)), build.tensor((1, SIDE, SIDE, 4))
    build.operator("CUSTOM", [picture], [last])
    build.model.operatorCodes[0].customCode = b"edgetpu-custom-op"
    return build.finish([picture], [last])


READ = {
    "one channel": one_channel("logits"),
    "one probability": one_channel("probabilities"),
    "one byte": one_channel("bytes"),
    "softmax": softmax(),
    "channels first": channels_first(inside=True),
    "answer first": channels_first(inside=False),
    "several heads": several_heads(),
}
REFUSED = {"any size": any_size(), "Edge TPU": for_edge_tpu()}
