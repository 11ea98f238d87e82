"""Write what a ``.tflite`` says of itself: the standard metadata, the labels, our own card.

The standard metadata is a flatbuffer inside the model, with the label file packed behind it as an
uncompressed zip. Names are those of the Task Library's writer, because its clients look for them.
:mod:`deeplab.tflite.metadata` reads it.
Source: tensorflow_lite_support/metadata/metadata_schema.fbs (positions of fields below);
metadata/python/metadata_writers/image_segmenter.py (names, descriptions, ranges).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np

from deeplab.runtimes import network_card
from deeplab.runtimes.network_card import NetworkCard
from deeplab.tflite import file as tflite_file
from deeplab.tflite.edit import GraphEdit
from deeplab.tflite.metadata import ENTRY, IDENTIFIER

MODEL_NAME = "ImageSegmenter"
MODEL_DESCRIPTION = (
    "Semantic image segmentation predicts whether each pixel of an image is associated with a "
    "certain class."
)
INPUT_NAME, INPUT_DESCRIPTION = "image", "Input image to be segmented."
OUTPUT_NAME = "segmentation_masks"
OUTPUT_DESCRIPTION = "Masks over the target objects with high accuracy."
LABEL_FILE = "labels.txt"
LABEL_DESCRIPTION = "Labels for categories that the model can recognize."

_PARSER_VERSION = "1.0.0"
_AXIS_LABELS, _VALUE_LABELS = 2, 3  # AssociatedFileType
_UNKNOWN_COLOURS, _RGB, _GRAYSCALE = 0, 1, 2  # ColorSpaceType
_LARGEST = {"uint8": 255.0, "uint16": 65535.0, "float32": None}
_IMAGE_PROPERTIES = 2  # ContentProperties
_NORMALIZATION = 1  # ProcessUnitOptions
_MASK_DIMENSIONS = (1, 2)


def write(content: bytes, card: NetworkCard, *, licence: str | None = None) -> bytes:
    """Return a TFLite model with metadata, its labels and our card.

    Args:
        content: the model; metadata of the same names is replaced.
        card: normalisation, labels, and what else it says of itself.
        licence: of the weights, SPDX name.
    """
    file = tflite_file.parse(content)
    edit = GraphEdit(file)
    edit.set_entry(ENTRY, pack(card, licence=licence))
    edit.set_entry(network_card.KEY, card.to_json().encode())
    edit.add_file(LABEL_FILE, "".join(f"{name}\n" for name in card.classes.names).encode())
    return edit.finish(file.outputs[0])


def pack(card: NetworkCard, *, licence: str | None = None) -> bytes:
    """Return the standard metadata as a flatbuffer."""
    mean, std = np.asarray(card.spec.mean), np.asarray(card.spec.std)
    if len({*card.spec.mean}) == len({*card.spec.std}) == 1:
        mean, std = mean[:1], std[:1]  # one number stands for all channels, as usual
    one_map = card.output == "label map"
    bands = card.spec.bands
    colours = _RGB if bands is None else _UNKNOWN_COLOURS
    largest = 255.0 if bands is None else _LARGEST[bands.kind]
    # Real numbers have no range to speak of.
    limits = {} if largest is None else {0: (largest - mean) / std, 1: (0 - mean) / std}
    image = _Table(
        7,
        {
            0: INPUT_NAME,
            1: INPUT_DESCRIPTION,
            3: _Table(3, {0: _Byte(_IMAGE_PROPERTIES), 1: _Table(2, {0: _Byte(colours)})}),
            4: [_Table(2, {0: _Byte(_NORMALIZATION), 1: _Table(2, {0: mean, 1: std})})],
            5: _Table(2, limits),
        },
    )
    labels = _Table(
        4,
        {
            0: LABEL_FILE,
            1: LABEL_DESCRIPTION,
            2: _Byte(_VALUE_LABELS if one_map else _AXIS_LABELS),
        },
    )
    dimensions = _Table(2, {i: _Int(value) for i, value in enumerate(_MASK_DIMENSIONS)})
    masks = _Table(
        7,
        {
            0: OUTPUT_NAME,
            1: OUTPUT_DESCRIPTION,
            3: _Table(
                3,
                {0: _Byte(_IMAGE_PROPERTIES), 1: _Table(2, {0: _Byte(_GRAYSCALE)}), 2: dimensions},
            ),
            6: [labels],
        },
    )
    fields: dict[int, _Value] = {
        0: MODEL_NAME,
        1: MODEL_DESCRIPTION,
        3: [_Table(7, {2: [image], 3: [masks]})],
        7: _PARSER_VERSION,
    }
    if licence:
        fields[5] = licence
    builder = flatbuffers.Builder(1024)
    builder.Finish(_put(builder, _Table(8, fields)), IDENTIFIER)
    return bytes(builder.Output())


class _Table(NamedTuple):
    """A table to write: how many fields its kind has, and the values by position."""

    size: int
    fields: dict[int, _Value]


class _Byte(int):
    """A one-byte number."""


class _Int(int):
    """A four-byte number."""


_Value = str | _Byte | _Int | _Table | list[_Table] | Any


def _put(builder: Any, table: _Table) -> int:
    """Write a table, after everything it points to, and return its place."""
    slots: list[tuple[int, Callable[..., None], int]] = []
    for slot, value in table.fields.items():
        if isinstance(value, _Byte):
            slots.append((slot, builder.PrependUint8Slot, int(value)))
        elif isinstance(value, _Int):
            slots.append((slot, builder.PrependInt32Slot, int(value)))
        else:
            slots.append((slot, builder.PrependUOffsetTRelativeSlot, _put_value(builder, value)))
    builder.StartObject(table.size)
    for slot, prepend, value in slots:
        prepend(slot, value, 0)
    return int(builder.EndObject())


def _put_value(builder: Any, value: str | _Table | Sequence[_Table] | np.ndarray) -> int:
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, _Table):
        return _put(builder, value)
    if isinstance(value, np.ndarray):
        return int(builder.CreateNumpyVector(value.astype("<f4")))
    places = [_put(builder, table) for table in value]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())
