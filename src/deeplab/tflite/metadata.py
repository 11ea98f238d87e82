"""What a ``.tflite`` file says about itself: normalisation, labels, names.

The standard metadata is a second flatbuffer inside the model. Only the fields that decide what a
network is fed with, and what its answer means, are read; field numbers below are positions in the
tables of the schema. Source: tensorflow_lite_support/metadata/metadata_schema.fbs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from deeplab.errors import InputError, ModelError
from deeplab.labels import LabelSet, read_label_file
from deeplab.tflite.file import TfliteFile

ENTRY = "TFLITE_METADATA"
IDENTIFIER = b"M001"

_AXIS_LABELS, _VALUE_LABELS = 2, 3  # AssociatedFileType
_NORMALIZATION = 1  # ProcessUnitOptions


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The part of the standard metadata that running a network needs.

    Attributes:
        name: the model's name, or "".
        description: what its author says about it, or "".
        version: the author's version, or "".
        author: who made it, or "".
        licence: its licence, or "".
        mean: per channel, in units of 0..255; empty where the file says nothing.
        std: per channel, in units of 0..255; empty where the file says nothing.
        labels: the classes of the output; None where the file says nothing.
    """

    name: str
    description: str
    version: str
    author: str
    licence: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: LabelSet | None


def read_metadata(file: TfliteFile) -> Metadata | None:
    """Return the standard metadata of a TFLite file; None where it has none.

    Raises:
        ModelError: the metadata is damaged, or names a label file that is not packed.
    """
    data = file.entries.get(ENTRY)
    if data is None:
        return None
    if data[4:8] != IDENTIFIER:
        raise ModelError(f"{file.name}: its metadata is damaged (no 'M001' at byte 4).")
    try:
        model = _root(data)
        graphs = model.tables(3)
        inputs = graphs[0].tables(2) if graphs else []
        outputs = graphs[0].tables(3) if graphs else []
        mean, std = _normalization(inputs[0]) if inputs else ((), ())
        label_file = _label_file(outputs[0]) if outputs else None
        texts = [model.text(field) for field in (0, 1, 2, 4, 5)]
    except (struct.error, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{file.name}: its metadata is damaged ({error}).") from None
    name, description, version, author, licence = texts
    return Metadata(
        name=name,
        description=description,
        version=version,
        author=author,
        licence=licence,
        mean=mean,
        std=std,
        labels=_labels(file, label_file) if label_file else None,
    )


def _labels(file: TfliteFile, label_file: str) -> LabelSet:
    content = file.associated_files.get(label_file)
    if content is None:
        raise ModelError(
            f"{file.name}: its metadata names the label file '{label_file}', which is not packed "
            f"into the model (packed: {', '.join(file.associated_files) or 'nothing'})."
        )
    try:
        return read_label_file(content.decode("utf-8"))
    except (UnicodeDecodeError, InputError) as error:
        raise ModelError(f"{file.name}: '{label_file}' is no label file: {error}") from None


class _Table:
    """One table of a flatbuffer. Reading outside the data raises ``struct.error``."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position
        (back,) = struct.unpack_from("<i", data, position)
        self._fields = _inside(data, position - back)
        (self._size,) = struct.unpack_from("<H", data, self._fields)

    def at(self, field: int) -> int | None:
        """Return the position of a field's value; None where it is left out."""
        slot = 4 + 2 * field
        if slot >= self._size:
            return None
        (offset,) = struct.unpack_from("<H", self.data, self._fields + slot)
        return _inside(self.data, self.position + offset) if offset else None

    def byte(self, field: int) -> int:
        """Return a small number; 0 where it is left out."""
        position = self.at(field)
        return 0 if position is None else self.data[position]

    def table(self, field: int) -> _Table | None:
        """Return a table inside this one."""
        position = self.at(field)
        return None if position is None else _Table(self.data, _follow(self.data, position))

    def _vector(self, field: int) -> tuple[int, int]:
        position = self.at(field)
        if position is None:
            return 0, 0
        start = _follow(self.data, position)
        (length,) = struct.unpack_from("<I", self.data, start)
        return start + 4, length

    def tables(self, field: int) -> list[_Table]:
        """Return a list of tables."""
        start, length = self._vector(field)
        _inside(self.data, start + max(0, 4 * length - 1))
        return [_Table(self.data, _follow(self.data, start + 4 * i)) for i in range(length)]

    def floats(self, field: int) -> tuple[float, ...]:
        """Return a list of numbers."""
        start, length = self._vector(field)
        return struct.unpack_from(f"<{length}f", self.data, start)

    def text(self, field: int) -> str:
        """Return a string; "" where it is left out."""
        start, length = self._vector(field)
        return self.data[start : start + length].decode("utf-8")


def _inside(data: bytes, position: int) -> int:
    if not 0 <= position < len(data):
        raise struct.error(f"position {position} in {len(data)} bytes")
    return position


def _follow(data: bytes, position: int) -> int:
    (offset,) = struct.unpack_from("<I", data, position)
    return _inside(data, position + offset)


def _root(data: bytes) -> _Table:
    return _Table(data, _follow(data, 0))


def _normalization(tensor: _Table) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for unit in tensor.tables(4):
        options = unit.table(1)
        if unit.byte(0) == _NORMALIZATION and options is not None:
            return options.floats(0), options.floats(1)
    return (), ()


def _label_file(tensor: _Table) -> str | None:
    """Return the name of the label file; of several, the one without a locale."""
    files = [f for f in tensor.tables(6) if f.byte(2) in (_AXIS_LABELS, _VALUE_LABELS)]
    files.sort(key=lambda file: bool(file.text(3)))
    return files[0].text(0) if files else None
