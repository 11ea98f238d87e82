"""The searched backbones: PNASNet-5, and HNASNet, which is Auto-DeepLab's.

Both are a stem and twelve cells. A cell reads the output of the two cells before it, adds five
pairs of operations, and joins the five sums. What differs is the cell, and the stride of each cell:
HNASNet goes down to stride 32 and comes up again to 8.

Source: deeplab/core/nas_network.py, nas_cell.py, nas_genotypes.py; 1712.00559, 1901.02985.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplab.errors import ConfigError
from deeplab.models.config import DeepLabConfig
from deeplab.models.layers import (
    ConvNorm,
    Norm,
    SeparableConv,
    reduced_size,
    resize,
    same_padding,
)

STATES = 5
"""Sums that a cell makes, and joins."""


class Operation(NamedTuple):
    """One of a cell's ten operations; two of them are added.

    ``kind``: ``separable`` (twice), ``atrous`` (rate 2), ``max_pool``, or ``none``. ``source`` is
    the state that it reads: 0 is the cell before, 1 the one before that, then the sums in order.
    """

    kind: str
    kernel: int
    source: int


def _operations(*pairs: str) -> tuple[Operation, ...]:
    parts = [text.split() for pair in pairs for text in pair.split("+")]
    return tuple(Operation(kind, int(kernel), int(source)) for kind, kernel, source in parts)


CELLS = {
    "nas_pnasnet": _operations(
        "separable 5 1 + max_pool 3 1",
        "separable 7 0 + max_pool 3 0",
        "separable 5 0 + separable 3 0",
        "separable 3 4 + max_pool 3 0",
        "separable 3 1 + none 1 0",
    ),
    "nas_hnasnet": _operations(
        "atrous 5 1 + separable 3 0",
        "separable 3 1 + atrous 3 0",
        "separable 3 3 + separable 3 1",
        "separable 5 4 + separable 5 2",
        "separable 5 3 + atrous 5 5",
    ),
}
_HNASNET_LEVELS = (0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1)
_PNASNET_LEVELS = {8: (1,) * 12, 16: (1,) * 4 + (2,) * 8, 32: (1,) * 4 + (2,) * 4 + (3,) * 4}
_TAPS = {"nas_pnasnet": {4: -1, 8: 3, 16: 7}, "nas_hnasnet": {4: 2, 8: 5, 16: 7}}
"""Stride -> the cell that gives the decoder's low-level features; −1 is the stem."""
_HEAD_CHANNELS = {8: 256, 16: 512, 32: 1024}
"""Of the convolutions that take a classification head down to stride 32; it ends at 2048."""


def levels(backbone: str, output_stride: int) -> tuple[int, ...]:
    """Return the level of each cell: its stride is 4·2^level where nothing is left out."""
    return _PNASNET_LEVELS[output_stride] if backbone == "nas_pnasnet" else _HNASNET_LEVELS


class DropPath(nn.Module):
    """Leaves a whole operation out, for each photo of a batch on its own, in training.

    The chance grows with the depth of the cell and with ``progress``, the share of the training
    that is done; what stays is enlarged by as much as falls away.
    """

    def __init__(self, keep: float) -> None:
        super().__init__()
        self.keep = keep
        # Never on PyTorch's meta device, on which networks are built whose weights are read from a
        # file: this is in no file.
        self.register_buffer("progress", torch.zeros((), device="cpu"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same, some of the B at 0."""
        progress = self.progress
        assert isinstance(progress, Tensor)
        keep = 1 - progress * (1 - self.keep)
        chosen = torch.floor(keep + torch.rand(x.shape[0], 1, 1, 1, device=x.device))
        return x * (chosen / keep).to(x.dtype)


class Branch(nn.Module):
    """One operation of a cell, with its ReLU before and its batch norm after each convolution."""

    def __init__(
        self, operation: Operation, in_channels: int, channels: int, *, stride: int, norm: Norm
    ) -> None:
        super().__init__()
        self.operation = operation
        self.stride = stride if operation.source < 2 else 1
        self.convs = nn.ModuleList()
        if operation.kind == "separable":
            for inputs in (in_channels, channels):
                self.convs.append(
                    SeparableConv(
                        inputs,
                        channels,
                        norm=norm,
                        activation=None,
                        between=False,
                        kernel_size=operation.kernel,
                        padding="symmetric",
                    )
                )
        elif operation.kind == "atrous":
            self.convs.append(ConvNorm(in_channels, channels, operation.kernel, norm=norm))
        elif in_channels != channels or (operation.kind == "none" and self.stride > 1):
            self.convs.append(ConvNorm(in_channels, channels, norm=norm))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, channels, H / stride, W / stride)."""
        kind, stride = self.operation.kind, self.stride
        if kind == "max_pool":
            x = max_pool_any(x, self.operation.kernel, stride)
            return self.convs[0](x) if self.convs else x
        if kind == "none":
            return self.convs[0](F.relu(x), stride) if self.convs else x
        if kind == "atrous":
            x = F.relu(x)
            if stride == 1:
                return self.convs[0](x, 1, 2)  # type: ignore[no-any-return]
            size = [reduced_size(side, 2) for side in x.shape[2:]]
            return self.convs[0](resize(x, size, align_corners=True))  # type: ignore[no-any-return]
        for conv in self.convs:
            x, stride = conv(F.relu(x), stride), 1
        return x


def max_pool_any(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Max-pool with TensorFlow's SAME, of values of any sign: what lies outside never wins."""
    total = [same_padding(size, kernel, stride) for size in x.shape[2:]]
    # Where the odd pixel is at the end alone, a last window that reaches over it does the same.
    return F.max_pool2d(
        x, kernel, stride, (total[0] // 2, total[1] // 2), ceil_mode=any(t % 2 for t in total)
    )


class Cell(nn.Module):
    """Five sums of two operations each, on two inputs brought to one size and width."""

    def __init__(
        self,
        operations: Sequence[Operation],
        in_channels: int,
        previous_channels: int,
        channels: int,
        *,
        stride: int,
        norm: Norm,
        keep: float,
    ) -> None:
        super().__init__()
        self.entry = ConvNorm(in_channels, channels, norm=norm)
        self.previous = (
            None
            if previous_channels == channels
            else ConvNorm(previous_channels, channels, norm=norm)
        )
        self.branches = nn.ModuleList(
            Branch(operation, channels, channels, stride=stride, norm=norm)
            for operation in operations
        )
        self.drop = DropPath(keep) if keep < 1 else None
        self.out_channels = STATES * channels

    def forward(self, x: Tensor, previous: Tensor) -> Tensor:
        """(B, C, H, W) and the cell before it, of any size, to (B, 5·channels, H/s, W/s)."""
        previous = resize(previous, x.shape[2:], align_corners=True)
        if self.previous is not None:
            previous = self.previous(F.relu(previous))
        states = [self.entry(F.relu(x)), previous]
        sums: list[Tensor] = []
        for branch in self.branches:
            assert isinstance(branch, Branch)
            y = branch(states[branch.operation.source])
            # As in the original: frozen batch norms mean that no path is dropped either.
            if self.drop is not None and branch.operation.kind != "none" and self.learns:
                y = self.drop(y)
            sums.append(y)
            if len(sums) % 2 == 0:
                states.append(sums[-2] + sums[-1])
        return torch.cat(states[2:], 1)

    @property
    def learns(self) -> bool:
        """Whether the cell is in training, its batch norms too."""
        norm = self.entry.norm
        return self.training and norm is not None and norm.training


class NASNet(nn.Module):
    """Photo (B, 3, H, W), normalised, to features (B, C, H / os, W / os).

    HNASNet's features have stride 8, and PNASNet's weights are those of one output stride: both
    run at the configuration's only. With a classification head HNASNet has the stride asked for.
    """

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        norm = Norm(eps=config.backbone_bn_eps, decay=config.backbone_bn_decay)
        self.stem = nn.ModuleList(
            ConvNorm(inputs, outputs, 3, norm=norm, padding="symmetric")
            for inputs, outputs in ((config.channels, 64), (64, 64), (64, 128))
        )
        self.levels = levels(config.backbone, config.output_stride)
        widths = [64, 128]
        self.cells = nn.ModuleList()
        for index, (level, stride) in enumerate(zip(self.levels, self._strides(), strict=True)):
            cell = Cell(
                CELLS[config.backbone],
                widths[-1],
                widths[-2],
                config.nas_channels * 2**level,
                stride=stride,
                norm=norm,
                # Source: nas_cell.py, _apply_drop_path: later cells lose more.
                keep=1 - (index + 1) / len(self.levels) * (1 - config.drop_path_keep_prob),
            )
            self.cells.append(cell)
            widths.append(cell.out_channels)
        self.out_channels = widths[-1]
        self.head = nn.ModuleList()
        if config.nas_classification_head:
            self._add_head(norm)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # Source: nas_arg_scope; fan-in as TensorFlow counts.
                fan_in = layer.weight[0].numel() * layer.groups
                nn.init.uniform_(layer.weight, -(fan_in**-0.5), fan_in**-0.5)

    def _strides(self) -> list[int]:
        """Return the stride of each cell, down from the level before it."""
        before = (0, *self.levels[:-1])
        kept = 3 if self.config.nas_remove_os32_stride else -1
        return [
            2 if level == last + 1 and level != kept else 1
            for level, last in zip(self.levels, before, strict=True)
        ]

    def _add_head(self, norm: Norm) -> None:
        for level in range(self.levels[-1] + 1, 4):
            channels = _HEAD_CHANNELS[4 * 2**level]
            self.head.append(
                ConvNorm(self.out_channels, channels, 3, norm=norm, padding="symmetric")
            )
            self.out_channels = channels
        self.head.append(ConvNorm(self.out_channels, 2048, norm=norm))
        self.out_channels = 2048

    def tap_channels(self, stride: int) -> int:
        """Return how many channels the low-level features of a stride have."""
        index = _TAPS[self.config.backbone][stride]
        if index < 0:
            return 128
        cell = self.cells[index]
        assert isinstance(cell, Cell)
        return cell.out_channels

    def set_progress(self, progress: float) -> None:
        """Say which share of the training is done, 0..1: paths are dropped accordingly."""
        for module in self.modules():
            if isinstance(module, DropPath):
                assert isinstance(module.progress, Tensor)
                module.progress.fill_(min(1.0, progress))

    def forward(
        self, x: Tensor, output_stride: int, taps: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return the features, and the low-level features of the strides in ``taps``.

        Raises:
            ConfigError: the output stride is not the one that these weights are for.
        """
        if output_stride != self.config.output_stride and not (
            self.head and self.config.backbone == "nas_hnasnet" and output_stride >= 8
        ):
            raise ConfigError(
                f"output_stride: got {output_stride}, but a {self.config.backbone} has one output "
                f"stride for all its life; leave it at {self.config.output_stride}."
            )
        outputs = []
        for index, conv in enumerate(self.stem):
            x = conv(x if index == 0 else F.relu(x), 1 if index == 1 else 2)
            if index > 0:
                outputs.append(x)
        wanted = {_TAPS[self.config.backbone][stride]: stride for stride in taps}
        low_level = {wanted[-1]: x} if -1 in wanted else {}
        level = 0
        for index, cell in enumerate(self.cells):
            if self.levels[index] == level - 1 and not (
                level == 3 and self.config.nas_remove_os32_stride
            ):
                x = resize(x, [2 * side - 1 for side in x.shape[2:]], align_corners=True)
            level = self.levels[index]
            x = cell(x, outputs[-2])
            outputs.append(x)
            if index in wanted:
                low_level[wanted[index]] = x
        x = F.relu(x)
        return (self._classify(x, output_stride) if self.head else x), low_level

    def _classify(self, x: Tensor, output_stride: int) -> Tensor:
        """Go down to stride 32, or dilate from ``output_stride`` on, as for classification."""
        current, rate = 4 * 2 ** self.levels[-1], 1
        for conv in self.head[:-1]:
            if current < output_stride:
                x, current = conv(x, 2, rate), current * 2
            else:
                rate *= 2
                x = conv(x, 1, rate)
            x = F.relu(x)
        return F.relu(self.head[-1](x))
