"""Write a mask as a palette PNG, many times faster than a general compressor.

A mask is a few runs of equal bytes. A general compressor still looks at every byte; here the runs
are found in one pass of numpy and written as DEFLATE tokens directly: one literal, then copies
from distance 1. The checksum follows from the runs as well.

Source: RFC 1951 (DEFLATE), RFC 1950 (zlib), the PNG specification.
"""

from __future__ import annotations

import heapq
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

_END, _LONGEST, _FULL = 256, 258, 285  # end of block; longest copy, and its symbol
_ADLER = 65521
_CHUNK = 1 << 16
_FEW_RUNS = 1 / 24
"""Runs per pixel up to which writing them out is faster than a general compressor."""


def encode_palette_png(mask: UInt8, palette: UInt8) -> bytes:
    """Return (H, W) uint8 ids and their (256, 3) uint8 RGB colours as the bytes of a PNG file.

    Pixel value = id. One byte per pixel, not interlaced, no row filters.
    """
    runs = _find_runs(mask)
    if len(runs.values) > 64 + mask.size * _FEW_RUNS:
        picture = Image.fromarray(mask)
        picture.putpalette(palette.tobytes())
        file = io.BytesIO()
        picture.save(file, "PNG", compress_type=3)  # run lengths
        return file.getvalue()
    height, width = mask.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    checksum = struct.pack(">I", _adler32(runs))
    data = b"\x78\x01" + _deflate(runs) + checksum
    chunks = ((b"IHDR", header), (b"PLTE", palette.tobytes()), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


@dataclass(frozen=True)
class _Runs:
    """The runs of equal bytes in the stream: per row a zero (no filter), then the row's ids."""

    values: UInt8
    starts: Int64
    lengths: Int64


def _find_runs(mask: UInt8) -> _Runs:
    height, width = mask.shape
    stride = width + 1
    rows = np.arange(height, dtype=np.int64) * stride
    starts, values = [rows, rows + 1], [np.zeros(height, np.uint8), mask[:, 0]]
    band = max(1, (1 << 20) // width)
    for top in range(0, height, band):
        part = mask[top : top + band]
        where = np.flatnonzero(part[:, 1:] != part[:, :-1])
        y, x = np.divmod(where, max(1, width - 1))
        starts.append((top + y) * stride + x + 2)
        values.append(part[y, x + 1])
    start, value = np.concatenate(starts), np.concatenate(values)
    order = np.argsort(start, kind="stable")
    start, value = start[order], value[order]
    real = np.append(True, value[1:] != value[:-1])  # rows that begin or end in id 0 run on
    start, value = start[real], value[real]
    return _Runs(value, start, np.diff(start, append=height * stride))


def _adler32(runs: _Runs) -> int:
    """Return the zlib checksum of the stream, summed run by run."""
    total = int(runs.starts[-1] + runs.lengths[-1])
    values, lengths = runs.values.astype(np.int64), runs.lengths
    low = 1 + int((values * lengths).sum())
    # Byte number i counts (total - i) times in the second sum: over a run, a triangle.
    weights = lengths * (total - runs.starts) - lengths * (lengths - 1) // 2
    high = total + int((values * (weights % _ADLER)).sum())
    return (high % _ADLER) << 16 | low % _ADLER


# --- DEFLATE ----------------------------------------------------------------------------------


def _length_symbols() -> tuple[Int64, Int64, Int64]:
    """Return symbol, extra bits and their count for each copy length. Source: RFC 1951, 3.2.5."""
    symbols, extra, count = (np.zeros(_LONGEST + 1, np.int64) for _ in range(3))
    length = 3
    for symbol in range(257, _FULL):
        bits = max(0, (symbol - 261) // 4)
        for value in range(1 << bits):
            symbols[length], extra[length], count[length] = symbol, value, bits
            length = min(length + 1, _LONGEST)
    symbols[_LONGEST], extra[_LONGEST], count[_LONGEST] = _FULL, 0, 0
    return symbols, extra, count


_SYMBOL, _EXTRA, _EXTRA_BITS = _length_symbols()


def _deflate(runs: _Runs) -> bytes:
    """Return the runs as one DEFLATE block with its own Huffman code."""
    symbols, copied = _tokens(runs)
    lengths = _code_lengths(np.bincount(symbols, minlength=_FULL + 1))
    codes = _codes(lengths)
    # A copy is its length's code, the length's extra bits, and the only distance there is: "0".
    values = codes[symbols] | _EXTRA[copied] << lengths[symbols]
    bits = lengths[symbols] + _EXTRA_BITS[copied] + (symbols > _END)
    header = _header(lengths)
    return _pack(np.concatenate((header[0], values)), np.concatenate((header[1], bits)))


def _tokens(runs: _Runs) -> tuple[Int64, Int64]:
    """Return the symbols that write the runs, and for each the length it copies (0: a literal)."""
    full, rest = np.divmod(runs.lengths - 1, _LONGEST)
    tail = np.where(rest >= 3, 1, rest)  # copies have three bytes at least
    counts = 1 + full + tail
    ends = np.cumsum(counts)
    begins = ends - counts
    symbols = np.full(int(ends[-1]) + 1, _FULL, np.int64)
    copied = np.full(len(symbols), _LONGEST, np.int64)
    symbols[-1], copied[-1] = _END, 0
    symbols[begins], copied[begins] = runs.values, 0
    after = begins + 1 + full
    copy = rest >= 3
    symbols[after[copy]], copied[after[copy]] = _SYMBOL[rest[copy]], rest[copy]
    for number in (1, 2):
        again = (rest < 3) & (rest >= number)
        symbols[after[again] + number - 1] = runs.values[again]
        copied[after[again] + number - 1] = 0
    return symbols, copied


def _code_lengths(counts: Int64) -> Int64:
    """Return the lengths of a Huffman code, 15 bits at most; 0 for symbols that do not occur."""
    total = int(counts.sum())
    # A symbol rarer than one in a thousand counts as one in a thousand: that bounds the depth.
    heap = [(max(int(counts[s]), total // 1000 + 1), (int(s),)) for s in np.flatnonzero(counts)]
    lengths = np.zeros(len(counts), np.int64)
    if len(heap) == 1:
        lengths[heap[0][1][0]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        (first, some), (second, others) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[[*some, *others]] += 1
        heapq.heappush(heap, (first + second, some + others))
    assert lengths.max() <= 15
    return lengths


def _codes(lengths: Int64) -> Int64:
    """Return the canonical code of each symbol, its first bit lowest. Source: RFC 1951, 3.2.2."""
    codes = np.zeros(len(lengths), np.int64)
    code = 0
    for length in range(1, 16):
        code <<= 1
        for symbol in np.flatnonzero(lengths == length):
            codes[symbol] = int(f"{code:0{length}b}"[::-1], 2)
            code += 1
    return codes


def _header(lengths: Int64) -> tuple[Int64, Int64]:
    """Return values and bit counts of the block's head: last block, own code, code lengths.

    The 16 possible lengths are written as four bits each, without further compression: 150 bytes.
    """
    fields = [(1, 1), (2, 2), (len(lengths) - 257, 5), (0, 5), (15, 4)]
    fields += [(0, 3)] * 3 + [(4, 3)] * 16
    reversed_bits = [int(f"{n:04b}"[::-1], 2) for n in range(16)]
    fields += [(reversed_bits[int(n)], 4) for n in [*lengths, 1]]  # 1: the distance code
    values, bits = zip(*fields, strict=True)
    return np.array(values, np.int64), np.array(bits, np.int64)


def _pack(values: Int64, bits: Int64) -> bytes:
    """Return numbers of different widths as one stream of bits, lowest bit first."""
    parts = [b""]
    left = np.zeros(0, np.uint8)
    for chunk in _chunks(len(values)):
        grid = np.unpackbits(
            values[chunk].astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little"
        )
        stream = np.concatenate((left, grid[np.arange(32) < bits[chunk, None]]))
        whole = len(stream) // 8 * 8
        parts.append(np.packbits(stream[:whole], bitorder="little").tobytes())
        left = stream[whole:]
    parts.append(np.packbits(left, bitorder="little").tobytes())
    return b"".join(parts)


def _chunks(length: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, length, _CHUNK))
