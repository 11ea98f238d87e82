"""A file from an address: resumed where it broke off, given up when too slow, checked for its kind.

Nothing here knows models; :func:`deeplab.zoo.pull` does.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deeplab.errors import DownloadError
from deeplab.files import name_partial

if TYPE_CHECKING:
    from requests import Response

_STALL_SECONDS = 30.0
"""Without a byte."""

_SLOW_SECONDS, _SLOW_BYTES = 60.0, 60_000
"""In so long, at least so much: 1 kB a second."""

_MOST_BYTES = 8_000_000_000
"""Of a file of which nobody knows the size."""

_MOST_TRIES = 5
_CHUNK = 1 << 16


class Progress(Protocol):
    """What a download reports to. ``total`` is set, in bytes, before the first ``update``."""

    total: float

    def update(self, amount: int) -> None:
        """Say that ``amount`` more bytes have come."""

    def reset(self) -> None:
        """Begin again at zero."""

    def close(self) -> None:
        """End."""


def fetch(
    address: str, partial: Path, *, size: int | None, progress: Progress | None = None
) -> None:
    """Write what an address gives to ``partial``, after what it holds already.

    A transfer that breaks off is taken up again; where it does not go on at all, what came stays in
    ``partial`` for another time.

    Args:
        address: where from.
        partial: a file of this process alone.
        size: in bytes; None where nothing is known.
        progress: what is reported to.

    Raises:
        DownloadError: there is no connection, no such address, no end in sight, or too much came.
        OSError: the file cannot be written.
    """
    for tries_left in reversed(range(_MOST_TRIES)):
        before = _length(partial)
        try:
            _transfer(address, partial, size, progress)
        except _BrokenOffError as error:
            if tries_left == 0 or _length(partial) == before:
                raise DownloadError(str(error)) from error
        else:
            return
        finally:
            if progress is not None:
                progress.close()


def check_kind(path: Path, name: str) -> None:
    """Refuse what is not the kind of file that ``name`` promises, or not all of it.

    Raises:
        DownloadError: it is empty, a page, or an archive that is damaged or cut off.
    """
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if not head:
        raise DownloadError("gave an empty file")
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DownloadError("gave a page and no file")
    if name.endswith((".tar.gz", ".tgz")):
        try:
            with gzip.open(path) as packed:
                while packed.read(1 << 20):
                    pass
        except (OSError, EOFError, zlib.error) as error:
            raise DownloadError(f"gave an archive that is damaged or cut off ({error})") from None


def unfinished(path: Path) -> Path:
    """Return where what came of a file waits for another time; it is swept away when it is old."""
    return name_partial(path, token="0" * 8)


@contextlib.contextmanager
def resuming(path: Path) -> Iterator[Path]:
    """Give a file of this process's own beside ``path``, with what came the last time.

    When the block raises a :class:`DownloadError`, or is interrupted, what is in it is kept for
    another time.
    """
    partial, waiting = name_partial(path), unfinished(path)
    with contextlib.suppress(OSError):  # whoever comes first has it
        os.replace(waiting, partial)
    try:
        yield partial
    except (DownloadError, KeyboardInterrupt):
        if _length(partial):
            with contextlib.suppress(OSError):
                os.replace(partial, waiting)
        raise
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


class _BrokenOffError(Exception):
    """The transfer ended before the file did."""


def _transfer(address: str, partial: Path, size: int | None, progress: Progress | None) -> None:
    import requests
    import urllib3

    start = _length(partial)
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with requests.get(
            address, headers=headers, stream=True, timeout=(_STALL_SECONDS, _STALL_SECONDS)
        ) as response:
            if response.status_code == 416:  # there is no more of it
                return
            if not response.ok:
                raise DownloadError(f"the server answers {response.status_code} {response.reason}")
            _receive(response, partial, start, size, progress)
    except requests.Timeout:
        raise _BrokenOffError("no answer in time") from None
    except requests.ConnectionError as error:
        words = "the transfer broke off" if _length(partial) > start else "no connection"
        raise _BrokenOffError(words) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        slow = isinstance(error, urllib3.exceptions.TimeoutError)
        words = f"no byte in {_STALL_SECONDS:g} s" if slow else "the transfer broke off"
        raise _BrokenOffError(words) from error


def _receive(
    response: Response, partial: Path, start: int, size: int | None, progress: Progress | None
) -> None:
    if response.status_code != 206:  # the whole file comes, whatever was asked for
        start = 0
    promised = response.headers.get("Content-Length", "")
    total = start + int(promised) if promised.isdecimal() else None
    most = size or total or _MOST_BYTES
    if (total or 0) > most or most > _MOST_BYTES:
        raise DownloadError(f"the file has {total} bytes, expected {min(most, _MOST_BYTES)}")
    if progress is not None:
        progress.reset()
        progress.total = float(size or total or 0)
        progress.update(start)
    done, mark, marked = start, time.monotonic(), start
    with partial.open("ab" if start else "wb") as file:
        while block := _read(response):
            file.write(block)
            done += len(block)
            if done > most:
                file.truncate(0)
                raise DownloadError(f"more than {most} bytes came, which are all of the file")
            if progress is not None:
                progress.update(len(block))
            now = time.monotonic()
            if now - mark > _SLOW_SECONDS:
                if done - marked < _SLOW_BYTES:
                    raise DownloadError(
                        f"too slow: {done - marked} bytes in {now - mark:.0f} s; try again later, "
                        "it goes on where it stopped"
                    )
                mark, marked = now, done
    if total is not None and done < total:
        raise _BrokenOffError(f"the transfer broke off: {done} of {total} bytes came")


def _read(response: Response) -> bytes:
    """Return what has come, without waiting until it is much."""
    raw: Any = response.raw
    block: bytes = raw.read1(_CHUNK) if hasattr(raw, "read1") else raw.read(1024)
    return block


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
