"""MobileNetV3, large and small, whole or with the halved last blocks of its segmentation variant.

Source: slim/nets/mobilenet/mobilenet_v3.py (``V3_LARGE``, ``V3_SMALL``), 1905.02244 section 6.4,
deeplab/core/feature_extractor.py (``mobilenet_v3_large_seg``, ``mobilenet_v3_small_seg``).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from torch import Tensor, nn

from deeplab.models.config import DeepLabConfig
from deeplab.models.layers import Conv2d, ConvNorm, HardSwish, Norm, gate, init_truncated
from deeplab.models.mobilenet import make_divisible, run_blocks


class BlockSpec(NamedTuple):
    """Kernel, hidden channels, output channels, squeeze-and-excitation, hard swish, stride."""

    kernel: int
    hidden: int
    channels: int
    squeeze: bool
    swish: bool
    stride: int


_LARGE: tuple[BlockSpec, ...] = (
    BlockSpec(3, 16, 16, False, False, 1),
    BlockSpec(3, 64, 24, False, False, 2),
    BlockSpec(3, 72, 24, False, False, 1),
    BlockSpec(5, 72, 40, True, False, 2),
    BlockSpec(5, 120, 40, True, False, 1),
    BlockSpec(5, 120, 40, True, False, 1),
    BlockSpec(3, 240, 80, False, True, 2),
    BlockSpec(3, 200, 80, False, True, 1),
    BlockSpec(3, 184, 80, False, True, 1),
    BlockSpec(3, 184, 80, False, True, 1),
    BlockSpec(3, 480, 112, True, True, 1),
    BlockSpec(3, 672, 112, True, True, 1),
    BlockSpec(5, 672, 160, True, True, 2),
    BlockSpec(5, 960, 160, True, True, 1),
    BlockSpec(5, 960, 160, True, True, 1),
)
_SMALL: tuple[BlockSpec, ...] = (
    BlockSpec(3, 16, 16, True, False, 2),
    BlockSpec(3, 72, 24, False, False, 2),
    BlockSpec(3, 88, 24, False, False, 1),
    BlockSpec(5, 96, 40, True, True, 2),
    BlockSpec(5, 240, 40, True, True, 1),
    BlockSpec(5, 240, 40, True, True, 1),
    BlockSpec(5, 120, 48, True, True, 1),
    BlockSpec(5, 144, 48, True, True, 1),
    BlockSpec(5, 288, 96, True, True, 2),
    BlockSpec(5, 576, 96, True, True, 1),
    BlockSpec(5, 576, 96, True, True, 1),
)

# Block whose depthwise output is the low-level feature of a stride.
# Source: feature_extractor.py: large layer_4, layer_7, layer_13; small layer_2, layer_4, layer_9.
_TAPS = {"large": {4: 2, 8: 5, 16: 11}, "small": {4: 0, 8: 2, 16: 7}}


def halve_last_blocks(blocks: tuple[BlockSpec, ...]) -> tuple[BlockSpec, ...]:
    """Return the segmentation variant: half the channels in the three blocks of stride 32."""
    halved = [
        spec._replace(hidden=spec.hidden // 2, channels=spec.channels // 2) for spec in blocks[-3:]
    ]
    return blocks[:-3] + tuple(halved)


class SqueezeExcitation(nn.Module):
    """Weigh each channel by what the whole map holds."""

    def __init__(self, channels: int, *, slope: float) -> None:
        super().__init__()
        self.slope = slope
        # Source: mobilenet_v3.py: a quarter of the channels, rounded to a multiple of 8.
        squeezed = make_divisible(channels / 4, 8, 8)
        self.reduce = ConvNorm(channels, squeezed, norm=None, activation=nn.ReLU())
        self.expand = ConvNorm(squeezed, channels, norm=None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        weight = self.expand(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * gate(weight, self.slope)


class Block(nn.Module):
    """Expand, filter each channel, weigh, project; add the input where shape and stride allow.

    A block that loses its stride gains a residual connection if its channels allow one, which
    happens in the small ``_seg`` variant. The original does the same.
    """

    def __init__(
        self, in_channels: int, spec: BlockSpec, *, config: DeepLabConfig, norm: Norm
    ) -> None:
        super().__init__()
        activation = HardSwish() if spec.swish else nn.ReLU()
        self.expand = (
            ConvNorm(in_channels, spec.hidden, norm=norm, activation=activation)
            if spec.hidden != in_channels
            else None
        )
        self.depthwise = ConvNorm(
            spec.hidden,
            spec.hidden,
            spec.kernel,
            norm=norm,
            activation=activation,
            depthwise=True,
            padding="symmetric" if config.padding == "symmetric" else "same",
        )
        self.squeeze = (
            SqueezeExcitation(spec.hidden, slope=config.gate_slope) if spec.squeeze else None
        )
        self.project = ConvNorm(spec.hidden, spec.channels, norm=norm)

    def forward(self, x: Tensor, stride: int, rate: int) -> tuple[Tensor, Tensor]:
        """Return the block's output and the features inside it, after the depthwise half."""
        y = x if self.expand is None else self.expand(x)
        inner = self.depthwise(y, stride, rate)
        y = inner if self.squeeze is None else self.squeeze(inner)
        y = self.project(y)
        return (x + y if stride == 1 and x.shape[1] == y.shape[1] else y), inner


class MobileNetV3(nn.Module):
    """Photo (B, 3, H, W), normalised, to features at the output stride.

    Channels: 960 (large), 576 (small), half as many in the ``_seg`` variants.
    """

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        self.size = config.backbone.split("_")[2]
        norm = Norm(eps=config.backbone_bn_eps, decay=config.backbone_bn_decay)
        self.specs = _LARGE if self.size == "large" else _SMALL
        if config.backbone.endswith("_seg"):
            self.specs = halve_last_blocks(self.specs)
        symmetric = config.padding == "symmetric"
        self.stem = ConvNorm(
            config.channels,
            16,
            3,
            norm=norm,
            activation=HardSwish(),
            padding="symmetric" if symmetric else "same",
        )
        width = 16
        self.blocks = nn.ModuleList()
        for spec in self.specs:
            self.blocks.append(Block(width, spec, config=config, norm=norm))
            width = spec.channels
        self.last = ConvNorm(width, width * 6, norm=norm, activation=HardSwish())
        self.out_channels = width * 6
        for module in self.modules():
            if isinstance(module, Conv2d):
                init_truncated(module, 0.09)  # Source: mobilenet.training_scope.

    def tap_channels(self, stride: int) -> int:
        """Return how many channels the low-level features of a stride have."""
        spec = self.specs[_TAPS[self.size][stride]]
        return spec.channels if self.config.low_level == "block" else spec.hidden

    def forward(
        self, x: Tensor, output_stride: int, taps: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the features, and the low-level features of the strides in ``taps``."""
        x, low_level = run_blocks(
            self.stem,
            self.blocks,
            x,
            config=self.config,
            strides=[spec.stride for spec in self.specs],
            output_stride=output_stride,
            taps=_TAPS[self.size],
            wanted=taps,
        )
        return self.last(x), low_level
