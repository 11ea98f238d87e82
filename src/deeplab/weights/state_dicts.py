"""State dicts of other PyTorch libraries: whose is it, and what are its weights called here."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from deeplab.errors import WeightsError
from deeplab.models.config import DeepLabConfig
from deeplab.models.deeplab import build
from deeplab.weights import huggingface, kazuto, smp, torchvision, vainf
from deeplab.weights.naming import Foreign, Shapes
from deeplab.weights.report import ImportReport

_RECOGNISERS = (
    torchvision.recognise,
    vainf.recognise,
    smp.recognise,
    huggingface.recognise,
    kazuto.recognise,
    torchvision.recognise_classifier,
)

StateDict = dict[str, torch.Tensor]


def from_state_dict(
    state_dict: Mapping[str, torch.Tensor], *, output_stride: int | None = None
) -> tuple[DeepLabConfig, StateDict, ImportReport]:
    """Return configuration, our state dict, and what was kept, ignored and missed.

    Understood are the state dicts of torchvision, VainF/DeepLabV3Plus-Pytorch,
    segmentation-models-pytorch, transformers (MobileNetV2) and kazuto1011/deeplab-pytorch.
    Output stride and atrous rates leave no trace in weights: the rates are the library's defaults.
    A classifier of torchvision gives the backbone's weights only, and the report says so.

    Args:
        state_dict: names and tensors as ``model.state_dict()`` gives them; a leading "module."
            of every name is dropped.
        output_stride: what the network was made with. It cannot be seen in weights; None takes
            the library's default.

    Raises:
        WeightsError: the library is not recognised, or weights are missing or left over.
        ConfigError: the output stride is none of 4, 8, 16, 32.
    """
    state_dict = strip_wrappers(state_dict)
    shapes = {name: tuple(value.shape) for name, value in state_dict.items()}
    foreign = _recognise(shapes, output_stride)
    return rename(state_dict, foreign)


def strip_wrappers(state_dict: Mapping[str, torch.Tensor]) -> StateDict:
    """Drop what wrappers put before every name: "module." (parallel), "_orig_mod." (compile)."""
    names = dict(state_dict)
    for prefix in ("module.", "_orig_mod.", "model.", "net."):
        while names and all(name.startswith(prefix) for name in names):
            names = {name[len(prefix) :]: value for name, value in names.items()}
    return names


def _recognise(shapes: Shapes, output_stride: int | None) -> Foreign:
    for recognise in _RECOGNISERS:
        foreign = recognise(shapes, output_stride)
        if foreign is not None:
            return foreign
    if any(name.startswith("backbone.stem.") for name in shapes):
        raise WeightsError(
            "state dict: these are weights of this package without their configuration. Give the "
            "release pair, NAME.safetensors with NAME.json beside it, or the training's folder."
        )
    shown = ", ".join(list(shapes)[:5]) or "nothing"
    raise WeightsError(
        f"state dict: these names belong to no known library: {shown}{', …' * (len(shapes) > 5)}. "
        "Known are torchvision, VainF/DeepLabV3Plus-Pytorch, segmentation-models-pytorch, "
        "transformers' MobileNetV2 and kazuto1011/deeplab-pytorch."
    )


def rename(
    state_dict: Mapping[str, torch.Tensor], foreign: Foreign
) -> tuple[DeepLabConfig, StateDict, ImportReport]:
    """Return configuration, our state dict and report of a recognised state dict.

    Raises:
        WeightsError: weights are missing, left over, or of another shape.
    """
    table = {ours: (conv, norm) for ours, conv, norm in foreign.layers}
    with torch.device("meta"):
        expected = build(foreign.config).state_dict()
    head = []
    if foreign.backbone_only:
        head = [key for key in expected if not key.startswith("backbone.")]
    ours: StateDict = {}
    kept, missing, wrong = [], [], []
    for key in [key for key in expected if key not in head]:
        value = expected[key]
        name = _foreign_name(key, table)
        if name not in state_dict:
            missing.append(name)
        elif state_dict[name].shape != value.shape:
            wrong.append(f"{name} {tuple(state_dict[name].shape)}, expected {tuple(value.shape)}")
        else:
            ours[key] = state_dict[name].detach().to(value.dtype)
            kept.append(name)
    used = set(kept)
    rest = [name for name in state_dict if name not in used]
    left = [name for name in rest if not foreign.unused.search(name)]
    if missing or wrong or left:
        raise WeightsError(_complain(foreign, missing=missing, wrong=wrong, left=left))
    report = ImportReport(
        kept=tuple(kept),
        ignored=tuple(rest),
        missing=tuple(head),
        backbone_only=foreign.backbone_only,
    )
    return foreign.config, ours, report


def _foreign_name(key: str, table: Mapping[str, tuple[str, str | None]]) -> str:
    """Return the library's name of one of our keys, LAYER.{conv,norm}.LEAF or LAYER.LEAF."""
    path, _, leaf = key.rpartition(".")
    layer, _, part = path.rpartition(".")
    if part not in ("conv", "norm"):
        layer, part = path, "conv"
    conv, norm = table.get(layer, (None, None))
    theirs = conv if part == "conv" else norm
    return f"{theirs}.{leaf}" if theirs is not None else f"({key}: no counterpart)"


def _complain(foreign: Foreign, *, missing: list[str], wrong: list[str], left: list[str]) -> str:
    config = foreign.config
    lines = [
        f"state dict: looks like {foreign.library}'s {config.version} on {config.backbone}, "
        "but does not fit it."
    ]
    for what, names in (("missing", missing), ("other shape", wrong), ("left over", left)):
        if names:
            lines.append(
                f"  {what} ({len(names)}): {', '.join(names[:6])}{', …' * (len(names) > 6)}"
            )
    lines.append("Give the unchanged state dict of that library's model.")
    return "\n".join(lines)
