"""Cameras and streams: what they are called, what they are opened as, and why they are not."""

from __future__ import annotations

import os
import re
import sys
from os import PathLike

from deeplab.errors import InputError

_ADDRESS = re.compile(r"(rtsps?|rtmps?|https?|udp|tcp|rtp|srt)://", re.IGNORECASE)

TIMEOUT_SECONDS = 10
"""For the first answer of a live source, and between two of its packets."""


def is_address(source: str) -> bool:
    """Return whether something is a stream's address."""
    return _ADDRESS.match(source) is not None


def is_live(source: str | PathLike[str]) -> bool:
    """Return whether something is a camera ("0", "/dev/video0") or an address, not a file."""
    text = os.fspath(source)
    if is_address(text):
        return True
    if text.isdecimal() and len(text) < 3:
        return not os.path.exists(text)
    return re.fullmatch(r"/dev/video\d+", text) is not None


def hide_password(source: str) -> str:
    """Return an address as it may be shown and written down: without its password."""
    if not is_address(source):
        return source
    return re.sub(r"(://[^/@]*?):[^/]*@", r"\1:…@", source)


def explain(source: str, words: str) -> str:
    """Return in one line why a live source cannot be opened, and what to do."""
    told = f"{hide_password(source)}: cannot be opened: {words}."
    if not is_address(source):
        return f"{told} Is the camera plugged in, and no other program using it?"
    if "401" in words or "403" in words or "authoriz" in words.lower():
        form = f"{source.partition('://')[0]}://USER:PASSWORD@…"
        return f"{told} Give the right user and password in the address: {form}"
    if "404" in words:
        return f"{told} The server is there, but has no such stream: check the path."
    if "refused" in words:
        return f"{told} Nothing answers there: check the address and its port."
    return f"{told} Is the address right and reachable?"


def find_camera(name: str) -> tuple[str, str]:
    """Return what FFmpeg calls a camera, and the format that reads it.

    Raises:
        InputError: on Windows, where cameras are read through an address.
    """
    number = name.removeprefix("/dev/video")
    if sys.platform == "darwin":
        return number, "avfoundation"
    if sys.platform == "win32":
        raise InputError(
            f"video: got the camera {name}; on Windows cameras are read through an address. "
            "Stream it (ffmpeg -f dshow … udp://127.0.0.1:9999) and give that address."
        )
    return f"/dev/video{number}", "video4linux2"
