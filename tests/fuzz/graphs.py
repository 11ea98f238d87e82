"""Mutations of ``.tflite`` files: of bytes, and of the graph through the published schema."""

from __future__ import annotations

import random as rng
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from deeplab import Segmenter, zoo
from deeplab.errors import DeepLabError
from deeplab.labels import LabelSet
from deeplab.runtimes.tflite_network import understand
from deeplab.tflite.file import parse
from deeplab.tflite.optimise import Optimisation
from tiny_tflite import pooled_network, tiny_network

_SHIPPED = zoo.locate("voc-fast").parent
_PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def flip_bytes(random: rng.Random, data: bytes) -> bytes:
    """Set some bytes anywhere, most often where the graph is: before the weights, or behind."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        value = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
        changed[random.randrange(len(changed))] = value
    return bytes(changed)


def cut_or_grow(random: rng.Random, data: bytes) -> bytes:
    """Leave bytes out at the end, or put others there."""
    end = random.randrange(len(data))
    return data[:end] + random.randbytes(random.choice((0, 0, 100)))


def change_graph(random: rng.Random, data: bytes) -> bytes:
    """Change one or two fields of the graph, as a broken converter or an attacker would."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for _ in range(random.choice((1, 1, 2))):
        random.choice(_CHANGES)(random, model)
    builder = flatbuffers.Builder(1024)
    try:
        builder.Finish(model.Pack(builder), b"TFL3")
    except TypeError:  # a number that the schema's own writer refuses
        return data
    return bytes(builder.Output())


def _operator(random: rng.Random, model: Any) -> Any:
    return random.choice(model.subgraphs[0].operators)


def _tensor(random: rng.Random, model: Any) -> Any:
    return random.choice(model.subgraphs[0].tensors)


def _rewire(random: rng.Random, model: Any) -> None:
    operator, count = _operator(random, model), len(model.subgraphs[0].tensors)
    field = random.choice(("inputs", "outputs"))
    wires = list(getattr(operator, field)) or [-1]
    other = random.choice((-1, 0, count - 1, count, random.randrange(count)))
    wires[random.randrange(len(wires))] = other
    setattr(operator, field, wires)


def _arity(random: rng.Random, model: Any) -> None:
    operator = _operator(random, model)
    wires = list(operator.inputs)
    operator.inputs = random.choice([wires[:-1], wires + wires[:1], [], wires[::-1]])


def _steps(random: rng.Random, model: Any) -> None:
    steps = model.subgraphs[0].operators
    place = random.randrange(len(steps))
    random.choice([lambda: steps.pop(place), lambda: steps.insert(place, steps[place]),
                   lambda: steps.append(steps.pop(place))])()  # fmt: skip


def _shape(random: rng.Random, model: Any) -> None:
    tensor = _tensor(random, model)
    shape = list(tensor.shape) if tensor.shape is not None else [1]
    if shape:
        side = random.choice((-1, 0, 1, 2, 7, 1 << 20, (1 << 31) - 1))
        shape[random.randrange(len(shape))] = side
    tensor.shape = random.choice([shape, shape[:-1], [*shape, 1]])


def _type(random: rng.Random, model: Any) -> None:
    _tensor(random, model).type = random.randrange(17)


def _quantisation(random: rng.Random, model: Any) -> None:
    found = [t for t in model.subgraphs[0].tensors if t.quantization is not None]
    if not found:
        return
    quantization = random.choice(found).quantization
    choice = random.randrange(4)
    if choice == 0:
        quantization.scale = [random.choice((0.0, -1.0, float("nan"), float("inf"), 1e30, 1e-30))]
    elif choice == 1:
        quantization.zeroPoint = [random.choice((-(1 << 40), 999, -999, 255))]
    elif choice == 2:
        quantization.scale = [0.5] * random.choice((0, 2, 1000))
    else:
        quantization.quantizedDimension = random.choice((-1, 1, 9))


def _buffer(random: rng.Random, model: Any) -> None:
    _tensor(random, model).buffer = random.randrange(len(model.buffers))


def _ends(random: rng.Random, model: Any) -> None:
    graph = model.subgraphs[0]
    any_tensor = random.randrange(len(graph.tensors))
    if random.random() < 0.5:
        graph.outputs = random.choice([[any_tensor], [], [*graph.outputs, any_tensor], [-1]])
    else:
        graph.inputs = random.choice([[any_tensor], [], [*graph.inputs, any_tensor], [-1]])


def _options(random: rng.Random, model: Any) -> None:
    options = _operator(random, model).builtinOptions
    if options is None:
        return
    fields = [name for name, value in vars(options).items() if isinstance(value, int)]
    if fields:
        setattr(options, random.choice(fields), random.choice((0, 1, -1, 2, 100, (1 << 31) - 1)))


def _code(random: rng.Random, model: Any) -> None:
    code = random.choice(model.operatorCodes)
    code.builtinCode = code.deprecatedBuiltinCode = random.randrange(127)


_CHANGES: list[Callable[[rng.Random, Any], None]] = [
    _rewire, _rewire, _arity, _steps, _shape, _type, _quantisation, _buffer, _ends, _options, _code,
]  # fmt: skip

MUTATIONS = (flip_bytes, cut_or_grow, change_graph, change_graph)


def mutate(random: rng.Random, data: bytes) -> bytes:
    """Return a changed file."""
    return random.choice(MUTATIONS)(random, data)


def run_one(random: rng.Random, folder: Path) -> str:
    """Read a changed file and optimise it; every tenth is run too, as a user would."""
    data = mutate(random, _original(random))
    try:
        file = parse(data)
        network = understand(file)
        parse(Optimisation(file, network.output_tensor.index).apply())
    except DeepLabError:
        return "refused"
    if random.random() > 0.1:
        return "read"
    path = folder / "changed.tflite"
    path.write_bytes(data)
    try:
        result = Segmenter(path, labels=LabelSet(tuple(map(str, range(21)))))(_PHOTO)
    except DeepLabError:
        return "refused when run"
    assert result.mask.max() < 21
    return "run"


def _original(random: rng.Random) -> bytes:
    return random.choice(
        [
            (_SHIPPED / "voc-fast.tflite").read_bytes(),
            tiny_network(classes=21, argmax=True),
            pooled_network(),
        ]
    )
