"""Starting weights: everything that fits is taken over, and what happened is listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deeplab import zoo
from deeplab.errors import InputError, ModelNotFoundError, WeightsError
from deeplab.labels import LabelSet
from deeplab.models.config import DeepLabConfig
from deeplab.models.deeplab import ASPP, DeepLab, DensePredictionCell
from deeplab.tflite import file as tflite_file
from deeplab.training.optimiser import classifier_layers
from deeplab.weights.release import is_release, open_release


@dataclass(frozen=True, kw_only=True)
class InitReport:
    """What became of each weight: names in our vocabulary.

    ``kept`` came from the file, ``classes`` are the class names whose classifier rows did,
    ``rebuilt`` start anew, ``passing`` belong to a new decoder that starts by handing features
    on, ``unused`` were in the file and have no place here.
    """

    kept: tuple[str, ...]
    classes: tuple[str, ...]
    rebuilt: tuple[str, ...]
    passing: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"Starting weights: kept {len(self.kept)} tensors."]
        if self.classes:
            lines.append(f"  Classifier rows kept by name: {', '.join(self.classes)}.")
        if self.passing:
            lines.append(
                "  A decoder started anew; at first it hands the features on, so that the classes "
                "stay right."
            )
        for what, names in (("started anew", self.rebuilt), ("not used", self.unused)):
            if names:
                lines.append(f"  {len(names)} {what}: {_short(names)}.")
        return "\n".join(lines)


_BACKBONE_FIELDS = (
    "backbone", "depth_multiplier", "divisible_by", "padding", "lost_stride_rate", "stride_unit",
    "stride_conv", "pool_ceil_mode", "last_conv", "gate_slope", "backbone_bn_eps",
    "bounded_activation", "weight_standardization", "nas_channels", "nas_classification_head",
    "nas_remove_os32_stride", "backbone_bn_decay", "pixel_mean", "pixel_std", "channel_order",
    "align_corners", "odd_patches",
)  # fmt: skip
"""What weights of a backbone are bound to: they were trained with it."""


def choose_config(
    model: Mapping[str, Any], found: DeepLabConfig, num_classes: int
) -> DeepLabConfig:
    """Return the network to build for starting weights: theirs, but for what ``model`` names.

    Of the same version, everything that is not named is the start's. Another version has a head
    of its own; the backbone's conventions are the start's all the same.

    Raises:
        InputError: ``model`` names another backbone, whose weights these are not.
        ConfigError: the network contradicts itself.
    """
    theirs = found.to_dict()
    for name in ("backbone", "depth_multiplier"):
        if model.get(name, theirs[name]) != theirs[name]:
            raise InputError(
                f"init.path: the starting weights have {name} = {theirs[name]!r}, the recipe asks "
                f"for {model[name]!r}, which they do not fit. Leave model.{name} out, or take "
                "other starting weights."
            )
    if model.get("version", found.version) != found.version:
        theirs = {name: theirs[name] for name in _BACKBONE_FIELDS}
    return DeepLabConfig.from_dict({**theirs, **model, "num_classes": num_classes})


def locate_start(path: str) -> Path:
    """Return the file of starting weights that are given by path, by a pair's name, or by a name.

    Raises:
        InputError: there is neither such a file nor such a name.
    """
    here = Path(path)
    is_there = here.is_file() or (here.is_dir() and not zoo.is_name(path))  # data called "voc"
    if is_there or is_release(here) or here.with_name(here.name + ".index").is_file():
        return here
    try:
        return zoo.locate(path, weights=True)
    except ModelNotFoundError as error:
        raise InputError(
            f"init.path: '{path}' is no file of weights, and no name of a network. {error} "
            "'none' starts from random weights."
        ) from None


def start_frame(path: Path) -> tuple[int, int]:
    """Return (height, width) of the frame that starting weights were made for, else the usual."""
    if is_release(path):
        spec = open_release(path).input_spec
        return spec.height, spec.width
    if path.suffix == ".tflite":
        parsed = tflite_file.read(path)
        shape = parsed.tensors[parsed.inputs[0]].shape
        if len(shape) == 4 and min(shape[1:3]) > 1:
            return shape[1], shape[2]
    return 513, 513


def classifier_rows(state: Mapping[str, Tensor]) -> Tensor | None:
    """Return (K, D + 1), weights and biases of a classifier; None where it is not one layer."""
    weight, bias = state.get("classifier.weight"), state.get("classifier.bias")
    if weight is None or bias is None:
        return None
    return torch.cat([weight.flatten(1), bias[:, None]], 1)


def _short(names: Sequence[str]) -> str:
    """List layers rather than tensors: four tensors of a batch norm are one word."""
    layers = list(dict.fromkeys(name.rsplit(".", 1)[0] for name in names))
    return ", ".join(layers[:8]) + (f", and {len(layers) - 8} more" if len(layers) > 8 else "")


def take_over(
    model: DeepLab,
    state: Mapping[str, Tensor],
    *,
    labels: LabelSet,
    source_labels: LabelSet | None,
    classifier: bool = True,
) -> InitReport:
    """Copy into ``model`` every tensor of ``state`` with the same name and shape.

    The classifier is copied whole where both label sets have the same names in the same order,
    row by row for shared names where they differ, and not at all where the source's names are
    unknown and its count differs. Its rows read features: where a decoder is new, between the two,
    it starts by handing the features on; where it cannot, the rows start anew too.

    Raises:
        WeightsError: most of the backbone does not fit.
    """
    own = model.state_dict()
    layers = {id(layer) for layer in classifier_layers(model)}
    rows = {
        f"{name}.{part}"
        for name, module in model.named_modules()
        if id(module) in layers
        for part in ("weight", "bias")
    }
    kept, rebuilt, shared = [], [], []
    passing: list[str] = []
    if classifier and model.decoder and not any(name.startswith("decoder.") for name in state):
        passing = _pass_through(model)
        classifier = bool(passing)
    with torch.no_grad():
        for name, value in own.items():
            source = state.get(name)
            if name in rows:
                # A bias without its weights would be that of other features.
                weight = f"{name.rpartition('.')[0]}.weight"
                fits = weight in state and state[weight].shape[1:] == own[weight].shape[1:]
                if source is not None and classifier and fits:
                    shared = _copy_rows(value, source, labels, source_labels)
                    if len(shared) == len(labels):
                        kept.append(name)
                        continue
                rebuilt.append(name)
            elif source is not None and source.shape == value.shape:
                value.copy_(source)
                kept.append(name)
            elif name not in passing:
                rebuilt.append(name)
    backbone = [name for name in own if name.startswith("backbone.")]
    fitting = sum(name.startswith("backbone.") for name in kept)
    if 2 * fitting < len(backbone):
        raise WeightsError(
            f"init.path: of the backbone's {len(backbone)} tensors only {fitting} are in the file "
            f"with the same name and shape; {model.config.backbone} needs weights of its own kind."
        )
    return InitReport(
        kept=tuple(kept),
        classes=tuple(shared),
        rebuilt=tuple(rebuilt),
        passing=tuple(passing),
        unused=tuple(name for name in state if name not in own),
    )


def _pass_through(model: DeepLab) -> list[str]:
    """Let the decoder hand features on; return the names of its tensors, none if it cannot.

    Only the features of a head with ReLU are never negative, which the decoder's ReLU asks for.
    """
    if not isinstance(model.head, ASPP | DensePredictionCell):
        return []
    if not all(stage.pass_through() for stage in model.decoder):  # type: ignore[operator]
        return []
    return [
        f"decoder.{index}.convs.{name}"
        for index, stage in enumerate(model.decoder)
        for name in stage.convs.state_dict()  # type: ignore[union-attr]
    ]


def _copy_rows(
    value: Tensor, source: Tensor, labels: LabelSet, source_labels: LabelSet | None
) -> list[str]:
    if source_labels is None or len(source_labels) != len(source):
        if len(source) != len(value):
            return []
        value.copy_(source)
        return list(labels.names)
    shared = []
    for row, name in enumerate(labels.names):
        try:
            value[row] = source[source_labels.index(name)]
        except InputError:
            continue  # a class that the source does not know
        shared.append(name)
    return shared
