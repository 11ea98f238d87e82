"""Weights rounded to float16, and the shifts that this causes taken out of the biases.

Rounding a weight shifts its channel a little, the same way on every photo, and such shifts add up
from layer to layer. Means are measured on photos, layer by layer. Depthwise layers, where nine
weights decide over a channel, shift the most and weigh the least: they may be left as they are.
Source: 1906.04721 section 4.2 (for int8).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from deeplab.export import calibration
from deeplab.export.network import ExportNetwork
from deeplab.export.plan import Plan

_MOST_PHOTOS = 8
"""Means over a whole photo hardly vary; they are looked at together, which takes memory."""


def round_weights(plan: Plan, *, depthwise: bool = False) -> ExportNetwork:
    """Return a copy of the network whose weights float16 holds exactly; still float32.

    Without photos in ``plan.calibration`` the biases stay as they are.

    Args:
        plan: the network, and photos.
        depthwise: also the weights of depthwise layers.

    Raises:
        ImageError: a photo cannot be read.
    """
    rounded = copy.deepcopy(plan.network)
    for parameter in rounded.parameters():
        if parameter.ndim == 4 and (depthwise or not is_depthwise(parameter)):
            parameter.data = parameter.data.half().float()
    frames = list(calibration.frames(plan))
    frames = frames[:: -(-len(frames) // _MOST_PHOTOS) or 1]
    if not frames:
        return rounded
    photos = torch.cat([torch.from_numpy(frame).permute(0, 3, 1, 2) for frame in frames])
    means: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, answer: Tensor) -> None:
            means[name] = answer.mean((0, 2, 3))

        return hook

    def correct(name: str) -> Callable[..., Tensor | None]:
        def hook(layer: nn.Module, _: Any, answer: Tensor) -> Tensor | None:
            if not isinstance(layer.bias, Tensor):
                return None
            shift = means[name] - answer.mean((0, 2, 3))
            layer.bias.data += shift
            return answer + shift[:, None, None]

        return hook

    _look(plan.network, photos, note)
    # Every layer sees what the corrected layers before it give.
    _look(rounded, photos, correct)
    return rounded


def is_depthwise(weight: Tensor | npt.NDArray[Any]) -> bool:
    """Whether each output of a convolution looks at one channel."""
    return bool(weight.shape[1] == 1)


def _look(network: nn.Module, photos: Tensor, hook: Callable[[str], Callable[..., Any]]) -> None:
    """Run the photos through a network with a hook on every convolution."""
    handles = [
        layer.register_forward_hook(hook(name))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            network(photos)
    finally:
        for handle in handles:
            handle.remove()
