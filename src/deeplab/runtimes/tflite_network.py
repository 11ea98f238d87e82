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
from deeplab.runtimes import Float32, Normalisation, Output, UInt8
from deeplab.runtimes.network_card import KEY, NetworkCard
from deeplab.tflite.file import Operator, Tensor, TfliteFile
from deeplab.tflite.metadata import Metadata, read_metadata
from deeplab.tflite.optimise import Optimisation, read_record

_LABEL_MAP_TYPES = ("INT64", "INT32", "UINT8", "INT8")
_LOGIT_TYPES = ("FLOAT32", "UINT8", "INT8")

_USUAL: Normalisation = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
"""(2/255) x - 1, where nothing else is known: every network of the original but plain ResNet.

Source: research/deeplab/core/feature_extractor.py (``_preprocess_zero_mean_unit_range``).
"""


@dataclass(frozen=True, kw_only=True)
class TfliteNetwork:
    """What an engine must know to run a DeepLab file.

    Attributes:
        file: the file.
        spec: what it is fed with.
        labels: its classes, where the metadata says so.
        num_classes: how many; None where only a label map of unknown range comes out.
        output: "logits" or "label map".
        align_corners: how the logits lie on the frame, see :class:`deeplab.runtimes.Network`.
        input_tensor: the picture's tensor.
        output_tensor: the tensor to fetch.
        whole: run the file as it is.
    """

    file: TfliteFile
    spec: InputSpec
    labels: LabelSet | None
    num_classes: int | None
    output: Output
    align_corners: bool
    input_tensor: Tensor
    output_tensor: Tensor
    whole: bool

    @property
    def content(self) -> bytes:
        """The model for the engine: the file, without what can be spared; see `tflite_optimise`.

        Takes 25 ms for the starter model, nearly all of it for the schema's objects, so it is done
        anew whenever a file is opened.
        """
        if self.whole:
            return self.file.data
        return Optimisation(self.file, self.output_tensor.index).apply()

    def feed(self, frame: UInt8, out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[Any]:
        """Return a (height, width, 3) uint8 RGB frame as the (1, height, width, 3) input tensor.

        Args:
            frame: the frame.
            out: where to put a float32 tensor; elsewhere None.
        """
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
        """Return the fetched tensor as (h, w, K) float32 logits or a (h, w) uint8 label map."""
        first = fetched[0]
        if self.output == "logits":
            return self.output_tensor.dequantize(first)
        label_map: UInt8 = first.reshape(first.shape[:2]).astype(np.uint8)
        return label_map


class TfliteEngine:
    """What every engine tells of a TFLite network, see :class:`deeplab.runtimes.Network`."""

    def __init__(self, network: TfliteNetwork) -> None:
        self.network = network
        self.spec = network.spec
        self.labels = network.labels
        self.num_classes = network.num_classes
        self.output = network.output
        self.align_corners = network.align_corners


def understand(
    file: TfliteFile,
    *,
    whole: bool = False,
    normalisation: Normalisation | None = None,
    assume: InputSpec | None = None,
) -> TfliteNetwork:
    """Find out how a DeepLab file is run.

    Args:
        file: the file.
        whole: fetch what the file gives, even where a finer answer lies inside.
        normalisation: (mean, std) in units of 0..255, whatever the file says.
        assume: whose normalisation to take where the file says nothing.

    Raises:
        ModelError: the graph is not a segmentation network of one RGB picture.
    """
    picture = _input(file)
    _, height, width, _ = picture.shape
    output, fetched, align_corners, num_classes = _output(file, whole)
    _, h, w = fetched.shape[:3]
    card = _read_card(file)
    if align_corners is None and card is not None:
        align_corners = card.align_corners
    if align_corners is None and (record := read_record(file)) is not None:
        align_corners = record.align_corners
    if align_corners is None:  # the original's frames are k * output stride + 1
        align_corners = _is_stride(height - 1, h - 1) and _is_stride(width - 1, w - 1)
    metadata = read_metadata(file)
    mean, std = (
        normalisation
        or _own_normalisation(file, picture, metadata)
        or ((assume.mean, assume.std) if assume else _USUAL)
    )
    fit = card.spec.fit if card else "letterbox"
    labels = metadata.labels if metadata else None
    if card is not None and labels is not None and labels.names == card.labels.names:
        labels = card.labels  # the same, with their colours
    if labels is not None and num_classes is not None and len(labels) != num_classes:
        raise ModelError(
            f"{file.name}: its label file has {len(labels)} names, but the network tells "
            f"{num_classes} classes apart; pass labels= with the right ones."
        )
    return TfliteNetwork(
        file=file,
        spec=InputSpec(height=height, width=width, mean=mean, std=std, fit=fit),
        labels=labels,
        num_classes=num_classes,
        output=output,
        align_corners=align_corners,
        input_tensor=picture,
        output_tensor=fetched,
        whole=whole,
    )


def _read_card(file: TfliteFile) -> NetworkCard | None:
    entry = file.entries.get(KEY)
    if entry is None:
        return None
    return NetworkCard.from_json(entry.decode("utf-8", errors="replace"), name=file.name)


def _input(file: TfliteFile) -> Tensor:
    picture = file.tensors[file.inputs[0]]
    shape, kind = picture.shape, picture.type
    if len(file.inputs) != 1 or len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
        shapes = ", ".join(str(list(file.tensors[i].shape)) for i in file.inputs)
        hint = " (channels come first: export it channel-last)" if shape[1:2] == (3,) else ""
        raise ModelError(
            f"{file.name}: is not a DeepLab: its input is {shapes}{hint}, "
            "expected one RGB picture [1, height, width, 3]."
        )
    integer = kind in ("UINT8", "INT8")
    if kind != "FLOAT32" and not (integer and picture.quantization is not None):
        raise ModelError(
            f"{file.name}: its input has type {kind}, expected FLOAT32, or UINT8 or INT8 with "
            "scale and zero point."
        )
    return picture


def _output(file: TfliteFile, whole: bool) -> tuple[Output, Tensor, bool | None, int | None]:
    """Return (kind, tensor to fetch, align_corners if known, number of classes if known)."""
    last = file.tensors[file.outputs[0]]
    shape = last.shape
    is_map = last.type in _LABEL_MAP_TYPES and (len(shape) == 3 or shape[3:] == (1,))
    is_logits = last.type in _LOGIT_TYPES and len(shape) == 4 and 1 <= shape[3] <= 256
    if len(file.outputs) != 1 or shape[:1] != (1,) or not (is_map or is_logits):
        shapes = ", ".join(f"{list(file.tensors[i].shape)}" for i in file.outputs)
        raise ModelError(
            f"{file.name}: is not a DeepLab: its output is {shapes}, expected logits "
            "[1, h, w, classes] or a label map [1, h, w]."
        )
    logits, found = _before_argmax(file, last) if is_map else (last, True)
    num_classes = logits.shape[3] if found else None
    if found and not whole:
        grid, align_corners = _before_resize(file, logits)
        if grid is not None:
            return "logits", grid, align_corners, num_classes
    if is_map:
        return "label map", last, None, num_classes
    return "logits", last, None, num_classes


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


def _is_stride(frame: int, grid: int) -> bool:
    """Return whether a grid's steps are a power of two of the frame's."""
    return grid > 0 and frame % grid == 0 and (frame // grid).bit_count() == 1


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
