"""The engines that run a network file. One file per engine; each has ``open``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError
from deeplab.images import InputSpec
from deeplab.labels import LabelSet

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Output = Literal["logits", "label map"]
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
    runtime: str,
    threads: int,
    normalisation: Normalisation | None = None,
    assume: InputSpec | None = None,
) -> Network:
    """Open a network file with the engine of that name.

    Args:
        path: the file.
        runtime: "litert" or "openvino".
        threads: how many threads one frame may use.
        normalisation: (mean, std) in units of 0..255, whatever the file says.
        assume: whose normalisation to take where the file says nothing.

    Raises:
        InputError: there is no such runtime.
        ModelError: the file cannot be run.
        MissingExtraError: the engine is not installed.
    """
    if runtime == "litert":
        from deeplab.runtimes import litert

        return litert.open(path, threads=threads, normalisation=normalisation, assume=assume)
    if runtime == "openvino":
        from deeplab.runtimes import openvino

        return openvino.open(path, threads=threads, normalisation=normalisation, assume=assume)
    raise InputError(f"runtime: got '{runtime}', expected 'litert' or 'openvino'.")
