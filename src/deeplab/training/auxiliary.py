"""A second, small head behind the backbone: it helps in training, and is not released."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from deeplab.errors import InputError
from deeplab.models.deeplab import DeepLab

_NAME = "auxiliary"


class AuxiliaryHead(nn.Sequential):
    """3×3 convolution to a quarter of the channels, batch norm, ReLU, dropout, classes.

    Source: 1612.01105 section 3.3 and its code; torchvision's FCNHead is the same.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        channels = max(in_channels // 4, num_classes)
        super().__init__(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(channels, num_classes, 1),
        )


def attach_auxiliary(network: DeepLab) -> None:
    """Give the network a second head, under the name ``auxiliary``.

    Raises:
        InputError: the network looks at several scales.
    """
    if network.config.own:
        raise InputError("loss.auxiliary: is for our networks; give your own its own (model.own).")
    if network.config.image_pyramid:
        raise InputError(
            "loss.auxiliary: is for networks that look once; leave model.image_pyramid out."
        )
    head = AuxiliaryHead(network.backbone.out_channels, network.config.num_classes)
    network.add_module(_NAME, head.train(network.training))


def without_auxiliary(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that are released."""
    return {name: value for name, value in state.items() if not name.startswith(f"{_NAME}.")}


@contextmanager
def watch_auxiliary(network: DeepLab) -> Iterator[list[Tensor]]:
    """Yield a list that gets the logits (N, K, h, w) of the second head when the network runs."""
    head = getattr(network, _NAME)
    found: list[Tensor] = []
    handle = network.backbone.register_forward_hook(
        lambda module, inputs, result: found.append(head(result[0]))
    )
    try:
        yield found
    finally:
        handle.remove()
