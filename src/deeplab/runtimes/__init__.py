"""From a network file to an engine that runs it: first described, then opened.

:func:`describe` finds out what a file is: which engine reads it, how it is fed, what its answer
means, and what must be assumed. :func:`open_network` gives it to the engine. One file per engine,
each with these two steps; :mod:`~deeplab.runtimes.network` is the contract they keep.
"""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from deeplab.errors import InputError, ModelError
from deeplab.labels import LabelSet
from deeplab.photo.images import Fit, InputSpec
from deeplab.runtimes.answers import check_count
from deeplab.runtimes.device_check import compare
from deeplab.runtimes.devices import AUTO, CPU, Device, Place, check_device, read_device
from deeplab.runtimes.network import Float32 as Float32
from deeplab.runtimes.network import Network, Precision, Variant
from deeplab.runtimes.network import UInt8 as UInt8
from deeplab.runtimes.network_card import NetworkCard, Normalisation
from deeplab.runtimes.network_card import Output as Output
from deeplab.runtimes.probe import check_runs

if TYPE_CHECKING:
    from deeplab.runtimes.network import Told

__all__ = [
    "FILE_SUFFIXES",
    "Network",
    "NetworkFile",
    "Normalisation",
    "Precision",
    "Variant",
    "describe",
    "find_engines",
    "open_network",
]

_WEIGHTS = (".pb", ".index", ".pt", ".pth", ".bin", ".gz", ".pkl")
"""Endings of files that ``deeplab.weights`` reads."""

_READS = {
    "litert": (".tflite",),
    "onnx": (".onnx",),
    "openvino": (".xml", ".onnx", ".tflite"),
    "executorch": (".pte",),
    "torch": (".safetensors", ".json"),
}
"""Engine -> the endings of the files it reads. The first engine that reads a file is its usual."""

FILE_SUFFIXES = tuple(dict.fromkeys(s for suffixes in _READS.values() for s in suffixes))
"""Endings of every file that an engine opens."""


@dataclass(frozen=True, kw_only=True)
class NetworkFile:
    """A network file of which all is known that its engine must know.

    Attributes:
        path: the file.
        runtime: the engine that is to run it.
        card: how it is fed and what its answer means.
        precision: in what the engine computes.
        trusted: the engine is known to survive it.
        device: on what it is to run.
        compared: the device is known to answer as the CPU does.
    """

    path: Path
    runtime: str
    card: NetworkCard
    precision: Precision = "float32"
    trusted: bool = False
    device: Device = CPU
    compared: bool = False


def find_engines(path: Path) -> tuple[str, ...]:
    """Return the names of the engines that read this kind of file, the usual one first.

    A file of unknown ending is taken for a ``.tflite``.
    """
    suffix = path.suffix if path.suffix in FILE_SUFFIXES else ".tflite"
    return tuple(name for name, suffixes in _READS.items() if suffix in suffixes)


def describe(
    path: Path,
    *,
    runtime: str | None = None,
    normalisation: Normalisation | None = None,
    assume: InputSpec | None = None,
    labels: LabelSet | None = None,
    fit: Fit | None = None,
    output_name: str | None = None,
    variant: Variant | None = None,
    precision: Precision = "float32",
    device: str | Device | None = None,
    trusted: bool = False,
) -> NetworkFile:
    """Find out how a network file is run.

    A ``.tflite`` is read here; the other formats only their engines can read, so these files are
    tried in a process of their own first, see :mod:`deeplab.runtimes.probe`.

    Args:
        path: the file.
        runtime: "litert" or "openvino" for a ``.tflite``, "onnx" or "openvino" for an ``.onnx``,
            "openvino" for an ``.xml``, "executorch" for a ``.pte``, "torch" for a release pair;
            None takes the first of these.
        normalisation: (mean, std) in units of 0..255, whatever the file says. Where it is part of
            the network, as in a pair, it cannot be changed.
        assume: whose normalisation and fit to take where the file says nothing.
        labels: the classes, whatever the file says.
        fit: how photos meet the frame, whatever the file says.
        output_name: which of several outputs is the answer.
        variant: another size or output stride of a pair, or another size of a file that takes any;
            other files have their own.
        precision: "bfloat16" takes half the time on processors that have it, and changes masks;
            OpenVINO only.
        device: on what it is to run, see :mod:`deeplab.runtimes.devices`; None is the CPU.
        trusted: the file is known; the engine may have it untried.

    Raises:
        InputError: there is no such runtime, or it does not read this kind of file; a variant of
            what is no pair, or one that does not fit its network; a precision or a device that the
            runtime does not have, or that is not here; labels of another count.
        ModelError: the file is no network that an engine here runs.
        MissingExtraError: the engine is not installed.
    """
    runtime = _choose_engine(path, runtime)
    variant = variant or Variant()
    if precision not in get_args(Precision):
        raise InputError(f"precision: got '{precision}', expected 'float32' or 'bfloat16'.")
    if precision != "float32" and runtime != "openvino":
        raise InputError(
            f"precision: '{runtime}' computes in float32; for '{precision}' take 'openvino'."
        )
    wanted = read_device(device)
    if wanted != CPU:
        if precision != "float32":
            raise InputError(f"precision: '{precision}' is the CPU's; leave it out on '{wanted}'.")
        check_device(runtime, wanted, find_places(runtime))
    told: Told = {
        "normalisation": normalisation,
        "assume": assume,
        "labels": labels,
        "size": variant.size,
        "output_name": output_name,
    }
    trusted = trusted or runtime == "torch"
    if not trusted and path.suffix != ".tflite":
        check_runs(path, runtime, **_wishes(told))
        trusted = True
    card = _describe(path, runtime, variant, told)
    check_count(path.name, card.labels, card.num_classes)
    chosen = fit or (assume.fit if assume else card.spec.fit)
    card = dataclasses.replace(
        card,
        spec=dataclasses.replace(card.spec, fit=chosen),
        assumed={key: words for key, words in card.assumed.items() if key != "fit" or not fit},
    )
    return NetworkFile(
        path=path,
        runtime=runtime,
        card=card,
        precision=precision,
        trusted=trusted,
        device=wanted,
    )


def find_places(runtime: str) -> list[Place]:
    """Return the devices that an engine knows; see :class:`~deeplab.runtimes.devices.Place`.

    Raises:
        MissingExtraError: the engine is not installed.
    """
    places: list[Place] = importlib.import_module(f"deeplab.runtimes.{runtime}").find_places()
    return places


def open_network(file: NetworkFile | Path, *, threads: int, **wishes: Any) -> Network:
    """Give a network file to its engine, on the device that was chosen for it.

    Another device than the CPU has to answer a real photo as the CPU does, see
    :mod:`deeplab.runtimes.device_check`.

    Args:
        file: what :func:`describe` found; a path is described first.
        threads: how many threads one frame may use.
        **wishes: of a path, what :func:`describe` takes.

    Raises:
        ModelError: the engine or the device cannot run it, or the device answers otherwise.
        InputError: the processor does not have the precision.
        MissingExtraError: the engine is not installed.
    """
    if not isinstance(file, NetworkFile):
        file = describe(file, **wishes)
    if not file.trusted:
        spec = file.card.spec
        told: Told = {"normalisation": (spec.mean, spec.std), "size": (spec.height, spec.width)}
        check_runs(file.path, file.runtime, **_wishes(told))
    if file.device == AUTO:
        return _open_fastest(file, threads)
    network = _open(file, threads)
    network.device = str(file.device)
    if file.device != CPU and not file.compared:
        twin = _open(dataclasses.replace(file, device=CPU), threads)
        compare(file.path.name, network.device, network, twin)
    return network


def _open_fastest(file: NetworkFile, threads: int) -> Network:
    """Open a file on what runs it fastest here, of what answers as the CPU does."""
    best = twin = _open(dataclasses.replace(file, device=CPU), threads)
    best_ms = float("inf")
    for place in find_places(file.runtime):
        if place.device == CPU or place.here is False:
            continue
        try:
            network = _open(dataclasses.replace(file, device=place.device), threads)
            found = compare(file.path.name, str(place.device), network, twin)
        except ModelError:  # it is not here after all, or cannot be trusted
            continue
        best_ms = min(best_ms, found.cpu_ms)
        if found.device_ms < best_ms:
            network.device = str(place.device)
            best, best_ms = network, found.device_ms
    return best


def _open(file: NetworkFile, threads: int) -> Network:
    network: Network
    card: Any = file.card
    device = file.device
    if file.runtime == "litert":
        from deeplab.runtimes import litert

        network = litert.open(file.path, threads=threads, card=card, device=device)
    elif file.runtime == "onnx":
        from deeplab.runtimes import onnx

        network = onnx.open(file.path, threads=threads, card=card, device=device)
    elif file.runtime == "openvino":
        from deeplab.runtimes import openvino

        network = openvino.open(
            file.path, threads=threads, card=card, precision=file.precision, device=device
        )
    elif file.runtime == "executorch":
        from deeplab.runtimes import executorch

        network = executorch.open(file.path, threads=threads, card=card)
    else:
        from deeplab.runtimes import torch

        network = torch.open(file.path, threads=threads, card=card, device=device)
    return network


def _wishes(told: Told) -> dict[str, Any]:
    """Return what a file is to be tried with, as JSON knows it."""
    return {
        name: told.get(name) for name in ("normalisation", "size", "output_name") if told.get(name)
    }


def _choose_engine(path: Path, runtime: str | None) -> str:
    """Return the engine that is to run a file; refuse what none runs."""
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        raise ModelError(
            f"model: {path.name} is the second half of an OpenVINO network; open "
            f"{path.with_suffix('.xml').name}."
        )
    if path.suffix in _WEIGHTS:
        raise ModelError(
            f"model: {path.name} holds weights, which no engine runs as they are. Make a model of "
            f"them first: deeplab import {path.name} -o NAME"
        )
    engines = find_engines(path)
    runtime = runtime or engines[0]
    if runtime not in _READS:
        raise InputError(f"runtime: got '{runtime}', expected one of {', '.join(_READS)}.")
    if runtime not in engines:
        raise InputError(
            f"runtime: '{runtime}' cannot run {path.name}; what can: {' or '.join(engines)}. "
            f"'{runtime}' reads {', '.join(_READS[runtime])}."
        )
    return runtime


def _describe(path: Path, runtime: str, variant: Variant, told: Told) -> NetworkCard:
    if runtime == "torch":
        from deeplab.runtimes import torch

        return torch.describe(path, variant=variant, **told)
    has_one_size = path.suffix == ".pte"
    if variant not in (Variant(), Variant(size=None if has_one_size else variant.size)):
        raise InputError(
            f"size, output_stride: {path.name} was written for its own; only a release "
            "pair (.safetensors and .json) runs with others."
        )
    if runtime == "openvino":
        from deeplab.runtimes import openvino

        return openvino.describe(path, **told)
    if runtime == "onnx":
        from deeplab.runtimes import onnx

        return onnx.describe(path, **told)
    if runtime == "executorch":
        from deeplab.runtimes import executorch

        return executorch.describe(path, **told)
    from deeplab.runtimes import litert

    return litert.describe(path, **told)
