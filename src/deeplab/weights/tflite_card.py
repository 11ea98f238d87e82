"""What a ``.tflite`` file says of its classes and its frame."""

from __future__ import annotations

from deeplab.labels import LabelSet
from deeplab.photo.images import InputSpec
from deeplab.runtimes.network_card import KEY, NetworkCard
from deeplab.tflite.file import TfliteFile
from deeplab.tflite.metadata import read_metadata


def read_labels(file: TfliteFile) -> LabelSet | None:
    """Return the classes: with colours where we wrote the file, else those of its metadata.

    Raises:
        ModelError: what the file says of itself is damaged.
    """
    card = _read_card(file)
    if card:
        return card.labels
    metadata = read_metadata(file)
    return metadata.labels if metadata else None


def read_frame(file: TfliteFile) -> InputSpec | None:
    """Return the frame and how photos meet it; None where the file takes any size.

    Raises:
        ModelError: what the file says of itself is damaged.
    """
    card = _read_card(file)
    if card:
        return card.spec
    _, height, width, _ = file.tensors[file.inputs[0]].shape
    return InputSpec(height=height, width=width) if min(height, width) > 1 else None


def _read_card(file: TfliteFile) -> NetworkCard | None:
    text = file.entries.get(KEY)
    if text is None:
        return None
    return NetworkCard.from_json(text.decode("utf-8", "replace"), name=file.name)
