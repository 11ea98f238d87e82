"""MobileViTv2: MobileViT whose attention costs as much as there are pixels, not their square.

Each place in a patch has one query; its softmax over the patches weighs the keys to one vector, by
which all values are multiplied.

Source: 2206.02680; apple/ml-cvnets, cvnets/models/classification/mobilevit_v2.py,
cvnets/modules/mobilevit_block.py, cvnets/layers/linear_attention.py.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from deeplab.models.config import DeepLabConfig
from deeplab.models.layers import ConvNorm, Norm
from deeplab.models.mobilenet import make_divisible
from deeplab.models.mobilevit import (
    DEPTHS,
    PATCH,
    PatchBackbone,
    fill_rest,
    fit_patches,
    fold,
    init_weights,
    unfold,
)


def stage_channels(multiplier: float) -> tuple[int, ...]:
    """Return the channels of the stem and of the five stages.

    Source: cvnets/models/classification/config/mobilevit_v2.py.
    """
    stem = make_divisible(max(16, min(64, 32 * multiplier)), 8, 16)
    rest = (make_divisible(n * multiplier, 8, 8) for n in (128, 256, 384, 512))
    return stem, make_divisible(64 * multiplier, 16, 16), *rest


def transformer_widths(multiplier: float) -> tuple[int, ...]:
    """Return the width of the three transformers."""
    return tuple(make_divisible(n * multiplier, 8, 8) for n in (128, 192, 256))


class LinearTransformerLayer(nn.Module):
    """Separable self-attention and two pointwise convolutions, each behind a norm of all values."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 2 * channels // 16 * 16
        self.before = nn.GroupNorm(1, channels, eps=1e-5)
        self.attend = ConvNorm(channels, 1 + 2 * channels, norm=None)
        self.join = ConvNorm(channels, channels, norm=None)
        self.after = nn.GroupNorm(1, channels, eps=1e-5)
        self.widen = ConvNorm(channels, hidden, norm=None, activation=nn.SiLU())
        self.narrow = ConvNorm(hidden, channels, norm=None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 4, N) to the same."""
        channels = x.shape[1]
        query, key, value = self.attend(self.before(x)).split([1, channels, channels], 1)
        context = (key * query.softmax(3)).sum(3, keepdim=True)
        x = x + self.join(F.relu(value) * context)
        return x + self.narrow(self.widen(self.after(x)))  # type: ignore[no-any-return]


class LinearTransformerBlock(nn.Module):
    """Look at neighbours, channel by channel, then from patch to patch."""

    def __init__(
        self, channels: int, config: DeepLabConfig, *, width: int, depth: int, norm: Norm
    ) -> None:
        super().__init__()
        self.config = config
        self.local = ConvNorm(
            channels, channels, 3, norm=norm, activation=nn.SiLU(), depthwise=True
        )
        self.embed = ConvNorm(channels, width, norm=None, bias=False)
        self.layers = nn.ModuleList(LinearTransformerLayer(width) for _ in range(depth))
        self.last = nn.GroupNorm(1, width, eps=1e-5)
        self.project = ConvNorm(width, channels, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        y = self.embed(self.local(x))
        height, width = y.shape[2:]
        y = fit_patches(y, self.config.odd_patches, align_corners=True)
        rows, columns = y.shape[2] // PATCH, y.shape[3] // PATCH
        y = unfold(y).permute(1, 3, 0, 2)  # (B, C, 4, N): pixels of all patches, place by place
        for layer in self.layers:
            y = layer(y)
        y = fold(self.last(y).permute(2, 0, 3, 1), rows, columns)
        y = fill_rest(y, (height, width), self.config.odd_patches, align_corners=True)
        return self.project(y)  # type: ignore[no-any-return]


class MobileViTV2(PatchBackbone):
    """Photo (B, 3, H, W), normalised, to features (B, 512·multiplier, H / os, W / os)."""

    strides = (1, 2, 1, 2, 2, 2)

    def __init__(self, config: DeepLabConfig) -> None:
        channels = stage_channels(config.depth_multiplier)
        super().__init__(config, channels, stages=(1, 2), expansion=2)
        widths = transformer_widths(config.depth_multiplier)
        self.transformers = nn.ModuleList(
            LinearTransformerBlock(inputs, config, width=width, depth=depth, norm=self.norm)
            for inputs, width, depth in zip(channels[3:], widths, DEPTHS, strict=True)
        )
        init_weights(self)
