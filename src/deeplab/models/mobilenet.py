"""What the MobileNets share: how widths are rounded, and the way through their blocks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

from deeplab.models.config import DeepLabConfig
from deeplab.models.layers import plan_strides


def make_divisible(value: float, divisor: int, minimum: int) -> int:
    """Round to a multiple of ``divisor`` without losing more than a tenth.

    Source: slim/nets/mobilenet/conv_blocks.py ``_make_divisible``.
    """
    rounded = max(minimum, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def run_blocks(
    stem: nn.Module,
    blocks: nn.ModuleList,
    x: Tensor,
    *,
    config: DeepLabConfig,
    strides: Sequence[int],
    output_stride: int,
    taps: Mapping[int, int],
    groups: Sequence[int] = (),
    wanted: Collection[int],
) -> tuple[Tensor, dict[int, Tensor]]:
    """Return what the last block gives, and the low-level features of the wanted strides.

    Args:
        stem: the first convolution, of stride 2.
        blocks: each called with (x, stride, rate), giving its output and the features inside it.
        x: (B, 3, H, W), normalised.
        config: how strides are lost, and which features are the low-level ones.
        strides: of the blocks, when the network classifies.
        output_stride: at which the last block ends.
        taps: stride to the index of the block that gives its low-level features.
        groups: which group each block belongs to, for rules that speak of them.
        wanted: the strides whose low-level features are.
    """
    plan = plan_strides(
        [2, *strides],
        output_stride,
        lost_stride_rate=config.lost_stride_rate,
        groups=[-1, *groups] if groups else (),
    )
    tapped = {taps[stride]: stride for stride in wanted}
    low_level: dict[int, Tensor] = {}
    x = stem(x, *plan[0])
    for index, (block, (stride, rate)) in enumerate(zip(blocks, plan[1:], strict=True)):
        x, inner = block(x, stride, rate)
        if index in tapped:
            low_level[tapped[index]] = x if config.low_level == "block" else inner
    return x, low_level
