"""The engines that run a network file. One file per engine; each has ``open``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError, ModelError
from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Output = Literal["logits", "label map"]
_WEIGHTS = (".pb", ".index", ".pt", ".pth", ".bin", ".gz", ".pkl")
"""Endings of files that ``deeplab.weights`` reads."""

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]
Precision = Literal["float32", "bfloat16"]
"""In what an engine computes floating point numbers."""


class Network(Protocol):
    """A network file opened by one engine: a frame in, logits or a label map out.

    One object runs one frame at a time; open the file again for another stream.

    Attributes:
        spec: what it wants to be fed with.
        labels: its classes where the file says so, else None.
        num_classes: how many classes it tells apart; None where only a label map comes out.
        output: "logits", (h, w, K) float32, or "label map", (h, w) uint8.
        align_corners: True where the corners of the logits grid are the centres of the frame's
            corner pixels (the original's networks), False where they are half pixels.
    """

    spec: InputSpec
    labels: LabelSet | None
    num_classes: int | None
    output: Output
    align_corners: bool

    def __call__(self, frame: UInt8) -> Float32 | UInt8:
        """Run the network on one (height, width, 3) uint8 RGB frame, 0..255, not normalised."""
        ...


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a release pair is run, where not as it was trained; all None: as it was trained.

    Attributes:
        size: (height, width) of its frame, pixels.
        output_stride: 8, 16 or 32.
        device: "cpu" or "cuda"; None is the CPU.
    """

    size: tuple[int, int] | None = None
    output_stride: int | None = None
    device: Literal["cpu", "cuda"] | None = None


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


def find_engines(path: Path) -> tuple[str, ...]:
    """Return the names of the engines that read this kind of file, the usual one first.

    A file of unknown ending is taken for a ``.tflite``.
    """
    suffix = path.suffix if path.suffix in FILE_SUFFIXES else ".tflite"
    return tuple(name for name, suffixes in _READS.items() if suffix in suffixes)


def open_network(
    path: Path,
    *,
    threads: int,
    runtime: str | None = None,
    normalisation: Normalisation | None = None,
    assume: InputSpec | None = None,
    variant: Variant | None = None,
    precision: Precision = "float32",
) -> Network:
    """Open a network file with the engine of that name.

    Args:
        path: the file.
        threads: how many threads one frame may use.
        runtime: "litert" or "openvino" for a ``.tflite``, "onnx" or "openvino" for an ``.onnx``,
            "openvino" for an ``.xml``, "executorch" for a ``.pte``, "torch" for a release pair;
            None takes the first of these.
        normalisation: (mean, std) in units of 0..255, whatever the file says. Where it is part of
            the network, as in a pair, it cannot be changed.
        assume: whose normalisation to take where the file says nothing.
        variant: another size, output stride or device of a pair, or another size of a file that
            takes any; other files have their own.
        precision: "bfloat16" takes half the time on processors that have it, and changes masks;
            OpenVINO only.

    Raises:
        InputError: there is no such runtime, or it does not read this kind of file; a variant of
            what is no pair, or one that does not fit its network; a precision that the runtime or
            the processor does not have.
        ModelError: the file cannot be run.
        MissingExtraError: the engine is not installed.
    """
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
    variant = variant or Variant()
    if precision not in get_args(Precision):
        raise InputError(f"precision: got '{precision}', expected 'float32' or 'bfloat16'.")
    if precision != "float32" and runtime != "openvino":
        raise InputError(
            f"precision: '{runtime}' computes in float32; for '{precision}' take 'openvino'."
        )
    if runtime == "torch":
        from deeplab.runtimes import torch

        if normalisation is not None:
            raise InputError(f"normalisation: {path.name} has its own inside; leave it out.")
        return torch.open(path, threads=threads, variant=variant)
    has_one_size = path.suffix not in (".onnx", ".xml")
    if variant not in (Variant(), Variant(size=None if has_one_size else variant.size)):
        raise InputError(
            f"size, output_stride, device: {path.name} was written for its own; only a release "
            "pair (.safetensors and .json) runs with others."
        )
    if runtime == "openvino":
        from deeplab.runtimes import openvino

        return openvino.open(
            path,
            threads=threads,
            normalisation=normalisation,
            assume=assume,
            size=variant.size,
            precision=precision,
        )
    if runtime == "onnx":
        from deeplab.runtimes import onnx

        return onnx.open(
            path,
            threads=threads,
            normalisation=normalisation,
            assume=assume,
            size=variant.size,
        )
    if runtime == "executorch":
        from deeplab.runtimes import executorch

        return executorch.open(path, threads=threads, normalisation=normalisation, assume=assume)
    from deeplab.runtimes import litert

    return litert.open(path, threads=threads, normalisation=normalisation, assume=assume)
