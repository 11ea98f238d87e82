"""From the network to a ``.tflite``: litert-torch, channels last, built-in operators only."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert.tools import flatbuffer_utils
from torch import Tensor, nn

from deeplab.errors import ExportError
from deeplab.export import metadata, precision
from deeplab.export.layer_names import layer_name, number
from deeplab.export.network import ExportNetwork
from deeplab.export.plan import Plan
from deeplab.export.quiet import quiet, reason
from deeplab.tflite import file as tflite_file


def convert(plan: Plan, target: Path) -> tuple[str, ...]:
    """Write the network as a ``.tflite`` with metadata; return the layers that int8 left float.

    The input is (1, H, W, 3) float32, normalised; the output (1, h, w, K) float32 logits or a
    (1, H, W) uint8 mask.

    Raises:
        ExportError: an operation has no counterpart among the format's built-in operators.
        ImageError: a photo for calibration cannot be read.
    """
    content = lower(plan.network, plan.size)
    kept: tuple[str, ...] = ()
    if plan.precision == "float16":
        content = precision.to_float16(content, plan)
    elif plan.precision == "dynamic":
        content = precision.to_dynamic(content, plan)
    elif plan.precision == "int8":
        content, kept = precision.to_int8(content, plan)
    target.write_bytes(metadata.write(content, plan.card, licence=plan.licence))
    return kept


def count_int8(target: Path) -> int:
    """Return how many tensors of a file stand for real numbers in eight bits."""
    tensors = tflite_file.read(target).tensors
    return sum(t.type in ("INT8", "UINT8") and t.quantization is not None for t in tensors)


def lower(network: ExportNetwork, size: tuple[int, int]) -> bytes:
    """Return the network as a TFLite model in float32, its layers called as in the network.

    Raises:
        ExportError: an operation cannot be written.
    """
    with quiet():
        import litert_torch
    sample = torch.zeros(1, *size, network.config.channels)
    try:
        with quiet():
            model = litert_torch.convert(_ChannelsLast(network).eval(), (sample,))
            content = bytes(model.model_content())
    except OSError:
        raise
    except Exception as error:  # the converter has no errors of its own
        raise ExportError(
            f"tflite: the converter cannot write this network ({reason(error)}). "
            "Try another format: --to onnx."
        ) from error
    content = _name_tensors(content, network)
    _check_operators(content)
    return content


class _ChannelsLast(nn.Module):
    """(1, H, W, 3) in; (1, h, w, K) logits or a (1, H, W) mask out."""

    def __init__(self, network: ExportNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        picture = image.permute(0, 3, 1, 2)
        if self.network.output == "mask":
            # Channels first would cost a transpose of the largest tensor of all.
            full = self.network.full_logits(picture).permute(0, 2, 3, 1)
            return full.argmax(3).to(torch.uint8)
        logits: Tensor = self.network(picture)
        return logits.permute(0, 2, 3, 1)


def _check_operators(content: bytes) -> None:
    """Refuse operators that only TensorFlow or the program that made them can run."""
    from ai_edge_litert import schema_py_generated as schema

    file = tflite_file.parse(content)
    known = {name for name in vars(schema.BuiltinOperator) if not name.startswith("_")}
    foreign = sorted({op.name for op in file.operators} - known)
    foreign += [op.name for op in file.operators if op.name.startswith("STABLEHLO")]
    if foreign:
        raise ExportError(
            f"tflite: the network needs {', '.join(foreign)}, which no phone's runtime has built "
            "in. Try another format: --to onnx."
        )


def _name_tensors(content: bytes, network: ExportNetwork) -> bytes:
    """Call input and output by what they are, and each layer's result as the layer.

    A layer is recognised by its weights; the converter's own names are long and not unique.
    """
    layers = {
        _as_stored(weight): layer_name(name)
        for name, weight in network.named_parameters()
        if weight.ndim == 4
    }
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    graph = model.subgraphs[0]
    taken: Counter[str] = Counter()
    named: set[int] = set()

    def rename(tensor: Any, name: str) -> None:
        tensor.name = number(name, taken).encode()

    codes = [flatbuffer_utils.opcode_to_name(model, i) for i in range(len(model.operatorCodes))]
    rename(graph.tensors[graph.inputs[0]], "image")
    for operator in graph.operators:
        constants = [model.buffers[graph.tensors[i].buffer].data for i in operator.inputs if i >= 0]
        found = [layers[bytes(c)] for c in constants if c is not None and bytes(c) in layers]
        name = found[0] if found else str(codes[operator.opcodeIndex]).lower()
        is_last = operator.outputs[0] == graph.outputs[0]
        rename(graph.tensors[operator.outputs[0]], network.output if is_last else name)
        for index, kind in zip(operator.inputs[1:], ("weight", "bias"), strict=False):
            if index in named or index < 0:  # two scales share their weights
                continue
            if model.buffers[graph.tensors[index].buffer].data is not None:
                named.add(index)
                rename(graph.tensors[index], f"{name}.{kind}")
    for signature in model.signatureDefs or []:
        signature.inputs[0].name, signature.outputs[0].name = b"image", network.output.encode()
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _as_stored(weight: Tensor) -> bytes:
    """Return a convolution's weights as the format stores them: output, height, width, input."""
    depthwise = weight.shape[1] == 1 and weight.shape[0] > 1
    order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    return np.ascontiguousarray(weight.detach().permute(order).numpy()).tobytes()
