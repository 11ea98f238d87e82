"""Folders that may be elsewhere: copied with a bar before the work, sent after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from deeplab.cli.console import stderr
from deeplab.data.layouts import find_folder
from deeplab.data.shards import names_shards
from deeplab.remote.address import Place, find_address
from deeplab.remote.copies import keep_file, working_folder
from deeplab.remote.store import is_file
from deeplab.zoo import home


def bring(path: Place) -> Path:
    """Return a file or folder of this machine; of one elsewhere, a copy that is up to date.

    Raises:
        DownloadError: nothing is there, or it may not be read.
    """
    address = find_address(path)
    if address is None:
        return Path(path)
    if not names_shards(address) and is_file(address):
        return keep_file(address, home())
    columns = TextColumn("fetching"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=stderr(), transient=True) as bar:
        task = bar.add_task("fetching", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return find_folder(address, progress=show)


@contextlib.contextmanager
def sending(path: Path) -> Iterator[Path]:
    """Yield the folder to write into; one elsewhere is worked on in a copy, and sent at the end.

    Raises:
        DownloadError: what is there already cannot be read.
        OutputError: it cannot be written.
    """
    address = find_address(path)
    if address is None:
        yield path
        return
    with working_folder(address, home()) as folder:
        yield folder
