"""The engines that run a network file. One file per engine; each has ``open``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError, ModelError
from deeplab.images import InputSpec
from deeplab.labels import LabelSet

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Output = Literal["logits", "label map"]
_WEIGHTS = (".pb", ".index", ".pt", ".pth", ".bin", ".gz", ".pkl")
"""Endings of files that ``deeplab.weights`` reads."""

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]


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


def open_network(
    path: Path,
    *,
    threads: int,
    runtime: str | None = None,
    normalisation: Normalisation | None = None,
    assume: InputSpec | None = None,
) -> Network:
    """Open a network file with the engine of that name.

    Args:
        path: the file.
        threads: how many threads one frame may use.
        runtime: "litert" or "openvino" for a ``.tflite``, "torch" for a release pair; None takes
            LiteRT, or torch for a pair.
        normalisation: (mean, std) in units of 0..255, whatever the file says. A pair's cannot be
            changed: it is part of its network.
        assume: whose normalisation to take where the file says nothing.

    Raises:
        InputError: there is no such runtime, or it does not read this kind of file.
        ModelError: the file cannot be run.
        MissingExtraError: the engine is not installed.
    """
    if path.suffix in _WEIGHTS:
        raise ModelError(
            f"model: {path.name} holds weights, which no engine runs as they are. Make a model of "
            f"them first: deeplab import {path.name} -o NAME"
        )
    is_pair = path.suffix in (".safetensors", ".json")
    runtime = runtime or ("torch" if is_pair else "litert")
    if runtime not in ("litert", "openvino", "torch"):
        raise InputError(f"runtime: got '{runtime}', expected 'litert', 'openvino' or 'torch'.")
    if is_pair != (runtime == "torch"):
        raise InputError(
            f"runtime: '{runtime}' cannot run {path.name}; LiteRT and OpenVINO run .tflite files, "
            "torch runs release pairs (.safetensors and .json)."
        )
    if runtime == "torch":
        from deeplab.runtimes import torch

        if normalisation is not None:
            raise InputError(f"normalisation: {path.name} has its own inside; leave it out.")
        return torch.open(path, threads=threads)
    if runtime == "openvino":
        from deeplab.runtimes import openvino

        return openvino.open(path, threads=threads, normalisation=normalisation, assume=assume)
    from deeplab.runtimes import litert

    return litert.open(path, threads=threads, normalisation=normalisation, assume=assume)
