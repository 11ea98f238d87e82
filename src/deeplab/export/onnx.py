"""From the network to an ``.onnx`` file, through ``torch.export``.

``image`` uint8 (N, H, W, 3) RGB 0..255 → ``logits`` float32 (N, h, w, K) or ``mask`` uint8
(N, H, W); see :mod:`deeplab.export.program`. N, H and W are open where the card says ``any_size``.
The card lies in ``metadata_props`` under ``deeplab``.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from deeplab.errors import ExportError, MissingExtraError
from deeplab.export.half import is_depthwise
from deeplab.export.layer_names import layer_name, layer_of, number
from deeplab.export.plan import Plan
from deeplab.export.program import find_layers, pictures, trace
from deeplab.export.quiet import quiet, reason
from deeplab.export.same_padding import translations
from deeplab.runtimes.network_card import KEY

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
"""The oldest that knows all that is needed: what most engines read today."""


def convert(plan: Plan, target: Path) -> tuple[str, ...]:
    """Write the network as an ``.onnx`` file; return the layers that int8 left in float.

    float16 stores weights, but the few of depthwise layers, in half the space; whoever runs the
    file computes in float32, or in half precision where told so (TensorRT). int8 has unsigned
    activations and signed weights with one scale per channel, which is what ONNX Runtime runs
    fastest.

    Raises:
        MissingExtraError: a package is not installed.
        ExportError: an operation has no counterpart in ONNX.
        InputError: a setting that this format does not have.
    """
    onnx = _import_onnx()
    model = build(plan)
    kept = find_layers(plan)
    if plan.precision == "float16":
        _halve_weights(model)
    elif plan.precision == "int8":
        model = _quantise(model, plan, kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, plan.card.to_json()
    onnx.checker.check_model(model)
    target.write_bytes(model.SerializeToString())
    return kept


def count_int8(target: Path) -> int:
    """Return how many tensors of the file are integers of eight bits."""
    onnx = _import_onnx()
    graph = onnx.load(target).graph
    weights = sum(t.data_type == onnx.TensorProto.INT8 for t in graph.initializer)
    return int(weights + sum(node.op_type == "QuantizeLinear" for node in graph.node))


def build(plan: Plan) -> ModelProto:
    """Return the network as an ONNX model, its convolutions called as the network's layers.

    Raises:
        MissingExtraError: a package is not installed.
        ExportError: an operation has no counterpart in ONNX.
    """
    _import_onnx()
    program = trace(plan)
    try:
        with quiet():
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=[plan.output],
                custom_translation_table=translations(),
                verbose=False,
            )
            assert made is not None
            model = made.model_proto
    except Exception as error:  # the converter has no errors of its own
        raise ExportError(
            f"onnx: the converter cannot write this network ({reason(error)}). "
            "Try another format: --to tflite."
        ) from error
    _tidy(model, plan)
    return model


def _halve_weights(model: ModelProto) -> None:
    """Store the weights that are rounded already in float16, each with a cast behind it."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.ndim != 4 or is_depthwise(weight):
            continue
        name = tensor.name
        stored = numpy_helper.from_array(weight.astype(np.float16), f"{name}.float16")
        tensor.CopyFrom(stored)
        casts.append(helper.make_node("Cast", [stored.name], [name], name, to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _quantise(model: ModelProto, plan: Plan, kept: Sequence[str]) -> ModelProto:
    """Return the model in int8, ranges measured as the mean over photos of what each reaches."""
    onnx = _import_onnx()
    try:
        with quiet():
            from onnxruntime import quantization
    except ImportError as error:
        raise MissingExtraError(
            "int8 in .onnx files", package="onnxruntime", extra="onnx"
        ) from error

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.photos = pictures(plan)

        def get_next(self) -> dict[str, Any] | None:
            photo = next(self.photos, None)
            return None if photo is None else {"image": photo}

    # The logits stay float: in 256 steps, ties would decide the borders of the mask.
    nodes = list(model.graph.node)
    last = max(index for index, node in enumerate(nodes) if node.op_type == "Conv")
    layers = {*kept, layer_of(nodes[last].name)}
    real = [node.name for node in nodes[:last] if layer_of(node.name) in layers]
    with tempfile.TemporaryDirectory() as folder, quiet():
        file = Path(folder, "int8.onnx")
        quantization.quantize_static(
            model,
            file,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[*real, *(node.name for node in nodes[last:])],
            extra_options={"CalibMovingAverage": True},
        )
        return onnx.load(file)  # type: ignore[no-any-return, unused-ignore]


def _tidy(model: ModelProto, plan: Plan) -> None:
    """Take out what the tracer knew of this machine; name layers, sides and the maker."""
    graph = model.graph
    taken: Counter[str] = Counter()
    layers: dict[str, str] = {}
    for tensor in graph.initializer:
        layers[tensor.name] = layer_name(tensor.name)
    for index, node in enumerate(graph.node):
        del node.metadata_props[:]
        node.doc_string = ""
        weight = layers.get(node.input[1], "") if node.op_type == "Conv" else ""
        node.name = number(weight, taken) if weight else f"{node.op_type.lower()}_{index}"
    del graph.value_info[:]
    for values in (graph.input, graph.output, graph.initializer):
        for value in values:
            del value.metadata_props[:]
    names = {"image": ("batch", "height", "width"), "logits": ("batch", "rows", "columns"),
             "mask": ("batch", "height", "width")}  # fmt: skip
    for value in (*graph.input, *graph.output):
        sides = value.type.tensor_type.shape.dim
        for side, name in zip(sides, names[value.name], strict=False):
            if side.WhichOneof("value") != "dim_value":
                side.dim_param = name
    graph.name = "deeplab"
    model.producer_name = "deeplab"
    model.producer_version = ""
    model.doc_string = (
        "image: RGB, 0..255, (N, height, width, 3); the normalisation is inside. "
        f"Labels and the rest: metadata_props['{KEY}'], JSON."
    )
    del model.metadata_props[:]


def _import_onnx() -> Any:
    try:
        with quiet():
            import onnx
            import onnxscript  # noqa: F401 (what torch.onnx is made of)
    except ImportError as error:
        package = "onnx" if error.name == "onnx" else "onnxscript"
        raise MissingExtraError("Writing .onnx files", package=package, extra="onnx") from error
    return onnx
