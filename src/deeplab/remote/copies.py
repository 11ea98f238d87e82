"""Copies of what lies elsewhere, kept in the cache; only what changed is fetched again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path, PurePosixPath

from deeplab.errors import DownloadError
from deeplab.files import is_partial, replacing
from deeplab.remote.address import Address
from deeplab.remote.store import Entry, describe, get_file, list_files, put_file

_looked_at: ContextVar[dict[tuple[Address, Path], Path] | None] = ContextVar(
    "looked_at", default=None
)
"""Copies of folders that need not be looked at again, see :func:`listed_once`."""

_TOGETHER = 16
"""Files that are fetched at the same time."""

_LIST = ".deeplab-remote.json"

_LONGEST = 255
"""Bytes of a name, in most file systems."""

Progress = Callable[[int, int], None]
"""Called with (bytes that are here, bytes of all)."""


def keep_file(address: Address, folder: Path) -> Path:
    """Return a copy of a file in ``folder``, which is made; fetched only if it changed.

    Raises:
        DownloadError: there is no such file, it may not be read, or it does not come whole.
        MissingExtraError: a package for such addresses is not installed.
    """
    with _Copies(_place(address.parent, folder)) as copies:
        return copies.update(address, address.file_name, describe(address))


def keep_folder(address: Address, folder: Path, *, progress: Progress | None = None) -> Path:
    """Return a copy of a folder in ``folder``; what changed is fetched, what is gone removed.

    Raises:
        DownloadError: there is no such folder, it may not be read, does not come whole, or there
            is no room for it.
        MissingExtraError: a package for such addresses is not installed.
    """
    looked_at = _looked_at.get()
    if looked_at is not None and (address, folder) in looked_at:
        return looked_at[address, folder]
    files = list_files(address)
    if not files:
        raise DownloadError(f"{address.shown}: there is no such folder, or nothing is in it.")
    place = _place(address, folder) / address.file_name
    with _Copies(place) as copies:
        names = {file: str(file.relative_to(address)) for file in files}
        folders = {str(folder) for n in names.values() for folder in PurePosixPath(n).parents}
        for name in names.values():
            _check_name(name, address, folders)
        due = {file: files[file] for file, name in names.items() if copies.lacks(name, files[file])}
        sizes = {file: entry.size or 0 for file, entry in due.items()}
        total, free = sum(sizes.values()), shutil.disk_usage(place).free
        if total > free:
            raise DownloadError(
                f"{address.shown}: has {total / 1e9:.1f} GB to fetch, and {folder} has room for "
                f"{free / 1e9:.1f}; name another folder in DEEPLAB_HOME."
            )
        done = 0
        with ThreadPoolExecutor(_TOGETHER, thread_name_prefix="fetch") as pool:
            waiting = [
                (pool.submit(copies.update, file, names[file], entry), sizes[file])
                for file, entry in due.items()
            ]
            try:
                for future, size in waiting:
                    future.result()
                    done += size
                    if progress is not None:
                        progress(done, total)
            finally:
                for future, _ in waiting:
                    future.cancel()
        copies.forget_others(set(names.values()))
    if looked_at is not None:
        looked_at[address, folder] = place
    return place


@contextlib.contextmanager
def listed_once() -> Iterator[None]:
    """Keep the copy of each folder as it was when it was first asked for, until the block ends."""
    token = _looked_at.set({})
    try:
        yield
    finally:
        _looked_at.reset(token)


@contextlib.contextmanager
def working_folder(address: Address, folder: Path) -> Iterator[Path]:
    """Yield a copy of a folder to work in, empty where there is none yet; send it when done.

    It is sent however the block ends, and stays in the cache: what was cut off goes on from
    there, or from what was sent, on another machine.

    Raises:
        DownloadError: the folder may not be read, or does not come whole.
        OutputError: it may not be written.
    """
    if list_files(address):
        place = keep_folder(address, folder)
    else:
        place = _place(address, folder) / address.file_name
        place.mkdir(parents=True, exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    try:
        yield place
    finally:
        with _Copies(place) as copies:
            for path in sorted(place.rglob("*")):
                if not path.is_file() or path.name == _LIST or is_partial(path.name):
                    continue
                if before.get(path) != path.stat().st_mtime_ns:
                    name = path.relative_to(place).as_posix()
                    put_file(path, address / name)
                    copies.remember(name, describe(address / name))


def _place(address: Address, folder: Path) -> Path:
    """Return the folder of the copies of what lies in one folder elsewhere."""
    return folder / "remote" / hashlib.sha256(str(address).encode()).hexdigest()[:16]


def _check_name(name: str, address: Address, folders: Container[str]) -> None:
    """Raise DownloadError where a file of this name cannot be kept below a folder, with these."""
    parts = PurePosixPath(name).parts
    if ".." in parts:
        reason = "which leads out of it"
    elif "\0" in name or any(
        len(part.encode("utf-8", "surrogatepass")) > _LONGEST for part in parts
    ):
        reason = "which no file of this machine can be called"
    elif name in folders:  # to a store that is nothing special
        reason = "which is a folder, too"
    elif name == _LIST:
        reason = "as the list that is kept with copies is; remove it there"
    else:
        return
    raise DownloadError(f"{address.shown}: has a file called {name!r}, {reason}.")


class _Copies:
    """Copies of files, and what the store said of each when it was fetched."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._eras: dict[str, str] = {}

    def __enter__(self) -> _Copies:
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError, ValueError):
            self._eras = dict(json.loads((self._folder / _LIST).read_text("utf-8")))
        return self

    def __exit__(self, *_: object) -> None:
        with replacing(self._folder / _LIST) as partial:
            partial.write_text(json.dumps(self._eras), "utf-8")

    def lacks(self, name: str, entry: Entry) -> bool:
        """Return whether the file is missing, or perhaps not the one that the store has now."""
        return (
            not entry.era
            or self._eras.get(name) != entry.era
            or not (self._folder / name).is_file()
        )

    def update(self, address: Address, name: str, entry: Entry) -> Path:
        """Return the copy of a file, fetched anew where need be."""
        path = self._folder / name
        if self.lacks(name, entry):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                get_file(address, partial, size=entry.size)
            self.remember(name, entry)
        return path

    def remember(self, name: str, entry: Entry) -> None:
        """Take the copy for what the store has now."""
        self._eras[name] = entry.era

    def forget_others(self, names: set[str]) -> None:
        """Remove the copies of files that are no longer there."""
        for name in set(self._eras) - names:
            del self._eras[name]
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()
