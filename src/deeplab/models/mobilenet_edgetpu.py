"""MobileNet EdgeTPU: whole convolutions expand the early blocks, and ReLU is the one activation.

Source: slim/nets/mobilenet/mobilenet_v3.py (``V3_EDGETPU``), deeplab/core/feature_extractor.py
(``mobilenet_edgetpu``), deeplab/g3doc/model_zoo.md (EdgeTPU-DeepLab, and -slim at depth multiplier
0.75 with a head of 128 channels).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

from torch import Tensor, nn

from deeplab.models.config import DeepLabConfig
from deeplab.models.layers import Conv2d, ConvNorm, Norm, init_truncated
from deeplab.models.mobilenet import make_divisible, run_blocks


class BlockSpec(NamedTuple):
    """Kernel, expansion factor, output channels, stride; fused or depthwise; whether it may add.

    A fused block expands with a whole convolution of that kernel, which also strides. The other
    kind expands 1×1 and filters each channel, as MobileNetV2 does.
    """

    kernel: int
    expansion: int
    channels: int
    stride: int
    fused: bool = False
    residual: bool = True


# Source: V3_EDGETPU; the stem (3×3, 32 channels, stride 2) comes before, 1×1 to 1280 after.
BLOCKS = (
    BlockSpec(3, 1, 16, 1, fused=True),
    BlockSpec(3, 8, 32, 2, fused=True),
    *(BlockSpec(3, 4, 32, 1, fused=True),) * 3,
    BlockSpec(3, 8, 48, 2, fused=True),
    *(BlockSpec(3, 4, 48, 1, fused=True),) * 3,
    BlockSpec(3, 8, 96, 2),
    *(BlockSpec(3, 4, 96, 1),) * 3,
    BlockSpec(3, 8, 96, 1, residual=False),
    *(BlockSpec(3, 4, 96, 1),) * 3,
    BlockSpec(5, 8, 160, 2),
    *(BlockSpec(5, 4, 160, 1),) * 3,
    BlockSpec(3, 8, 192, 1),
)

LAST_CHANNELS = 1280
"""Of the last 1×1 convolution, whatever the depth multiplier.

Source: mobilenet_v3.py ``edge_tpu_075`` (``finegrain_classification_mode``), and the published
network at multiplier 0.75.
"""

# The last block of a stride, whose inner features are the low-level ones, as in MobileNetV2. The
# original has no decoder on this backbone.
TAPS = {4: 4, 8: 8, 16: 16}


class Block(nn.Module):
    """Expand, filter, project; add the input where shape and stride allow it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        spec: BlockSpec,
        *,
        padding: Literal["same", "symmetric"],
        norm: Norm,
    ) -> None:
        super().__init__()
        hidden = make_divisible(in_channels * spec.expansion, 8, 8)
        self.expand = (
            ConvNorm(
                in_channels,
                hidden,
                spec.kernel if spec.fused else 1,
                norm=norm,
                activation=nn.ReLU(),
                padding=padding,
            )
            if spec.expansion > 1
            else None
        )
        self.depthwise = (
            None
            if spec.fused
            else ConvNorm(
                hidden,
                hidden,
                spec.kernel,
                norm=norm,
                activation=nn.ReLU(),
                depthwise=True,
                padding=padding,
            )
        )
        self.project = ConvNorm(hidden, out_channels, norm=norm)
        self.residual = spec.residual and in_channels == out_channels

    def forward(self, x: Tensor, stride: int, rate: int) -> tuple[Tensor, Tensor]:
        """Return the block's output and the features inside it, before the projection."""
        inner = x
        if self.depthwise is None:
            if self.expand is not None:
                inner = self.expand(inner, stride, rate)
        else:
            if self.expand is not None:
                inner = self.expand(inner)
            inner = self.depthwise(inner, stride, rate)
        y = self.project(inner)
        return (x + y if self.residual and stride == 1 else y), inner


class MobileNetEdgeTPU(nn.Module):
    """Photo (B, 3, H, W), normalised, to features (B, 1280, H / os, W / os)."""

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        norm = Norm(eps=config.backbone_bn_eps, decay=config.backbone_bn_decay)
        padding: Literal["same", "symmetric"] = "same" if config.padding == "same" else "symmetric"
        width = self._width(32)
        self.stem = ConvNorm(
            config.channels,
            width,
            3,
            norm=norm,
            activation=nn.ReLU(),
            padding=padding,
        )
        self.blocks = nn.ModuleList()
        for spec in BLOCKS:
            channels = self._width(spec.channels)
            self.blocks.append(Block(width, channels, spec, padding=padding, norm=norm))
            width = channels
        self.last = ConvNorm(width, LAST_CHANNELS, norm=norm, activation=nn.ReLU())
        self.out_channels = LAST_CHANNELS
        for module in self.modules():
            if isinstance(module, Conv2d):
                init_truncated(module, 0.09)  # Source: feature_extractor.mobilenet_v2_arg_scope.

    def _width(self, channels: int) -> int:
        # Source: slim/nets/mobilenet/mobilenet.py ``depth_multiplier``, min_depth=8.
        return make_divisible(channels * self.config.depth_multiplier, self.config.divisible_by, 8)

    def tap_channels(self, stride: int) -> int:
        """Return how many channels the low-level features of a stride have."""
        block = self.blocks[TAPS[stride]]
        assert isinstance(block, Block)
        conv = block.project.conv
        return conv.out_channels if self.config.low_level == "block" else conv.in_channels

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
            wanted=taps,
        )
        return self.last(x), low_level
