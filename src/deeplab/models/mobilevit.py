"""MobileViT: inverted residuals, and transformers that look from patch to patch.

The features are cut into patches of 2×2; every pixel of a patch attends to the pixels at its place
in all other patches, and a convolution before has told it of its neighbours.

Source: 2110.02178; apple/ml-cvnets, cvnets/models/classification/mobilevit.py,
cvnets/modules/mobilevit_block.py.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplab.models.config import DeepLabConfig
from deeplab.models.layers import ConvNorm, Norm, init_truncated, plan_strides, resize
from deeplab.models.mobilenet_v2 import InvertedResidual

PATCH = 2
"""Height and width of a patch, in pixels of the features."""


class Size(NamedTuple):
    """Channels of stem and stages, width of the three transformers, and what differs else."""

    channels: tuple[int, ...]
    widths: tuple[int, ...]
    expansion: int
    dropout: float


# Source: cvnets/models/classification/config/mobilevit.py.
SIZES = {
    "mobilevit_xxs": Size((16, 16, 24, 48, 64, 80), (64, 80, 96), 2, 0.05),
    "mobilevit_xs": Size((16, 32, 48, 64, 80, 96), (96, 120, 144), 4, 0.1),
    "mobilevit_s": Size((16, 32, 64, 96, 128, 160), (144, 192, 240), 4, 0.1),
}
DEPTHS = (2, 4, 3)  # layers of the three transformers
HEADS = 4


class PatchBackbone(nn.Module):
    """Inverted residuals; a transformer of the heir's follows each of the last three.

    Only inverted residuals stride; the convolutions between keep rate 1 at every output stride.

    Attributes:
        strides: of the inverted residuals, when the network classifies.
        out_channels: of the features.
    """

    strides: tuple[int, ...]
    transformers: nn.ModuleList

    def __init__(
        self,
        config: DeepLabConfig,
        channels: tuple[int, ...],
        *,
        stages: tuple[int, int],
        expansion: int,
    ) -> None:
        """Make the stem and the inverted residuals.

        Args:
            config: its padding, channels and batch norms are read.
            channels: of the stem and of five stages.
            stages: how many inverted residuals the first two stages have; the others have one.
            expansion: of the inverted residuals.
        """
        super().__init__()
        assert config.padding in ("same", "symmetric")
        padding: Literal["same", "symmetric"] = "same" if config.padding == "same" else "symmetric"
        silu = nn.SiLU()
        self.config = config
        self.norm = norm = Norm(eps=config.backbone_bn_eps, decay=config.backbone_bn_decay)
        self.stem = ConvNorm(
            config.channels, channels[0], 3, norm=norm, activation=silu, padding=padding
        )
        self.blocks = nn.ModuleList()
        before = channels[0]
        for width, count in zip(channels[1:], (*stages, 1, 1, 1), strict=True):
            for _ in range(count):
                self.blocks.append(
                    InvertedResidual(
                        before,
                        width,
                        expansion=expansion,
                        norm=norm,
                        padding=padding,
                        activation=silu,
                    )
                )
                before = width
        self.out_channels = channels[-1]
        self._tap_channels = {4: channels[2], 8: channels[3], 16: channels[4]}

    def tap_channels(self, stride: int) -> int:
        """Return how many channels the low-level features of a stride have."""
        return self._tap_channels[stride]

    def forward(
        self, x: Tensor, output_stride: int, taps: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the features, and the low-level features of the strides in ``taps``."""
        x = self.stem(x, 2)
        plan = plan_strides(
            self.strides, output_stride, start=2, lost_stride_rate=self.config.lost_stride_rate
        )
        low_level: dict[int, Tensor] = {}
        reached, first = 2, len(self.blocks) - len(self.transformers)
        steps = zip(self.blocks, self.strides, plan, strict=True)
        for index, (block, usual, (stride, rate)) in enumerate(steps):
            x, _ = block(x, stride, rate)
            if index >= first:
                x = self.transformers[index - first](x)
            reached *= usual
            if reached in taps:  # and the last block of that stride stays
                low_level[reached] = x
        return x, low_level


class SelfAttention(nn.Module):
    """softmax(q·kᵀ / √d)·v in several heads, of what is projected already."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, N, C) each to (B, N, C)."""
        batch, count, channels = query.shape
        shape = (batch, count, HEADS, channels // HEADS)
        q, k, v = (x.reshape(shape).transpose(1, 2) for x in (query, key, value))
        scores = torch.matmul(q * shape[-1] ** -0.5, k.transpose(2, 3))
        mixed = torch.matmul(scores.softmax(3), v)
        return mixed.transpose(1, 2).reshape(batch, count, channels)


class TransformerLayer(nn.Module):
    """Attention and two linear layers, each behind a layer norm and added to what came."""

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__()
        self.before = nn.LayerNorm(channels, eps=1e-5)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.attention = SelfAttention()
        self.join = nn.Linear(channels, channels)
        self.after = nn.LayerNorm(channels, eps=1e-5)
        self.widen = nn.Linear(channels, 2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same."""
        y = self.before(x)
        y = self.attention(self.query(y), self.key(y), self.value(y))
        x = x + self.dropout(self.join(y))
        y = F.silu(self.widen(self.after(x)))
        return x + self.dropout(self.narrow(y))  # type: ignore[no-any-return]


class TransformerBlock(nn.Module):
    """Look at neighbours, then from patch to patch, and join both with what came."""

    def __init__(
        self, channels: int, config: DeepLabConfig, *, width: int, depth: int, norm: Norm
    ) -> None:
        super().__init__()
        self.config = config
        size, silu = SIZES[config.backbone], nn.SiLU()
        self.local = ConvNorm(channels, channels, 3, norm=norm, activation=silu)
        self.embed = ConvNorm(channels, width, norm=None, bias=False)
        self.layers = nn.ModuleList(
            TransformerLayer(width, dropout=size.dropout) for _ in range(depth)
        )
        self.last = nn.LayerNorm(width, eps=1e-5)
        self.project = ConvNorm(width, channels, norm=norm, activation=silu)
        self.fuse = ConvNorm(2 * channels, channels, 3, norm=norm, activation=silu)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        y = self.embed(self.local(x))
        height, width = y.shape[2:]
        y = fit_patches(y, self.config.odd_patches, align_corners=False)
        rows, columns = y.shape[2] // PATCH, y.shape[3] // PATCH
        patches = unfold(y)
        y = patches.flatten(0, 1)
        for layer in self.layers:
            y = layer(y)
        y = fold(self.last(y).reshape(patches.shape), rows, columns)
        y = fill_rest(y, (height, width), self.config.odd_patches, align_corners=False)
        return self.fuse(torch.cat((x, self.project(y)), 1))  # type: ignore[no-any-return]


class MobileViT(PatchBackbone):
    """Photo (B, 3, H, W), normalised, to features (B, 80 | 96 | 160, H / os, W / os)."""

    strides = (1, 2, 1, 1, 2, 2, 2)

    def __init__(self, config: DeepLabConfig) -> None:
        size = SIZES[config.backbone]
        super().__init__(config, size.channels, stages=(1, 3), expansion=size.expansion)
        self.transformers = nn.ModuleList(
            TransformerBlock(channels, config, width=width, depth=depth, norm=self.norm)
            for channels, width, depth in zip(size.channels[3:], size.widths, DEPTHS, strict=True)
        )
        init_weights(self)


# -- what MobileViT and MobileViTv2 share --------------------------------------------------------


def fit_patches(x: Tensor, odd_patches: str, *, align_corners: bool) -> Tensor:
    """Bring (B, C, H, W) to whole patches: resized to the next, or with the rest left out."""
    height, width = x.shape[2:]
    if _leaves_out((height, width), odd_patches):
        return x[:, :, : height // PATCH * PATCH, : width // PATCH * PATCH]
    size = (height + height % PATCH, width + width % PATCH)
    return resize(x, size, align_corners=align_corners)


def fill_rest(x: Tensor, size: tuple[int, int], odd_patches: str, *, align_corners: bool) -> Tensor:
    """Bring whole patches back to (height, width): resized, or with zeros in what was left out."""
    if _leaves_out(size, odd_patches):
        return F.pad(x, (0, size[1] - x.shape[3], 0, size[0] - x.shape[2]))
    return resize(x, size, align_corners=align_corners)


def _leaves_out(size: tuple[int, int], odd_patches: str) -> bool:
    """Whether an odd row or column is left out; what has no whole patch is resized all the same."""
    return odd_patches == "zero" and min(size) >= PATCH


def unfold(x: Tensor) -> Tensor:
    """(B, C, h·2, w·2) to (4, B, h·w, C): by place in the patch, then by patch.

    In steps of at most four axes: not every format that networks are exported to has more.
    """
    batch, channels, height, width = x.shape
    rows, columns = height // PATCH, width // PATCH
    y = x.permute(0, 2, 3, 1).reshape(batch * rows, PATCH, columns, PATCH * channels)
    y = y.permute(1, 0, 2, 3).reshape(PATCH, batch * rows * columns, PATCH, channels)
    return y.permute(0, 2, 1, 3).reshape(PATCH * PATCH, batch, rows * columns, channels)


def fold(patches: Tensor, rows: int, columns: int) -> Tensor:
    """Undo `unfold`: (4, B, h·w, C) to (B, C, h·2, w·2)."""
    _, batch, _, channels = patches.shape
    y = patches.reshape(PATCH, PATCH, batch * rows * columns, channels).permute(0, 2, 1, 3)
    y = y.reshape(PATCH, batch * rows, columns, PATCH * channels).permute(1, 0, 2, 3)
    y = y.reshape(batch, rows * PATCH, columns * PATCH, channels)
    return y.permute(0, 3, 1, 2)


def init_weights(backbone: nn.Module) -> None:
    """Draw the weights as the original does.

    Source: the recipes of apple/ml-cvnets: ``conv_init: kaiming_normal``,
    ``linear_init: trunc_normal`` with a deviation of 0.02.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            init_truncated(module, 0.02)
