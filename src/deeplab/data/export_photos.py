"""Find the photos that an export names, and name them in the folder to be made."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from deeplab.data.export import Embedded, listed
from deeplab.errors import DataError

_LONGEST_NAME = 200  # bytes of a part: file systems take 255, temporary names need some


def parts_of(name: str) -> tuple[str, ...]:
    """Return the folders and the file of a photo's name, whatever system or address it is from.

    Drives, hosts, "." and ".." are left out: only what follows can be found here.
    """
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", name):
        name = unquote(urlsplit(name).path)
    plain = re.sub(r"^[a-zA-Z]:", "", name.replace("\\", "/"))
    return tuple(part for part in plain.split("/") if part not in ("", ".", ".."))


class PhotoFinder:
    """Finds photos by the names that an export has for them, and remembers those it missed.

    Args:
        folders: where to look, in this order; ``images`` inside each is tried too.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = [*folders]
        self._missing: list[str] = []

    def find(self, name: str) -> Path | None:
        """Return the photo, or None: only its last part must agree, more is better."""
        path = self.look(name)
        if path is None:
            self.miss(name)
        return path

    def miss(self, name: str) -> None:
        """Remember that a photo is not there."""
        self._missing.append(name)

    def look(self, name: str, *, least: int = 1) -> Path | None:
        """Return the photo, or None, without remembering a miss.

        Args:
            name: as the export has it.
            least: how many of its last parts must agree.
        """
        parts = parts_of(name)
        for spelling in (parts, tuple(unquote(part) for part in parts)):
            for start in range(len(spelling) - least + 1):
                for folder in self._folders:
                    for place in (folder, folder / "images"):
                        candidate = place.joinpath(*spelling[start:])
                        if _is_file(candidate):
                            return candidate
        return None

    def check(self, source: Path) -> None:
        """Stop where photos were missed.

        Raises:
            DataError: the message has their count and the first names.
        """
        if self._missing:
            count = len(self._missing)
            what = "photo is" if count == 1 else "photos are"
            raise DataError(
                f"{source}: {count} {what} not in {' or '.join(map(str, self._folders))}: "
                f"{listed([repr(name) for name in self._missing])}. "
                "Name the folder of the photos (--images)."
            )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file system has
        return False


def name_photos(file_names: Sequence[str]) -> list[str]:
    """Return a name for each photo, without suffix, "/" between folders; all differ.

    Folders that all photos share are left out, others keep photos of one name apart. Where two
    names differ in their suffix alone it becomes a part of the name.

    Raises:
        DataError: a name is none, is too long, or occurs twice.
    """
    split = [_checked(name) for name in file_names]
    shared = 0
    folders = [parts[:-1] for parts in split]
    while folders and all(len(f) > shared and f[shared] == folders[0][shared] for f in folders):
        shared += 1
    kept = ["/".join(parts[shared:]) for parts in split]
    doubled = [name for name, count in Counter(kept).items() if count > 1]
    if doubled:
        raise DataError(
            f"photos: {listed(doubled)} occurs twice in the export; keep one annotation per photo."
        )
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in kept:
        by_stem[_stem(name).casefold()].append(name)
    names = [
        _stem(name) if len(by_stem[_stem(name).casefold()]) == 1 else _with_suffix(name)
        for name in kept
    ]
    if len(set(names)) < len(names):
        doubled = [name for name, count in Counter(names).items() if count > 1]
        raise DataError(f"photos: more than one would be called {listed(doubled)}; rename them.")
    return names


def _stem(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + (Path(last).stem or last)


def _with_suffix(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.replace(".", "_")


def _checked(name: str) -> tuple[str, ...]:
    """Return a photo's parts, fit for any file system and for a list of names."""
    parts = [part.strip() for part in parts_of(name)]
    if not parts or not all(parts):
        raise DataError(f"photos: {name!r} is no name of a photo.")
    if any(not character.isprintable() for character in "".join(parts)):
        raise DataError(f"photos: the name {name!r} has a control character; rename the photo.")
    if any(len(part.encode(errors="surrogateescape")) > _LONGEST_NAME for part in parts):
        raise DataError(f"photos: the name {name[:40]!r}… is too long; rename the photo.")
    return tuple("_" + part[1:] if part.startswith(".") else part for part in parts)


def check_unshared(photos: Iterable[Path | Embedded], file_names: Sequence[str]) -> None:
    """Stop where two entries of an export come to one file, as one of them is then wrong.

    Raises:
        DataError: the message names both entries and the file.
    """
    seen: dict[Path, str] = {}
    for photo, name in zip(photos, file_names, strict=True):
        if isinstance(photo, Embedded):
            continue
        if photo in seen:
            raise DataError(
                f"photos: '{seen[photo]}' and '{name}' are both found as {photo}. Put the photos "
                "into folders as the export names them (--images)."
            )
        seen[photo] = name
