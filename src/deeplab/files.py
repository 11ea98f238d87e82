"""Files are written whole or not at all, under a temporary name first; and told apart by hash."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from deeplab.errors import OutputError


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


def hash_file(path: str | PathLike[str]) -> str:
    """Return the sha256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _reason(path: Path, error: OSError) -> str:
    folder = path.parent
    if not folder.exists():
        return f"output: cannot write {path}: there is no folder {folder}; make it first."
    if not folder.is_dir():
        return f"output: cannot write {path}: {folder} is not a folder."
    return f"output: cannot write {path}: {error.strerror or error}."
