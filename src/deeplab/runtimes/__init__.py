"""The engines that run a network file. One file per engine; each has ``open``."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from deeplab.images import InputSpec
from deeplab.labels import LabelSet

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Output = Literal["logits", "label map"]


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
