"""Understand the graph of a DeepLab ``.tflite``: what goes in, what comes out, where to stop.

Published files end in a bilinear resize to the frame, often followed by an argmax. Both decide
nothing: :mod:`deeplab.photo.upsample` goes from the small grid of logits straight to the photo's
size. So the graph is cut in front of them, which gives the finer mask, the probabilities, and most
of the time that those two steps take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import ModelError
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
from deeplab.runtimes.network import Float32, UInt8
from deeplab.runtimes.network_card import KEY, NetworkCard, Normalisation
from deeplab.tflite.file import Operator, Tensor, TfliteFile
from deeplab.tflite.metadata import Metadata, read_metadata
from deeplab.tflite.optimise import Optimisation, read_record

_LABEL_MAP_TYPES = ("INT64", "INT32", "UINT8", "INT8")
_LOGIT_TYPES = ("FLOAT32", "UINT8", "INT8")
_PASSING = ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "TRANSPOSE", "RESIZE_BILINEAR", "CAST", "SQUEEZE")
"""Steps behind which probabilities are still probabilities."""

_USUAL: Normalisation = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
"""(2/255) x - 1, where nothing else is known: every network of the original but plain ResNet.

Source: research/deeplab/core/feature_extractor.py (``_preprocess_zero_mean_unit_range``).
"""


@dataclass(frozen=True, kw_only=True)
class TfliteNetwork(NetworkCard):
    """What an engine must know to run a DeepLab file, besides what its card says.

    Attributes:
        file: the file.
        input_tensor: the picture's tensor.
        output_tensor: the tensor to fetch.
        reading: how its numbers are read.
        channels_first: the picture's tensor is [1, 3, height, width].
        whole: run the file as it is.
    """

    file: TfliteFile
    input_tensor: Tensor
    output_tensor: Tensor
    reading: Reading
    channels_first: bool = False
    whole: bool = False

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the picture's tensor, a batch of one."""
        sides = self.spec.height, self.spec.width
        return (1, 3, *sides) if self.channels_first else (1, *sides, 3)

    @property
    def content(self) -> bytes:
        """The model for the engine: the file, without what can be spared; see `tflite.optimise`.

        Takes 25 ms for the starter model, nearly all of it for the schema's objects, so it is done
        anew whenever a file is opened.
        """
        if self.whole:
            return self.file.data
        return Optimisation(self.file, self.output_tensor.index).apply()

    def feed(self, frame: UInt8, out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[Any]:
        """Return a (height, width, 3) uint8 RGB frame as the input tensor, a batch of one.

        Args:
            frame: the frame.
            out: where to put a float32 tensor, channels last; elsewhere None.
        """
        batch = self._feed(frame, out)
        return np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) if self.channels_first else batch

    def _feed(self, frame: UInt8, out: npt.NDArray[np.float32] | None) -> npt.NDArray[Any]:
        height, width, _ = frame.shape
        mean, std = np.asarray(self.spec.mean), np.asarray(self.spec.std)
        if self.input_tensor.type == "FLOAT32":
            batch = np.empty((1, *frame.shape), np.float32) if out is None else out
            # Row by row, because numpy is slow along an axis of three; one number is faster still.
            rows, target = frame.reshape(height, width * 3), batch.reshape(height, width * 3)
            shift, scale = (
                part[0] if len({*part.tolist()}) == 1 else np.tile(part, width)
                for part in (mean.astype(np.float32), std.astype(np.float32))
            )
            np.subtract(rows, shift, out=target, dtype=np.float32)
            target /= scale
            return batch
        quantization = self.input_tensor.quantization
        assert quantization is not None
        dtype = np.uint8 if self.input_tensor.type == "UINT8" else np.int8
        real = (np.arange(256)[:, None] - mean) / std
        stored = np.round(real / float(quantization.scale[0])) + int(quantization.zero_point[0])
        limits = np.iinfo(dtype)
        table = np.clip(stored, limits.min, limits.max).astype(dtype)
        if dtype is np.uint8 and (table == np.arange(256)[:, None]).all():
            return frame[None]
        return np.stack([table[frame[:, :, c], c] for c in range(3)], axis=2)[None]

    def answer(self, fetched: npt.NDArray[Any]) -> Float32 | UInt8:
        """Return the fetched tensor as (h, w, K) float32 values or a (h, w) uint8 label map."""
        if self.output == "logits":
            fetched = self.output_tensor.dequantize(fetched)
        return self.reading.read(fetched)


def understand(
    file: TfliteFile,
    *,
    whole: bool = False,
    normalisation: Normalisation | None = None,
    assume: InputSpec | None = None,
    labels: LabelSet | None = None,
    size: tuple[int, int] | None = None,
    output_name: str | None = None,
) -> TfliteNetwork:
    """Find out how a DeepLab file is run.

    Args:
        file: the file.
        whole: fetch what the file gives, even where a finer answer lies inside.
        normalisation: (mean, std) in units of 0..255, whatever the file says.
        assume: whose normalisation to take where the file says nothing.
        labels: the classes, whatever the file says.
        size: (height, width) of the frame, where the file takes any.
        output_name: which of several outputs to take.

    Raises:
        ModelError: the graph is not a segmentation network of one RGB picture.
        InputError: an argument does not fit the file, or a size is missing.
    """
    _refuse_compiled(file)
    picture, channels_first = _input(file)
    rows = 2 if channels_first else 1
    open_sides = [side < 0 for side in picture.signature[rows : rows + 2]] or [False, False]
    sides = picture.shape[rows : rows + 2]
    own = [None if is_open else side for is_open, side in zip(open_sides, sides, strict=True)]
    card = _read_card(file)
    height, width = choose_size(
        file.name,
        (own[0], own[1]),
        known=(assume.height, assume.width) if assume else None,
        asked=size,
    )
    any_size = any(open_sides)
    whole = whole or any_size or channels_first
    frame = None if any_size else (height, width)
    found = _output(file, whole, channels_first, output_name, frame)
    assumed = dict(found.assumed)
    align_corners = found.align_corners
    if align_corners is None and card is not None:
        align_corners = card.align_corners
    if align_corners is None and (record := read_record(file)) is not None:
        align_corners = record.align_corners
    if align_corners is None:
        align_corners = is_aligned((height, width), found.reading.grid_of(found.tensor.shape))
    metadata = read_metadata(file)
    stated = normalisation or _own_normalisation(file, picture, metadata)
    if stated is None and assume is None:
        assumed["normalisation"] = "pixels scaled to -1..1 (--normalisation names another)"
    mean, std = stated or ((assume.mean, assume.std) if assume else _USUAL)
    if card is None and assume is None:
        assumed["fit"] = "photos letterboxed into the frame (--fit stretch)"
    own_labels = metadata.labels if metadata else None
    if card is not None and card.labels is not None and own_labels is not None:
        same = own_labels.names == card.labels.names
        own_labels = card.labels if same else own_labels  # the same, with their colours
    if labels is not None:
        own_labels = labels
    num_classes = found.num_classes
    if found.reading.one_channel:
        own_labels, notes = name_two(file.name, own_labels)
        assumed |= notes
    elif own_labels is not None and num_classes not in (None, len(own_labels)) and labels is None:
        raise ModelError(
            f"{file.name}: its label file has {len(own_labels)} names, but the network tells "
            f"{num_classes} classes apart; pass labels= with the right ones."
        )
    return TfliteNetwork(
        file=file,
        spec=InputSpec(
            height=height, width=width, mean=mean, std=std,
            fit=card.spec.fit if card else "letterbox",
        ),
        labels=own_labels,
        num_classes=num_classes,
        output=found.reading.output,
        align_corners=align_corners,
        any_size=any_size,
        assumed=assumed,
        softmaxed=found.reading.softmaxed,
        input_tensor=picture,
        output_tensor=found.tensor,
        reading=found.reading,
        channels_first=channels_first,
        whole=whole,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Found:
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


def _refuse_compiled(file: TfliteFile) -> None:
    if any(step.name == "edgetpu-custom-op" for step in file.operators):
        raise ModelError(
            f"{file.name}: is compiled for the Edge TPU, and runs on that alone; take the .tflite "
            "it was compiled from (its name without '_edgetpu')."
        )


def _read_card(file: TfliteFile) -> NetworkCard | None:
    entry = file.entries.get(KEY)
    if entry is None:
        return None
    return NetworkCard.from_json(entry.decode("utf-8", errors="replace"), name=file.name)


def _input(file: TfliteFile) -> tuple[Tensor, bool]:
    """Return the picture's tensor, and whether its channels come first."""
    picture = file.tensors[file.inputs[0]]
    shape, kind = picture.shape, picture.type
    fits = len(file.inputs) == 1 and len(shape) == 4 and shape[0] == 1 and 3 in (shape[1], shape[3])
    if not fits:
        shapes = ", ".join(str(list(file.tensors[i].shape)) for i in file.inputs)
        raise ModelError(
            f"{file.name}: is not a DeepLab: its input is {shapes}, "
            "expected one RGB picture [1, height, width, 3] or [1, 3, height, width]."
        )
    integer = kind in ("UINT8", "INT8")
    if kind != "FLOAT32" and not (integer and picture.quantization is not None):
        raise ModelError(
            f"{file.name}: its input has type {kind}, expected FLOAT32, or UINT8 or INT8 with "
            "scale and zero point."
        )
    return picture, shape[3] != 3


def _output(
    file: TfliteFile,
    whole: bool,
    channels_first: bool,
    asked: str | None,
    frame: tuple[int, int] | None,
) -> _Found:
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
        return _Found(
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
    return _Found(
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
            corners = bool(step.options["align_corners"])
            if source.shape != tensor.shape:
                known = corners or bool(step.options["half_pixel_centers"])
                if align_corners is not None or not known:
                    break
                align_corners = corners
        elif step.name not in ("DEQUANTIZE", "QUANTIZE"):
            break
        tensor = source
    if tensor is logits or tensor.type not in _LOGIT_TYPES or len(tensor.shape) != 4:
        return None, None
    return tensor, align_corners


def _own_normalisation(
    file: TfliteFile, picture: Tensor, metadata: Metadata | None
) -> Normalisation | None:
    """Return the (mean, std) that the file states; None where it states none."""
    if metadata is not None and metadata.mean and metadata.std:
        if {len(metadata.mean), len(metadata.std)} - {1, 3}:
            raise ModelError(
                f"{file.name}: its metadata normalises with mean {metadata.mean} and std "
                f"{metadata.std}, expected one number or three each."
            )
        return _three(metadata.mean), _three(metadata.std)
    if picture.quantization is None:
        return None
    # An integer input says which real number each stored value stands for. The published files
    # take the picture's bytes as they are, so a byte stands for (byte - zero point) * scale.
    offset = 128.0 if picture.type == "INT8" else 0.0
    mean = float(picture.quantization.zero_point[0]) + offset
    return _three((mean,)), _three((1.0 / float(picture.quantization.scale[0]),))


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values * 3 if len(values) == 1 else values
    return red, green, blue
