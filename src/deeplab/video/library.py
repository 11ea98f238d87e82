"""PyAV, which brings FFmpeg: where it is imported, and what its errors mean in words."""

from __future__ import annotations

import errno
from types import ModuleType

from deeplab.errors import MissingExtraError


def import_av() -> ModuleType:
    """Return PyAV.

    Its logging stays off, as it is: with it, a decoder's thread that complains waits for Python's
    lock, and closing a damaged file waits for that thread.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("Video", package="av", extra="video") from error
    return av


def in_words(error: Exception) -> str:
    """Return what an error of FFmpeg says, without its numbers and the file's name."""
    if getattr(error, "errno", None) == errno.ENOENT:
        return "there is no such file"
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(words)[:1].lower() + str(words)[1:].rstrip(".")
