"""What the processes of a server share: each one's counts, and how often clients asked."""

from __future__ import annotations

import ctypes
import multiprocessing
import secrets
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from deeplab.serve.metrics import Gauges, Metrics
from deeplab.serve.rate import TABLE_BYTES

_SLOT_BYTES = 1 << 18
_HEAD = struct.Struct("<II")  # length and CRC-32 of what follows

_EVERY_SECONDS = 0.25
"""How old the counts of other processes may be."""

CONTEXT = multiprocessing.get_context("spawn")
"""How processes start: from nothing, since engines do not survive a fork."""


@dataclass(frozen=True)
class Shared:
    """Memory of all processes. It belongs to no file, and goes with the last of them.

    Attributes:
        workers: processes.
        counts: a slot of ``_SLOT_BYTES`` for each.
        rates: of :class:`~deeplab.serve.rate.Rate`.
        lock: guards ``rates``.
        secret: of ``rates``.
    """

    workers: int
    counts: Any
    rates: Any
    lock: Any
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(16))

    @classmethod
    def make(cls, workers: int) -> Shared:
        """Return it for so many processes."""
        return cls(
            workers,
            CONTEXT.RawArray(ctypes.c_char, workers * _SLOT_BYTES),
            CONTEXT.RawArray(ctypes.c_char, TABLE_BYTES),
            CONTEXT.Lock(),
        )

    def read_others(self, number: int) -> Callable[[], list[bytes]]:
        """Return what reads the counts of all processes but one."""

        def read() -> list[bytes]:
            found = [self.read(other) for other in range(self.workers) if other != number]
            return [one for one in found if one is not None]

        return read

    def read(self, number: int) -> bytes | None:
        """Return what a process last wrote; None where it has written nothing yet."""
        view = memoryview(self.counts).cast("B")
        start = number * _SLOT_BYTES
        for _ in range(100):  # another process may be writing right now
            length, checksum = _HEAD.unpack_from(view, start)
            if not length:
                return None
            content = bytes(view[start + _HEAD.size : start + _HEAD.size + length])
            if zlib.crc32(content) == checksum:
                return content
        return None

    def write(self, number: int, content: bytes) -> None:
        """Let the others read this."""
        if len(content) > _SLOT_BYTES - _HEAD.size:
            return  # counts have few labels; this cannot be
        view = memoryview(self.counts).cast("B")
        start = number * _SLOT_BYTES
        view[start + _HEAD.size : start + _HEAD.size + len(content)] = content
        _HEAD.pack_into(view, start, len(content), zlib.crc32(content))


class Slot:
    """Keeps one process's counts where the others read them.

    Args:
        shared: the memory.
        number: of this process.
    """

    def __init__(self, shared: Shared, number: int) -> None:
        self._shared, self._number = shared, number
        self._over = threading.Event()

    def keep(self, metrics: Metrics, gauges: Callable[[], Gauges]) -> None:
        """Write the counts down again and again, beginning with those of a process that died."""
        if (before := self._shared.read(self._number)) is not None:
            metrics.load(before)

        def write() -> None:
            while True:
                self._shared.write(self._number, metrics.dump(gauges()))
                if self._over.wait(_EVERY_SECONDS):
                    return

        threading.Thread(target=write, daemon=True, name="deeplab-serve-counts").start()

    def close(self) -> None:
        """Stop."""
        self._over.set()
