"""ResNet-v1, plain and with the beta root, and the cascade of copies of its last block.

Source: deeplab/core/resnet_v1_beta.py, slim/nets/resnet_v1.py; 1706.05587 section 3.2.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from deeplab.models.config import DeepLabConfig
from deeplab.models.layers import ConvNorm, Norm, max_pool, plan_strides, subsample

# Units per block. Block b has 64·2^b inner channels and, but for the copies in a cascade, stride 2
# in one of its units; the last one has none. Source: resnet_v1_beta.py.
UNITS = {
    18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3),
}  # fmt: skip
BLOCK_STRIDES = (2, 2, 2, 1)


class Unit(nn.Module):
    """A residual unit: 1×1, 3×3, 1×1 (``bottleneck``), or two 3×3.

    In a bottleneck ``conv3`` (else ``conv2``) has no activation before the sum.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        bottleneck: bool,
        project: bool,
        norm: Norm,
        stride_first: bool,
        second_rate: bool = True,
        standardised: bool = False,
    ) -> None:
        super().__init__()
        conv_norm = partial(ConvNorm, norm=norm, standardised=standardised)
        out_channels = channels * 4 if bottleneck else channels
        relu = nn.ReLU()
        self.stride_first = stride_first
        self.second_rate = second_rate
        kernel = 1 if bottleneck else 3
        # conv2d_same of slim: explicit padding, the same on both sides.
        self.conv1 = conv_norm(in_channels, channels, kernel, activation=relu, padding="symmetric")
        self.conv2 = conv_norm(
            channels, channels, 3, activation=relu if bottleneck else None, padding="symmetric"
        )
        self.conv3 = conv_norm(channels, out_channels) if bottleneck else None
        self.shortcut = conv_norm(in_channels, out_channels) if project else None

    def forward(self, x: Tensor, stride: int, rate: int) -> tuple[Tensor, Tensor]:
        """Return the unit's output, and its residual branch before the sum."""
        first, second = (stride, 1) if self.stride_first else (1, stride)
        y = self.conv1(x, first, 1 if self.conv3 else rate)
        y = self.conv2(y, second, rate if self.second_rate else 1)
        if self.conv3 is not None:
            y = self.conv3(y)
        short = subsample(x, stride) if self.shortcut is None else self.shortcut(x, stride)
        return F.relu(short + y), y


class ResNet(nn.Module):
    """Photo (B, 3, H, W), normalised, to features (B, 2048, H / os, W / os); 512 below depth 50."""

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        norm = Norm(eps=config.backbone_bn_eps, decay=config.backbone_bn_decay)
        depth = int(config.backbone.split("_")[2])
        bottleneck = depth >= 50
        units = UNITS[depth] + UNITS[depth][-1:] * config.cascade_blocks
        self.stem = nn.ModuleList()
        stem = config.stem_channels
        kernel = 3 if len(stem) > 1 else 7
        for inputs, outputs in zip((config.channels, *stem), stem, strict=False):
            self.stem.append(
                ConvNorm(
                    inputs,
                    outputs,
                    kernel,
                    norm=norm,
                    activation=nn.ReLU(),
                    padding="symmetric",
                    standardised=config.weight_standardization,
                )
            )
        width = stem[-1]
        self.blocks = nn.ModuleList()
        for index, count in enumerate(units):
            channels = 64 * 2 ** min(index, 3)
            out_channels = channels * 4 if bottleneck else channels
            block = nn.ModuleList()
            for _ in range(count):
                block.append(
                    Unit(
                        width,
                        channels,
                        bottleneck=bottleneck,
                        project=width != out_channels,
                        norm=norm,
                        stride_first=config.stride_conv == "1x1"
                        or (not bottleneck and config.stride_unit == "first"),
                        second_rate=bottleneck or config.basic_rates == "both",
                        standardised=config.weight_standardization,
                    )
                )
                width = out_channels
            self.blocks.append(block)
        self.out_channels = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # Source: resnet_utils.resnet_arg_scope.
                nn.init.kaiming_normal_(module.weight, mode="fan_in")

    def _layout(self) -> tuple[list[int], list[int]]:
        """Return stride and multi-grid factor of every unit, in order."""
        counts = [len(block) for block in self.blocks]  # type: ignore[arg-type]
        last = len(counts) - 1
        strides: list[int] = []
        grid: list[int] = []
        for index, count in enumerate(counts):
            # In a cascade every block but the last strides, as the paper's block4 to 7.
            stride = 2 if index < last else 1
            units = [1] * count
            if self.config.stride_unit == "last":
                units[-1] = stride
            elif index > 0:
                units[0] = 2
            strides += units
            grid += list(self.config.multi_grid)[:count] if index >= 3 else [1] * count
        return strides, grid

    def tap_channels(self, stride: int) -> int:
        """Return how many channels the low-level features of a stride have."""
        unit = self.blocks[self._tap_block(stride)][0]  # type: ignore[index]
        assert isinstance(unit, Unit)
        return (unit.conv3 or unit.conv2).conv.out_channels

    @staticmethod
    def _tap_block(stride: int) -> int:
        return {4: 0, 8: 1, 16: 2}[stride]

    def _tap_unit(self, stride: int) -> tuple[int, int]:
        """Return (block, unit) that gives the low-level features of a stride.

        The original takes the unit before the strided one, so that features have that stride.
        Source: feature_extractor.py, decoder end points block1/unit_2/…/conv3 and so on.
        """
        block = self._tap_block(stride)
        count = len(self.blocks[block])  # type: ignore[arg-type]
        return block, count - 1 if self.config.low_level == "block" else count - 2

    def forward(
        self, x: Tensor, output_stride: int, taps: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the features, and the low-level features of the strides in ``taps``."""
        strides, grid = self._layout()
        rule = self.config.lost_stride_rate
        plan = iter(plan_strides(strides, output_stride, start=4, lost_stride_rate=rule))
        factors = iter(grid)
        wanted = {self._tap_unit(stride): stride for stride in taps}
        low_level: dict[int, Tensor] = {}
        for index, conv in enumerate(self.stem):
            x = conv(x, 2 if index == 0 else 1)
        x = max_pool(x, 3, 2, padding="ceil" if self.config.pool_ceil_mode else self.config.padding)
        for b, block in enumerate(self.blocks):
            assert isinstance(block, nn.ModuleList)
            for u, unit in enumerate(block):
                stride, rate = next(plan)
                x, residual = unit(x, stride, rate * next(factors))
                if (b, u) in wanted:
                    tap = x if self.config.low_level == "block" else residual
                    low_level[wanted[b, u]] = tap
        return x, low_level
