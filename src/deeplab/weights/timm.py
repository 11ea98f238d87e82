"""Weights of the library timm, as its Hub repositories and ``save_pretrained`` keep them.

timm itself reads them into the whole classifier, strictly: what is missing or left over is an
error. Then the backbone takes the layers that it has. The pixels' mean and deviation are those of
the ``config.json`` beside the file, else of timm's own settings for these weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from deeplab.errors import ConfigError, WeightsError
from deeplab.models.backbones import DERIVED, TIMM
from deeplab.models.config import DeepLabConfig
from deeplab.models.deeplab import build
from deeplab.models.timm_facts import check_name, read_pixels, scale_pixels
from deeplab.models.timm_import import import_timm
from deeplab.weights.checkpoints import Checkpoint, list_beside, rank, read_weight
from deeplab.weights.pickles import Value
from deeplab.weights.report import ImportReport

_COUNTER = ".num_batches_tracked"

Read = tuple[DeepLabConfig, dict[str, torch.Tensor], ImportReport]


def name_backbone(settings: Mapping[str, Any]) -> str | None:
    """Return ``timm/NAME`` where a ``config.json`` is timm's; None of all others."""
    name, pixels = settings.get("architecture"), settings.get("pretrained_cfg")
    if not isinstance(name, str) or not isinstance(pixels, Mapping):
        return None
    return TIMM + name  # without a tag, which may be anybody's: the pixels are beside it


def read_classifier(
    checkpoint: Checkpoint,
    backbone: str,
    settings: Mapping[str, Any],
    *,
    output_stride: int | None = None,
    part: str | None = None,
) -> Read:
    """Return configuration, the backbone's weights, and what became of each.

    Args:
        checkpoint: all tensors of the file.
        backbone: ``timm/NAME`` or ``timm/NAME.TAG``.
        settings: of the ``config.json`` beside it; empty where there is none.
        output_stride: of the configuration; None takes 16, or the network's own.
        part: of a file with several sets of weights the one to take.

    Raises:
        MissingExtraError: timm is not installed.
        WeightsError: the weights are not those of this network.
        ConfigError: there is no such network, or it cannot be a backbone.
    """
    name = backbone.removeprefix(TIMM).partition(".")[0]
    check_name(backbone)
    usual = import_timm().get_pretrained_cfg(name)
    prefixes = _find(checkpoint, usual, part, name)
    prefix = prefixes[0]
    tensors = {
        key.removeprefix(prefix): _read(key, value)
        for key, value in checkpoint.tensors.items()
        if key.startswith(prefix)
    }
    full = _load_whole(name, tensors, usual)
    pixels, assumed = _choose_pixels(backbone, settings)
    stride = DERIVED if output_stride is None else output_stride
    config = DeepLabConfig(backbone=backbone, output_stride=stride, **pixels)
    state, kept = _take(config, full)
    with torch.device("meta"):
        head = [key for key in build(config).state_dict() if not key.startswith("backbone.")]
    report = ImportReport(
        kept=tuple(kept),
        found=(f"timm's {name}, a classifier",),
        ignored=tuple(key for key in full if key not in kept),
        missing=tuple(head),
        backbone_only=True,
        taken=prefix.removesuffix(".") or "the file itself",
        others=tuple(other.removesuffix(".") or "the file itself" for other in prefixes[1:]),
        beside=list_beside(checkpoint, prefixes),
        not_run=checkpoint.names,
        assumed=assumed,
    )
    return config, state, report


def _read(key: str, value: Value) -> torch.Tensor:
    """Return a weight, or the counter of a batch norm, which plays no part."""
    return torch.zeros(()).long() if key.endswith(_COUNTER) else read_weight(key, value)


def _find(checkpoint: Checkpoint, usual: Any, part: str | None, name: str) -> list[str]:
    """Return what stands before the names of each set of weights, the one to take first."""
    first = _layers(usual, "first_conv")
    leaf = f"{first[0] if first else ''}.weight"
    found = [key.removesuffix(leaf) for key in checkpoint.tensors if f".{key}".endswith(f".{leaf}")]
    found = found or [""]  # another naming, which timm may know
    ranks = {prefix: rank(checkpoint, prefix, at).key() for at, prefix in enumerate(found)}
    found.sort(key=lambda prefix: ranks[prefix])
    if part is None:
        return found
    wanted = [prefix for prefix in found if f"{prefix}.".startswith(f"{part}.")]
    if not wanted:
        names = ", ".join(prefix.removesuffix(".") or "the file itself" for prefix in found)
        raise WeightsError(f"part: got '{part}', but the weights of {name} in this file: {names}.")
    return [wanted[0], *(prefix for prefix in found if prefix != wanted[0])]


def _layers(usual: Any, kind: str) -> tuple[str, ...]:
    """Return the layers that timm's settings call so: a name, several, or none."""
    found = getattr(usual, kind, None) or ()
    return (found,) if isinstance(found, str) else tuple(found)


def _load_whole(name: str, tensors: dict[str, torch.Tensor], usual: Any) -> dict[str, torch.Tensor]:
    """Return the state of the whole classifier, into which timm has read these weights."""

    def shapes(kind: str) -> list[torch.Size]:
        names = [f"{one}.weight" for one in _layers(usual, kind)]
        return [tensors[name].shape for name in names if name in tensors]

    classes, channels = shapes("classifier"), shapes("first_conv")
    count = classes[0][0] if classes else 0
    overlay = {
        "state_dict": dict(tensors), "num_classes": count, "label_offset": 0, "custom_load": False,
    }  # fmt: skip
    try:
        network = import_timm().create_model(
            name,
            pretrained=True,
            num_classes=count,
            in_chans=channels[0][1] if channels else 3,
            pretrained_cfg_overlay=overlay,
        )
    except Exception as error:  # whatever is in the file
        words = " ".join(str(error).split())[:400]
        raise WeightsError(
            f"state dict: these are not the weights of timm's {name}: {words}. Name the network "
            "that they are of, as model.backbone or --backbone."
        ) from error
    state: dict[str, torch.Tensor] = network.state_dict()
    return state


def _choose_pixels(
    backbone: str, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return mean and deviation of the pixels, and what is to be said of them."""
    stated = settings.get("pretrained_cfg") if name_backbone(settings) else None
    if isinstance(stated, Mapping) and "mean" in stated and "std" in stated:
        try:
            mean, std = scale_pixels(stated["mean"]), scale_pixels(stated["std"])
        except (TypeError, ValueError) as error:
            raise WeightsError(
                f"config.json: its mean {stated['mean']!r} and std {stated['std']!r} are not three "
                "numbers each."
            ) from error
        return {"pixel_mean": mean, "pixel_std": std}, {}
    return {}, {"normalisation": describe_pixels(backbone)}


def describe_pixels(backbone: str) -> str:
    """Return timm's own mean and deviation of the pixels for these weights, in words."""
    pixels = read_pixels(backbone)
    numbers = [", ".join(f"{one / 255:.4g}" for one in two) for two in (pixels.mean, pixels.std)]
    return (
        f"mean {numbers[0]} and std {numbers[1]} of pixels in 0..1, timm's for "
        f"{backbone.removeprefix(TIMM)}; --normalisation sets another"
    )


def _take(
    config: DeepLabConfig, full: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the backbone's state out of the classifier's, and the names that it took."""
    # timm joins the names of parts that it takes out of a list: blocks.0 is called blocks_0 then.
    named = {key.replace(".", "_"): key for key in full}
    with torch.device("meta"):
        expected = build(config).state_dict()
    state, kept = {}, []
    for key, value in expected.items():
        if not key.startswith("backbone."):
            continue
        theirs = key.removeprefix("backbone.net.").replace(".", "_")
        source = named.get(theirs) or named.get(theirs.removeprefix("model_"))
        if source is None or full[source].shape != value.shape:
            raise ConfigError(
                f"backbone: '{config.backbone}' has features whose layer {key} is not in its "
                "classifier. Choose another network of timm's."
            )
        state[key] = full[source]
        kept.append(source)
    return state, kept
