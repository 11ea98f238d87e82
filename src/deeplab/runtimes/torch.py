"""Run a release pair with PyTorch, as it was trained: the reference for the deployed files."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deeplab.errors import MissingExtraError
from deeplab.labels import LabelSet
from deeplab.runtimes import Float32, Output, UInt8

if TYPE_CHECKING:
    from deeplab.weights import Release


def open(path: str | PathLike[str], *, threads: int) -> TorchNetwork:
    """Open a release pair by either of its two files.

    Args:
        path: ``NAME.safetensors`` or ``NAME.json``.
        threads: how many threads one frame may use. PyTorch knows one number per process, so this
            sets it for everything that runs in this one.

    Raises:
        ModelNotFoundError: one of the two files is missing.
        WeightsError: the pair is damaged.
        MissingExtraError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("The torch runtime", package="torch", extra="train") from error
    from deeplab.weights import open_release

    torch.set_num_threads(threads)
    return TorchNetwork(open_release(Path(path)))


class TorchNetwork:
    """A :class:`deeplab.runtimes.Network` in PyTorch, on the CPU."""

    output: Output = "logits"

    def __init__(self, release: Release) -> None:
        from deeplab.models import build

        self.spec = release.input_spec
        self.labels: LabelSet | None = release.labels
        self.num_classes: int | None = release.config.num_classes
        self.align_corners = release.config.align_corners
        self._model = build(release.config, release.state_dict()).eval()

    def __call__(self, frame: UInt8) -> Float32:
        """Run one (height, width, 3) uint8 RGB frame."""
        import torch

        image = torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))[None]
        with torch.inference_mode():
            logits = self._model(image)[0]
        grid: Float32 = logits.permute(1, 2, 0).contiguous().numpy()
        return grid
