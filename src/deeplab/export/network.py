"""The network as it leaves the house: nothing in it that only training needs.

Normalisation is left out (the file states it, so that a phone may do it with the resize), batch
norms become part of the convolutions before them, and the pooled image, which is the same at every
place, is added after the projection instead of being spread out and joined before it. All of it is
exact but for rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplab.models import DeepLab, DeepLabConfig
from deeplab.models.deeplab import ASPP, ImagePooling
from deeplab.models.layers import Conv2d, ConvNorm, reduced_size, scale_size

Output = Literal["logits", "mask"]


class ExportNetwork(DeepLab):
    """A DeepLab without normalisation and batch norms, in evaluation mode.

    (1, 3, H, W) float32 RGB, normalised, to logits (1, num_classes, h, w) float32; with
    ``output="mask"`` to class ids (1, H, W) uint8.

    Args:
        config: the architecture; its output stride is the one that is run.
        state_dict: all weights of ``build(config)``; they are not changed.
        output: "logits" or "mask".
        size: (height, width), where only this one will be given.
    """

    def __init__(
        self,
        config: DeepLabConfig,
        state_dict: Mapping[str, Tensor],
        *,
        output: Output = "logits",
        size: tuple[int, int] | None = None,
    ) -> None:
        if size is not None:
            config = _pool_all(config, size)
        with torch.device("meta"):
            super().__init__(config)
        self.load_state_dict(state_dict, assign=True)
        self.output = output
        del self.pixel_mean, self.pixel_std
        for module in list(self.modules()):
            if isinstance(module, ConvNorm):
                _fold_standard(module.conv)
                _fold_norm(module)
        if config.channel_order == "bgr":
            _swap_channels(self)
        if isinstance(self.head, ASPP) and _adds_pooled(self.head):
            self.head = PooledASPP(self.head)
        self.requires_grad_(False)
        self.eval()

    def normalise(self, image: Tensor) -> Tensor:
        """Return the image as it is: it comes normalised."""
        return image

    def forward(self, image: Tensor, output_stride: int | None = None) -> Tensor:
        """Return the logits, or the mask."""
        if self.output == "logits":
            return super().forward(image, output_stride)
        return self.full_logits(image).argmax(1).to(torch.uint8)

    def full_logits(self, image: Tensor) -> Tensor:
        """Return the logits at the size of the picture, (1, num_classes, H, W)."""
        return self.upsample(super().forward(image), image.shape[2:])


class PooledASPP(nn.Module):
    """ASPP whose pooled image is projected on its own and added: one number per channel.

    A 1×1 convolution of joined channels is the sum of the convolutions of the parts.
    """

    def __init__(self, aspp: ASPP) -> None:
        super().__init__()
        assert aspp.pooling is not None
        assert aspp.project is not None
        self.config = aspp.config
        self.pooling: ImagePooling = aspp.pooling
        self.branches = aspp.branches
        self.post = aspp.post
        conv = aspp.project.conv
        channels = aspp.config.head_channels
        pooled, rest = slice(0, channels), slice(channels, None)
        if not aspp.config.pooling_first:
            pooled, rest = slice(-channels, None), slice(0, -channels)
        self.pooled_weight = nn.Parameter(conv.weight[:, pooled].contiguous())
        self.weight = nn.Parameter(conv.weight[:, rest].contiguous())
        self.bias = conv.bias

    def forward(self, x: Tensor, output_stride: int, scale: float = 1.0) -> Tensor:
        """(B, C, h, w) to (B, head_channels, h, w)."""
        rates = (1, *self.config.rates(output_stride))
        parts = [branch(x, 1, rate) for branch, rate in zip(self.branches, rates, strict=True)]
        pooled = F.conv2d(self.pooling(x, output_stride, scale), self.pooled_weight)
        joined = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        y = F.conv2d(joined, self.weight, self.bias) + pooled
        y = F.relu6(y) if self.config.bounded_activation else F.relu(y)
        return y if self.post is None else self.post(y)


def _pool_all(config: DeepLabConfig, size: tuple[int, int]) -> DeepLabConfig:
    """Return the configuration without a pooling window where it covers the whole map anyway."""
    crop = config.image_pooling_crop_size
    if crop is None:
        return config
    stride = config.output_stride
    scales = config.image_pyramid or (1.0,)
    if config.mirror_scale:
        scales = (*scales, config.mirror_scale)
    for scale in scales:
        for window, side in zip(crop, size, strict=True):
            if reduced_size(scale_size(window, scale), stride) < reduced_size(
                scale_size(side, scale), stride
            ):
                return config
    return dataclasses.replace(config, image_pooling_crop_size=None)


def _adds_pooled(head: ASPP) -> bool:
    config = head.config
    whole = head.pooling is not None and config.image_pooling_crop_size is None
    projected = head.project is not None and config.projection == "1x1"
    return whole and projected and not config.squeeze_excitation


def _fold_standard(conv: Conv2d) -> None:
    """Store the kernel that a standardised convolution uses."""
    conv.weight = nn.Parameter(conv.standard_weight())
    conv.standardised = False


def _fold_norm(layer: ConvNorm) -> None:
    """Make a batch norm part of the convolution before it, computed in float64."""
    norm, conv = layer.norm, layer.conv
    if norm is None:
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.double()
    bias = norm.bias.double() + (bias - norm.running_mean.double()) * scale
    weight = conv.weight.double() * scale[:, None, None, None]
    conv.weight = nn.Parameter(weight.float())
    conv.bias = nn.Parameter(bias.float())
    layer.norm = None


def _swap_channels(network: DeepLab) -> None:
    """Let the convolutions that look at the picture take RGB instead of BGR."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.shape[1] == 3 and module.groups == 1:
            module.weight = nn.Parameter(module.weight.flip(1))
