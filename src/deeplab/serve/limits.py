"""How much a server takes on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deeplab.errors import InputError
from deeplab.limits import MAX_SECONDS, MAX_WORKERS, check_whole

_BYTES_PER_PIXEL = 39
"""What a photo takes at most, from its decoding to its answer (a WebP before another ground)."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server refuses, so that nobody can fill its memory or keep it busy for ever.

    Attributes:
        max_megabytes: of one upload; more is answered with 413.
        max_megapixels: of one photo; more is answered with 413, before it is decoded.
        timeout_seconds: from the last byte of a photo to its result; then 503.
        transfer_seconds: for sending a photo, then 408; and for taking the answer.
        concurrency: photos worked on at the same time.
        queue: photos waiting for that; one more is answered with 503.
        max_photos: of one request.
        memory_bytes: that all photos at work may take; None leaves it to the number of pixels.
        max_connections: at the same time, below the number of open files that systems give a
            program by default; more are answered with 503.
    """

    max_megabytes: float = 20
    max_megapixels: float = 50
    timeout_seconds: float = 30
    transfer_seconds: float = 30
    concurrency: int = 1
    queue: int = 64
    max_photos: int = 16
    memory_bytes: int | None = None
    max_connections: int = 500

    def __post_init__(self) -> None:
        for name in ("max_megabytes", "max_megapixels", "timeout_seconds", "transfer_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name}: got {getattr(self, name)}, expected more than 0.")
        for name in ("timeout_seconds", "transfer_seconds"):
            if getattr(self, name) > MAX_SECONDS:
                raise InputError(
                    f"{name}: got {getattr(self, name):g}, expected {MAX_SECONDS:g} at most, a day."
                )
        check_whole("max_photos", self.max_photos, most=MAX_WORKERS)
        check_whole("concurrency", self.concurrency, most=MAX_WORKERS)
        if self.queue < 0:
            raise InputError(f"queue: got {self.queue}, expected 0 or more.")

    @property
    def max_bytes(self) -> int:
        """Of one upload."""
        return int(self.max_megabytes * 1e6)

    @property
    def max_bytes_held(self) -> int:
        """Of all uploads together, from their first byte to their result."""
        return 16 * self.max_bytes

    @property
    def max_pixels(self) -> int:
        """Of one photo."""
        wanted = int(self.max_megapixels * 1e6)
        if self.memory_bytes is None:
            return wanted
        return max(1, min(wanted, self.memory_bytes // _BYTES_PER_PIXEL))

    @property
    def max_pixels_at_work(self) -> int:
        """Of all photos that are being worked on. Small ones never come near it."""
        if self.memory_bytes is None:
            return 4 * self.max_pixels
        return max(self.max_pixels, self.memory_bytes // _BYTES_PER_PIXEL)
