"""CRC-32C (Castagnoli) in numpy: the checksum of TensorFlow's files.

The data are cut into strips whose remainders are computed side by side, four bytes a step, and
then joined two by two: appending n bytes multiplies a remainder by x^(8n) in GF(2)[x].
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

_POLYNOMIAL = 0x82F63B78  # Source: RFC 3720, appendix B.4, bit-reflected
_ONE = 1 << 31  # the polynomial "1": reflected, so its coefficient is the highest bit

Words = npt.NDArray[np.uint32]


@cache
def _tables() -> tuple[Words, Words]:
    """Return the remainders of the low and the high 16 bits of a word, four bytes further on."""
    table: Words = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        table = _times_x(table)
    low = (table >> 16) ^ table[table & 0xFFFF]
    return low, table


def _times_x(values: Words) -> Words:
    """Return ``x * values`` modulo the polynomial."""
    return (values >> np.uint32(1)) ^ (values & np.uint32(1)) * np.uint32(_POLYNOMIAL)


def _multiply(constant: int, values: Words) -> Words:
    """Return ``constant * values`` modulo the polynomial."""
    product = np.zeros_like(values)
    for bit in range(31, -1, -1):
        if constant >> bit & 1:
            product ^= values
        values = _times_x(values)
    return product


@cache
def _shift(count: int) -> int:
    """Return x^(8 * count) modulo the polynomial."""
    result, square = _ONE, 1 << 23  # x^0 and x^8
    while count:
        if count & 1:
            result = int(_multiply(square, np.array([result], np.uint32))[0])
        square = int(_multiply(square, np.array([square], np.uint32))[0])
        count >>= 1
    return result


def crc32c(data: bytes | memoryview | npt.NDArray[np.uint8]) -> int:
    """Return the CRC-32C of ``data``, 0 to 2**32 - 1."""
    content = np.frombuffer(data, np.uint8)
    # About a square: half of the work in a step, half in the number of steps.
    strips = 1 << max(0, min(14, (len(content) // 4).bit_length() // 2 + 1))
    length = -(-len(content) // (4 * strips)) * 4
    padded = np.zeros(strips * length, np.uint8)
    padded[len(padded) - len(content) :] = content  # leading zeros leave a remainder alone
    words = padded.view("<u4").reshape(strips, length // 4).T.astype(np.uint32, order="C")
    low, high = _tables()
    remainder = np.zeros(strips, np.uint32)
    for row in words:
        remainder = remainder ^ row
        remainder = low[remainder & 0xFFFF] ^ high[remainder >> 16]
    while len(remainder) > 1:
        remainder = _multiply(_shift(length), remainder[0::2]) ^ remainder[1::2]
        length *= 2
    start = _multiply(_shift(len(content)), np.array([0xFFFFFFFF], np.uint32))
    return int(remainder[0] ^ start[0]) ^ 0xFFFFFFFF


def unmask(masked: int) -> int:
    """Return the CRC that TensorFlow stored as ``masked``.

    Source: tensorflow/core/lib/hash/crc32c.h.
    """
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF
