"""A network of the reader's own in the place of a DeepLab.

The contract: called with a number of classes K, the function or class named by ``model.own``
returns an ``nn.Module``. That takes (B, 3, H, W) float32, RGB, normalised by ``model.pixel_mean``
and ``model.pixel_std`` (−1..1 where those are not given), of any height and width, and returns
logits (B, K, h, w), whose corners lie on the picture's where ``model.align_corners`` stays true.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deeplab.errors import ConfigError, InputError
from deeplab.models.config import DeepLabConfig
from deeplab.models.pieces import find_trusted


class OwnNetwork(nn.Module):
    """The reader's module, and a look at what it returns."""

    out_channels = 0

    def __init__(self, config: DeepLabConfig) -> None:
        """Make it.

        Raises:
            InputError: nobody has named its code, it cannot be imported, or makes no module.
        """
        super().__init__()
        self.num_classes = config.num_classes
        with torch.device("cpu"):  # whatever else: constants of its own have their values
            made = find_trusted(config.own)(config.num_classes)
        if not isinstance(made, nn.Module):
            raise InputError(
                f"model.own: {config.own} returned {type(made).__name__}, expected an nn.Module."
            )
        if not any(True for _ in made.parameters()):
            raise InputError(f"model.own: {config.own} made a network without parameters.")
        self.own = made

    def tap_channels(self, stride: int) -> int:
        """Return 0: nothing is taken from inside it."""
        return 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to logits (B, K, h, w)."""
        logits = self.own(x)
        if not isinstance(logits, Tensor) or logits.ndim != 4:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ConfigError(f"model.own: returned {got}, expected logits (B, K, h, w).")
        if logits.shape[1] != self.num_classes:
            raise ConfigError(
                f"model.own: returned {logits.shape[1]} channels, expected {self.num_classes}, one "
                "a class."
            )
        return logits
