"""Understand what a network file outside TFLite takes and gives: ONNX, OpenVINO, ExecuTorch.

The files that ``deeplab export`` writes take a photo's bytes, channels last, with the
normalisation inside, and carry a :class:`~deeplab.runtimes.network_card.NetworkCard`. Files of
other origin are run too, as far as their shapes tell how: channels first or last, bytes or floating
point, one size or any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError, ModelError, ModelNotFoundError
from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.runtimes import Float32, Normalisation, Output, UInt8
from deeplab.runtimes.network_card import NetworkCard

Shape = Sequence[int | None]
"""Of a tensor; None where the file leaves a side open."""

_INPUT_TYPES = ("uint8", "float32", "float16")
_LOGIT_TYPES = ("float32", "float16")
_LABEL_MAP_TYPES = ("uint8", "int8", "int32", "int64")


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """What a file says of its input or its output.

    Attributes:
        shape: one entry per axis.
        type: numpy's name of the number type.
    """

    shape: Shape
    type: str

    def __str__(self) -> str:
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.type} [{sides}]"


@dataclass(frozen=True, kw_only=True)
class PhotoNetwork:
    """How a file is fed and its answer read; what an engine tells of it.

    Attributes:
        name: of the file, for messages.
        spec: what it is fed with.
        labels: its classes, where the file says so.
        num_classes: how many; None where only a label map of unknown range comes out.
        output: "logits" or "label map".
        align_corners: see :class:`deeplab.runtimes.Network`.
        any_size: frames of other sizes than ``spec`` says may be given.
        channels_last: of input and output.
        input_type: "uint8" (the normalisation is inside), "float32" or "float16".
    """

    name: str
    spec: InputSpec
    labels: LabelSet | None
    num_classes: int | None
    output: Output
    align_corners: bool
    any_size: bool
    channels_last: bool
    input_type: str

    def feed(self, frame: UInt8) -> npt.NDArray[Any]:
        """Return a (height, width, 3) uint8 RGB frame as the input tensor, contiguous.

        Raises:
            InputError: the frame has another size than the only one that the file takes.
        """
        if not self.any_size and frame.shape[:2] != (self.spec.height, self.spec.width):
            height, width = frame.shape[:2]
            raise InputError(
                f"frame: got {height}×{width} pixels, but {self.name} takes "
                f"{self.spec.height}×{self.spec.width} only; export it at that size."
            )
        batch: npt.NDArray[Any] = frame[None]
        if self.input_type != "uint8":
            mean, std = (np.asarray(v, np.float32) for v in (self.spec.mean, self.spec.std))
            batch = ((batch - mean) / std).astype(self.input_type)
        return np.ascontiguousarray(batch if self.channels_last else batch.transpose(0, 3, 1, 2))

    def answer(self, fetched: npt.NDArray[Any]) -> Float32 | UInt8:
        """Return the output tensor as (h, w, K) float32 logits or a (h, w) uint8 label map."""
        first = fetched[0]
        if self.output == "logits":
            grid = first if self.channels_last else first.transpose(1, 2, 0)
            return np.ascontiguousarray(grid, np.float32)
        if first.ndim == 3:  # with one channel
            first = first[0] if first.shape[0] == 1 else first[:, :, 0]
        label_map: UInt8 = first.astype(np.uint8, copy=False)
        return label_map


def understand(
    path: Path,
    picture: TensorInfo,
    answer: TensorInfo,
    *,
    card: NetworkCard | None,
    normalisation: Normalisation | None = None,
    assume: InputSpec | None = None,
    size: tuple[int, int] | None = None,
) -> PhotoNetwork:
    """Find out how a file is run.

    A file without a card leaves three things open. Labels are asked for by the caller. Where the
    numbers are floating point, their normalisation must be given. Logits whose steps are a power of
    two of the frame's (513 and 65) lie with their corners on its corners, all others with their
    edges on its edges.

    Args:
        path: the file.
        picture: its input.
        answer: its output.
        card: what it says of itself.
        normalisation: (mean, std) in units of 0..255, for files that take normalised numbers.
        assume: whose normalisation to take where the file says nothing.
        size: (height, width) of the frame, where the file takes any.

    Raises:
        ModelError: the file is not a segmentation network of one RGB picture.
        InputError: an argument does not fit the file, or is missing.
    """
    channels_last = _channels_last(path, picture)
    output, num_classes = _read_output(path, answer, channels_last)
    rows, columns = (1, 2) if channels_last else (2, 3)
    sides = picture.shape[rows], picture.shape[columns]
    any_size = None in sides
    spec = _frame(path, sides, card, assume, size)
    if picture.type == "uint8":
        if normalisation is not None:
            raise InputError(f"normalisation: {path.name} has its own inside; leave it out.")
    elif normalisation is not None:
        spec = replace(spec, mean=normalisation[0], std=normalisation[1])
    elif card is None and assume is None:
        raise InputError(
            f"normalisation: {path.name} takes normalised numbers and does not say how; pass "
            "normalisation=(mean, std), three numbers each in units of 0..255. Torchvision's are "
            "((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))."
        )
    if card is not None:
        if num_classes not in (None, len(card.labels)):
            raise ModelError(
                f"{path.name}: names {len(card.labels)} classes, but tells {num_classes} apart; "
                "it was changed after it was written."
            )
        num_classes, align_corners = len(card.labels), card.align_corners
    else:
        align_corners = _by_rule(spec, answer.shape[rows : rows + 2])
    return PhotoNetwork(
        name=path.name,
        spec=spec,
        labels=card.labels if card else None,
        num_classes=num_classes,
        output=output,
        align_corners=align_corners,
        any_size=any_size,
        channels_last=channels_last,
        input_type=picture.type,
    )


def check_file(path: Path) -> None:
    """Refuse a path where there is no file.

    Raises:
        ModelNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"model: there is no file {path}.")


def last_line(error: Exception) -> str:
    """Return what an engine says went wrong, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


def _channels_last(path: Path, picture: TensorInfo) -> bool:
    shape = picture.shape
    fits = len(shape) == 4 and shape[0] in (1, None) and 3 in (shape[1], shape[3])
    if not fits or picture.type not in _INPUT_TYPES:
        raise ModelError(
            f"{path.name}: is not a DeepLab: its input is {picture}, expected one RGB picture, "
            "uint8 or float32 [1, height, width, 3] or [1, 3, height, width]."
        )
    return shape[3] == 3


def _read_output(path: Path, answer: TensorInfo, channels_last: bool) -> tuple[Output, int | None]:
    shape = answer.shape
    if answer.type in _LOGIT_TYPES and len(shape) == 4:
        classes = shape[3] if channels_last else shape[1]
        if classes is None or 1 <= classes <= 256:
            return "logits", classes
    flat = len(shape) == 3 or (len(shape) == 4 and 1 in (shape[1], shape[3]))
    if answer.type in _LABEL_MAP_TYPES and flat:
        return "label map", None
    raise ModelError(
        f"{path.name}: is not a DeepLab: its output is {answer}, expected logits of up to 256 "
        "classes or a label map [1, height, width]."
    )


def _frame(
    path: Path,
    sides: tuple[int | None, int | None],
    card: NetworkCard | None,
    assume: InputSpec | None,
    size: tuple[int, int] | None,
) -> InputSpec:
    """Return the frame: the file's own, or where it takes any, the one asked for."""
    known = card.spec if card else assume
    height, width = (
        fixed or (size[axis] if size else 0) or (getattr(known, name) if known else 0)
        for axis, (fixed, name) in enumerate(zip(sides, ("height", "width"), strict=True))
    )
    if size is not None and size != (height, width):
        raise InputError(
            f"size: got {size[0]}×{size[1]}, but {path.name} takes {height}×{width} only; export "
            "it at that size."
        )
    if not height or not width:
        raise InputError(
            f"size: {path.name} takes pictures of any size and does not say of which; pass "
            "size=(513, 513) or what it was trained at."
        )
    if known is None:
        return InputSpec(height=height, width=width)
    return replace(known, height=height, width=width)


def _by_rule(spec: InputSpec, grid: Shape) -> bool:
    """Return whether the steps of a grid of logits are a power of two of its frame's."""
    for frame, side in zip((spec.height, spec.width), grid, strict=True):
        if side is None or side < 2 or (frame - 1) % (side - 1):
            return False
        if ((frame - 1) // (side - 1)).bit_count() != 1:
            return False
    return True


class PhotoEngine:
    """What the engines of such files tell of a network, see :class:`deeplab.runtimes.Network`."""

    def __init__(self, network: PhotoNetwork) -> None:
        self.network = network
        self.spec = network.spec
        self.labels = network.labels
        self.num_classes = network.num_classes
        self.output = network.output
        self.align_corners = network.align_corners
