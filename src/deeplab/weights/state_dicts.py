"""State dicts of other PyTorch libraries: whose is it, and what are its weights called here."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from deeplab.errors import WeightsError
from deeplab.models.config import DeepLabConfig
from deeplab.models.deeplab import build
from deeplab.weights import (
    huggingface,
    jfzhang95,
    kazuto,
    mobilevit,
    openmmlab,
    smp,
    timm,
    torchvision,
    vainf,
)
from deeplab.weights.checkpoints import (
    Checkpoint,
    is_average,
    list_beside,
    rank,
    read_value,
    read_weight,
)
from deeplab.weights.naming import IMAGENET_MEAN, Foreign, Shapes
from deeplab.weights.pickles import Value
from deeplab.weights.report import ImportReport
from deeplab.weights.strangers import name_stranger

_RECOGNISERS = (
    torchvision.recognise,
    vainf.recognise,
    smp.recognise,
    huggingface.recognise,
    mobilevit.recognise,
    kazuto.recognise,
    jfzhang95.recognise,
    openmmlab.recognise,
)

StateDict = dict[str, torch.Tensor]

_DEEPEST = 8
"""Names before a network's own that wrappers were ever seen to put there, and some more."""


def from_state_dict(
    state_dict: Mapping[str, torch.Tensor], *, output_stride: int | None = None
) -> tuple[DeepLabConfig, StateDict, ImportReport]:
    """Return configuration, our state dict, and what was kept, ignored and missed.

    Understood are the state dicts of torchvision, VainF/DeepLabV3Plus-Pytorch,
    segmentation-models-pytorch, transformers (MobileNetV2, MobileViT, MobileViTV2), mmsegmentation,
    kazuto1011/deeplab-pytorch and jfzhang95/pytorch-deeplab-xception.
    Output stride and atrous rates leave no trace in weights: the rates are the library's defaults.
    A classifier of torchvision, or a MobileViT without a head, gives the backbone's weights only,
    and the report says so.

    Args:
        state_dict: names and tensors as ``model.state_dict()`` gives them; whatever wrappers put
            before every name is dropped.
        output_stride: what the network was made with. It cannot be seen in weights; None takes
            the library's default.

    Raises:
        WeightsError: the library is not recognised, or weights are missing or left over.
        ConfigError: the output stride is none of 4, 8, 16, 32.
    """
    return from_checkpoint(Checkpoint(tensors=dict(state_dict)), output_stride=output_stride)


def from_checkpoint(
    checkpoint: Checkpoint,
    *,
    output_stride: int | None = None,
    part: str | None = None,
    backbone: str | None = None,
) -> tuple[DeepLabConfig, StateDict, ImportReport]:
    """Return configuration, our state dict and report of what a training left behind.

    Of several sets of weights an average over training steps is taken, as trainers with one judge
    and publish it, and the report says which there are.

    Args:
        checkpoint: all tensors of the file.
        output_stride: as for `from_state_dict`.
        part: the set to take, by the name that the report gives it.
        backbone: ``timm/NAME`` where names of layers do not tell it.

    Raises:
        WeightsError: as for `from_state_dict`, or there is no such part.
        ConfigError: the output stride is none of 4, 8, 16, 32.
    """
    shapes = {name: tuple(value.shape) for name, value in checkpoint.tensors.items()}
    found = _choose(_find(shapes, output_stride, backbone), checkpoint, part)
    prefix, foreign = found[0]
    if foreign.library == openmmlab.LIBRARY:
        foreign = _apply_notes(foreign, checkpoint, output_stride)
    tensors = {
        name.removeprefix(prefix): value
        for name, value in checkpoint.tensors.items()
        if name.startswith(prefix)
    }
    config, state, report = rename(tensors, foreign)
    report = dataclasses.replace(
        report,
        taken=_name(prefix),
        others=tuple(_name(other) for other, _ in found[1:]),
        beside=(*report.beside, *list_beside(checkpoint, [prefix for prefix, _ in found])),
        not_run=checkpoint.names,
        assumed={**report.assumed, **_assume_normalisation(foreign, checkpoint)},
    )
    if foreign.library == openmmlab.LIBRARY:
        report = dataclasses.replace(report, labels=openmmlab.read_labels(checkpoint.facts))
    if is_average(checkpoint, prefix):
        words = f"an average over training steps, {_name(prefix)}"
        report = dataclasses.replace(report, found=(*report.found, words))
    return config, state, report


def _apply_notes(foreign: Foreign, checkpoint: Checkpoint, output_stride: int | None) -> Foreign:
    """Return the network with its trainer's settings, but at the output stride asked for."""
    foreign = openmmlab.apply_settings(foreign, checkpoint.facts)
    if output_stride is None:
        return foreign
    config = dataclasses.replace(foreign.config, output_stride=output_stride)
    return dataclasses.replace(foreign, config=config)


def _assume_normalisation(foreign: Foreign, checkpoint: Checkpoint) -> dict[str, str]:
    """Return what is assumed of the pixels: weights do not tell how their trainer fed them."""
    if foreign.config.family == "timm":
        return {"normalisation": timm.describe_pixels(foreign.config.backbone)}
    if foreign.config.pixel_mean != IMAGENET_MEAN or foreign.found or foreign.backbone_only:
        return {}  # another custom is the network's own; the trainer's notes say it
    words = "ImageNet's mean and std of pixels in 0..1, the library's custom"
    own = {
        leaf: [round(number, 4) for number in read_value(name, value).float().flatten().tolist()]
        for name, value in checkpoint.tensors.items()
        if (leaf := name.rsplit(".", 1)[-1].removeprefix("pixel_")) in ("mean", "std")
        and math.prod(value.shape) == 3
    }
    if len(own) == 2:
        words += f" (its trainer's own lie beside: mean {own['mean']}, std {own['std']})"
    return {"normalisation": f"{words}; --normalisation sets another"}


@dataclass(frozen=True)
class _Under(Mapping[str, tuple[int, ...]]):
    """The shapes whose names begin with a prefix, by the rest of their names."""

    shapes: Shapes
    prefix: str
    names: list[str]

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self.shapes[self.prefix + name]

    def __contains__(self, name: object) -> bool:
        return f"{self.prefix}{name}" in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _groups(shapes: Shapes) -> Iterator[_Under]:
    """Yield the shapes under every prefix that ends in a dot, short prefixes first."""
    groups: dict[str, list[str]] = {"": list(shapes)}
    for name in shapes:
        at = -1
        for _ in range(_DEEPEST):
            at = name.find(".", at + 1)
            if at < 0:
                break
            groups.setdefault(name[: at + 1], []).append(name[at + 1 :])
    for prefix in sorted(groups, key=lambda prefix: prefix.count(".")):
        yield _Under(shapes, prefix, groups[prefix])


def _find(
    shapes: Shapes, output_stride: int | None, backbone: str | None
) -> list[tuple[str, Foreign]]:
    """Return every network in a file: what stands before its names, and what it is.

    Raises:
        WeightsError: there is none.
    """
    found: list[tuple[str, Foreign]] = []
    wrong: list[WeightsError] = []
    groups = list(_groups(shapes))
    for group in groups:
        if any(group.prefix.startswith(prefix) for prefix, _ in found):
            continue
        try:
            foreign = _recognise(group, output_stride, backbone)
        except WeightsError as error:
            wrong.append(error)
            continue
        if foreign is not None:
            found.append((group.prefix, foreign))
    if found:
        return found
    if wrong:
        raise wrong[0]
    for group in groups:
        if words := name_stranger(group):
            raise WeightsError(f"state dict: {words}")
    # A backbone alone: only where nothing else is there that it could be a part of.
    for group in groups:
        foreign = torchvision.recognise_classifier(group, output_stride)
        if foreign is not None and _is_alone(group.prefix, shapes):
            return [(group.prefix, foreign)]
    shown = ", ".join(list(shapes)[:5]) or "nothing"
    raise WeightsError(
        f"state dict: these names belong to no known library: {shown}{', …' * (len(shapes) > 5)}. "
        "Known are torchvision, VainF/DeepLabV3Plus-Pytorch, segmentation-models-pytorch, "
        "transformers' MobileNetV2 and MobileViT, mmsegmentation, kazuto1011/deeplab-pytorch and "
        "jfzhang95/pytorch-deeplab-xception."
    )


def _recognise(shapes: Shapes, output_stride: int | None, backbone: str | None) -> Foreign | None:
    known: tuple[Callable[..., Foreign | None], ...] = _RECOGNISERS
    if backbone is not None:  # of these, the one that has encoders of timm's
        known = (partial(smp.recognise, backbone=backbone),)
    for recognise in known:
        try:
            foreign = recognise(shapes, output_stride)
        except LookupError as error:  # a layer that tells the network is not there, or no layer
            raise WeightsError(
                f"state dict: the network cannot be recognised, since a weight of it is missing or "
                f"has not the axes of its kind ({error}). Give the unchanged state dict of the "
                "whole model."
            ) from error
        if foreign is not None:
            return foreign
    return None


def _is_alone(prefix: str, shapes: Shapes) -> bool:
    """Whether no convolution lies beside the weights under a prefix, but in optimisers."""
    return not any(
        len(shape) == 4 and not name.startswith(prefix) and "optim" not in name.split(".", 1)[0]
        for name, shape in shapes.items()
    )


def _choose(
    found: list[tuple[str, Foreign]], checkpoint: Checkpoint, part: str | None
) -> list[tuple[str, Foreign]]:
    """Return the networks of a file, the one to take first."""
    ranks = {
        prefix: rank(checkpoint, prefix, place).key() for place, (prefix, _) in enumerate(found)
    }
    found = sorted(found, key=lambda one: ranks[one[0]])
    if part is None:
        return found
    wanted = [one for one in found if f"{one[0]}.".startswith(f"{part}.")]
    if not wanted:
        names = ", ".join(_name(prefix) for prefix, _ in found)
        raise WeightsError(f"part: got '{part}', but the networks in this file are: {names}.")
    return [wanted[0], *(one for one in found if one != wanted[0])]


def _name(prefix: str) -> str:
    return prefix.removesuffix(".") or "the file itself"


def rename(
    state_dict: Mapping[str, Value], foreign: Foreign
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
    one_class = False
    for key in [key for key in expected if key not in head]:
        value = expected[key]
        name = _foreign_name(key, table, foreign.prefix)
        if name not in state_dict:
            missing.append(name)
            continue
        shape = tuple(state_dict[name].shape)
        if shape[:1] == (1,) and tuple(value.shape) == (2, *shape[1:]) and _is_last(key, expected):
            one_class = True
            ours[key] = _as_two(read_weight(name, state_dict[name]), foreign.threshold).to(
                value.dtype
            )
            kept.append(name)
            continue
        if shape != tuple(value.shape):
            wrong.append(f"{name} {shape}, expected {tuple(value.shape)}")
            continue
        ours[key] = read_weight(name, state_dict[name]).to(value.dtype)
        kept.append(name)
    used = set(kept)
    rest = [name for name in state_dict if name not in used]
    left = [name for name in rest if not foreign.unused.search(name)]
    beside = [name for name in left if _is_of_training(name, foreign)]
    left = [name for name in left if name not in beside]
    if missing or wrong or left:
        raise WeightsError(_complain(foreign, missing=missing, wrong=wrong, left=left))
    found = foreign.found
    if one_class:
        words = f"a confidence of {foreign.threshold:g}"
        found += (f"one class, read as two: background, and the object from {words} on",)
    report = ImportReport(
        kept=tuple(kept),
        found=found,
        one_class=one_class,
        ignored=tuple(name for name in rest if name not in beside),
        beside=tuple(beside),
        missing=tuple(head),
        backbone_only=foreign.backbone_only,
    )
    return foreign.config, ours, report


def _is_last(key: str, expected: Mapping[str, torch.Tensor]) -> bool:
    """Whether a weight belongs to the layer, or one of the layers, that gives the logits."""
    layer = "classifier." if "classifier.weight" in expected else "head.branches."
    return key.startswith(layer)


def _as_two(value: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the last layer of one channel as one of two: 0, and what is above the threshold."""
    if value.ndim == 1 and threshold != 0.5:
        value = value - math.log(threshold / (1 - threshold))
    return torch.cat([torch.zeros_like(value), value])


_OF_TRAINING = re.compile(
    r"(^|[._])(loss(es)?|criterion|criteria|metrics?|iou|accuracy|confmat|confusion|mean|std|sigma"
    r"|log_vars?|n_averaged|steps?|ema|teacher|class_weights?|pos_weight|weight|queue|iter"
    r"|optim(izers?)?|schedulers?|scaler)(?=[._]|$)",
    re.IGNORECASE,
)


def _is_of_training(name: str, foreign: Foreign) -> bool:
    """Whether a name beside the network is of its training: a loss, a measure, a mean.

    Anything else would take part in what the network computes, and is no network known here.
    """
    tops = {conv.split(".", 1)[0] for _, conv, _ in foreign.layers}
    top = name.split(".", 1)[0]
    return top not in tops and _OF_TRAINING.search(top) is not None


def _foreign_name(
    key: str, table: Mapping[str, tuple[str, str | None]], prefix: tuple[str, str] | None
) -> str:
    """Return the library's name of one of our keys, LAYER.{conv,norm}.LEAF or LAYER.LEAF."""
    if prefix is not None and key.startswith(prefix[0]):
        return prefix[1] + key.removeprefix(prefix[0])
    path, _, leaf = key.rpartition(".")
    layer, _, part = path.rpartition(".")
    if part not in ("conv", "norm"):
        layer, part = path, "conv"
    conv, norm = table.get(layer, (None, None))
    theirs = conv if part == "conv" else norm
    return f"{theirs}.{leaf}" if theirs is not None else f"({key}: no counterpart)"


def _complain(foreign: Foreign, *, missing: list[str], wrong: list[str], left: list[str]) -> str:
    config = foreign.config
    parts = [
        f"{what} ({len(names)}): {', '.join(names[:6])}{', …' * (len(names) > 6)}"
        for what, names in (("missing", missing), ("other shape", wrong), ("left over", left))
        if names
    ]
    return (
        f"state dict: looks like {foreign.library}'s {config.version} on {config.backbone}, but "
        f"does not fit it: {'; '.join(parts)}. Give the unchanged state dict of that library's "
        "model."
    )
