"""The wire format of protocol buffers: just enough to read a message without its schema.

Source: the encoding guide of protocol buffers (protobuf.dev, "Encoding").
"""

from __future__ import annotations

from collections.abc import Iterator

from deeplab.errors import WeightsError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Value = int | memoryview


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the unsigned integer at byte ``at`` and the position after it.

    Raises:
        WeightsError: the data end inside the integer, or it is longer than ten bytes.
    """
    result = 0
    for count in range(10):
        if at + count >= len(data):
            break
        byte = data[at + count]
        result |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return result, at + count + 1
    raise WeightsError(f"a number at byte {at} has no end: the file is cut off or damaged.")


def read_fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield (field number, value) in file order: integers as int, the rest as memoryview.

    Fixed 32 and 64 bit fields come as unsigned integers.

    Raises:
        WeightsError: the bytes are not a protocol buffer message, or are cut off.
    """
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise WeightsError(f"field number 0 at byte {at}: the file is damaged.")
        if wire == VARINT:
            value, at = read_varint(message, at)
            yield number, value
            continue
        if wire == BYTES:
            size, at = read_varint(message, at)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise WeightsError(f"wire type {wire} at byte {at}: the file is damaged.")
        if at + size > len(message):
            raise WeightsError(
                f"a field wants bytes {at} to {at + size}, but the message has "
                f"{len(message)}: the file is cut off or damaged."
            )
        part = message[at : at + size]
        at += size
        yield number, part if wire == BYTES else int.from_bytes(part, "little")


def read_message(message: memoryview) -> dict[int, list[Value]]:
    """Return all values by field number, in file order within each."""
    fields: dict[int, list[Value]] = {}
    for number, value in read_fields(message):
        fields.setdefault(number, []).append(value)
    return fields


def as_int(value: Value, what: str) -> int:
    """Return an integer field as int; signed 64 bit numbers come out negative.

    Raises:
        WeightsError: the field holds bytes.
    """
    if not isinstance(value, int):
        raise WeightsError(f"{what}: expected a number, got {len(value)} bytes.")
    return value - (1 << 64) if value >= 1 << 63 else value


def as_bytes(value: Value, what: str) -> memoryview:
    """Return a length-delimited field as bytes.

    Raises:
        WeightsError: the field holds a number.
    """
    if isinstance(value, int):
        raise WeightsError(f"{what}: expected bytes, got the number {value}.")
    return value


def as_text(value: Value, what: str) -> str:
    """Return a length-delimited field as text.

    Raises:
        WeightsError: the field holds a number, or bytes that are not UTF-8.
    """
    try:
        return str(as_bytes(value, what), "utf-8")
    except UnicodeDecodeError as error:
        raise WeightsError(f"{what}: expected text, got bytes that are not UTF-8.") from error
