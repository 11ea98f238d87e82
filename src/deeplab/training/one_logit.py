"""Two classes told apart by one logit: object or not, by a sigmoid and a threshold.

The network has two rows of classes as always, and only their difference is looked at. What is
released has that difference as the object's row; the background's row is empty but for its bias,
the logit of the threshold. So the largest class is the object exactly where its probability
reaches the threshold, and every program that runs networks of two classes runs it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deeplab.errors import InputError
from deeplab.models import DeepLab
from deeplab.training.optimiser import classifier_layers


def check_one_logit(network: DeepLab) -> None:
    """Refuse networks whose answer is no plain sum of classifiers.

    Raises:
        InputError: it has another number of classes, or merges scales.
    """
    config = network.config
    if config.num_classes != 2:
        raise InputError(
            f"loss.one_logit: is for two classes, background and object, but there are "
            f"{config.num_classes}."
        )
    if config.image_pyramid or config.decoder_output_is_logits or config.own:
        raise InputError(
            "loss.one_logit: does not go with model.image_pyramid, decoder_output_is_logits or a "
            "network of your own; leave either out."
        )


def as_one(logits: Tensor) -> Tensor:
    """Return the object's logit: (B, 2, h, w) to (B, 1, h, w)."""
    return logits[:, 1:] - logits[:, :1]


def release_state(network: DeepLab, threshold: float) -> dict[str, Tensor]:
    """Return the weights as they are released, see above.

    Args:
        network: the trained one; it is not changed.
        threshold: the probability from which on a pixel is the object's.
    """
    state = dict(network.state_dict())
    names = {id(module): name for name, module in network.named_modules()}
    bias = math.log(threshold / (1 - threshold))
    for layer in classifier_layers(network):
        name = names[id(layer)]
        weight = state[f"{name}.weight"]
        state[f"{name}.weight"] = torch.cat([torch.zeros_like(weight[:1]), weight[1:] - weight[:1]])
        old = state.get(f"{name}.bias")
        if old is not None:
            first = torch.full_like(old[:1], bias)
            state[f"{name}.bias"] = torch.cat([first, old[1:] - old[:1]])
            bias = 0.0  # of several classifiers, which are added up, one has it
    return state
