"""Engines × devices: what this machine has, and how to get the rest."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from deeplab.errors import MissingExtraError
from deeplab.runtimes import find_places
from deeplab.runtimes.devices import CPU, Place

_PACKAGES = {
    "litert": ("ai-edge-litert",),
    "onnx": (
        "onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino",
        "onnxruntime-webgpu", "onnxruntime-qnn", "onnxruntime-migraphx",
    ),
    "openvino": ("openvino",),
    "executorch": ("executorch",),
    "torch": ("torch",),
}  # fmt: skip
"""Engine -> the packages that it comes in."""

_ADAPTER = re.compile(r"Selected adapter: (.+?), arch=.*?adapterType=(\S[^\n]*)")
"""How LiteRT's WebGPU names the GPU that it takes, in its log."""

_SECONDS = 30

_TRIAL = (
    "import sys; from deeplab.runtimes import litert; "
    "from deeplab.runtimes.devices import read_device; "
    "litert.try_device(read_device(sys.argv[1]))"
)


@dataclass(frozen=True, kw_only=True)
class EngineDevice:
    """One line of the list.

    Attributes:
        engine: its name, as ``--runtime`` takes it.
        version: of its package; None where it is not installed.
        place: the device; its ``here`` is None where only opening a file tells.
    """

    engine: str
    version: str | None
    place: Place


def list_devices() -> Iterator[EngineDevice]:
    """Give every device of every engine, one after the other, as they are found.

    LiteRT says what it has only when it is given a network; that is tried in processes of their
    own, because drivers may end the one they are in.
    """
    for engine, packages in _PACKAGES.items():
        version = _find_version(packages)
        if version is None:
            extra = "train" if engine == "torch" else engine
            cure = f"pip install 'deeplab[{extra}]'"
            place = Place(device=CPU, name="not installed", here=False, cure=cure)
            yield EngineDevice(engine=engine, version=None, place=place)
            continue
        try:
            places = find_places(engine)
        except MissingExtraError as error:  # there, but it does not start
            places = [Place(device=CPU, name="does not start", here=False, cure=str(error))]
        for place in places:
            tried = _try(place) if engine == "litert" and place.here is None else place
            yield EngineDevice(engine=engine, version=version, place=tried)


def _find_version(packages: tuple[str, ...]) -> str | None:
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return None


def _try(place: Place) -> Place:
    """Return a device of LiteRT with what a trial showed."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL, str(place.device)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return replace(place, here=False)
    if done.returncode:
        return replace(place, here=False)
    adapter = _ADAPTER.search(done.stderr)
    name = f"{place.name}: {adapter[1]} ({adapter[2].strip()})" if adapter else place.name
    return replace(place, here=True, name=name)
