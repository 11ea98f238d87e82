"""Understand the graph of a DeepLab ``.tflite``: what goes in, what comes out, where to stop.

Published files end in a bilinear resize to the frame, often followed by an argmax. Both decide
nothing: :mod:`deeplab.photo.upsample` goes from the small grid of logits straight to the photo's
size. So the graph is cut in front of them, which gives the finer mask, the probabilities, and most
of the time that those two steps take.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import InputError, ModelError
from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.runtimes.answers import Reading, choose_size, is_aligned, name_two
from deeplab.runtimes.network import Float32, Frame, UInt8
from deeplab.runtimes.network_card import KEY, NetworkCard, Normalisation, rename
from deeplab.runtimes.tflite_output import find_output
from deeplab.tflite.check import check_graph
from deeplab.tflite.file import Tensor, TfliteFile
from deeplab.tflite.metadata import Metadata, read_metadata
from deeplab.tflite.optimise import Optimisation, read_record

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
        channels = self.spec.channels
        return (1, channels, *sides) if self.channels_first else (1, *sides, channels)

    @cached_property
    def content(self) -> bytes:
        """The model for the engine: the file, without what can be spared; see `tflite.optimise`.

        Takes 25 ms for the starter model, nearly all of it for the schema's objects, and is kept
        for further streams, whose engines share its bytes.
        """
        if self.whole:
            return self.file.data
        return Optimisation(self.file, self.output_tensor.index).apply()

    def feed(self, frame: Frame, out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[Any]:
        """Return a (height, width, 3) uint8 RGB frame as the input tensor, a batch of one.

        Args:
            frame: the frame; of other pictures than photos (height, width, C) float32.
            out: where to put a float32 tensor, channels last; elsewhere None.
        """
        batch = self._feed(frame, out)
        return np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) if self.channels_first else batch

    def _feed(self, frame: Frame, out: npt.NDArray[np.float32] | None) -> npt.NDArray[Any]:
        height, width, channels = frame.shape
        mean, std = np.asarray(self.spec.mean), np.asarray(self.spec.std)
        if self.input_tensor.type == "FLOAT32":
            batch = np.empty((1, *frame.shape), np.float32) if out is None else out
            # Row by row, because numpy is slow along an axis of three; one number is faster still.
            rows, target = frame.reshape(height, -1), batch.reshape(height, width * channels)
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
    check_graph(file)
    card = _read_card(file)
    picture, channels_first = _input(file, card.spec if card else None)
    (height, width), any_size = _frame(file, picture, channels_first, assume, size)
    whole = whole or any_size or channels_first
    frame = None if any_size else (height, width)
    found = find_output(file, whole, channels_first, output_name, frame)
    assumed = dict(found.assumed)
    align_corners = found.align_corners
    if align_corners is None and card is not None:
        align_corners = card.align_corners
    if align_corners is None and (record := read_record(file)) is not None:
        align_corners = record.align_corners
    if align_corners is None:
        align_corners = is_aligned((height, width), found.reading.grid_of(found.tensor.shape))
    metadata = read_metadata(file)
    bands = card.spec.bands if card else None
    if bands is not None and normalisation is not None:
        raise InputError(f"normalisation: {file.name} says it for each channel; leave it out.")
    if card is not None and bands is not None:
        stated: Normalisation | None = card.spec.mean, card.spec.std
    else:
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
        own_labels = rename(card.labels if card else None, labels)
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
            fit=card.spec.fit if card else "letterbox", bands=bands,
        ),
        labels=own_labels,
        num_classes=num_classes,
        output=found.reading.output,
        align_corners=align_corners,
        any_size=any_size,
        assumed=assumed,
        softmaxed=found.reading.softmaxed,
        temperature=card.temperature if card else 1.0,
        thresholds=card.thresholds if card else (),
        input_tensor=picture,
        output_tensor=found.tensor,
        reading=found.reading,
        channels_first=channels_first,
        whole=whole,
    )  # fmt: skip


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


def _input(file: TfliteFile, stated: InputSpec | None) -> tuple[Tensor, bool]:
    """Return the picture's tensor, and whether its channels come first.

    Other pictures than photos are taken where the file's own card states them.
    """
    picture = file.tensors[file.inputs[0]]
    shape, kind = picture.shape, picture.type
    if stated is not None and stated.bands is not None:
        if len(shape) != 4 or shape[3] != stated.channels or kind != "FLOAT32":
            raise ModelError(
                f"{file.name}: says that it takes {stated.channels} channels, but its input is "
                f"{list(shape)} {kind}; it was changed after it was written."
            )
        return picture, False
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


def _frame(
    file: TfliteFile,
    picture: Tensor,
    channels_first: bool,
    assume: InputSpec | None,
    size: tuple[int, int] | None,
) -> tuple[tuple[int, int], bool]:
    """Return the (height, width) of the frame, and whether the file takes others too."""
    rows = 2 if channels_first else 1
    sides = picture.shape[rows : rows + 2]
    are_open = [side < 0 for side in picture.signature[rows : rows + 2]] or [False, False]
    own = [None if is_open else side for is_open, side in zip(are_open, sides, strict=True)]
    frame = choose_size(
        file.name,
        (own[0], own[1]),
        known=(assume.height, assume.width) if assume else None,
        asked=size,
    )
    return frame, any(are_open)


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
