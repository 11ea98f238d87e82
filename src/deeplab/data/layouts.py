"""Open a data set in whatever layout it stands on the disk."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from deeplab import zoo
from deeplab.data import ade20k, camvid, cityscapes, folder, roboflow, shards, voc
from deeplab.data.description import FILE_NAME
from deeplab.data.sample import FileDataset
from deeplab.errors import DataError
from deeplab.remote.address import find_address
from deeplab.remote.copies import Progress, keep_folder


class Layout(NamedTuple):
    """One way in which data sets stand on the disk."""

    name: str
    looks_for: str
    find: Callable[[Path], Path | None]
    splits: Callable[[Path], tuple[str, ...]]
    open_split: Callable[[Path, str], FileDataset]


LAYOUTS = tuple(
    Layout(module.NAME, module.LOOKS_FOR, module.find, module.splits, module.open_split)
    for module in (voc, cityscapes, ade20k, camvid, roboflow, shards, folder)
)
"""In the order in which they are tried. A dataset.toml comes before them all."""


def open_dataset(path: str | PathLike[str], *, split: str = "train") -> FileDataset:
    """Open one split of the data set at ``path``; its layout is recognised. No picture is read.

    Raises:
        DataError: there is no such folder, layout or split; the message says what was looked for.
    """
    layout, root = _recognise(find_folder(path))
    return layout.open_split(root, split)


def list_splits(path: str | PathLike[str]) -> tuple[str, ...]:
    """Return the names of the splits of the data set at ``path``.

    Raises:
        DataError: there is no such folder or layout.
    """
    layout, root = _recognise(find_folder(path))
    return layout.splits(root)


def find_folder(path: str | PathLike[str], *, progress: Progress | None = None) -> Path:
    """Return the folder of a data set; of one that lies elsewhere, a copy that is up to date.

    Raises:
        DownloadError: there is no such folder, it may not be read, or there is no room for it.
    """
    address = find_address(path)
    if address is None:
        return Path(path)
    if shards.names_shards(address):  # with what lies beside them
        return keep_folder(address.parent, zoo.home(), progress=progress) / address.name
    return keep_folder(address, zoo.home(), progress=progress)


def find_layout(path: Path) -> tuple[Layout, Path] | None:
    """Return the layout in which ``path`` stands, and its folder; None if it is in none."""
    described = (path / FILE_NAME).is_file()
    for layout in LAYOUTS:
        if described and layout.name not in (shards.NAME, folder.NAME):
            continue
        root = layout.find(path)
        if root is not None:
            return layout, root
    return None


def _recognise(path: Path) -> tuple[Layout, Path]:
    if not path.is_dir() and not shards.names_shards(path):
        raise DataError(f"{path}: there is no such folder; expected the folder of a data set.")
    found = find_layout(path)
    if found is not None:
        return found
    looked = "; ".join(f"{layout.name}: {layout.looks_for}" for layout in LAYOUTS)
    raise DataError(
        f"{path}: no known layout. A data set is one of these: {looked}. What a labelling tool "
        f"exported becomes one with: deeplab data convert {path} -o NEW."
    )
