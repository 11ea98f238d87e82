"""Write pairs into a folder so that at every moment it is whole: all of them, or none."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from deeplab.data.description import FILE_NAME, Description, write_description
from deeplab.data.duplicates import Hash
from deeplab.data.export import Embedded, listed
from deeplab.data.mask_files import UInt8
from deeplab.data.masks import write_mask
from deeplab.data.sample import PHOTO_SUFFIXES
from deeplab.errors import DataError, OutputError
from deeplab.files import name_partial, read_text, sweep
from deeplab.photo.overlapping import encode_stack

_FORMATS = {
    b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp",
}  # fmt: skip
"""How a photo's bytes begin -> its suffix, where its name has none that is read."""


@dataclass(frozen=True)
class Written:
    """A pair that is ready to be moved.

    Attributes:
        name: of the pair, "/" between folders.
        files: of it, relative to the folder; a photo that lies there already is not among them.
        hash_: the perceptual hash of the photo.
        classes: the class ids that the photo shows.
        split: that the export puts it into; "" for none.
    """

    name: str
    files: tuple[str, ...]
    hash_: Hash | None = None
    classes: frozenset[int] = frozenset()
    split: str = ""


def existing_names(
    root: Path, present: Description | None, names: Sequence[str], photos: Sequence[Path | Embedded]
) -> None:
    """Stop before a file that is there would be lost.

    What an interrupted conversion left is no hindrance: the same photo under its name, and a mask,
    which no list names.

    Raises:
        DataError: it has a pair of one of the names, or keeps its pairs elsewhere.
    """
    if root.exists() and not root.is_dir():
        raise DataError(f"{root}: is a file, expected a folder to make or to add to.")
    if present and (present.images, present.masks) != ("images", "masks"):
        raise DataError(
            f"{root / FILE_NAME}: has photos and masks in {present.images}/ and {present.masks}/; "
            "convert into a folder of its own."
        )
    if not root.exists():
        return
    taken = None if present is None else _listed_names(root, present)
    for name, photo in zip(names, photos, strict=True):
        pictures, masks = (_same_stem(root / kind / name) for kind in ("images", "masks"))
        is_listed = taken is None or name in taken
        others = [there for there in pictures if not _is_same(photo, there)]
        if present is not None and is_listed:
            others += masks
        if others:
            raise DataError(
                f"{others[0]}: exists already; photo names must differ between all splits."
            )


def _listed_names(root: Path, present: Description) -> set[str] | None:
    """Return the names in the lists of the splits; None where something else makes them."""
    names: set[str] = set()
    for rule in present.splits.values():
        if not isinstance(rule, str) or not (root / rule).is_file():
            return None
        names.update(line.strip() for line in read_text(root / rule).splitlines())
    return names


def _same_stem(path: Path) -> list[Path]:
    found = (path.with_name(path.name + suffix) for suffix in sorted(PHOTO_SUFFIXES))
    return [candidate for candidate in found if os.path.lexists(candidate)]


def _is_same(photo: Path | Embedded, there: Path) -> bool:
    """Return whether ``there`` is the photo itself, or a copy of it."""
    if isinstance(photo, Embedded):
        return False
    try:
        return photo.samefile(there) or (
            not there.is_symlink() and filecmp.cmp(photo, there, shallow=False)
        )
    except OSError:
        return False


class Staging:
    """A folder beside the one to be made, which takes its place when all is done.

    Where the one to be made is there already, it is inside that: what is beside may be another
    disk, or nobody's to write to. Leaving the block without :meth:`finish` removes it: nothing is
    left and nothing was touched.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._new = not root.exists()
        self._folder = name_partial(root if self._new else root / "convert")

    def __enter__(self) -> Staging:
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            sweep(self._folder.parent)
            for kind in ("images", "masks"):
                (self._folder / kind).mkdir(parents=True)
        except OSError as error:
            raise self._failed(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"output: cannot write {self._root}: {error.strerror or error}.")

    def add(
        self, name: str, photo: Path | Embedded, data: bytes | None, label: UInt8, palette: UInt8
    ) -> Written:
        """Write one pair; a photo that lies at its place already stays there."""
        mask = f"masks/{name}.png" if label.ndim == 2 else f"masks/{name}.tif"
        picture = f"images/{name}{_suffix(photo, data)}"
        files = [mask]
        for file in (mask, picture):
            (self._folder / file).parent.mkdir(parents=True, exist_ok=True)
        if label.ndim == 2:
            write_mask(self._folder / mask, label, palette)
        else:
            (self._folder / mask).write_bytes(encode_stack(label.transpose(2, 0, 1)))
        if data is not None:
            (self._folder / picture).write_bytes(data)
            files.append(picture)
        elif isinstance(photo, Path) and not _lies_at(photo, self._root / picture):
            shutil.copyfile(photo, self._folder / picture)
            files.append(picture)
        return Written(name, tuple(files))

    def finish(
        self,
        description: Description,
        lists: Mapping[str, Sequence[str]],
        written: Sequence[Written],
    ) -> None:
        """Write lists and description, and move everything to its place.

        Raises:
            DataError: a file of another content is there.
        """
        for split, names in lists.items():
            text = "\n".join(names) + "\n"
            (self._folder / f"{split}.txt").write_text(text, "utf-8", "surrogateescape")
        splits = {**description.splits, **{split: f"{split}.txt" for split in lists}}
        write_description(self._folder / FILE_NAME, replace(description, splits=splits))
        if self._new:
            os.rename(self._folder, self._root)
            return
        files = [file for pair in written for file in pair.files]
        files += [f"{split}.txt" for split in lists]
        others = [f for f in files if not self._may_take(f)]
        if others:
            raise DataError(
                f"{self._root}: {listed(others)} exists already and is another one. Convert into "
                "a folder of its own."
            )
        self._move(files)

    def _may_take(self, file: str) -> bool:
        """Return whether a place is free, or holds the same file, of a run that was killed."""
        there = self._root / file
        return not os.path.lexists(there) or (
            not there.is_symlink()
            and there.is_file()
            and filecmp.cmp(self._folder / file, there, shallow=False)
        )

    def _move(self, files: Sequence[str]) -> None:
        """Move files into a folder that exists; the description, which names them, comes last."""
        moved: list[Path] = []
        try:
            for file in files:
                final = self._root / file
                new = not os.path.lexists(final)
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self._folder / file, final)
                if new:
                    moved.append(final)
            os.replace(self._folder / FILE_NAME, self._root / FILE_NAME)
        except BaseException:
            for final in moved:
                with contextlib.suppress(OSError):
                    final.unlink()
            raise


def _lies_at(photo: Path, place: Path) -> bool:
    try:
        return photo.samefile(place)
    except OSError:
        return False


def _suffix(photo: Path | Embedded, data: bytes | None) -> str:
    """Return the ending under which the folder's reader will find the photo."""
    if isinstance(photo, Path):
        suffix = photo.suffix.lower()
        if suffix in PHOTO_SUFFIXES:
            return suffix
        with open(photo, "rb") as file:
            data = file.read(16)
    start = data or b""
    return next((suffix for mark, suffix in _FORMATS.items() if start.startswith(mark)), ".png")
