"""From the network to OpenVINO: ``NAME.xml`` with the graph, ``NAME.bin`` with the weights.

OpenVINO reads torch's programs only at fixed sizes, so the way goes through ONNX and input and
output are as there (:mod:`deeplab.export.onnx`). The card lies in ``rt_info`` under ``deeplab``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deeplab.errors import ExportError, MissingExtraError, OutputError
from deeplab.export import onnx
from deeplab.export.layer_names import layer_of
from deeplab.export.plan import Plan
from deeplab.export.program import find_layers, pictures
from deeplab.export.quiet import quiet, reason
from deeplab.runtimes.network_card import KEY


def convert(plan: Plan, target: Path) -> tuple[str, ...]:
    """Write the network as ``target`` (``.xml``) and the ``.bin`` beside it.

    Returns the layers that int8 left in float.

    float16 stores weights, but the few of depthwise layers, in half the space; whoever runs the
    file chooses what to compute in. int8 is NNCF's: unsigned activations, signed weights with one
    scale per channel.

    Raises:
        MissingExtraError: a package is not installed.
        ExportError: an operation has no counterpart in OpenVINO.
        InputError: a setting that this format does not have.
        OutputError: the disk is full.
    """
    openvino = _import_openvino()
    proto = onnx.build(plan)
    try:
        with quiet():
            model = openvino.convert_model(io.BytesIO(proto.SerializeToString()))
    except RuntimeError as error:
        raise ExportError(
            f"openvino: the converter cannot read this network ({reason(error)}). "
            "Try another format: --to onnx."
        ) from error
    kept = find_layers(plan)
    if plan.precision == "float16":
        _halve_weights(model)
    elif plan.precision == "int8":
        model = _quantise(model, plan, kept)
    model.set_rt_info(plan.card.to_json(), [KEY])
    try:
        # Its own compression would round biases and depthwise weights too.
        openvino.save_model(model, target, compress_to_fp16=False)
    except RuntimeError as error:
        raise OutputError(
            f"output: OpenVINO cannot write {target.name}; the disk may be full ({reason(error)})."
        ) from error
    return kept


def count_int8(target: Path) -> int:
    """Return how many tensors of the file are integers of eight bits."""
    openvino = _import_openvino()
    count = 0
    for operator in openvino.Core().read_model(target).get_ordered_ops():
        kind = operator.get_type_name()
        element = operator.output(0).get_element_type().get_type_name() if kind != "Result" else ""
        count += kind == "FakeQuantize" or (kind == "Constant" and element == "i8")
    return count


def _halve_weights(model: Any) -> None:
    """Store the weights that are rounded already in float16, each with a conversion behind it."""
    from openvino import opset13

    halves: dict[str, Any] = {}
    for operator in model.get_ordered_ops():
        if operator.get_type_name() != "Convolution":  # depthwise ones are GroupConvolution
            continue
        weights = operator.input_value(1).get_node()
        name = weights.get_friendly_name()
        if name not in halves:  # several scales share their weights
            stored = opset13.constant(weights.data.astype(np.float16))
            halves[name] = opset13.convert(stored, "f32").output(0)
        operator.input(1).replace_source_output(halves[name])


def _quantise(model: Any, plan: Plan, kept: Sequence[str]) -> Any:
    try:
        with quiet():
            import nncf
    except ImportError as error:
        raise MissingExtraError(
            "int8 for OpenVINO", package="nncf", extra="openvino-int8"
        ) from error
    convolutions = [
        operator.get_friendly_name()
        for operator in model.get_ordered_ops()
        if operator.get_type_name() in ("Convolution", "GroupConvolution")
    ]
    # An addition of the bias behind a convolution makes OpenVINO call it NAME/WithoutBiases.
    layers = [layer_of(name.split("/")[0]) for name in convolutions]
    # The logits stay float: in 256 steps, ties would decide the borders of the mask.
    real = {*kept, layers[-1]}
    ignored = [name for name, layer in zip(convolutions, layers, strict=True) if layer in real]
    photos = list(pictures(plan))
    with quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(photos),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(photos),
            ignored_scope=nncf.IgnoredScope(names=sorted(set(ignored))),
        )


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError(
            "Writing OpenVINO files", package="openvino", extra="openvino"
        ) from error
    return openvino
