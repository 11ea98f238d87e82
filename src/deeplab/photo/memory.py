"""How much memory photos may take together, and how much one takes, known before it is taken."""

from __future__ import annotations

import ctypes
import io
import math
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from deeplab.errors import DeepLabError, ImageSizeError, InputError
from deeplab.photo.formats import MAX_PIXELS, check_length, open_header

_SHARE = 0.75
"""Of what is there, where nobody says."""

_DECODE = {"JPEG": 6, "WEBP": 24, "AVIF": 24, "HEIF": 24, "GIF": 16, "JPEG2000": 24, "ICO": 24}
"""Bytes per pixel while a format is decoded; Pillow keeps RGB in four, and reads some twice."""

_DECODE_PLAIN, _DECODE_OTHER = 8, 15
"""The same for other formats in grey, palette or RGB of 8 bits; and for 16 bits and alpha."""

_RESULT = 3
"""Bytes per pixel of what lies beside the picture: the mask, and what makes it."""

_WRITE = {"overlay": 12, "contour": 15, "cutout": 30, "blur": 34, "mask": 6, "json": 8,
          "confidence": 16}  # fmt: skip
"""Bytes per pixel while results are written, measured on 40 megapixels."""

_PER_CLASS = 6
"""Bytes per pixel and class of probabilities."""

CRF = 260
"""Bytes per pixel while edges are refined."""

_UNITS = {"": 1, "b": 1, "k": 1e3, "kb": 1e3, "kib": 1 << 10, "m": 1e6, "mb": 1e6, "mib": 1 << 20,
          "g": 1e9, "gb": 1e9, "gib": 1 << 30, "t": 1e12, "tb": 1e12, "tib": 1 << 40}  # fmt: skip

_LEAST = 1_000_000

_LARGE = 50_000_000
"""Bytes; below this it is not worth while to look for memory that can be given back."""


def parse_bytes(field: str, text: str) -> int:
    """Return the bytes in "2GB", "512MiB" or "800000000".

    Raises:
        InputError: it is no amount, or less than a megabyte.
    """
    word = text.strip().lower().replace(" ", "")
    digits = word.rstrip("bkmgti")
    try:
        amount = float(digits) * _UNITS[word[len(digits) :]]
    except (ValueError, KeyError):
        raise InputError(f"{field}: got '{text}', expected an amount like 2GB or 512MB.") from None
    if not _LEAST <= amount < 1e15:
        raise InputError(f"{field}: got '{text}', expected 1MB or more.")
    return int(amount)


def in_words(amount: float) -> str:
    """Return an amount of memory as people write it."""
    return f"{amount / 1e9:.1f} GB" if amount >= 1e9 else f"{amount / 1e6:.0f} MB"


def free_bytes() -> int | None:
    """Return how much memory this process may still take; None where the system does not say.

    The least of what the machine has, what the container is allowed and what the process is.
    """
    found = [*_machine_free(), *_container_free(), *_process_free()]
    return max(0, min(found)) if found else None


def default_budget() -> int:
    """Return the share of what is there that photos may take where nobody says."""
    free = free_bytes()
    return 4_000_000_000 if free is None else int(_SHARE * free)


def resident_bytes() -> int | None:
    """Return how much memory this process takes now; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None


def estimate(
    photo: Path | bytes, *, kinds: Mapping[str, int] | tuple[str, ...] = (), classes: int
) -> int:
    """Return how much memory a photo takes at most, from its first bytes alone.

    Args:
        photo: the file, or what is in it; one that cannot be read takes nothing, whoever reads it
            will say why.
        kinds: what will be written: "overlay", "mask", …
        classes: of the model, or as many as are asked for.
    """
    if isinstance(photo, bytes):
        return _estimate(io.BytesIO(photo), len(photo), tuple(kinds), classes)
    try:
        size = photo.stat().st_size
        with photo.open("rb") as file:
            return _estimate(file, size, tuple(kinds), classes)
    except OSError:
        return 0


def estimate_source(source: object) -> int:
    """Return the same of a path, the bytes of a file, a PIL image or an array; 0 of all else."""
    if isinstance(source, (str, os.PathLike)):
        return estimate(Path(source), classes=0)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _estimate(io.BytesIO(source), len(source), (), 0)
    sides = getattr(source, "size", None) if isinstance(source, Image.Image) else None
    if sides is None:
        sides = getattr(source, "shape", (0, 0))[:2]
    return int(math.prod(sides)) * (_DECODE_PLAIN + _RESULT)


def _estimate(file: BinaryIO, size: int, kinds: tuple[str, ...], classes: int) -> int:
    try:
        header = open_header(file)
        check_length(header, size)
    except (DeepLabError, OSError, MemoryError):
        return 0
    except Exception:  # Pillow's readers raise nearly anything on damaged files
        return 0
    width, height = header.size
    if width * height > MAX_PIXELS:  # refused before anything is taken
        return 0
    return size + width * height * _per_pixel(header, kinds, classes)


def _per_pixel(header: Image.Image, kinds: tuple[str, ...], classes: int) -> int:
    plain = _DECODE_PLAIN if header.mode in ("1", "L", "P", "RGB") else _DECODE_OTHER
    decoded = _DECODE.get(header.format or "", plain)
    written = max(
        (_PER_CLASS * classes if kind == "probabilities" else _WRITE[kind] for kind in kinds),
        default=0,
    )
    return max(decoded + _RESULT, written)


class Budget:
    """So much memory may be in use by all photos together; who needs more than is left waits.

    A photo that leaves too little beside it for what is taken already is worked on alone.

    Attributes:
        size: in bytes.
    """

    def __init__(self, size: int, *, taken: int = 0) -> None:
        self.size = size
        self._most = self._free = max(0, size - taken)
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, amount: int, *, name: object) -> Iterator[None]:
        """Wait until ``amount`` bytes are left, and keep them for the block.

        Raises:
            ImageSizeError: the photo ``name`` needs more than there is for all.
        """
        if amount > self.size:
            raise ImageSizeError(
                f"{name}: the photo needs about {in_words(amount)} of memory, and all photos "
                f"together may take {in_words(self.size)}. Allow more with --memory, or look at it "
                "in windows: --tile auto."
            )
        amount = min(amount, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            if amount >= _LARGE:
                _give_back()
            with self._changed:
                self._free += amount
                self._changed.notify_all()


def _give_back() -> None:
    """Let the C library return what was freed; for each thread, it would keep a photo's worth."""
    with suppress(OSError, AttributeError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


# --- what there is --------------------------------------------------------------------------------


def _machine_free() -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
                return
    with suppress(OSError, ValueError, AttributeError):  # macOS: half of what is built in
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _container_free() -> Iterator[int]:
    """Source: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst."""
    root = Path("/sys/fs/cgroup")
    for limit, used in (
        (root / "memory.max", root / "memory.current"),
        (root / "memory" / "memory.limit_in_bytes", root / "memory" / "memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # no such file; or "max"
            yield int(limit.read_text()) - int(used.read_text()) + _cached(used.parent)


def _cached(group: Path) -> int:
    """Return the bytes of files that the kernel keeps in memory as long as nobody needs it."""
    with suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                return int(line.split()[1])
    return 0


def _process_free() -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource

    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError, IndexError):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            yield allowed - pages * os.sysconf("SC_PAGE_SIZE")
