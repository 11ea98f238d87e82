"""From the network to a ``.pte`` for ExecuTorch, its convolutions lowered to XNNPACK.

``image`` uint8 (1, H, W, 3) RGB 0..255 → ``logits`` float32 (1, h, w, K) or ``mask`` uint8
(1, H, W); see :mod:`deeplab.export.program`. The size is fixed: XNNPACK plans its memory ahead, and
resizes to sizes known then. The card is what the program's method ``deeplab`` returns.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from deeplab.errors import DeepLabError, ExportError, MissingExtraError
from deeplab.export.layer_names import layer_name
from deeplab.export.plan import Plan
from deeplab.export.program import find_layers, pictures, trace
from deeplab.export.quiet import quiet, reason
from deeplab.runtimes.network_card import KEY

_CONVOLUTION = torch.ops.aten.conv2d.default
_ACTIVATIONS = (torch.ops.aten.relu.default, torch.ops.aten.hardtanh.default)
_ANNOTATION = "quantization_annotation"
"""Where torchao's quantisers write what they decide. Source: torchao/quantization/pt2e."""


def convert(plan: Plan, target: Path) -> tuple[str, ...]:
    """Write the network as a ``.pte`` file, in float32 or int8; return the layers that int8 left in
    float.

    Raises:
        MissingExtraError: a package is not installed.
        ExportError: the network cannot be lowered.
        InputError: a setting that this format does not have.
    """
    _import_executorch()
    kept = find_layers(plan)
    program = trace(plan)
    try:
        if plan.precision == "int8":
            program = _quantise(program, plan, kept)
        with quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
                XnnpackPartitioner,
            )
            from executorch.exir import to_edge_transform_and_lower

            lowered = to_edge_transform_and_lower(
                program,
                partitioner=[XnnpackPartitioner()],
                constant_methods={KEY: plan.card.to_json()},
            )
            content = lowered.to_executorch().buffer
    except DeepLabError:
        raise
    except Exception as error:  # the converter has no errors of its own
        raise ExportError(
            f"executorch: the converter cannot write this network ({reason(error)}). "
            "Try another format: --to tflite."
        ) from error
    target.write_bytes(content)
    return kept


def count_int8(target: Path) -> int:
    """Return how many tensors of the file are integers of eight bits, those inside XNNPACK's parts.

    Raises:
        MissingExtraError: a package is not installed.
    """
    _import_executorch()
    with quiet():
        from executorch.exir._serialize._program import deserialize_pte_binary

        program = deserialize_pte_binary(target.read_bytes()).program
    return sum(
        len(re.findall(rb'"xnn_datatype_qc?u?int8"', _xnnpack_graph(bytes(part.data))))
        for part in program.backend_delegate_data
    )


def _xnnpack_graph(payload: bytes) -> bytes:
    """Return the graph of an XNNPACK part as text, by the schema that lies in the package."""
    import executorch.backends.xnnpack.serialization as serialization
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from executorch.exir._serialize import _flatbuffer

    header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
    start = header.flatbuffer_offset
    schema = Path(next(iter(serialization.__path__)), "schema.fbs")
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "graph.bin")
        graph.write_bytes(payload[start : start + header.flatbuffer_size])
        _flatbuffer._flatc_decompile(folder, str(schema), str(graph), ["--raw-binary"])
        return graph.with_suffix(".json").read_bytes()


def _quantise(program: ExportedProgram, plan: Plan, kept: Sequence[str]) -> ExportedProgram:
    """Return the program in int8, ranges measured as the mean over photos of what each reaches."""
    try:
        with quiet():
            from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
            from torchao.quantization import pt2e
            from torchao.quantization.pt2e import quantize_pt2e
            from torchao.quantization.pt2e.quantizer import QuantizationSpec
    except ImportError as error:
        raise MissingExtraError(
            "int8 in .pte files", package="torchao", extra="executorch"
        ) from error

    class Quantizer(xnnpack.XNNPACKQuantizer):  # type: ignore[misc, unused-ignore]
        def annotate(self, model: GraphModule) -> GraphModule:
            # The logits stay float: in 256 steps, ties would decide the borders of the mask.
            *_, last = (node for node in model.graph.nodes if node.target is _CONVOLUTION)
            self.set_filter_function(_is_quantised({*kept, *_layers(last)}))
            annotated: GraphModule = super().annotate(model)
            _measure_behind_activations(annotated)
            return annotated

    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    activations = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=pt2e.MovingAverageMinMaxObserver.with_args(
            averaging_constant=0.05, eps=2**-12
        ),
    )
    config = type(config)(activations, activations, config.weight, config.bias)
    with quiet(), torch.no_grad():
        prepared = quantize_pt2e.prepare_pt2e(program.module(), Quantizer().set_global(config))
        sample = None
        for picture in pictures(plan):
            sample = torch.from_numpy(picture)
            prepared(sample)
        assert sample is not None
        return torch.export.export(quantize_pt2e.convert_pt2e(prepared), (sample,))


def _measure_behind_activations(model: GraphModule) -> None:
    """Quantise what comes out of an activation, not what goes in.

    XNNPACK computes a convolution with its ReLU6 in one, but its quantiser takes only ReLU for part
    of it: the range would be that of numbers which ReLU6 cuts off at once.
    """
    for node in model.graph.nodes:
        if node.target not in _ACTIVATIONS:
            continue
        (source,) = node.all_input_nodes
        decided = source.meta.get(_ANNOTATION)
        if decided is None or decided.output_qspec is None or len(source.users) > 1:
            continue
        node.meta[_ANNOTATION] = type(decided)(output_qspec=decided.output_qspec, _annotated=True)
        decided.output_qspec = None


def _layers(node: Node) -> set[str]:
    """Return the layers whose weights a node is or takes."""
    parameters = [one for one in (node, *node.all_input_nodes) if one.op == "get_attr"]
    return {layer_name(str(one.target)) for one in parameters}


def _is_quantised(floats: set[str]) -> Callable[[Node], bool]:
    return lambda node: not floats & _layers(node)


def _import_executorch() -> None:
    try:
        with quiet():
            import executorch.exir  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "Writing .pte files", package="executorch", extra="executorch"
        ) from error
