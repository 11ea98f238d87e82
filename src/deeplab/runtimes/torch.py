"""Run a release pair with PyTorch: the reference for the deployed files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from deeplab.errors import InputError, MissingExtraError
from deeplab.runtimes.network import CardNetwork, Float32, UInt8, Variant
from deeplab.runtimes.network_card import NetworkCard

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deeplab.runtimes.network import Told
    from deeplab.weights import Release


@dataclass(frozen=True, kw_only=True)
class PairNetwork(NetworkCard):
    """What a release pair says of itself, and how it is to be run.

    Attributes:
        release: the pair.
        output_stride: at which it is run.
        device: where.
    """

    release: Release
    output_stride: int
    device: str


def describe(
    path: str | PathLike[str], *, variant: Variant | None = None, **told: Unpack[Told]
) -> PairNetwork:
    """Read a release pair by either of its two files.

    Args:
        path: ``NAME.safetensors`` or ``NAME.json``.
        variant: another size, output stride or device than the pair's own and the CPU.
        **told: labels; the rest the pair has inside.

    Raises:
        InputError: the size does not fit the output stride, there is no such device, or something
            was told that the pair has inside.
        ModelNotFoundError: one of the two files is missing.
        WeightsError: the pair is damaged.
        MissingExtraError: PyTorch is not installed.
    """
    torch = _import_torch()
    from deeplab.weights import open_release

    path, variant = Path(path), variant or Variant()
    if told.get("normalisation") is not None:
        raise InputError(f"normalisation: {path.name} has its own inside; leave it out.")
    if told.get("output_name") is not None:
        raise InputError(f"output_name: {path.name} has one output; leave it out.")
    if variant.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: got 'cuda', but PyTorch finds no GPU here; use 'cpu'.")
    release = open_release(path)
    config, spec = release.config, release.input_spec
    stride = variant.output_stride or config.output_stride
    height, width = variant.size or (spec.height, spec.width)
    if config.align_corners and variant != Variant(device=variant.device):
        _check_size((height, width), stride)
    return PairNetwork(
        spec=dataclasses.replace(spec, height=height, width=width),
        labels=told.get("labels") or release.labels,
        num_classes=config.num_classes,
        output="logits",
        align_corners=config.align_corners,
        release=release,
        output_stride=stride,
        device=variant.device or "cpu",
    )


def open(
    path: str | PathLike[str],
    *,
    threads: int,
    card: PairNetwork | None = None,
    variant: Variant | None = None,
) -> TorchNetwork:
    """Open a release pair by either of its two files.

    Args:
        path: ``NAME.safetensors`` or ``NAME.json``.
        threads: how many threads one frame may use. PyTorch knows one number per process, so every
            call sets it for everything that runs in this one.
        card: what :func:`describe` found; None asks it.
        variant: see :func:`describe`.

    Raises:
        As :func:`describe`.
    """
    return TorchNetwork(card or describe(path, variant=variant), threads=threads)


def name_gpu() -> str | None:
    """Return the name of the GPU that PyTorch would use; None where there is none.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    torch = _import_torch()
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


class TorchNetwork(CardNetwork):
    """A :class:`deeplab.runtimes.Network` in PyTorch."""

    def __init__(self, network: PairNetwork, *, threads: int) -> None:
        from deeplab.models import build

        super().__init__(network)
        self._output_stride = network.output_stride
        self._device = network.device
        self._threads = threads
        release = network.release
        self._model = build(release.config, release.state_dict()).to(self._device).eval()

    def __call__(self, frame: UInt8) -> Float32:
        """Run one (height, width, 3) uint8 RGB frame."""
        import torch

        torch.set_num_threads(self._threads)  # another network may have set it to its own
        image = torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))[None]
        with torch.inference_mode():
            logits = self._model(image.to(self._device), self._output_stride)[0]
        grid: Float32 = logits.permute(1, 2, 0).contiguous().cpu().numpy()
        return grid

    def time_operators(self, frame: UInt8) -> list[tuple[str, str, float]]:
        """Run one frame under PyTorch's profiler: (operator, input shapes, ms), in their order.

        The times on a GPU are those of its kernels.
        """
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU]
        if self._device == "cuda":
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities, record_shapes=True) as traced:
            self(frame)
        events = [event for event in traced.events() if event.cpu_parent is None]
        events = [event for event in events if event.name.startswith("aten::")]
        found = []
        for event in sorted(events, key=lambda event: event.time_range.start):
            on_gpu = self._device == "cuda"
            micros = event.device_time_total if on_gpu else event.cpu_time_total
            shapes = ", ".join("×".join(map(str, shape)) for shape in event.input_shapes if shape)
            found.append((event.name, shapes, micros / 1e3))
        return found


def _import_torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("The torch runtime", package="torch", extra="train") from error
    return torch


def _check_size(size: tuple[int, int], stride: int) -> None:
    """Refuse frames whose last pixels would lie beside the last cells of the logits.

    Source: research/deeplab/common.py, ``output_stride``: crop sizes are k * stride + 1.
    """
    if all(side % stride == 1 for side in size):
        return
    near = [max(1, round((side - 1) / stride)) * stride + 1 for side in size]
    raise InputError(
        f"size: got {size[0]}×{size[1]}; at output stride {stride} a side must be a multiple of "
        f"{stride}, plus 1. The nearest is {near[0]}×{near[1]}."
    )
