"""SAME padding that the engine works out, for networks that take any size.

How many pixels a strided convolution pads depends on whether its input's size is odd. Spelled out
in a graph this is arithmetic on sizes in front of every one of them: slow to trace, and a tenth of
the running time in ONNX Runtime. ONNX has a word for it, ``auto_pad="SAME_UPPER"``, and means by it
just what TensorFlow means; so these convolutions are traced as one operator, and translated to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deeplab.models.layers import Conv2d, reduced_size


def leave_padding_open(network: nn.Module) -> None:
    """Let the strided convolutions of a network, which are changed, be traced as one operator."""
    for layer in network.modules():
        if isinstance(layer, Conv2d) and layer.pads == "same":
            layer.forward = functools.partial(_forward, layer)  # type: ignore[method-assign]


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return how ``torch.onnx.export`` writes the operator: its ``custom_translation_table``."""
    from onnxscript import opset18

    def conv(x: Any, weight: Any, bias: Any, stride: int, rates: Sequence[int], groups: int) -> Any:
        return opset18.Conv(
            x,
            weight,
            bias,
            auto_pad="SAME_UPPER",
            kernel_shape=list(weight.shape[2:]),
            strides=[stride, stride],
            dilations=list(rates),
            group=groups,
        )

    return {torch.ops.deeplab.conv_same.default: conv}


def _forward(layer: Conv2d, x: Tensor, stride: int = 1, rate: int | tuple[int, int] = 1) -> Tensor:
    if stride == 1:
        return Conv2d.forward(layer, x, stride, rate)
    rates = [rate, rate] if isinstance(rate, int) else list(rate)
    answer: Tensor = torch.ops.deeplab.conv_same(
        x, layer.weight, layer.bias, stride, rates, layer.groups
    )
    return answer


@torch.library.custom_op(
    "deeplab::conv_same",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, int stride, int[] rates, int groups) -> Tensor",
)
def _conv_same(*_: Any) -> Tensor:
    raise NotImplementedError("traced only")


@_conv_same.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, rates: list[int], groups: int
) -> Tensor:
    height, width = (reduced_size(side, stride) for side in x.shape[2:])
    return x.new_empty((x.shape[0], weight.shape[0], height, width))
