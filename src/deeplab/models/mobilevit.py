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
STRIDES = (1, 2, 1, 1, 2, 2, 2)  # of the inverted residuals; a transformer follows the last three
TAPS = {4: 3, 8: 4, 16: 5}  # the inverted residual that ends a stride, with its transformer


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


class MobileViT(nn.Module):
    """Photo (B, 3, H, W), normalised, to features (B, 80 | 96 | 160, H / os, W / os)."""

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        size = SIZES[config.backbone]
        norm = Norm(eps=config.backbone_bn_eps, decay=config.backbone_bn_decay)
        self.stem, self.blocks = make_stages(
            config, size.channels, stages=(1, 3), expansion=size.expansion, norm=norm
        )
        self.transformers = nn.ModuleList(
            TransformerBlock(channels, config, width=width, depth=depth, norm=norm)
            for channels, width, depth in zip(size.channels[3:], size.widths, DEPTHS, strict=True)
        )
        self.out_channels = size.channels[-1]
        init_weights(self)

    def tap_channels(self, stride: int) -> int:
        """Return how many channels the low-level features of a stride have."""
        return SIZES[self.config.backbone].channels[{4: 2, 8: 3, 16: 4}[stride]]

    def forward(
        self, x: Tensor, output_stride: int, taps: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the features, and the low-level features of the strides in ``taps``."""
        return run_stages(
            self.stem,
            self.blocks,
            self.transformers,
            x,
            strides=STRIDES,
            output_stride=output_stride,
            lost_stride_rate=self.config.lost_stride_rate,
            taps={TAPS[stride]: stride for stride in taps},
        )


# -- what MobileViT and MobileViTv2 share --------------------------------------------------------


def make_stages(
    config: DeepLabConfig,
    channels: tuple[int, ...],
    *,
    stages: tuple[int, int],
    expansion: int,
    norm: Norm,
) -> tuple[ConvNorm, nn.ModuleList]:
    """Return the stem, and the inverted residuals: two stages of them and one for each transformer.

    Args:
        config: its padding and channels are read.
        channels: of the stem and of five stages.
        stages: how many inverted residuals the first two stages have.
        expansion: of the inverted residuals.
        norm: of all batch norms.
    """
    assert config.padding in ("same", "symmetric")
    padding: Literal["same", "symmetric"] = "same" if config.padding == "same" else "symmetric"
    silu = nn.SiLU()
    stem = ConvNorm(config.channels, channels[0], 3, norm=norm, activation=silu, padding=padding)
    blocks, before = nn.ModuleList(), channels[0]
    for width, count in zip(channels[1:], (*stages, 1, 1, 1), strict=True):
        for _ in range(count):
            blocks.append(
                InvertedResidual(
                    before, width, expansion=expansion, norm=norm, padding=padding, activation=silu
                )
            )
            before = width
    return stem, blocks


def run_stages(
    stem: nn.Module,
    blocks: nn.ModuleList,
    transformers: nn.ModuleList,
    x: Tensor,
    *,
    strides: tuple[int, ...],
    output_stride: int,
    lost_stride_rate: str,
    taps: dict[int, int],
) -> tuple[Tensor, dict[int, Tensor]]:
    """Return the last features, and the low-level ones.

    Only inverted residuals stride; the convolutions between keep rate 1 at every output stride.

    Args:
        stem: the first convolution, of stride 2.
        blocks: the inverted residuals.
        transformers: the last of the inverted residuals are followed by one each.
        x: (B, 3, H, W), normalised.
        strides: of the inverted residuals, when the network classifies.
        output_stride: at which it ends.
        lost_stride_rate: as in `plan_strides`.
        taps: index of the inverted residual that ends a stride, and that stride.
    """
    x = stem(x, 2)
    plan = plan_strides(strides, output_stride, start=2, lost_stride_rate=lost_stride_rate)
    low_level: dict[int, Tensor] = {}
    first = len(blocks) - len(transformers)
    for index, (block, (stride, rate)) in enumerate(zip(blocks, plan, strict=True)):
        x, _ = block(x, stride, rate)
        if index >= first:
            x = transformers[index - first](x)
        if index in taps:
            low_level[taps[index]] = x
    return x, low_level


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
