"""Files are written whole or not at all, and told apart by hash; TOML in and out."""

from __future__ import annotations

import codecs
import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from deeplab.errors import DeepLabError, InputError, OutputError
from deeplab.remote.address import find_address
from deeplab.remote.store import uploading

if sys.version_info >= (3, 11):
    from tomllib import TOMLDecodeError as TOMLDecodeError
    from tomllib import loads as parse_toml
else:
    from tomli import TOMLDecodeError as TOMLDecodeError
    from tomli import loads as parse_toml

__all__ = [
    "TOMLDecodeError", "hash_file", "is_partial", "name_partial", "parse_toml", "read_text",
    "replacing", "replacing_all", "sweep", "to_toml",
]  # fmt: skip

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_PARTIAL = re.compile(r"\..*\.[0-9a-f]{8}\.part(\.[^.]{1,16})?", re.DOTALL)
_OLD_SECONDS = 86_400
"""A file that nobody finished for so long was left by a process that was killed."""

_ROOM = 1 << 16
"""Bytes; a disk with less than this is full."""

_swept: set[Path] = set()


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block ends well.

    Where ``path`` is an address (``s3://…``), the file is sent to it instead.

    The temporary name keeps the suffix, so that writers which look at it work. When the block
    raises, the temporary file is removed and a file already at ``path`` stays as it was.

    Raises:
        OutputError: the folder does not exist, is not writable, or the disk is full.
    """
    address = find_address(path)
    if address is not None:
        with uploading(address) as elsewhere:
            yield elsewhere
        return
    path = Path(path)
    if not path.name or os.path.isdir(path):
        raise OutputError(f"output: {path} is a folder, expected the name of a file.")
    temporary = name_partial(path)
    sweep(path.parent)
    try:
        yield temporary
        _open_to_others(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, DeepLabError):
            raise OutputError(_reason(path, error, temporary)) from error
        raise


@contextmanager
def replacing_all(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield ``path``'s name in a temporary folder beside it; move all that is there when done.

    For files that come with others, and for folders that count as one file. Of several, ``path``
    itself is renamed last. When the block raises, nothing is left and nothing was replaced.

    Raises:
        OutputError: the folder does not exist, is not writable, or the disk is full.
    """
    address = find_address(path)
    if address is not None:
        with uploading(address) as elsewhere:
            yield elsewhere
        return
    path = Path(path)
    folder = name_partial(path.with_suffix(""))
    sweep(path.parent)
    try:
        folder.mkdir(mode=0o700)
        yield folder / path.name
        for part in sorted(folder.iterdir(), key=lambda part: part.name == path.name):
            _open_to_others(part)
            final = path.with_name(part.name)
            if final.is_dir():
                shutil.rmtree(final)
            os.replace(part, final)
    except OSError as error:
        if isinstance(error, DeepLabError):
            raise
        raise OutputError(_reason(path, error, folder)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def name_partial(path: Path, *, token: str | None = None) -> Path:
    """Return a hidden name beside ``path``, never the same twice, for a file in the making.

    It keeps a short suffix, so that writers which look at it work. With a ``token``, eight hex
    digits, it is always the same.
    """
    suffix = path.suffix if len(path.suffix) <= 17 else ""
    stem = os.fsencode(path.stem)[:100].decode("utf-8", "ignore")
    return path.with_name(f".{stem}.{token or secrets.token_hex(4)}.part{suffix}")


def is_partial(name: str) -> bool:
    """Return whether a file's name is that of a file in the making: no file of anybody's."""
    return _PARTIAL.fullmatch(name) is not None


def sweep(folder: Path) -> None:
    """Remove what killed processes left half done in a folder a day ago or longer.

    A folder is looked at once per process; what cannot be removed stays.
    """
    if folder in _swept:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_partial(entry.name):
                with contextlib.suppress(OSError):
                    _remove_old(entry)


def _remove_old(entry: os.DirEntry[str]) -> None:
    if time.time() - entry.stat(follow_symlinks=False).st_mtime < _OLD_SECONDS:
        return
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        os.unlink(entry.path)


def _open_to_others(path: Path) -> None:
    """Let the umask decide who reads a file; some writers make it their owner's alone."""
    mode = path.stat().st_mode
    if path.is_dir() or mode & 0o077:
        return
    probe = name_partial(path)
    with contextlib.suppress(OSError):
        probe.touch(exist_ok=False)
        allowed = probe.stat().st_mode & 0o666
        probe.unlink()
        path.chmod(allowed)


def hash_file(path: str | PathLike[str]) -> str:
    """Return the sha256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_text(path: str | PathLike[str], *, encoding: str | None = None) -> str:
    """Return a text file, whatever program saved it: UTF-8, UTF-16 or UTF-32, with a mark or not.

    Args:
        path: the file.
        encoding: its encoding where it is another one ("gbk", "latin-1"); a mark goes before it.

    Raises:
        InputError: it is in another encoding, is not there or cannot be read, or there is no
            encoding of that name.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from None
    marked = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    chosen = marked or encoding or _unmarked(data)
    try:
        return data.decode(chosen)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not text in {chosen.upper()} (byte {error.start} is "
            f"0x{data[error.start]:02x}). It may be in GBK or Latin-1; save it as UTF-8."
        ) from None
    except (LookupError, ValueError):
        raise InputError(f"encoding: there is none called '{chosen}'; 'gbk' is one.") from None


def _unmarked(data: bytes) -> str:
    """Return "utf-8", or the UTF-16 that every second byte of zero gives away."""
    start = data[:64]
    if len(start) >= 2 and 0 in start:
        if not any(start[1::2]):
            return "utf-16-le"
        if not any(start[0::2]):
            return "utf-16-be"
    return "utf-8"


def to_toml(value: Any) -> str:
    """Return a string, number, boolean, list, tuple or mapping as a TOML value on one line."""
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for the one control character they differ in.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return (
            "{ "
            + ", ".join(f"{_toml_key(key)} = {to_toml(item)}" for key, item in value.items())
            + " }"
        )
    return repr(value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else to_toml(key)


def _reason(path: Path, error: OSError, temporary: Path) -> str:
    folder = path.parent
    words = f"output: cannot write {path}: "
    if not os.path.exists(folder):
        return f"{words}there is no folder {folder}; make it first."
    if not os.path.isdir(folder):
        return f"{words}{folder} is not a folder."
    if error.errno in (errno.ENOSPC, errno.EDQUOT) and _free(folder) > _ROOM:
        place = Path(tempfile.gettempdir())
        if _free(place) <= _ROOM:
            return (
                f"{words}the folder for temporary files, {place}, is full; name another in the "
                "environment variable TMPDIR."
            )
    blamed = None if error.filename is None else os.fsdecode(error.filename)
    if blamed is not None and not blamed.startswith(os.fspath(temporary)):
        return f"{words}{blamed}: {error.strerror or error}."
    return f"{words}{error.strerror or error}."


def _free(folder: Path) -> int:
    """Return how many bytes can be written there; where nobody says, many."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 2 * _ROOM
