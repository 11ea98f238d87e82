"""Aligned Xception-41, 65 and 71: separable convolutions throughout, strides instead of pooling.

Source: deeplab/core/xception.py; 1802.02611 section 3.2.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from deeplab.models.config import DeepLabConfig
from deeplab.models.layers import ConvNorm, Norm, SeparableConv, init_truncated, plan_strides

Depths = tuple[int, int, int]


class ModuleSpec(NamedTuple):
    """Three separable convolutions: channels, stride of the third, and what is added to them."""

    depths: Depths
    stride: int
    skip: str = "conv"


_ENTRY = (
    ModuleSpec((128, 128, 128), 2),
    ModuleSpec((256, 256, 256), 2),
    ModuleSpec((728, 728, 728), 2),
)
_ENTRY_71 = (
    ModuleSpec((128, 128, 128), 2),
    ModuleSpec((256, 256, 256), 1),
    ModuleSpec((256, 256, 256), 2),
    ModuleSpec((728, 728, 728), 1),
    ModuleSpec((728, 728, 728), 2),
)
_MIDDLE = ModuleSpec((728, 728, 728), 1, "sum")
_EXIT = (ModuleSpec((728, 1024, 1024), 2), ModuleSpec((1536, 1536, 2048), 1, "none"))

FLOWS = {
    "xception_41": (_ENTRY, (_MIDDLE,) * 8, _EXIT),
    "xception_65": (_ENTRY, (_MIDDLE,) * 16, _EXIT),
    "xception_71": (_ENTRY_71, (_MIDDLE,) * 16, _EXIT),
}


class Bound(nn.Module):
    """Cut values off at −6 and 6. Source: xception.py, ``_CLIP_CAP``."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return x.clamp(-6.0, 6.0)


class XceptionModule(nn.Module):
    """Three separable convolutions and a skip connection.

    With a skip there is a ReLU before each convolution and none between its halves; without one
    (the last module) there is a ReLU after each half instead. ``bounded``: ReLU6, with every
    half, both sides of a sum, and the sum within −6..6.
    """

    def __init__(
        self, in_channels: int, spec: ModuleSpec, *, norm: Norm, bounded: bool = False
    ) -> None:
        super().__init__()
        self.skip, self.bounded = spec.skip, bounded
        relu = nn.ReLU6() if bounded else nn.ReLU()
        self.separable = nn.ModuleList()
        width = in_channels
        for depth in spec.depths:
            self.separable.append(
                SeparableConv(
                    width,
                    depth,
                    norm=norm,
                    activation=relu if spec.skip == "none" else Bound() if bounded else None,
                    # fixed_padding of the original: the same on both sides.
                    padding="same" if bounded else "symmetric",
                )
            )
            width = depth
        self.shortcut = ConvNorm(in_channels, width, norm=norm) if spec.skip == "conv" else None
        self.out_channels = width

    def forward(
        self, x: Tensor, stride: int, rate: int, multi_grid: Collection[int] = (1, 1, 1)
    ) -> tuple[Tensor, Tensor]:
        """Return the module's output, and what its second convolution gives."""
        y = inner = x
        for index, (conv, factor) in enumerate(zip(self.separable, multi_grid, strict=True)):
            if self.skip != "none":
                y = F.relu6(y) if self.bounded else F.relu(y)
            y = conv(y, stride if index == 2 else 1, rate * factor)
            if index == 1:
                inner = y
        if self.skip == "none":
            return y, inner
        short = x if self.shortcut is None else self.shortcut(x, stride)
        if self.bounded:  # the convolutions' side is within its bounds already
            return F.relu6(y + short.clamp(-6.0, 6.0)), inner
        return y + short, inner


class Xception(nn.Module):
    """Photo (B, 3, H, W), normalised, to features (B, 2048, H / os, W / os)."""

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        norm = Norm(eps=config.backbone_bn_eps, decay=config.backbone_bn_decay)
        bounded = config.bounded_activation
        relu = nn.ReLU6() if bounded else nn.ReLU()
        self.stem = nn.ModuleList(
            ConvNorm(inputs, outputs, 3, norm=norm, activation=relu, padding="symmetric")
            for inputs, outputs in ((config.channels, 32), (32, 64))
        )
        width = 64
        flows = []
        for specs in FLOWS[config.backbone]:
            flow = nn.ModuleList()
            for spec in specs:
                module = XceptionModule(width, spec, norm=norm, bounded=bounded)
                width = module.out_channels
                flow.append(module)
            flows.append(flow)
        self.entry, self.middle, self.exit = flows
        self.out_channels = width
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # Source: xception_arg_scope.
                init_truncated(layer, 0.09)

    def _taps(self) -> dict[int, int]:
        """Return the module that gives the low-level features of each stride.

        It is the module that strides from there; its second convolution comes before the stride.
        Source: feature_extractor.py, decoder end points …/separable_conv2_pointwise.
        """
        entry = len(self.entry)
        exit_flow = entry + len(self.middle)
        return {4: 2, 8: 4, 16: exit_flow} if entry == 5 else {4: 1, 8: 2, 16: exit_flow}

    def tap_channels(self, stride: int) -> int:
        """Return how many channels the low-level features of a stride have."""
        index = self._taps()[stride]
        return [spec for flow in FLOWS[self.config.backbone] for spec in flow][index].depths[1]

    def forward(
        self, x: Tensor, output_stride: int, taps: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the features, and the low-level features of the strides in ``taps``."""
        specs = [spec for flow in FLOWS[self.config.backbone] for spec in flow]
        plan = plan_strides(
            [spec.stride for spec in specs],
            output_stride,
            start=2,
            lost_stride_rate=self.config.lost_stride_rate,
        )
        wanted = {self._taps()[stride]: stride for stride in taps}
        low_level: dict[int, Tensor] = {}
        for index, conv in enumerate(self.stem):
            x = conv(x, 2 if index == 0 else 1)
        modules = (*self.entry, *self.middle, *self.exit)
        for index, (module, (stride, rate)) in enumerate(zip(modules, plan, strict=True)):
            last = index == len(modules) - 1
            x, inner = module(x, stride, rate, self.config.multi_grid if last else (1, 1, 1))
            if index in wanted:
                low_level[wanted[index]] = inner
        return x, low_level
