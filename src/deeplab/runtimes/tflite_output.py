"""Find where in the graph of a ``.tflite`` its answer lies, and how it is read.

Published files end in a bilinear resize to the frame, often followed by an argmax. Both decide
nothing, so the answer is looked for in front of them, see :mod:`~deeplab.runtimes.tflite_network`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deeplab.errors import ModelError
from deeplab.runtimes.answers import MOST_CLASSES, Reading, TensorInfo, choose_output
from deeplab.tflite.file import Operator, Tensor, TfliteFile

_LABEL_MAP_TYPES = ("INT64", "INT32", "UINT8", "INT8")
_LOGIT_TYPES = ("FLOAT32", "UINT8", "INT8")
_PASSING = ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "TRANSPOSE", "RESIZE_BILINEAR", "CAST", "SQUEEZE")
"""Steps behind which probabilities are still probabilities."""


@dataclass(frozen=True, kw_only=True)
class FoundOutput:
    """Where in a graph its answer lies.

    Attributes:
        tensor: to fetch.
        reading: how it is read.
        num_classes: where it is known.
        align_corners: where it is known.
        assumed: see :class:`NetworkCard`.
    """

    tensor: Tensor
    reading: Reading
    num_classes: int | None
    align_corners: bool | None
    assumed: dict[str, str]


def find_output(
    file: TfliteFile,
    whole: bool,
    channels_first: bool,
    asked: str | None,
    frame: tuple[int, int] | None,
) -> FoundOutput:
    """Return where the answer lies: the chosen output, or the finer grid that it is made of.

    ``frame`` is the picture's (height, width) where the file has one size.
    """
    tensors = [file.tensors[index] for index in file.outputs]
    index, assumed = choose_output(
        file.name,
        [TensorInfo(shape=tensor.shape, name=tensor.name) for tensor in tensors],
        fits=lambda index: _is_answer(file, tensors[index], channels_first, frame),
        asked=asked,
    )
    last = tensors[index]
    first = _comes_first(file, last, channels_first, frame)
    is_map = _is_map(file, last, 1 if first else 3)
    logits, found = _before_argmax(file, last) if is_map else (last, True)
    align_corners = None
    if found and not whole:
        grid, align_corners = _before_resize(file, logits)
        if grid is not None:
            logits, last = grid, grid
            is_map = False
    if is_map:
        return FoundOutput(
            tensor=last,
            reading=Reading(output="label map", channels_first=first),
            num_classes=logits.shape[3] if found else None,
            align_corners=None,
            assumed=assumed,
        )
    channels = 1 if len(last.shape) == 3 else last.shape[1 if first else 3]
    softmaxed = _ends_in_probabilities(file, last, channels)
    if channels == 1:
        what = "probabilities" if softmaxed else "logits"
        words = f"its one channel as {what} of background and object"
        assumed["output"] = ", ".join([*assumed.values(), words])
    return FoundOutput(
        tensor=last,
        reading=Reading(
            output="logits", channels_first=first, one_channel=channels == 1, softmaxed=softmaxed
        ),
        num_classes=max(channels, 2),
        align_corners=align_corners,
        assumed=assumed,
    )


def _is_answer(
    file: TfliteFile, output: Tensor, channels_first: bool, frame: tuple[int, int] | None
) -> bool:
    """Whether an output has the shape and type of logits or of a label map."""
    shape = output.shape
    if shape[:1] != (1,) or len(shape) not in (3, 4):
        return False
    channels = 1
    if len(shape) == 4:
        channels = shape[1 if _comes_first(file, output, channels_first, frame) else 3]
    if output.type in _LABEL_MAP_TYPES and channels == 1:
        return True
    return output.type in _LOGIT_TYPES and 1 <= channels <= MOST_CLASSES


def _comes_first(
    file: TfliteFile, output: Tensor, channels_first: bool, frame: tuple[int, int] | None
) -> bool:
    """Whether an output's channels come first.

    Exporters that put the picture's channels last do not always do so with the answer's: where the
    other two axes have the shape of the frame, they are its rows and columns.

    Raises:
        ModelError: they come first in the input and last in the output.
    """
    shape = output.shape
    if len(shape) == 3 or frame is None:
        return channels_first
    if _lies_on(shape[2:4] if channels_first else shape[1:3], frame):
        return channels_first
    if not _lies_on(shape[1:3] if channels_first else shape[2:4], frame):
        return channels_first
    if channels_first:
        raise ModelError(
            f"{file.name}: channels come first in its input, but last in its output "
            f"{list(shape)}; export it with both alike."
        )
    return True


def _lies_on(grid: tuple[int, ...], frame: tuple[int, int]) -> bool:
    """Whether a grid has about the same step along both sides of a frame."""
    steps = [length / max(side, 1) for length, side in zip(frame, grid, strict=True)]
    return min(steps) >= 1 and max(steps) <= 1.35 * min(steps)


def _is_map(file: TfliteFile, output: Tensor, axis: int) -> bool:
    """Whether an output is class ids, not numbers of which one is the largest."""
    if output.type not in _LABEL_MAP_TYPES:
        return False
    if len(output.shape) == 4 and output.shape[axis] != 1:
        return False
    # One channel of bytes that stand for real numbers is a confidence, if no argmax made it.
    return output.quantization is None or _before_argmax(file, output)[1] or _is_cast(file, output)


def _is_cast(file: TfliteFile, output: Tensor) -> bool:
    step = file.producer(output.index)
    return step is not None and step.name in ("CAST", "ARG_MAX")


def _ends_in_probabilities(file: TfliteFile, output: Tensor, channels: int) -> bool:
    """Whether a softmax or sigmoid made the numbers."""
    tensor = output
    while (step := file.producer(tensor.index)) is not None and step.name in _PASSING:
        tensor = file.tensors[step.inputs[0]]
    if step is not None and step.name in ("SOFTMAX", "LOGISTIC"):
        return True
    if channels != 1 or output.quantization is None:
        return False
    limits = np.iinfo(np.uint8 if output.type == "UINT8" else np.int8)
    low, high = output.dequantize(np.array([[limits.min, limits.max]])).ravel()
    return bool(low > -0.01 and high < 1.01)


def _before_argmax(file: TfliteFile, last: Tensor) -> tuple[Tensor, bool]:
    """Return the tensor whose argmax ``last`` is, and whether there is one."""
    step: Operator | None = file.producer(last.index)
    while step is not None and step.name in ("CAST", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"):
        step = file.producer(step.inputs[0])
    if step is None or step.name != "ARG_MAX":
        return last, False
    source = file.tensors[step.inputs[0]]
    axis = int(file.tensors[step.inputs[1]].values.ravel()[0])
    fits = len(source.shape) == 4 and axis in (3, -1) and source.type in _LOGIT_TYPES
    return source, fits


def _before_resize(file: TfliteFile, logits: Tensor) -> tuple[Tensor | None, bool | None]:
    """Return the grid from which the last resize makes ``logits``; None where there is none.

    Resizes to the same size do nothing and are passed by; of those that do something only the
    last is left out, because two in a row are not one.
    """
    align_corners: bool | None = None
    tensor = logits
    while True:
        step = file.producer(tensor.index)
        if step is None or len(file.consumers(tensor.index)) > 1:
            break
        source = file.tensors[step.inputs[0]]
        if step.name == "RESIZE_BILINEAR":
            corners = bool(step.options.get("align_corners"))
            if source.shape != tensor.shape:
                known = corners or bool(step.options.get("half_pixel_centers"))
                if align_corners is not None or not known:
                    break
                align_corners = corners
        elif step.name not in ("DEQUANTIZE", "QUANTIZE"):
            break
        tensor = source
    if tensor is logits or tensor.type not in _LOGIT_TYPES or len(tensor.shape) != 4:
        return None, None
    return tensor, align_corners
