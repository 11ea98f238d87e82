"""A folder or a ``.tar.gz`` as a flat set of files, read in place and never unpacked."""

from __future__ import annotations

import gzip
import io
import mmap
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deeplab.errors import ModelNotFoundError, WeightsError


@dataclass(frozen=True)
class Archive:
    """The files of a folder, or the regular files of a tar.

    Names in a tar are only ever used to look a member up, so an archive whose names climb out
    of their folder ("../../x") can do no harm: nothing is written anywhere.

    Attributes:
        where: the folder or the archive, for messages.
        names: the names of all files, "/" between folders.
    """

    where: Path
    names: tuple[str, ...]
    _read: Callable[[str], memoryview]

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Return the files directly in a folder, or all files of a ``.tar``/``.tar.gz``.

        Raises:
            ModelNotFoundError: there is nothing at ``path``.
            WeightsError: the archive is cut off or damaged.
        """
        if path.is_dir():
            return cls(path, tuple(sorted(f.name for f in path.iterdir() if f.is_file())),
                       lambda name: map_file(path / name))  # fmt: skip
        if not path.exists():
            raise ModelNotFoundError(f"path: there is no file {path}.")
        return cls._of_tar(path)

    @classmethod
    def _of_tar(cls, path: Path) -> Archive:
        names, whole = [], 0
        with _tar(path) as tar:
            for member in tar:
                whole += member.size
                check_size(path, whole)
                if member.isreg():
                    names.append(member.name)

        def read(name: str) -> memoryview:
            with _tar(path) as tar:
                member = tar.extractfile(name)
                assert member is not None, "only regular files are listed"
                return memoryview(member.read())

        return cls(path, tuple(names), read)

    def read(self, name: str) -> memoryview:
        """Return the content of the file ``name``.

        Raises:
            WeightsError: there is no such file, or the archive is damaged.
        """
        if name not in self.names:
            raise WeightsError(f"{self.where}: the file {name} is missing.")
        return self._read(name)

    def describe(self, name: str) -> str:
        """Return the words that name this file in a message."""
        return f"{self.where / name}" if self.where.is_dir() else f"{self.where}: {name}"


def map_file(path: Path) -> memoryview:
    """Return the content of a file, mapped into memory, read-only.

    Raises:
        ModelNotFoundError: there is no such file.
        WeightsError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return memoryview(b"")  # an empty file cannot be mapped
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"path: there is no file {path}.") from error
    except OSError as error:
        raise WeightsError(f"path: {path} cannot be read: {error}.") from error


_ROOM = 64 << 20
"""What an archive may always unpack to, in bytes; else `_TIMES` its size."""
_TIMES = 8


def check_size(path: Path, unpacked: int) -> None:
    """Refuse an archive that says it holds far more than its size, which weights never do.

    Raises:
        WeightsError: it unpacks to more than eight times its size, and 64 MiB.
    """
    size = path.stat().st_size
    if unpacked > _ROOM + _TIMES * size:
        raise WeightsError(
            f"{path}: its {size:,} bytes unpack to {unpacked:,} or more; weights are not packed so "
            "tightly, so this is no file of a network, or a damaged one."
        )


class _Bounded(io.BufferedIOBase):
    """An unpacking stream that does not give more than its archive can rightly hold."""

    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        self._stream, self._path = stream, path

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes."""
        wanted = _ROOM if size is None or size < 0 else size
        check_size(self._path, self._stream.tell() + wanted)
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place."""
        check_size(self._path, offset)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._stream.tell()


@contextmanager
def _tar(path: Path) -> Iterator[tarfile.TarFile]:
    """``tarfile.open`` whose errors, at any point of reading, are ours."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            plain = _Bounded(gzip.GzipFile(fileobj=file), path) if packed else file
            with tarfile.open(fileobj=plain, mode="r:") as tar:
                yield tar
    except (tarfile.TarError, zlib.error, OSError, EOFError) as error:
        raise WeightsError(
            f"{path}: the archive cannot be read ({error}); download it again."
        ) from error
