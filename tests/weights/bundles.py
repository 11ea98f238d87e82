"""Writes small TensorFlow checkpoints and graphs, so that readers can be tried on every kind."""

from __future__ import annotations

import struct
from pathlib import Path

from deeplab.weights.crc32c import crc32c

MAGIC = 0xDB4775248B80FB57


def varint(value: int) -> bytes:
    out = b""
    value &= (1 << 64) - 1
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes | float) -> bytes:
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def mask(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def shape_message(shape: tuple[int, ...]) -> bytes:
    return b"".join(field(2, field(1, size)) for size in shape)


def block(entries: list[tuple[bytes, bytes]], *, compression: int = 0) -> bytes:
    """One block with prefix compression and a restart at every fourth key."""
    out, restarts, last = b"", [], b""
    for count, (key, value) in enumerate(entries):
        shared = 0
        if count % 4 == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value))
        out += key[shared:] + value
        last = key
    restarts = restarts or [0]
    out += b"".join(struct.pack("<I", at) for at in restarts) + struct.pack("<I", len(restarts))
    out += bytes([compression])
    return out + struct.pack("<I", mask(crc32c(out)))


def table(entries: list[tuple[bytes, bytes]], *, per_block: int = 3, compression: int = 0) -> bytes:
    out, handles = b"", []
    for start in range(0, len(entries), per_block):
        part = block(entries[start : start + per_block], compression=compression)
        handle = varint(len(out)) + varint(len(part) - 5)
        handles.append((entries[min(start + per_block, len(entries)) - 1][0] + b"~", handle))
        out += part
    meta = varint(len(out)) + varint(8)
    out += block([])
    index = block(handles)
    footer = meta + varint(len(out)) + varint(len(index) - 5)
    out += index
    return out + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def write_checkpoint(
    folder: Path,
    tensors: dict[str, tuple[int, tuple[int, ...], bytes]],
    *,
    name: str = "model.ckpt",
    shards: int = 1,
    endianness: int = 0,
    compression: int = 0,
) -> Path:
    """Write ``{name: (dtype number, shape, content)}``, dealt out over the shards."""
    data = [b""] * shards
    entries = [(b"", field(1, shards) + (field(2, endianness) if endianness else b""))]
    for at, (key, (dtype, shape, content)) in enumerate(sorted(tensors.items())):
        shard = at % shards
        message = field(1, dtype) + field(2, shape_message(shape))
        message += field(3, shard) + field(4, len(data[shard])) + field(5, len(content))
        message += varint(6 << 3 | 5) + struct.pack("<I", mask(crc32c(content)))
        data[shard] += content
        entries.append((key.encode(), message))
    (folder / f"{name}.index").write_bytes(table(entries, compression=compression))
    for shard, content in enumerate(data):
        (folder / f"{name}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    return folder / name
