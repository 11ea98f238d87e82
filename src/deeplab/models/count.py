"""Parameters and multiply-adds of a network, by part, without running it on data.

The network is built and walked on PyTorch's meta device: shapes, and nothing behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deeplab.errors import InputError
from deeplab.models.config import DeepLabConfig
from deeplab.models.deeplab import build
from deeplab.models.layers import ConvNorm
from deeplab.models.mobilevit import SelfAttention


@dataclass(frozen=True, kw_only=True)
class PartCount:
    """What one part of a network costs.

    Attributes:
        name: the part's place in the state dict, such as ``backbone`` or ``head.project``.
        parameters: everything that training changes: convolutions, and the two numbers per
            channel of each batch norm.
        folded_parameters: the same network as it is deployed, batch norm folded into the
            convolutions: their weights, and one bias per output channel.
        macs: multiply-adds of convolutions, linear layers and attention for one photo. Resizing,
            pooling, activations, norms that stay and biases are not counted.
    """

    name: str
    parameters: int
    folded_parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class NetworkCount:
    """What a network costs at one input size and output stride.

    Attributes:
        size: (height, width) of the photo, pixels.
        output_stride: photo pixels per pixel of the backbone's features.
        logits_size: (height, width) of the logits, before the last upsampling.
        parts: in the order of the network.
    """

    size: tuple[int, int]
    output_stride: int
    logits_size: tuple[int, int]
    parts: tuple[PartCount, ...]

    @property
    def parameters(self) -> int:
        """All that training changes."""
        return sum(part.parameters for part in self.parts)

    @property
    def folded_parameters(self) -> int:
        """All that is deployed."""
        return sum(part.folded_parameters for part in self.parts)

    @property
    def macs(self) -> int:
        """Multiply-adds for one photo."""
        return sum(part.macs for part in self.parts)


def count_network(
    config: DeepLabConfig, size: Sequence[int] = (513, 513), *, output_stride: int | None = None
) -> NetworkCount:
    """Count the parameters and multiply-adds of a network, exactly.

    Args:
        config: the network.
        size: (height, width) of the photo, pixels.
        output_stride: 4, 8, 16 or 32; that of the configuration when left out.

    Raises:
        InputError: the size is not two whole numbers of at least 1.
        ConfigError: the output stride is not one of those.
    """
    if len(size) != 2 or not all(isinstance(side, int) and side >= 1 for side in size):
        raise InputError(
            f"size: got {tuple(size)}, expected (height, width) in whole pixels of at least 1."
        )
    with torch.device("meta"), torch.no_grad():
        network = build(config).eval()
        macs: dict[str, int] = {}
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear | SelfAttention):
                module.register_forward_hook(_MacCounter(name, macs))
        logits = network(torch.empty(1, network.config.channels, *size), output_stride)

    stride = config.output_stride if output_stride is None else output_stride
    assert stride is not None
    return NetworkCount(
        size=(size[0], size[1]),
        output_stride=stride,
        logits_size=(logits.shape[2], logits.shape[3]),
        parts=tuple(_count_parts(network, macs)),
    )


class _MacCounter:
    """A forward hook: a module that runs several times (image pyramid) is counted each time."""

    def __init__(self, name: str, macs: dict[str, int]) -> None:
        self.name, self.macs = name, macs

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            # Every output value of a channel takes that channel's whole kernel.
            channels = output.shape[1 if isinstance(module, nn.Conv2d) else -1]
            macs = output.numel() // channels * module.weight.numel()
        else:  # each pixel with each other one: their likeness, and the sum that it weighs
            macs = 2 * output.numel() * output.shape[1]
        self.macs[self.name] = self.macs.get(self.name, 0) + macs


def _count_parts(network: nn.Module, macs: dict[str, int]) -> list[PartCount]:
    bare = {  # convolutions without bias and without a batch norm to fold into one
        module.conv
        for module in network.modules()
        if isinstance(module, ConvNorm) and module.norm is None and module.conv.bias is None
    }
    totals: dict[str, list[int]] = {}
    for name, module in network.named_modules():
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        folded = 0
        if isinstance(module, nn.Linear | nn.LayerNorm | nn.GroupNorm):
            folded = own
        elif isinstance(module, nn.Conv2d):
            folded = module.weight.numel() + (0 if module in bare else module.out_channels)
        if own or name in macs:
            total = totals.setdefault(_part_of(name, network), [0, 0, 0])
            total[0] += own
            total[1] += folded
            total[2] += macs.get(name, 0)
    return [
        PartCount(name=name, parameters=own, folded_parameters=folded, macs=mac)
        for name, (own, folded, mac) in totals.items()
    ]


def _part_of(name: str, network: nn.Module) -> str:
    """Return the part that a module belongs to: the backbone whole, the rest one level deeper."""
    first, *rest = name.split(".")
    if first == "backbone" or not rest or not any(True for _ in getattr(network, first).children()):
        return first
    return f"{first}.{rest[0]}"
