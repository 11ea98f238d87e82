"""TFRecord shards as the original's build_*_data.py write them: photo and mask in each record.

    train-00000-of-00004.tfrecord    the split is in the name

A record is a length, a checksum of it, a ``tf.train.Example``, and a checksum of that. TensorFlow
would bring 600 MB to read this, and the small readers on PyPI leave out the checksums.

Source: tensorflow/core/lib/io/record_writer.h, core/example/example.proto;
research/deeplab/datasets/build_data.py.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeplab.data.export import Embedded, Export, Painted, Request, listed
from deeplab.data.mask_files import UInt8, open_mask
from deeplab.data.masks import IGNORE, NOT_A_CLASS, MaskEncoding, describe_wrong
from deeplab.data.shapes import Size
from deeplab.errors import DataError, ImageError, WeightsError
from deeplab.labels import ADE20K, LabelSet
from deeplab.weights.crc32c import crc32c, unmask
from deeplab.weights.protobuf import as_bytes, as_int, as_text, read_message, read_varint

_SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-(?P<count>\d{5})")
_HEADER = 12
_FOOTER = 4
_PHOTO, _MASK = "image/encoded", "image/segmentation/class/encoded"

Value = bytes | int


def is_tfrecord(path: Path) -> bool:
    """Whether a file is named like a shard: NAME.tfrecord, or NAME-00000-of-00004."""
    return path.suffix.lower() in (".tfrecord", ".tfrecords") or bool(_SHARD.fullmatch(path.name))


def find_shards(folder: Path) -> list[Path]:
    """Return the shards directly in a folder."""
    return sorted(path for path in folder.iterdir() if path.is_file() and is_tfrecord(path))


@dataclass(frozen=True)
class Record:
    """One record of a shard.

    Attributes:
        number: its place in the shard, from 1.
        start: the byte at which its content begins.
        size: of its content, in bytes.
        fault: why it cannot be read, in words; "" where it can.
    """

    number: int
    start: int
    size: int
    fault: str = ""


def scan_records(path: Path) -> Iterator[Record]:
    """Yield the records of a shard, checksums compared; the last one says where it is cut off.

    Raises:
        DataError: the file cannot be read.
    """
    size = path.stat().st_size
    if size == 0:
        return
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as data,
        ):
            yield from _scan(data)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _scan(data: memoryview) -> Iterator[Record]:
    at, number = 0, 0
    while at < len(data):
        number += 1
        start = at + _HEADER
        if start > len(data):
            yield Record(number, at, 0, f"is cut off: the file ends at byte {len(data)}")
            return
        length = int.from_bytes(data[at : at + 8], "little")
        if crc32c(data[at : at + 8]) != unmask(int.from_bytes(data[at + 8 : start], "little")):
            yield Record(
                number, start, 0,
                f"has a wrong checksum of its length at byte {at}; nothing behind it can be found"
            )  # fmt: skip
            return
        end = start + length
        if end + _FOOTER > len(data):
            yield Record(
                number, start, 0,
                f"is cut off: it wants the bytes to {end + _FOOTER}, the file ends at {len(data)}"
            )  # fmt: skip
            return
        stored = unmask(int.from_bytes(data[end : end + _FOOTER], "little"))
        wrong = crc32c(data[start:end]) != stored
        yield Record(number, start, length, "has a wrong checksum: its bytes changed" * wrong)
        at = end + _FOOTER


def parse_example(content: bytes | memoryview) -> dict[str, Value]:
    """Return the features of a ``tf.train.Example``: the first value of each; floats left out.

    Raises:
        DataError: the bytes are not an Example.
    """
    found: dict[str, Value] = {}
    try:
        for features in read_message(memoryview(content)).get(1, []):
            for entry in read_message(as_bytes(features, "features")).get(1, []):
                pair = read_message(as_bytes(entry, "a feature"))
                if 1 not in pair or 2 not in pair:
                    continue
                value = _first_value(as_bytes(pair[2][-1], "the value of a feature"))
                if value is not None:
                    found[as_text(pair[1][-1], "the name of a feature")] = value
    except WeightsError as error:
        raise DataError(f"is no tf.train.Example: {error}") from None
    return found


def _first_value(feature: memoryview) -> Value | None:
    kinds = read_message(feature)
    for kind in (1, 3):  # a list of bytes, a list of integers
        for message in kinds.get(kind, []):
            values = read_message(as_bytes(message, "a list")).get(1, [])
            if values and kind == 1:
                return bytes(as_bytes(values[0], "bytes"))
            if values:
                first = values[0]
                packed = first if isinstance(first, int) else read_varint(first, 0)[0]
                return as_int(packed, "an integer")
    return None


@dataclass(frozen=True)
class RecordedPhoto(Embedded):
    """A photo inside a record; its bytes are read when they are asked for."""

    record: Record

    def read(self) -> bytes:
        """Return the bytes of the photo's file.

        Raises:
            ImageError: the record cannot be read.
        """
        return _as_bytes(self.features().get(_PHOTO))

    def features(self) -> dict[str, Value]:
        """Return everything in the record.

        Raises:
            ImageError: the record is damaged.
        """
        if self.record.fault:
            raise ImageError(f"{self.path}: {self.key} {self.record.fault}")
        with self.path.open("rb") as file:
            file.seek(self.record.start)
            content = file.read(self.record.size)
        try:
            return parse_example(content)
        except DataError as error:
            raise ImageError(f"{self.path}: {self.key} {error}") from None


def _as_bytes(value: Value | None) -> bytes:
    return value if isinstance(value, bytes) else b""


@dataclass(frozen=True)
class Recorded:
    """One record as a photo with its annotation; see :class:`deeplab.data.export.Annotated`."""

    photo: RecordedPhoto
    file_name: str
    size: Size | None
    split: str
    encoding: MaskEncoding

    def paint(self, size: Size, ids: Mapping[str, int], rest: int) -> Painted:
        """Return the record's mask; one that cannot be read is a fault of the whole photo."""
        name = f"{self.photo.path}: the mask of {self.photo.key}"
        nothing = np.full(size, IGNORE, np.uint8)
        try:
            mask = open_mask(_as_bytes(self.photo.features().get(_MASK)), name)
            label: UInt8 = self.encoding.decode(mask)
        except DataError as error:
            return Painted(nothing, (str(error),), regions=1, lost=True)
        fault = ""
        if mask.is_lossy:
            fault = f"is a {mask.format} file, which smears class ids at every edge"
        elif label.shape != size:
            fault = f"has {label.shape[0]}×{label.shape[1]} pixels, its photo {size[0]}×{size[1]}"
        elif (wrong := label == NOT_A_CLASS).any():
            fault = describe_wrong(mask, self.encoding, wrong)
        if fault:
            return Painted(nothing, (f"{name} {fault}",), regions=1, lost=True)
        return Painted(label, regions=1)


def read_tfrecords(shards: Sequence[Path], request: Request) -> Export:
    """Read shards: where each record is, its name and size; photos and masks are read later.

    Args:
        shards: in any order.
        request: its ``labels`` are the classes, which shards do not name.

    Raises:
        DataError: nothing in them is labelled, or their masks hold other values than the labels.
    """
    drawings: list[Recorded] = []
    seen: dict[str, str] = {}
    bare: list[str] = []
    repeated: dict[str, int] = {}
    empty: list[str] = []
    encoding = MaskEncoding(values=(0,)) if request.labels is None else encode(request.labels)
    for path in sorted(shards, key=_rank):
        split = split_of(path)
        count = 0
        for record in scan_records(path):
            count += 1
            key = f"record {record.number}"
            photo = RecordedPhoto(path, key, request, record)
            features = {} if record.fault else _features(photo)
            if features is not None and not record.fault and not features.get(_MASK):
                bare.append(f"{path.name}: {key}")
                continue
            name = _name_of(features or {}, f"{path.stem}-{record.number}")
            if seen.setdefault(name, split) != split:
                repeated[split] = repeated.get(split, 0) + 1
                continue
            size = _size_of(features or {})
            drawings.append(Recorded(photo, name, size, split, encoding))
        if not count:
            empty.append(path.name)
    if not drawings:
        what = f"{len(bare)} records have no {_MASK}" if bare else "there are no records"
        raise DataError(f"{shards[0]}: {what}; nothing to learn from. Name shards with labels.")
    notes = [f"{len(bare)} records have no mask and are left out: {listed(bare)}"] if bare else []
    notes += [
        f"{n} photos of '{split}' are in another split already and are left out there"
        for split, n in repeated.items()
    ]
    notes += [f"{listed(empty)}: no records"] if empty else []
    notes += _missing_shards(shards)
    labels = request.labels
    if labels is None:
        labels = _count_classes(drawings)
        encoding = encode(labels)
        drawings = [Recorded(d.photo, d.file_name, d.size, d.split, encoding) for d in drawings]
        notes.append(
            f"assumed: shards name no classes, so the {len(labels)} ids are called 'class 0' and "
            "so on, and 255 is unlabelled; --labels voc (cityscapes, ade20k, a file of names) "
            "says better"
        )
    return Export("TFRecord", labels.names, tuple(drawings), labels=labels, notes=tuple(notes))


def encode(labels: LabelSet) -> MaskEncoding:
    """Return which value in a mask is which class; ADE20K's 0 is "other" and does not count."""
    if labels == ADE20K:
        return MaskEncoding(values=tuple(range(1, len(labels) + 1)), ignore=(0, IGNORE))
    ignore = tuple(sorted({IGNORE, labels.ignore_index}))
    return MaskEncoding(values=tuple(range(len(labels))), ignore=ignore)


def split_of(path: Path) -> str:
    """Return the split that a shard's name says: train, val_fine (val), …; "" for none."""
    match = _SHARD.match(path.name)
    return match["split"].lower().removesuffix("_fine") if match else ""


def _rank(path: Path) -> tuple[int, str]:
    """Let train and val come first: what they hold is left out of trainval and train_aug."""
    order = ("train", "val", "test")
    split = split_of(path)
    return (order.index(split) if split in order else len(order), path.name)


def _features(photo: RecordedPhoto) -> dict[str, Value] | None:
    try:
        return photo.features()
    except ImageError:
        return None  # said when the photo is opened


def _name_of(features: Mapping[str, Value], otherwise: str) -> str:
    """Return the photo's file name: the end of ``image/filename``, with a suffix."""
    named = _as_bytes(features.get("image/filename")).decode("utf-8", "replace")
    name = re.split(r"[/\\]", named)[-1].strip() or otherwise
    if Path(name).suffix.lower() in (".jpg", ".jpeg", ".png"):
        return name
    is_png = _as_bytes(features.get(_PHOTO)).startswith(b"\x89PNG")
    return name + (".png" if is_png else ".jpg")


def _size_of(features: Mapping[str, Value]) -> Size | None:
    height, width = features.get("image/height"), features.get("image/width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    return None


def _missing_shards(shards: Sequence[Path]) -> list[str]:
    """Name shards that the others' names count, but that are not here."""
    groups: dict[tuple[str, int], int] = {}
    for path in shards:
        if match := _SHARD.match(path.name):
            key = (match["split"], int(match["count"]))
            groups[key] = groups.get(key, 0) + 1
    return [
        f"'{split}' has {count} shards by their names, of which {here} were named"
        for (split, count), here in groups.items()
        if here < count
    ]


def _count_classes(drawings: Sequence[Recorded]) -> LabelSet:
    """Return as many classes as the masks hold ids.

    Raises:
        DataError: they hold ids above 253.
    """
    highest = 0
    for drawing in drawings:
        try:
            grey = open_mask(_as_bytes(drawing.photo.features().get(_MASK)), "mask").grey
        except (DataError, ImageError):
            continue  # said when the mask is painted
        values = grey[grey != IGNORE] if grey is not None else np.zeros(0, np.uint8)
        highest = max(highest, int(values.max(initial=0)))
    if highest >= NOT_A_CLASS:
        raise DataError(
            f"{drawings[0].photo.path.parent}: the masks hold ids up to {highest}, more classes "
            f"than the {NOT_A_CLASS} that a mask can tell apart here."
        )
    return LabelSet(tuple(f"class {index}" for index in range(highest + 1)), background=None)
