"""The first convolution of a network for photos, made to fit pictures of other channels.

Channels that are shown as red, green and blue take over those weights; every other channel takes
the mean of the three. All are multiplied by 3 / n, so that what comes out keeps its size however
many channels there are, and with it what all later layers learned. One channel thus starts as a
grey photo would be seen by the network for photos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deeplab.models import DeepLab, DeepLabConfig


def adapt_channels(
    state: Mapping[str, Tensor], model: DeepLab, found: DeepLabConfig, shown: Sequence[int]
) -> dict[str, Tensor]:
    """Return starting weights whose first convolutions take the channels of ``model``.

    Weights that were trained on as many channels, in the same order, stay as they are.

    Args:
        state: of a network of the configuration ``found``.
        model: the network that will start from them.
        found: tells how many channels they take, and in which order.
        shown: the channels, from 1 on, that are shown: three as red, green and blue, or one.
    """
    own, channels = model.state_dict(), model.config.channels
    adapted = dict(state)
    if found.channels != 3 or (channels == 3 and tuple(shown) == (1, 2, 3)):
        if found.channel_order == "bgr":  # theirs expects the other order
            for name in _first_layers(state, own, found.channels, channels):
                adapted[name] = state[name].flip(1)
        return adapted
    for name in _first_layers(state, own, found.channels, channels):
        rgb = state[name].flip(1) if found.channel_order == "bgr" else state[name]
        mean = rgb.mean(1, keepdim=True)
        parts = [mean] * channels
        if len(shown) == 3:
            for place, number in enumerate(shown):
                parts[number - 1] = rgb[:, place : place + 1]
        adapted[name] = torch.cat(parts, 1) * (3 / channels)
    return adapted


def _first_layers(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], theirs: int, ours: int
) -> list[str]:
    """Return the names of the convolutions that look at the picture."""
    return [
        name
        for name, value in state.items()
        if value.ndim == 4
        and name in own
        and value.shape[1] == theirs
        and own[name].shape[1] == ours
        and (value.shape[0], *value.shape[2:]) == (own[name].shape[0], *own[name].shape[2:])
    ]


def describe_adaptation(theirs: int, ours: int) -> str:
    """Return what was done, as a sentence."""
    if theirs != 3:
        return f"First convolution: {theirs} channels in the starting weights, {ours} here."
    count = "one counts" if ours == 1 else f"{ours} channels count"
    return (
        f"First convolution: red, green and blue where such channels are, their mean for the "
        f"others, times 3/{ours}, so that {count} as much as three."
    )
