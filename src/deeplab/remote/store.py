"""Files elsewhere, by fsspec: their bytes, their names, a copy of one, and one sent.

A file is sent when it is whole, so none stands half written under its name. Who may read what is
between fsspec and the store: keys come from the environment or the store's own files, never from
here. A connection that breaks is tried again.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deeplab.errors import DeepLabError, DownloadError, MissingExtraError, OutputError
from deeplab.remote.address import Address

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp",
    "https": "aiohttp", "az": "adlfs", "abfs": "adlfs",
}  # fmt: skip

_ERA = ("size", "ETag", "LastModified", "Last-Modified", "mtime", "updated", "created", "md5")
"""What a store says of a file that changes when the file does."""

_TRIES = 3

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Entry:
    """What a store says of a file.

    Attributes:
        size: bytes; None where it does not say.
        era: another text whenever the file is another one; empty where the store says nothing.
    """

    size: int | None
    era: str


def read_bytes(address: Address, *, size: int | None = None) -> bytes:
    """Return what is in a file.

    Args:
        address: of the file.
        size: what a listing says; an answer of another length is asked for again.

    Raises:
        DownloadError: there is no such file, it may not be read, or it does not come whole.
        MissingExtraError: a package for such addresses is not installed.
    """

    def whole() -> bytes:
        system, path = _open(address)
        data: bytes = system.cat_file(path)
        if size is not None and len(data) != size:
            raise OSError(f"{len(data)} bytes came of {size}")
        return data

    return _patiently(whole, address)


def list_files(address: Address) -> dict[Address, Entry]:
    """Return every file below a folder, by address and in order; none where there is no folder.

    Raises:
        DownloadError: the store refuses or does not answer.
        MissingExtraError: a package for such addresses is not installed.
    """

    def listed() -> dict[Address, Entry]:
        system, path = _open(address)
        system.invalidate_cache()
        found: Mapping[str, Any] = system.find(path, detail=True)
        root = system._strip_protocol(path).rstrip("/")
        below = {name: info for name, info in found.items() if name.startswith(f"{root}/")}
        return {
            address / name[len(root) + 1 :]: _entry(below[name])
            for name in sorted(below)
            if not name.endswith("/")
        }

    try:
        return _patiently(listed, address)
    except FileNotFoundError:
        return {}


def match(address: Address) -> list[Address]:
    """Return the files that match a pattern, in order; ``**`` stands for any number of folders.

    Raises:
        DownloadError: the store refuses or does not answer.
        MissingExtraError: a package for such addresses is not installed.
    """

    def matched() -> list[Address]:
        system, path = _open(address)
        found: Mapping[str, Any] = system.glob(path, detail=True)
        return [
            Address(system.unstrip_protocol(name))
            for name in sorted(found)
            if found[name]["type"] == "file"
        ]

    return _patiently(matched, address)


def is_file(address: Address) -> bool:
    """Return whether there is a file at an address.

    Raises:
        DownloadError: the store refuses or does not answer.
        MissingExtraError: a package for such addresses is not installed.
    """

    def asked() -> bool:
        system, path = _open(address)
        return bool(system.info(path)["type"] == "file")

    try:
        return _patiently(asked, address)
    except FileNotFoundError:
        return False


def describe(address: Address) -> Entry:
    """Return what the store says of a file.

    Raises:
        DownloadError: there is no such file, or it may not be read.
        MissingExtraError: a package for such addresses is not installed.
    """

    def told() -> Entry:
        system, path = _open(address)
        return _entry(system.info(path))

    return _patiently(told, address)


def get_file(address: Address, path: Path, *, size: int | None = None) -> None:
    """Fetch a file to ``path``, which is not there yet.

    Args:
        address: of the file.
        path: on this machine.
        size: what the store says; a file of another length is fetched again.

    Raises:
        DownloadError: there is no such file, it may not be read, or it does not come whole.
        MissingExtraError: a package for such addresses is not installed.
    """

    def fetched() -> None:
        system, source = _open(address)
        system.get_file(source, os.fspath(path))
        came = path.stat().st_size
        if size is not None and came != size:
            raise OSError(f"{came} bytes came of {size}")

    _patiently(fetched, address)


def put_file(path: Path, address: Address) -> None:
    """Send a file; it stands at its address when all of it is there.

    Raises:
        OutputError: the store refuses or does not answer.
        MissingExtraError: a package for such addresses is not installed.
    """

    def sent() -> None:
        system, target = _open(address)
        if "file" in _protocols(system):
            system.makedirs(system._parent(target), exist_ok=True)
        system.put_file(os.fspath(path), target)

    try:
        _patiently(sent, address)
    except FileNotFoundError as error:
        reason = "there is no such place"
        raise OutputError(f"output: cannot write {address.shown}: {reason}.") from error
    except _RefusedError as error:
        raise OutputError(f"output: cannot write {address.shown}: {error.reason}.") from error


@contextlib.contextmanager
def uploading(address: Address) -> Iterator[Path]:
    """Yield a path on this machine; what is there, and beside it, is sent when the block ends well.

    Of several files the one that was asked for is sent last.

    Raises:
        OutputError: the store refuses or does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="deeplab-") as folder:
        path = Path(folder) / address.name
        yield path
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: (file == path, file)):
            put_file(file, address.parent / file.relative_to(folder).as_posix())


def _open(address: Address) -> tuple[AbstractFileSystem, str]:
    try:
        import fsspec
    except ImportError:
        raise MissingExtraError(address.shown, package="fsspec", extra="remote") from None
    if "::" in str(address):  # fsspec would read what stands before it, another file
        raise _RefusedError(address, 'an address with "::" in it cannot be told from two')
    try:
        system, path = fsspec.url_to_fs(str(address))
    except ImportError:
        package = _PACKAGES.get(address.scheme, f"the one for {address.scheme}://")
        raise MissingExtraError(address.shown, package=package, extra="remote") from None
    except ValueError as error:
        raise _RefusedError(address, _one_line(error)) from None
    return system, path


def _protocols(system: AbstractFileSystem) -> tuple[str, ...]:
    kinds = system.protocol
    return (kinds,) if isinstance(kinds, str) else tuple(kinds)


def _entry(info: Mapping[str, Any]) -> Entry:
    size = info.get("size")
    era = {key: str(info[key]) for key in _ERA if info.get(key) is not None}
    told = {*era} - {"size"}  # a file of the same size may be another one
    return Entry(None if size is None else int(size), json.dumps(era) if told else "")


def _patiently(action: Callable[[], _Result], address: Address) -> _Result:
    """Run what asks a store, again where the connection broke.

    Raises:
        DownloadError: in words. It is a FileNotFoundError too where there is nothing.
    """
    for last in (*(False,) * (_TRIES - 1), True):
        try:
            return action()
        except DeepLabError:
            raise
        except FileNotFoundError:
            raise _NothingThereError(f"{address.shown}: there is no such file.") from None
        except PermissionError as error:
            reason = f"access was refused ({_one_line(error)}); look at the keys for it"
            raise _RefusedError(address, reason) from None
        except Exception as error:  # the stores' packages raise errors of their own
            if last:
                raise _RefusedError(address, f"no answer: {_one_line(error)}") from error
            time.sleep(0.2)
    raise AssertionError


class _RefusedError(DownloadError):
    """A store gave nothing, or took nothing; ``reason`` says why, without the address."""

    def __init__(self, address: Address, reason: str) -> None:
        super().__init__(f"{address.shown}: {reason}.")
        self.reason = reason


class _NothingThereError(DownloadError, FileNotFoundError):
    """There is nothing at an address."""


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:200].rstrip(".")
