"""Run a release pair with PyTorch: the reference for the deployed files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from deeplab.errors import InputError, MissingExtraError
from deeplab.runtimes.devices import CPU, Device, Place, cannot_run
from deeplab.runtimes.network import CardNetwork, Float32, Frame, Variant
from deeplab.runtimes.network_card import NetworkCard, rename

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
    """

    release: Release
    output_stride: int


def describe(
    path: str | PathLike[str], *, variant: Variant | None = None, **told: Unpack[Told]
) -> PairNetwork:
    """Read a release pair by either of its two files.

    Args:
        path: ``NAME.safetensors`` or ``NAME.json``.
        variant: another size or output stride than the pair's own.
        **told: labels; the rest the pair has inside.

    Raises:
        InputError: the size does not fit the output stride, or something was told that the pair
            has inside.
        ModelNotFoundError: one of the two files is missing.
        WeightsError: the pair is damaged.
        MissingExtraError: PyTorch is not installed.
    """
    _import_torch()
    from deeplab.weights import open_release

    path, variant = Path(path), variant or Variant()
    if told.get("normalisation") is not None:
        raise InputError(f"normalisation: {path.name} has its own inside; leave it out.")
    if told.get("output_name") is not None:
        raise InputError(f"output_name: {path.name} has one output; leave it out.")
    release = open_release(path)
    config, spec = release.config, release.input_spec
    stride = variant.output_stride or config.output_stride
    height, width = variant.size or (spec.height, spec.width)
    if config.align_corners and variant != Variant():
        _check_size((height, width), stride)
    return PairNetwork(
        spec=dataclasses.replace(spec, height=height, width=width),
        labels=rename(release.labels, told.get("labels")),
        num_classes=config.num_classes,
        output="logits",
        align_corners=config.align_corners,
        any_size=not config.image_pooling_crop_size,
        temperature=release.temperature,
        thresholds=release.thresholds,
        release=release,
        output_stride=stride,
    )


def open(
    path: str | PathLike[str],
    *,
    threads: int,
    card: PairNetwork | None = None,
    variant: Variant | None = None,
    device: Device = CPU,
) -> TorchNetwork:
    """Open a release pair by either of its two files.

    Args:
        path: ``NAME.safetensors`` or ``NAME.json``.
        threads: how many threads one frame may use. PyTorch knows one number per process, so every
            call sets it for everything that runs in this one.
        card: what :func:`describe` found; None asks it.
        variant: see :func:`describe`.
        device: the CPU, "gpu", "cuda" with a number, or "mps".

    Raises:
        ModelError: the device cannot run it; and as :func:`describe`.
    """
    card = card or describe(path, variant=variant)
    return TorchNetwork(card, threads=threads, device=device, name=Path(path).name)


def find_places() -> list[Place]:
    """Return the devices that PyTorch knows, and which of them are here.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    torch = _import_torch()
    cuda = (
        "an NVIDIA GPU with its driver, and a PyTorch that was built for it (this one: "
        f"{torch.__version__}; pytorch.org names the command)"
    )
    places = [Place(device=CPU, name="", here=True)]
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    names = [str(torch.cuda.get_device_name(index)) for index in gpus]
    has_mps = bool(torch.backends.mps.is_available())
    if names or not has_mps:
        name, cure = names[0] if names else "", f"{cuda}, or a Mac with Apple silicon"
        places.append(Place(device=Device("gpu"), name=name, here=bool(names), cure=cure))
    else:
        places.append(Place(device=Device("gpu"), name="Metal", here=True))
    places += [
        Place(device=Device("cuda", index), name=name, here=True)
        for index, name in enumerate(names)
    ]
    if not names:
        places.append(Place(device=Device("cuda"), name="", here=False, cure=cuda))
    mac = "a Mac with Apple silicon and macOS 12.3 or newer"
    places.append(
        Place(device=Device("mps"), name="Metal" if has_mps else "", here=has_mps, cure=mac)
    )
    return places


def name_gpu() -> str | None:
    """Return the name of the GPU that PyTorch would use; None where there is none.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    torch = _import_torch()
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


class TorchNetwork(CardNetwork):
    """A :class:`deeplab.runtimes.Network` in PyTorch."""

    def __init__(
        self, network: PairNetwork, *, threads: int, device: Device = CPU, name: str = "the pair"
    ) -> None:
        from deeplab.models import build

        super().__init__(network)
        self._output_stride = network.output_stride
        self._asked, self._device = device, _torch_device(device)
        self._threads = threads
        self._name = name
        release = network.release
        model = build(release.config, release.state_dict()).eval()
        try:
            self.model = model.to(self._device)
        except RuntimeError as error:  # of CUDA and Metal, out of memory included
            raise cannot_run(name, "PyTorch", device, error) from error

    def __call__(self, frame: Frame) -> Float32:
        """Run one (height, width, 3) uint8 RGB frame."""
        return self.run_batch([frame])[0]

    def run_batch(self, frames: Sequence[Frame]) -> list[Float32]:
        """Run frames of one shape together; see :mod:`deeplab.runtimes.batches`."""
        import torch

        torch.set_num_threads(self._threads)  # another network may have set it to its own
        images = torch.from_numpy(np.stack([frame.transpose(2, 0, 1) for frame in frames]))
        try:
            with torch.inference_mode():
                logits = self.model(images.to(self._device), self._output_stride)
                grids: Float32 = logits.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        except RuntimeError as error:
            if self._asked == CPU:
                raise
            raise cannot_run(self._name, "PyTorch", self._asked, error) from error
        return list(grids)

    def time_operators(self, frame: Frame) -> list[tuple[str, str, float]]:
        """Run one frame under PyTorch's profiler: (operator, input shapes, ms), in their order.

        The times on a GPU are those of its kernels.
        """
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU]
        on_gpu = self._device.startswith("cuda")
        if on_gpu:
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities, record_shapes=True) as traced:
            self(frame)
        events = [event for event in traced.events() if event.cpu_parent is None]
        events = [event for event in events if event.name.startswith("aten::")]
        found = []
        for event in sorted(events, key=lambda event: event.time_range.start):
            micros = event.device_time_total if on_gpu else event.cpu_time_total
            shapes = ", ".join("×".join(map(str, shape)) for shape in event.input_shapes if shape)
            found.append((event.name, shapes, micros / 1e3))
        return found


def _torch_device(device: Device) -> str:
    if device.kind != "gpu":
        return str(device)
    return f"cuda:{device.index}" if _import_torch().cuda.is_available() else "mps"


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
