"""From the network to Core ML: a folder ``NAME.mlpackage``, for Apple's devices.

``image`` is an RGB picture of the frame's size, as Vision and the camera give it, the normalisation
inside → ``logits`` float32 (1, h, w, K), or ``mask`` int32 (H, W), which Core ML has no bytes for.
The size is fixed, which the Neural Engine asks for anyway. The card lies in the metadata under
``deeplab``; Xcode shows a preview of a mask, with names and colours.

Core ML runs on Apple's systems only, so what was written is read again and compared in its parts.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deeplab.errors import ExportError, MissingExtraError, OutputError
from deeplab.export.half import round_weights
from deeplab.export.plan import Plan
from deeplab.export.quiet import quiet, reason
from deeplab.runtimes.network_card import KEY

if TYPE_CHECKING:
    from deeplab.export.network import ExportNetwork
    from deeplab.photo.images import InputSpec

_PREVIEW = "com.apple.coreml.model.preview."
_INT8_WEIGHTS = "constexpr_affine_dequantize"
_FEWEST_WEIGHTS = 2048
"""coremltools leaves smaller tensors as they are."""


def convert(plan: Plan, target: Path) -> tuple[str, ...]:
    """Write the network as the folder ``target``; return an empty list of layers in float.

    float16 and int8 compute in half precision. int8 is for the weights only, with one scale per
    channel: a quarter of the size; no photos are needed, and none are looked at.

    Raises:
        MissingExtraError: coremltools is not installed.
        ExportError: an operation has no counterpart in Core ML, or what was written is not what
            was meant.
        OutputError: the disk is full.
    """
    coremltools = _import_coremltools()
    height, width = plan.size
    precision = coremltools.precision
    network = plan.network
    if plan.precision == "float16":
        network = round_weights(plan, depthwise=True)
    try:
        with quiet(), torch.no_grad():
            sample = torch.zeros(1, 3, height, width)
            program = torch.export.export(_Picture(network, plan.card.spec), (sample,))
            model = coremltools.convert(
                program.run_decompositions({}),
                inputs=[
                    coremltools.ImageType(
                        name="image",
                        shape=tuple(sample.shape),
                        color_layout=coremltools.colorlayout.RGB,
                    )
                ],
                outputs=[coremltools.TensorType(name=plan.output)],
                minimum_deployment_target=coremltools.target.iOS16,
                compute_precision=(
                    precision.FLOAT32 if plan.precision == "float32" else precision.FLOAT16
                ),
                skip_model_load=True,
            )
            if plan.precision == "int8":
                model = _shrink_weights(model)
    except Exception as error:  # the converter has no errors of its own
        raise ExportError(
            f"coreml: the converter cannot write this network ({reason(error)}). "
            "Try another format: --to tflite."
        ) from error
    _describe(model, plan)
    try:
        with quiet():
            model.save(str(target))
    except shutil.Error as error:  # one entry per file: from, to, why
        why = str(error.args[0][0][2]).split(":")[0]
        raise OutputError(f"output: cannot write {target.name}: {why}.") from error
    _check(plan, target)
    return ()


def count_int8(target: Path) -> int:
    """Return how many tensors of the file are integers of eight bits."""
    return _count_operations(_read(target))[_INT8_WEIGHTS]


class _Picture(nn.Module):
    """(1, 3, H, W) RGB 0..255 in; logits (1, h, w, K) or a mask (H, W) out."""

    def __init__(self, network: ExportNetwork, spec: InputSpec) -> None:
        super().__init__()
        self.network = network
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        answer: Tensor = self.network((image - self.mean) / self.std)
        return answer.permute(0, 2, 3, 1) if answer.ndim == 4 else answer[0].to(torch.int32)


def _shrink_weights(model: Any) -> Any:
    from coremltools.optimize import coreml as optimise

    config = optimise.OptimizationConfig(
        global_config=optimise.OpLinearQuantizerConfig(
            mode="linear_symmetric", weight_threshold=_FEWEST_WEIGHTS
        )
    )
    return optimise.linear_quantize_weights(model, config)


def _describe(model: Any, plan: Plan) -> None:
    labels = plan.card.classes
    height, width = plan.size
    model.short_description = f"DeepLab: {len(labels)} classes at {height}×{width}."
    if plan.licence:
        model.license = plan.licence
    model.input_description["image"] = f"RGB, {height}×{width}; the normalisation is inside."
    model.output_description[plan.output] = (
        "Class id per pixel."
        if plan.output == "mask"
        else "(1, h, w, class), on a coarse grid; resize, then take the largest."
    )
    model.user_defined_metadata[KEY] = plan.card.to_json()
    if plan.output == "mask":
        colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in labels.colours]
        model.user_defined_metadata[_PREVIEW + "type"] = "imageSegmenter"
        model.user_defined_metadata[_PREVIEW + "params"] = json.dumps(
            {"labels": list(labels.names), "colors": colours}, ensure_ascii=False
        )


def _check(plan: Plan, target: Path) -> None:
    """Read what was written, and compare its ends and its layers with what was meant."""
    specification = _read(target)
    description = specification.description
    picture = description.input[0].type.imageType
    operations = _count_operations(specification)
    layers = sum(isinstance(module, nn.Conv2d) for module in plan.network.modules())
    found = {
        "frame": ((picture.height, picture.width), plan.size),
        "output": (description.output[0].name, plan.output),
        "convolutions": (operations["conv"] >= layers, True),
        "card": (description.metadata.userDefined[KEY], plan.card.to_json()),
    }
    for name, (got, expected) in found.items():
        if got != expected:
            raise ExportError(
                f"coreml: {target.name} was written with {name} {got}, expected {expected}. "
                "Try another format: --to tflite."
            )


def _read(target: Path) -> Any:
    coremltools = _import_coremltools()
    with quiet():
        return coremltools.models.MLModel(str(target), skip_model_load=True).get_spec()


def _count_operations(specification: Any) -> Counter[str]:
    (function,) = specification.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    return Counter(operation.type for operation in block.operations)


def _import_coremltools() -> Any:
    try:
        with quiet():
            import coremltools
    except ImportError as error:
        raise MissingExtraError(
            "Writing Core ML files", package="coremltools", extra="coreml"
        ) from error
    return coremltools
