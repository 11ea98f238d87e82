"""TensorFlow V2 checkpoints (``.index`` + ``.data-00000-of-00001``), read without TensorFlow.

The index is a sorted string table: blocks of prefix-compressed keys, a checksum on each, a footer
with a magic number. Its values are protocol buffers that say where in the data files a tensor lies.
Source: tensorflow/core/util/tensor_bundle, tensorflow/core/lib/io/{format,block}.cc,
tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deeplab.errors import ModelNotFoundError, WeightsError
from deeplab.weights.archive import Archive
from deeplab.weights.crc32c import crc32c, unmask
from deeplab.weights.protobuf import as_bytes, as_int, read_message, read_varint

Variables = dict[str, npt.NDArray[np.generic]]

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # one byte of compression, four of checksum

# Source: tensorflow/core/framework/types.proto. bfloat16 has no numpy type: see _as_array.
_BFLOAT16 = 14
_DTYPES = {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "|u1", 5: "<i2", 6: "|i1", 8: "<c8", 9: "<i8", 10: "|b1",
    _BFLOAT16: "<u2", 17: "<u2", 18: "<c16", 19: "<f2", 22: "<u4", 23: "<u8",
}  # fmt: skip
_DTYPE_NAMES = {7: "string", 20: "resource", 21: "variant"}


@dataclass(frozen=True)
class _Entry:
    """Where a tensor lies. Source: BundleEntryProto."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    masked_crc: int
    sliced: bool


def read_checkpoint(path: str | Path) -> Variables:
    """Return every numeric variable of a checkpoint by name, in the layout it was stored.

    ``path`` is the prefix ("model.ckpt-30000"), the ``.index`` or a ``.data`` file, a folder
    (with a ``checkpoint`` file or only one checkpoint), or a ``.tar.gz`` of a published release.
    bfloat16 comes as float32; strings are left out (see :func:`read_variables`). The checksum of
    every block and every tensor is verified.

    Raises:
        ModelNotFoundError: there is no checkpoint at that path.
        WeightsError: a file is cut off, damaged, missing, or of another kind.
    """
    return read_variables(path)[0]


def read_variables(path: str | Path) -> tuple[Variables, list[str]]:
    """Return (variables, what was skipped and why) of a checkpoint; see :func:`read_checkpoint`."""
    archive, prefix = locate_checkpoint(Path(path))
    return read_bundle(archive, prefix)


def read_bundle(archive: Archive, prefix: str) -> tuple[Variables, list[str]]:
    """Return (variables, what was skipped and why) of the checkpoint ``prefix`` in ``archive``."""
    name = f"{prefix}.index"
    index = archive.read(name)
    try:
        entries = dict(_read_table(index))
        shards = _read_header(entries.pop(b"", None))
        parsed = {_decode(key): _parse_entry(value) for key, value in entries.items()}
    except WeightsError as error:
        raise WeightsError(f"{archive.describe(name)}: {error}") from error
    data: dict[int, memoryview] = {}
    variables: Variables = {}
    skipped: list[str] = []
    for variable, entry in parsed.items():
        if entry.sliced:
            skipped.append(f"{variable} (stored in slices)")
            continue
        if entry.dtype not in _DTYPES:
            kind = _DTYPE_NAMES.get(entry.dtype, f"type {entry.dtype}")
            skipped.append(f"{variable} ({kind})")
            continue
        file = f"{prefix}.data-{entry.shard:05d}-of-{shards:05d}"
        if entry.shard not in data:
            data[entry.shard] = archive.read(file)
        try:
            variables[variable] = _read_tensor(variable, entry, data[entry.shard])
        except WeightsError as error:
            raise WeightsError(f"{archive.describe(file)}: {error}") from error
    return variables, skipped


def locate_checkpoint(path: Path) -> tuple[Archive, str]:
    """Return the archive and the prefix that ``path`` means; see :func:`read_checkpoint`.

    Raises:
        ModelNotFoundError: there is no checkpoint at that path.
    """
    if path.is_dir() or path.name.endswith((".tar.gz", ".tgz", ".tar")):
        archive = Archive.open(path)
        prefixes = find_checkpoints(archive)
        if not prefixes:
            raise ModelNotFoundError(
                f"checkpoint: {path} holds no TensorFlow checkpoint (a .index file). "
                f"It holds: {', '.join(archive.names[:10]) or 'nothing'}."
            )
        return archive, prefixes[0]
    prefix = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name)
    if path.name == "checkpoint" or not (path.parent / f"{prefix}.index").exists():
        if path.name == "checkpoint" and path.exists():
            return locate_checkpoint(path.parent)
        raise ModelNotFoundError(
            f"checkpoint: there is no file {path.parent / prefix}.index. Give the prefix of a "
            "TensorFlow checkpoint, its .index file, or the folder that holds it."
        )
    return Archive.open(path.parent), prefix


def find_checkpoints(archive: Archive) -> list[str]:
    """Return the prefixes of all checkpoints in ``archive``, the one to use first.

    That is the one its ``checkpoint`` file names, else the one with the highest step.
    """
    prefixes = [name[: -len(".index")] for name in archive.names if name.endswith(".index")]
    named = [_named_by(archive, name) for name in archive.names if _base(name) == "checkpoint"]

    def rank(prefix: str) -> tuple[bool, int]:
        step = re.search(r"-(\d+)$", prefix)
        return prefix in named, int(step.group(1)) if step else -1

    return sorted(prefixes, key=rank, reverse=True)


def _named_by(archive: Archive, name: str) -> str:
    """Return the prefix that the text file ``checkpoint`` names, inside its own folder."""
    text = bytes(archive.read(name)).decode("utf-8", "replace")
    match = re.search(r'^model_checkpoint_path: *"([^"]+)"', text, re.MULTILINE)
    folder = name[: -len("checkpoint")]
    return folder + _base(match.group(1)) if match else ""


def _base(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]


# ---------------------------------------------------------------------- the sorted string table


def _read_table(table: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield all (key, value) of a sorted string table, in order."""
    if len(table) < _FOOTER_BYTES:
        raise WeightsError(
            f"got {len(table)} bytes, a checkpoint index has at least {_FOOTER_BYTES}: "
            "the file is cut off."
        )
    footer = table[-_FOOTER_BYTES:]
    magic = int.from_bytes(footer[-8:], "little")
    if magic != _MAGIC:
        raise WeightsError(
            f"the last eight bytes are {magic:#018x}, expected {_MAGIC:#018x}: the file is cut "
            "off, or no TensorFlow V2 checkpoint (a V1 checkpoint is one single file; convert "
            "it with TensorFlow's own Saver first)."
        )
    _, at = read_varint(footer, 0)
    _, at = read_varint(footer, at)
    offset, at = read_varint(footer, at)
    size, at = read_varint(footer, at)
    for _, handle in _read_block(table, offset, size):
        block_offset, at = read_varint(handle, 0)
        block_size, at = read_varint(handle, at)
        yield from _read_block(table, block_offset, block_size)


def _read_block(table: memoryview, offset: int, size: int) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the (key, value) of one block, after verifying its checksum."""
    end = offset + size + _TRAILER_BYTES
    if end > len(table):
        raise WeightsError(
            f"a block wants bytes {offset} to {end}, but there are {len(table)}: "
            "the file is cut off or damaged."
        )
    compression = table[offset + size]
    stored = unmask(int.from_bytes(table[end - 4 : end], "little"))
    if crc32c(table[offset : offset + size + 1]) != stored:
        raise WeightsError(f"the checksum of the block at byte {offset} is wrong: damaged file.")
    if compression != 0:
        raise WeightsError(
            f"the block at byte {offset} has compression {compression}, expected 0: "
            "TensorFlow writes checkpoints without compression."
        )
    block = table[offset : offset + size]
    restarts = int.from_bytes(block[-4:], "little")
    stop = size - 4 * (restarts + 1)
    if stop < 0:
        raise WeightsError(f"the block at byte {offset} says {restarts} restarts: damaged file.")
    key, at = b"", 0
    while at < stop:
        shared, at = read_varint(block, at)
        unshared, at = read_varint(block, at)
        length, at = read_varint(block, at)
        if shared > len(key) or at + unshared + length > stop:
            raise WeightsError(f"the block at byte {offset} contradicts itself: damaged file.")
        key = key[:shared] + bytes(block[at : at + unshared])
        at += unshared
        yield key, block[at : at + length]
        at += length


# ------------------------------------------------------------------------------- the messages


def _read_header(message: memoryview | None) -> int:
    """Return the number of data files. Source: BundleHeaderProto."""
    if message is None:
        raise WeightsError("there is no header: this table is no TensorFlow checkpoint.")
    fields = read_message(message)
    if as_int(fields.get(2, [0])[0], "header, endianness") != 0:
        raise WeightsError(
            "the checkpoint was written big-endian; save it again on an x86 or ARM machine."
        )
    return as_int(fields.get(1, [0])[0], "header, number of data files")


def _parse_entry(message: memoryview) -> _Entry:
    fields = read_message(message)

    def number(field: int, what: str) -> int:
        return as_int(fields.get(field, [0])[-1], what)

    shape = as_bytes(fields[2][-1], "entry, shape") if 2 in fields else memoryview(b"")
    return _Entry(
        dtype=number(1, "entry, type"),
        shape=parse_shape(shape),
        shard=number(3, "entry, data file"),
        offset=number(4, "entry, offset"),
        size=number(5, "entry, size"),
        masked_crc=number(6, "entry, checksum"),
        sliced=7 in fields,
    )


def parse_shape(message: memoryview) -> tuple[int, ...]:
    """Return the sizes in a TensorShapeProto.

    Raises:
        WeightsError: a size is unknown, or the message is damaged.
    """
    sizes = []
    for dim in read_message(message).get(2, []):
        size = as_int(read_message(as_bytes(dim, "shape, dim")).get(1, [0])[-1], "shape, size")
        if size < 0:
            raise WeightsError(f"a tensor has the size {size}, expected 0 or more: damaged file.")
        sizes.append(size)
    return tuple(sizes)


def as_array(data: memoryview, dtype: int, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """Return ``data`` as an array of TensorFlow's ``dtype``; bfloat16 becomes float32.

    Raises:
        WeightsError: the type is not numeric, or the size does not fit the shape.
    """
    if dtype not in _DTYPES:
        raise WeightsError(f"type {dtype} ({_DTYPE_NAMES.get(dtype, 'unknown')}) is no number.")
    stored = np.dtype(_DTYPES[dtype])
    if len(data) != math.prod(shape) * stored.itemsize:
        raise WeightsError(
            f"{len(data)} bytes, but the shape {shape} of {stored} needs "
            f"{math.prod(shape) * stored.itemsize}: damaged file."
        )
    array = np.frombuffer(data, stored).reshape(shape)
    if dtype == _BFLOAT16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(stored.newbyteorder("="))


def _read_tensor(name: str, entry: _Entry, data: memoryview) -> npt.NDArray[np.generic]:
    end = entry.offset + entry.size
    if entry.offset < 0 or entry.size < 0 or end > len(data):
        raise WeightsError(
            f"{name} lies at bytes {entry.offset} to {end}, but the file has {len(data)}: "
            "it is cut off; copy or download it again."
        )
    part = data[entry.offset : end]
    if crc32c(part) != unmask(entry.masked_crc):
        raise WeightsError(
            f"{name}: the checksum is wrong, the file is damaged; copy or download it again."
        )
    try:
        return as_array(part, entry.dtype, entry.shape)
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error


def _decode(key: bytes) -> str:
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError:
        return repr(key)  # the keys of slices are binary; their tensor is reported by name
