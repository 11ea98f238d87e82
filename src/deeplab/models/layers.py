"""The pieces that every network here is made of.

Strides and rates are arguments of ``forward``, not properties of a layer: the same weights run
at any output stride, and ``plan_strides`` is the one place that decides who gets which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def plan_strides(
    strides: Sequence[int],
    output_stride: int,
    *,
    start: int = 1,
    lost_stride_rate: str = "old",
    groups: Sequence[int] = (),
) -> list[tuple[int, int]]:
    """Return (stride, rate) for each layer, so that the last one ends at ``output_stride``.

    Until the output stride is reached, layers keep their stride and have rate 1. After that
    every stride becomes 1, and multiplies the rate of the layers that follow. The layer that
    loses its stride keeps the old rate: its own kernel still sees the grid before the stride.

    Args:
        strides: what each layer does when the network classifies.
        output_stride: input pixels per output pixel.
        start: the stride of what comes before the first layer.
        lost_stride_rate: ``new`` gives the rate after the lost stride, as Caffe and others do;
            for the two that speak of groups see the field of `DeepLabConfig`.
        groups: for these two, which group each layer belongs to; layers strided by themselves
            begin one.

    Source: deeplab/core/xception.py ``stack_blocks_dense``; slim/nets/mobilenet/mobilenet.py.
    """
    plan: list[tuple[int, int]] = []
    current, rate, kept, group = start, 1, 1, None
    for index, stride in enumerate(strides):
        begins = not groups or groups[index] != group
        group = groups[index] if groups else None
        if begins:
            kept = rate  # what a group begins with
        if current < output_stride:
            plan.append((stride, 1))
            current *= stride
            continue
        after = rate * stride
        by_rule = {"old": rate, "new": after, "old_in_group": kept}
        plan.append((1, by_rule.get(lost_stride_rate, after if begins else 1)))
        rate = after
    return plan


class Conv2d(nn.Conv2d):
    """A convolution whose stride and rate are chosen at each call, with TensorFlow's padding.

    ``padding``: ``same`` ends where TensorFlow's SAME ends: with stride 2 on an even size the odd
    pixel of padding goes to the bottom and right. ``symmetric`` pads (k_eff − 1)/2 on every side,
    which is what ``conv2d_same`` of slim does too. The two differ on strided even sizes only.
    ``standardised``: the kernel is ``standard_weight()`` instead of what is stored.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        groups: int = 1,
        bias: bool = False,
        padding: Literal["same", "symmetric", "valid"] = "same",
        standardised: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, groups=groups, bias=bias)
        self.pads = padding
        self.standardised = standardised

    def standard_weight(self) -> Tensor:
        """Return the kernel as it is used: standardised, each filter has mean 0 and variance 1.

        Source: 1903.10520; deeplab/core/conv2d_ws.py, with its epsilon.
        """
        if not self.standardised:
            return self.weight
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        return (self.weight - mean) / torch.sqrt(variance + 1e-5)

    def reset_parameters(self) -> None:
        """Draw the weights as slim does by default (Glorot, uniform), with a bias of zero."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, stride: int = 1, rate: int | tuple[int, int] = 1) -> Tensor:
        """(B, C, H, W) to (B, K, ceil(H / stride), ceil(W / stride))."""
        rates = (rate, rate) if isinstance(rate, int) else rate
        kernels = (self.weight.shape[2], self.weight.shape[3])
        padding = tuple((k - 1) * r // 2 for k, r in zip(kernels, rates, strict=True))
        if self.pads == "valid":
            padding = (0, 0)
        elif self.pads == "same" and stride > 1:
            total = [
                same_padding(size, k, stride, r)
                for size, k, r in zip(x.shape[2:], kernels, rates, strict=True)
            ]
            # An odd size needs symmetric padding, which the convolution does itself.
            if not all(_is(t, 2 * p) for t, p in zip(total, padding, strict=True)):
                x = F.pad(x, _both_sides(total))
                padding = (0, 0)
        weight = self.standard_weight()
        return F.conv2d(x, weight, self.bias, stride, padding, rates, self.groups)


def same_padding(size: int, kernel: int, stride: int, rate: int = 1) -> int:
    """Return how many pixels TensorFlow's SAME adds along one axis.

    max((ceil(size / stride) − 1)·stride + k_eff − size, 0), written without a maximum for
    k_eff ≥ stride, so that it also holds for symbolic sizes.
    """
    effective = (kernel - 1) * rate + 1
    if effective < stride:
        return 0
    return effective - 1 - (size - 1) % stride


def _is(value: object, number: int) -> bool:
    """Compare without forcing a symbolic size (which has no value yet) to become a constant."""
    return isinstance(value, int) and isinstance(number, int) and value == number


def _both_sides(total: Sequence[int]) -> list[int]:
    height, width = total
    return [width // 2, width - width // 2, height // 2, height - height // 2]


def max_pool(x: Tensor, kernel: int, stride: int, *, padding: str, rate: int = 1) -> Tensor:
    """Max-pool; ``padding``: ``same`` (TensorFlow), ``symmetric``, or ``ceil`` (Caffe)."""
    pad = (kernel - 1) * rate // 2
    if padding == "same" and stride > 1:
        total = [same_padding(size, kernel, stride, rate) for size in x.shape[2:]]
        if not all(_is(t, 2 * pad) for t in total):
            # Zeros do: the input comes from a ReLU.
            x = F.pad(x, _both_sides(total))
            pad = 0
    if pad > kernel // 2:  # more than PyTorch's pooling pads by itself
        x = F.pad(x, (pad, pad, pad, pad))
        pad = 0
    return F.max_pool2d(x, kernel, stride, pad, rate, ceil_mode=padding == "ceil")


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation in the original's terms: ``decay`` is the weight of the old average.

    PyTorch's momentum is 1 − decay. Running statistics change in training mode only. Both
    frameworks normalise a batch by its biased variance and average the unbiased one.
    One value per channel (pooled image, batch of 1) has no variance: the running statistics are
    used then, and stay as they are.
    """

    def __init__(self, channels: int, *, eps: float, decay: float) -> None:
        super().__init__(channels, eps=eps, momentum=1 - decay)
        self.num_batches_tracked = None  # counts what a fixed momentum never reads

    def _load_from_state_dict(self, *args: Any) -> None:
        # The parent would add num_batches_tracked to a state dict that lacks it.
        nn.Module._load_from_state_dict(self, *args)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        training = self.training and x.shape[0] * x.shape[2] * x.shape[3] > 1
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training,
            self.momentum or 0.0,
            self.eps,
        )


class Norm:
    """Epsilon and decay of the batch norms of one part of a network."""

    def __init__(self, *, eps: float, decay: float) -> None:
        self.eps, self.decay = eps, decay

    def __call__(self, channels: int) -> BatchNorm2d:
        """Return a batch norm for a number of channels."""
        return BatchNorm2d(channels, eps=self.eps, decay=self.decay)


class ConvNorm(nn.Module):
    """Convolution, batch norm, activation. Without a norm the convolution has a bias."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        norm: Norm | None,
        activation: nn.Module | None = None,
        depthwise: bool = False,
        padding: Literal["same", "symmetric", "valid"] = "same",
        bias: bool | None = None,
        standardised: bool = False,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            groups=in_channels if depthwise else 1,
            bias=norm is None if bias is None else bias,
            padding=padding,
            standardised=standardised,
        )
        self.norm = norm(out_channels) if norm else None
        self.activation = activation

    def forward(self, x: Tensor, stride: int = 1, rate: int | tuple[int, int] = 1) -> Tensor:
        """(B, C, H, W) to (B, K, H / stride, W / stride)."""
        x = self.conv(x, stride, rate)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


class SeparableConv(nn.Module):
    """A depthwise 3×3 and a pointwise 1×1 convolution.

    ``between``: batch norm and activation also after the depthwise half (the original), or not.
    Source: deeplab/core/utils.py ``split_separable_conv2d``, with its initial deviations.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: Norm,
        activation: nn.Module | None,
        between: bool = True,
        kernel_size: int = 3,
        padding: Literal["same", "symmetric"] = "same",
        stddev: tuple[float, float] = (0.33, 0.06),
    ) -> None:
        super().__init__()
        self.depthwise = ConvNorm(
            in_channels,
            in_channels,
            kernel_size,
            norm=norm if between else None,
            activation=activation if between else None,
            depthwise=True,
            padding=padding,
            bias=False,
        )
        self.pointwise = ConvNorm(in_channels, out_channels, norm=norm, activation=activation)
        init_truncated(self.depthwise.conv, stddev[0])
        init_truncated(self.pointwise.conv, stddev[1])

    def forward(self, x: Tensor, stride: int = 1, rate: int | tuple[int, int] = 1) -> Tensor:
        """(B, C, H, W) to (B, K, H / stride, W / stride)."""
        return self.pointwise(self.depthwise(x, stride, rate))  # type: ignore[no-any-return]


def init_truncated(conv: nn.Conv2d | nn.Linear, stddev: float) -> None:
    """Draw weights from a normal distribution cut at two deviations, as TensorFlow does."""
    nn.init.trunc_normal_(conv.weight, std=stddev, a=-2 * stddev, b=2 * stddev)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def resize(x: Tensor, size: Sequence[int], *, align_corners: bool) -> Tensor:
    """Bilinear resize to (height, width); no work when the size is known to be right."""
    if _is(x.shape[2], size[0]) and _is(x.shape[3], size[1]):
        return x
    return F.interpolate(x, (size[0], size[1]), mode="bilinear", align_corners=align_corners)


def scale_size(size: int, scale: float) -> int:
    """Return how many samples an axis has after scaling, both ends kept.

    Source: deeplab/core/utils.py ``scale_dimension``.
    """
    return int((float(size) - 1.0) * scale + 1.0)


def reduced_size(size: int, stride: int) -> int:
    """Return ceil(size / stride): how many samples an axis has at a stride."""
    return (size - 1) // stride + 1


def subsample(x: Tensor, stride: int) -> Tensor:
    """Keep every ``stride``-th row and column."""
    return x if stride == 1 else x[:, :, ::stride, ::stride]


class HardSwish(nn.Module):
    """x · relu6(x + 3) / 6."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return F.hardswish(x)


def gate(x: Tensor, slope: float) -> Tensor:
    """Return the piecewise linear sigmoid of MobileNetV3: relu6(x + 3) · slope.

    Source: slim/nets/mobilenet/mobilenet_v3.py and deeplab/core/utils.py ``q_sigmoid`` write the
    slope as 0.16667.
    """
    return F.relu6(x + 3.0) * slope


def as_tensor(values: Sequence[float]) -> Tensor:
    """Return one value per channel as (1, C, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
