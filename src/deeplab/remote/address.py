"""What an address of a file elsewhere is, and what is a path of this machine."""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeAlias

# Two letters at least: C:/ is a drive. Path makes one slash of two.
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/+")

_OTHERS = {"rtsp", "rtmp", "udp", "tcp", "hf"}
"""Schemes that look like these and are somebody else's affair: live pictures, the model hub."""


class Address(PurePosixPath):
    """The address of a file or folder elsewhere; joined, cut and compared as paths are."""

    __slots__ = ()

    def __str__(self) -> str:
        return _SCHEME.sub(r"\1://", super().__str__(), count=1)

    @property
    def scheme(self) -> str:
        """The part before the colon: "s3", "https", …"""
        return self.parts[0].rstrip(":/")

    @property
    def file_name(self) -> str:
        """The last part, without what stands behind a question mark in a web address."""
        return self.name.split("?")[0] if self.scheme.startswith("http") else self.name

    @property
    def shown(self) -> str:
        """The address as a message has it: what would break its line is written out."""
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(self))


Place: TypeAlias = "Path | Address"
"""Where a file is, here or elsewhere."""


def find_address(path: object) -> Address | None:
    """Return the address that a text or path is; None for paths of this machine, and others."""
    if isinstance(path, Address):
        return path
    if not isinstance(path, (str, PathLike)):
        return None
    text = os.fspath(path)
    scheme = _SCHEME.match(text) if isinstance(text, str) else None
    return Address(text) if scheme and scheme[1] not in _OTHERS else None


def place(path: PurePath) -> Place:
    """Return a path as the address that it is, or as it is."""
    return find_address(path) or Path(path)
