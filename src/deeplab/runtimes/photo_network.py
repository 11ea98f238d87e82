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
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError, ModelError, ModelNotFoundError
from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.runtimes.answers import (
    MOST_CLASSES,
    Reading,
    TensorInfo,
    choose_output,
    choose_size,
    is_aligned,
    name_two,
)
from deeplab.runtimes.network import Float32, Frame, UInt8
from deeplab.runtimes.network_card import NetworkCard, Normalisation, rename

_INPUT_TYPES = ("uint8", "float32", "float16")
_LOGIT_TYPES = ("float32", "float16")
_LABEL_MAP_TYPES = ("uint8", "int8", "int32", "int64")

Ending = Literal["probabilities", "logits"]
"""What the last steps of a graph make."""


@dataclass(frozen=True, kw_only=True)
class PhotoNetwork(NetworkCard):
    """How a file is fed and its answer read; what an engine tells of it.

    Attributes:
        name: of the file, for messages.
        channels_last: of the input.
        input_type: "uint8" (the normalisation is inside), "float32" or "float16".
        output_index: which of its outputs to fetch.
        reading: how its numbers are read.
    """

    name: str
    channels_last: bool
    input_type: str
    output_index: int
    reading: Reading

    def feed(self, frame: Frame) -> npt.NDArray[Any]:
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
        if self.input_type != "uint8" and self.spec.bands is None:
            mean, std = (np.asarray(v, np.float32) for v in (self.spec.mean, self.spec.std))
            batch = ((batch - mean) / std).astype(self.input_type)
        return np.ascontiguousarray(batch if self.channels_last else batch.transpose(0, 3, 1, 2))

    def answer(self, fetched: npt.NDArray[Any]) -> Float32 | UInt8:
        """Return the output tensor as (h, w, K) float32 values or a (h, w) uint8 label map."""
        return self.reading.read(fetched)


def understand(
    path: Path,
    picture: TensorInfo,
    answers: Sequence[TensorInfo],
    *,
    card: NetworkCard | None,
    normalisation: Normalisation | None = None,
    assume: InputSpec | None = None,
    labels: LabelSet | None = None,
    size: tuple[int, int] | None = None,
    output_name: str | None = None,
    endings: Sequence[Ending | None] = (),
) -> PhotoNetwork:
    """Find out how a file is run.

    A file without a card leaves things open. Labels are asked for by the caller. Where the numbers
    are floating point, their normalisation must be given. Logits whose steps are a power of two of
    the frame's (513 and 65) lie with their corners on its corners, all others with their edges on
    its edges.

    Args:
        path: the file.
        picture: its input.
        answers: its outputs.
        card: what it says of itself.
        normalisation: (mean, std) in units of 0..255, for files that take normalised numbers.
        assume: whose normalisation to take where the file says nothing.
        labels: the classes, whatever the file says.
        size: (height, width) of the frame, where the file takes any.
        output_name: which of several outputs to take.
        endings: what each output is made by, where the engine can tell.

    Raises:
        ModelError: the file is not a segmentation network of one RGB picture.
        InputError: an argument does not fit the file, or is missing.
    """
    bands = _check_bands(path, picture, card, normalisation)
    channels_last = bands or _channels_last(path, picture)
    axis = 3 if channels_last else 1
    chosen, assumed = choose_output(
        path.name, answers, fits=lambda index: _is_answer(answers[index], axis), asked=output_name
    )
    answer = answers[chosen]
    reading, num_classes = _read_output(answer, axis, endings[chosen] if endings else None)
    rows, columns = (1, 2) if channels_last else (2, 3)
    sides = picture.shape[rows], picture.shape[columns]
    known = card.spec if card else assume
    height, width = choose_size(
        path.name, sides, known=(known.height, known.width) if known else None, asked=size
    )
    spec = replace(known or InputSpec(height=1, width=1), height=height, width=width)
    mean, std = _scale(path, picture, spec, normalisation, known=known is not None)
    spec = replace(spec, mean=mean, std=std)
    if reading.one_channel:
        labels, notes = name_two(path.name, labels or (card.labels if card else None))
        kind = "probabilities" if reading.softmaxed else "logits"
        words = f"its one channel as {kind} of background and object"
        assumed |= {"output": ", ".join([*assumed.values(), words]), **notes}
    if known is None:
        assumed["fit"] = "photos letterboxed into the frame (--fit stretch)"
    if card is not None:
        if num_classes not in (None, len(card.classes)):
            raise ModelError(
                f"{path.name}: names {len(card.classes)} classes, but tells {num_classes} apart; "
                "it was changed after it was written."
            )
        num_classes, align_corners = len(card.classes), card.align_corners
    else:
        grid = answer.shape[1:3] if len(answer.shape) == 3 else answer.shape[rows : rows + 2]
        align_corners = is_aligned((height, width), grid)
    return PhotoNetwork(
        name=path.name,
        spec=spec,
        labels=rename(card.labels if card else None, labels),
        num_classes=num_classes,
        output=reading.output,
        align_corners=align_corners,
        any_size=None in sides,
        softmaxed=reading.softmaxed,
        temperature=card.temperature if card else 1.0,
        thresholds=card.thresholds if card else (),
        assumed=assumed,
        channels_last=channels_last,
        input_type=picture.type,
        output_index=chosen,
        reading=reading,
    )


def check_file(path: Path) -> None:
    """Refuse a path where there is no file.

    Raises:
        ModelNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"model: there is no file {path}.")


def _check_bands(
    path: Path, picture: TensorInfo, card: NetworkCard | None, asked: Normalisation | None
) -> bool:
    """Return whether a file takes other pictures than photos; its normalisation is inside then.

    Raises:
        ModelError: its card says so, but its input is another.
        InputError: a normalisation is asked for.
    """
    if card is None or card.spec.bands is None:
        return False
    shape, channels = picture.shape, card.spec.channels
    if len(shape) != 4 or shape[3] != channels or picture.type != "float32":
        raise ModelError(
            f"{path.name}: says that it takes {channels} channels, but its input is {picture}; it "
            "was changed after it was written."
        )
    if asked is not None:
        raise InputError(f"normalisation: {path.name} has its own inside; leave it out.")
    return True


def _channels_last(path: Path, picture: TensorInfo) -> bool:
    shape = picture.shape
    fits = len(shape) == 4 and shape[0] in (1, None) and 3 in (shape[1], shape[3])
    if not fits or picture.type not in _INPUT_TYPES:
        raise ModelError(
            f"{path.name}: is not a DeepLab: its input is {picture}, expected one RGB picture, "
            "uint8 or float32 [1, height, width, 3] or [1, 3, height, width]."
        )
    return shape[3] == 3


def _scale(
    path: Path,
    picture: TensorInfo,
    spec: InputSpec,
    asked: Normalisation | None,
    *,
    known: bool,
) -> Normalisation:
    """Return the (mean, std) to use: what is asked for, or the spec's where it is ``known``."""
    if picture.type == "uint8":
        if asked is not None:
            raise InputError(f"normalisation: {path.name} has its own inside; leave it out.")
    elif asked is not None:
        return asked
    elif not known:
        raise InputError(
            f"normalisation: {path.name} takes normalised numbers and does not say how; pass "
            "normalisation=(mean, std), three numbers each in units of 0..255, or --normalisation "
            "imagenet, 0..1, -1..1, 0..255 or MEAN/STD. Torchvision's is imagenet: "
            "((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))."
        )
    return spec.mean, spec.std


def _is_answer(answer: TensorInfo, axis: int) -> bool:
    """Whether an output has the shape and type of logits or of a label map."""
    shape = answer.shape
    if len(shape) == 3:
        return answer.type in {*_LOGIT_TYPES, *_LABEL_MAP_TYPES}
    if len(shape) != 4:
        return False
    if answer.type in _LABEL_MAP_TYPES:
        return 1 in (shape[1], shape[3])
    classes = shape[axis]
    return answer.type in _LOGIT_TYPES and (classes is None or 1 <= classes <= MOST_CLASSES)


def _read_output(
    answer: TensorInfo, axis: int, ending: Ending | None
) -> tuple[Reading, int | None]:
    """Return how an output is read, and how many classes it tells apart where that is known."""
    first = axis == 1
    if answer.type in _LABEL_MAP_TYPES:
        if len(answer.shape) == 4:
            first = answer.shape[1] == 1
        return Reading(output="label map", channels_first=first), None
    classes = 1 if len(answer.shape) == 3 else answer.shape[axis]
    reading = Reading(
        output="logits",
        channels_first=first,
        one_channel=classes == 1,
        softmaxed=ending == "probabilities",
    )
    return reading, 2 if classes == 1 else classes
