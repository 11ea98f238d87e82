"""The contract of the engines: what is asked of a network, and what an opened one can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.runtimes.network_card import NetworkCard, Normalisation, Output

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

Frame = UInt8 | Float32
"""What a network is fed with: (height, width, 3) uint8 RGB, 0..255, not normalised; or, where its
``spec.bands`` says so, (height, width, C) float32 in the units of its pictures, not normalised."""

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
        softmaxed: its "logits" are probabilities already, 0..1.
        device: where it runs: "cpu", "gpu", "cuda:1", …
    """

    spec: InputSpec
    labels: LabelSet | None
    num_classes: int | None
    output: Output
    align_corners: bool
    softmaxed: bool
    device: str

    def __call__(self, frame: Frame) -> Float32 | UInt8:
        """Run the network on one frame, (height, width, 3) uint8 RGB; see :data:`Frame`."""
        ...


class CardNetwork:
    """What the engines tell of a network, all of it from its card; see :class:`Network`."""

    def __init__(self, card: NetworkCard | Network) -> None:
        self.spec = card.spec
        self.labels = card.labels
        self.num_classes = card.num_classes
        self.output = card.output
        self.align_corners = card.align_corners
        self.softmaxed = card.softmaxed
        self.device = "cpu"


class Told(TypedDict, total=False):
    """What is known of a file besides what it says itself.

    Attributes:
        normalisation: (mean, std) in units of 0..255, whatever the file says.
        assume: whose normalisation (and size, where the file takes any) to take where the file
            says nothing.
        labels: the classes, whatever the file says.
        size: (height, width) of the frame, where the file takes any.
        output_name: which of several outputs is the answer.
    """

    normalisation: Normalisation | None
    assume: InputSpec | None
    labels: LabelSet | None
    size: tuple[int, int] | None
    output_name: str | None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a release pair is run, where not as it was trained; all None: as it was trained.

    Attributes:
        size: (height, width) of its frame, pixels.
        output_stride: 8, 16 or 32.
    """

    size: tuple[int, int] | None = None
    output_stride: int | None = None
