"""Files are written whole or not at all, and told apart by hash; TOML in and out."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from deeplab.errors import InputError, OutputError

if sys.version_info >= (3, 11):
    from tomllib import TOMLDecodeError as TOMLDecodeError
    from tomllib import loads as parse_toml
else:
    from tomli import TOMLDecodeError as TOMLDecodeError
    from tomli import loads as parse_toml

__all__ = [
    "TOMLDecodeError", "hash_file", "parse_toml", "read_text", "replacing", "replacing_all",
    "to_toml",
]  # fmt: skip

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block ends well.

    The temporary name keeps the suffix, so that writers which look at it work. When the block
    raises, the temporary file is removed and a file already at ``path`` stays as it was.

    Raises:
        OutputError: the folder does not exist, is not writable, or the disk is full.
    """
    path = Path(path)
    if not path.name or path.is_dir():
        raise OutputError(f"output: {path} is a folder, expected the name of a file.")
    temporary = path.with_name(f".{path.stem[:50]}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(_reason(path, error)) from error
        raise


@contextmanager
def replacing_all(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield ``path``'s name in a temporary folder beside it; move all that is there when done.

    For files that come with others, and for folders that count as one file. Of several, ``path``
    itself is renamed last. When the block raises, nothing is left and nothing was replaced.

    Raises:
        OutputError: the folder does not exist, is not writable, or the disk is full.
    """
    path = Path(path)
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.stem[:50]}.", dir=path.parent))
        yield folder / path.name
        for part in sorted(folder.iterdir(), key=lambda part: part.name == path.name):
            final = path.with_name(part.name)
            if final.is_dir():
                shutil.rmtree(final)
            os.replace(part, final)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(_reason(path, error)) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


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


def _reason(path: Path, error: OSError) -> str:
    folder = path.parent
    if not folder.exists():
        return f"output: cannot write {path}: there is no folder {folder}; make it first."
    if not folder.is_dir():
        return f"output: cannot write {path}: {folder} is not a folder."
    return f"output: cannot write {path}: {error.strerror or error}."
