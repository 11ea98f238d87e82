"""MobileNetV2 as DeepLab uses it: without its last 1×1 convolution, dilated past the stride.

Source: slim/nets/mobilenet/mobilenet_v2.py (``V2_DEF``), deeplab/core/feature_extractor.py.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from deeplab.models.config import DeepLabConfig
from deeplab.models.config_fields import Padding
from deeplab.models.layers import ConvNorm, Norm, init_truncated
from deeplab.models.mobilenet import make_divisible, run_blocks


class BlockSpec(NamedTuple):
    """One inverted residual: expansion factor, output channels, stride."""

    expansion: int
    channels: int
    stride: int


# Source: V2_DEF; the stem (3×3, 32 channels, stride 2) comes before.
BLOCKS = (
    BlockSpec(1, 16, 1),
    *(BlockSpec(6, 24, 2), BlockSpec(6, 24, 1)),
    *(BlockSpec(6, 32, 2), BlockSpec(6, 32, 1), BlockSpec(6, 32, 1)),
    *(BlockSpec(6, 64, 2), BlockSpec(6, 64, 1), BlockSpec(6, 64, 1), BlockSpec(6, 64, 1)),
    *(BlockSpec(6, 96, 1), BlockSpec(6, 96, 1), BlockSpec(6, 96, 1)),
    *(BlockSpec(6, 160, 2), BlockSpec(6, 160, 1), BlockSpec(6, 160, 1)),
    BlockSpec(6, 320, 1),
)

# Block that gives the low-level features of a stride: its depthwise output in the original, its
# own output in re-implementations.
# Source: feature_extractor.py, decoder end points layer_4, layer_7, layer_14 / depthwise_output.
TAPS = {4: 2, 8: 5, 16: 12}


_STEM_PADDING: dict[str, Literal["same", "symmetric", "valid"]] = {
    "same": "same", "symmetric": "symmetric",
    "block_input": "valid", "block_input_only": "symmetric",
}  # fmt: skip


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; add the input where shape and stride allow it.

    With ``block_input`` padding the whole block's input is padded before the expansion, so that
    the border holds the expansion of zero rather than zero.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expansion: int,
        norm: Norm,
        padding: Padding,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        activation = activation or nn.ReLU6()
        self.block_input = padding.startswith("block_input")
        hidden = in_channels if expansion == 1 else make_divisible(in_channels * expansion, 8, 8)
        self.expand = (
            None
            if expansion == 1
            else ConvNorm(in_channels, hidden, norm=norm, activation=activation)
        )
        self.depthwise = ConvNorm(
            hidden,
            hidden,
            3,
            norm=norm,
            activation=activation,
            depthwise=True,
            padding="valid" if self.block_input else _STEM_PADDING[padding],
        )
        self.project = ConvNorm(hidden, out_channels, norm=norm)

    def forward(self, x: Tensor, stride: int, rate: int) -> tuple[Tensor, Tensor]:
        """Return the block's output and the features inside it, after the depthwise half."""
        y = F.pad(x, (rate, rate, rate, rate)) if self.block_input else x
        if self.expand is not None:
            y = self.expand(y)
        inner = self.depthwise(y, stride, rate)
        y = self.project(inner)
        return (x + y if stride == 1 and x.shape[1] == y.shape[1] else y), inner


class MobileNetV2(nn.Module):
    """Photo (B, 3, H, W), normalised, to features (B, 320·multiplier, H / os, W / os)."""

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        norm = Norm(eps=config.backbone_bn_eps, decay=config.backbone_bn_decay)
        multiplier, divisor = config.depth_multiplier, config.divisible_by
        # Source: feature_extractor.py sets min_depth=8 at multiplier 1, else 1.
        minimum = 8 if multiplier == 1.0 else 1
        width = make_divisible(32 * multiplier, divisor, minimum)
        self.stem = ConvNorm(
            config.channels,
            width,
            3,
            norm=norm,
            activation=nn.ReLU6(),
            padding=_STEM_PADDING[config.padding],
        )
        self.blocks = nn.ModuleList()
        for spec in BLOCKS:
            channels = make_divisible(spec.channels * multiplier, divisor, minimum)
            self.blocks.append(
                InvertedResidual(
                    width, channels, expansion=spec.expansion, norm=norm, padding=config.padding
                )
            )
            width = channels
        self.last = None
        if config.last_conv:
            wide = make_divisible(1280 * max(1.0, multiplier), 8, 8)
            self.last = ConvNorm(width, wide, norm=norm, activation=nn.ReLU6())
            width = wide
        self.out_channels = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_truncated(module, 0.09)  # Source: mobilenet_v2.training_scope.

    def tap_channels(self, stride: int) -> int:
        """Return how many channels the low-level features of a stride have."""
        block = self.blocks[TAPS[stride]]
        assert isinstance(block, InvertedResidual)
        part = block.project if self.config.low_level == "block" else block.depthwise
        return part.conv.out_channels

    def forward(
        self, x: Tensor, output_stride: int, taps: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the features, and the low-level features of the strides in ``taps``."""
        x, low_level = run_blocks(
            self.stem,
            self.blocks,
            x,
            config=self.config,
            strides=[spec.stride for spec in BLOCKS],
            output_stride=output_stride,
            taps=TAPS,
            groups=[spec.channels for spec in BLOCKS],
            wanted=taps,
        )
        if self.last is not None:
            x = self.last(x)
        return x, low_level
