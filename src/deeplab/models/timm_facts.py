"""What a network of ``timm`` is: its features, their strides, how it wants pixels.

Strides are measured, not believed: the network is built without weights and walked with two
pictures of other sizes. A network that takes one size only, or whose features do not lie on a grid
of the picture, is refused here, in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from deeplab.errors import ConfigError, near_matches
from deeplab.models.backbones import TIMM
from deeplab.models.timm_import import import_timm

_SIZES = ((65, 97), (128, 64))  # k·stride + 1, and k·stride; no square


@dataclass(frozen=True)
class TimmFeatures:
    """The feature maps that a network gives, fine to coarse.

    Attributes:
        strides: photo pixels per pixel, of each.
        channels: of each.
        aligned: of a picture of k·stride + 1 pixels a map has k + 1: the middles of the outer
            cells lie on the outer pixels. Otherwise it has k: cells are patches side by side.
        last: maps come as (B, h, w, C).
        bn_eps: of its batch norms; 1e-5 where it has none.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    aligned: bool
    last: bool
    bn_eps: float


@dataclass(frozen=True)
class TimmPixels:
    """What the pretrained weights of a network were trained with: RGB, 0..255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def create(backbone: str, output_stride: int | None, channels: int = 3) -> nn.Module:
    """Return the network of ``timm/NAME``, which gives a list of features; random weights.

    Args:
        backbone: as a configuration names it.
        output_stride: None takes the network's own, without atrous convolutions.
        channels: of the pictures.

    Raises:
        MissingExtraError: timm is not installed.
        ConfigError: there is no such network, it gives no features, or has no atrous strides.
    """
    name = check_name(backbone)
    stride = {} if output_stride is None else {"output_stride": output_stride}
    try:
        made = import_timm().create_model(
            name, pretrained=False, features_only=True, in_chans=channels, **stride
        )
    except Exception as error:  # whatever a network of timm's does not know
        if output_stride is None:
            raise ConfigError(
                f"backbone: '{backbone}' gives no feature maps: {_words(error)}. Choose another "
                "network of timm's."
            ) from error
        own = measure(backbone).strides[-1]
        raise ConfigError(
            f"output_stride: got {output_stride}, but timm offers no atrous strides for "
            f"'{backbone}'. Set output_stride={own}, its own, or choose another network."
        ) from error
    assert isinstance(made, nn.Module)
    return made


@lru_cache(maxsize=32)
def measure(backbone: str, output_stride: int | None = None) -> TimmFeatures:
    """Return what features a network gives, after looking at them.

    Raises:
        MissingExtraError, ConfigError: as for :func:`create`; or it is made for one size of
            pictures, or its features do not cover the picture evenly.
    """
    with torch.device("meta"):
        network: Any = create(backbone, output_stride).eval()
        strides = tuple(int(one) for one in network.feature_info.reduction())
        channels = tuple(int(one) for one in network.feature_info.channels())
        last = str(getattr(network, "output_fmt", "")).endswith("NHWC")
        aligned = True
        for size in _SIZES:
            maps = _run(network, torch.zeros(1, 3, *size), backbone)
            maps = [one.permute(0, 3, 1, 2) if last else one for one in maps]
            aligned &= _check_maps(maps, size, strides, channels, backbone)
    if output_stride is not None and strides[-1] != output_stride:
        raise ConfigError(
            f"output_stride: got {output_stride}, but '{backbone}' then ends at {strides[-1]}. "
            f"Set output_stride={strides[-1]}."
        )
    return TimmFeatures(strides, channels, aligned, last, _batch_norm_eps(network))


@lru_cache(maxsize=32)
def read_pixels(backbone: str) -> TimmPixels:
    """Return mean and deviation of timm's settings for these weights, times 255.

    Raises:
        MissingExtraError: timm is not installed.
        ConfigError: there is no such network.
    """
    settings = import_timm().get_pretrained_cfg(check_name(backbone))
    # A network without settings has timm's own default, ImageNet's.
    mean = getattr(settings, "mean", None) or (0.485, 0.456, 0.406)
    std = getattr(settings, "std", None) or (0.229, 0.224, 0.225)
    return TimmPixels(scale_pixels(mean), scale_pixels(std))


def scale_pixels(values: Any) -> tuple[float, float, float]:
    """Return three numbers of pixels in 0..1 as of pixels in 0..255."""
    red, green, blue = (float(value) * 255 for value in values)
    return red, green, blue


def check_name(backbone: str) -> str:
    """Return the name without ``timm/``.

    Raises:
        MissingExtraError: timm is not installed.
        ConfigError: timm knows no such network, or no such weights of it.
    """
    timm, name = import_timm(), backbone.removeprefix(TIMM)
    first, _, tag = name.partition(".")
    if not timm.is_model(first):
        raise ConfigError(
            f"backbone: timm has no network '{first}'.{near_matches(first, timm.list_models())} "
            "timm.list_models() has them all."
        )
    known = [one.partition(".")[2] for one in timm.list_pretrained(f"{first}.*")]
    if tag and tag not in known:
        raise ConfigError(
            f"backbone: timm has no weights '{tag}' of '{first}'. It has: "
            f"{', '.join(known) or 'none'}; they decide about the pixels' mean."
        )
    return name


def _run(network: nn.Module, image: Tensor, backbone: str) -> list[Tensor]:
    try:
        with torch.no_grad():
            maps = network(image)
    except Exception as error:  # somebody's network: anything may happen
        raise ConfigError(
            f"backbone: '{backbone}' does not take pictures of any size, as a segmentation needs: "
            f"{_words(error)}. Choose a network of convolutions, such as timm/convnext_tiny."
        ) from error
    return list(maps)


def _check_maps(
    maps: list[Tensor],
    size: tuple[int, int],
    strides: tuple[int, ...],
    channels: tuple[int, ...],
    backbone: str,
) -> bool:
    """Return whether they are aligned; refuse maps that are not of their stride."""
    aligned = True
    for one, stride, width in zip(maps, strides, channels, strict=True):
        shape = tuple(one.shape)
        outer = tuple((side - 1) // stride + 1 for side in size)
        inner = tuple(side // stride for side in size)
        if shape not in ((1, width, *outer), (1, width, *inner)):
            raise ConfigError(
                f"backbone: '{backbone}' makes features {shape} of a picture {size[0]}×{size[1]}, "
                f"expected {(1, width, *outer)}, at stride {stride}: its maps do not cover the "
                "picture evenly. Choose another network of timm's."
            )
        aligned &= shape[2:] == outer
    if list(strides) != sorted(strides) or strides[-1] not in (4, 8, 16, 32):
        raise ConfigError(
            f"backbone: '{backbone}' has features at strides {strides}, expected to end at 4, 8, "
            "16 or 32. Choose another network of timm's."
        )
    return aligned


def _batch_norm_eps(network: nn.Module) -> float:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            return module.eps
    return 1e-5


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
