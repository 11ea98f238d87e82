"""VGG16 without its classifier, as v1 and v2 use it: stride 8, conv5 at rate 2.

Source: 1412.7062 section 3; the released DeepLab-LargeFOV train.prototxt.
"""

from __future__ import annotations

from collections.abc import Collection

import torch.nn.functional as F
from torch import Tensor, nn

from deeplab.models.config import DeepLabConfig
from deeplab.models.layers import Conv2d, max_pool

# Channels of the convolutions of each block; a max-pool follows each block.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Photo (B, 3, H, W), normalised, to features (B, 512, H / os, W / os).

    The network is defined at stride 8: pool1 to pool3 stride, pool4 and pool5 do not, and conv5
    has rate 2. At stride 4 pool3 loses its stride too, and all that follows doubles its rate. At
    16 and 32 pool5 strides: its windows are those of stride 8, fewer of them.
    """

    out_channels = 512

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList()
        width = config.channels
        for channels in BLOCKS:
            block = nn.ModuleList()
            for depth in channels:
                conv = Conv2d(width, depth, 3, bias=True, padding="symmetric")
                nn.init.kaiming_normal_(conv.weight, mode="fan_in")
                block.append(conv)
                width = depth
            self.blocks.append(block)

    def tap_channels(self, stride: int) -> int:
        """Return the channels of the side inputs of v1's MSc: the image and four pools."""
        return (self.config.channels, *(channels[-1] for channels in BLOCKS))[stride]

    def forward(
        self, x: Tensor, output_stride: int, taps: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the features, and the map after pool ``n`` for each n in ``taps`` (0: image)."""
        padding = "ceil" if self.config.pool_ceil_mode else "symmetric"
        strides = (2, 2, 1 if output_stride == 4 else 2, 1, max(1, output_stride // 8))
        extra = 2 if output_stride == 4 else 1
        rates = (1, 1, 1, extra, 2 * extra)
        pool_rates = (1, 1, 1, extra, extra)
        side = {0: x} if 0 in taps else {}
        for index, block in enumerate(self.blocks):
            assert isinstance(block, nn.ModuleList)
            for conv in block:
                x = F.relu(conv(x, 1, rates[index]))
            x = max_pool(x, 3, strides[index], padding=padding, rate=pool_rates[index])
            if index + 1 in taps:
                side[index + 1] = x
        return x, side
