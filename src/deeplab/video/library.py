"""PyAV, which brings FFmpeg: where it is imported, and what its errors mean in words."""

from __future__ import annotations

import errno
from types import ModuleType

from deeplab.errors import MissingExtraError


def import_av() -> ModuleType:
    """Return PyAV, silent: what FFmpeg would print is counted and told by whoever reads.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import av
        import av.logging
    except ImportError as error:
        raise MissingExtraError("Video", package="av", extra="video") from error
    av.logging.set_level(av.logging.PANIC)
    return av


def in_words(error: Exception) -> str:
    """Return what an error of FFmpeg says, without its numbers and the file's name."""
    if getattr(error, "errno", None) == errno.ENOENT:
        return "there is no such file"
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(words)[:1].lower() + str(words)[1:].rstrip(".")
