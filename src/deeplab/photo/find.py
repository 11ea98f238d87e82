"""The pictures below a folder, and a count of everything that was passed over on the way."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deeplab.files import is_partial
from deeplab.photo.formats import VIDEO_SUFFIXES, describe_suffix, readable_suffixes

PassedOver = Mapping[str, int]
"""How many files of each kind (".txt", "hidden", …) were not looked at."""
_ASIDE = ("@eaDir", "#recycle", "__MACOSX")
"""What file servers and macOS put beside people's files: thumbnails, what was deleted, forks."""

_TEXTS = ("AUTHORS", "COPYING", "LICENCE", "LICENSE", "NOTICE", "README")
_LICENCES = "licences and the like"
_COMPANIONS = (".md", ".txt", _LICENCES)


@dataclass
class Listing:
    """What lies below a folder.

    Attributes:
        pictures: the files that end like pictures, sorted within each folder; and like videos,
            where those are wanted.
        passed_over: what else there was, by suffix or kind.
    """

    pictures: list[Path] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def list_pictures(
    folder: Path,
    *,
    leave_out: Container[Path] = (),
    videos: bool = False,
    arrays: bool = False,
) -> Listing:
    """Return every picture below ``folder``, linked folders included.

    Hidden files, links that lead nowhere, pipes and devices are passed over, and so is a folder
    that was met before, so that links in a circle end.

    Args:
        folder: where to begin.
        leave_out: resolved folders that are neither entered nor counted.
        videos: also return videos.
        arrays: also return ``.npy`` files, which networks for other pictures than photos take.
    """
    suffixes, found = readable_suffixes() | ({".npy"} if arrays else set()), Listing()
    for path in walk(folder, found.passed_over, leave_out=leave_out):
        if path.suffix.lower() in suffixes or (videos and is_video(path)):
            found.pictures.append(path)
        else:
            found.passed_over[_ending(path)] += 1
    return found


def is_video(path: Path) -> bool:
    """Return whether a file is called as a video; TypeScript's .ts is none."""
    suffix = path.suffix.lower()
    if suffix != ".ts":
        return suffix in VIDEO_SUFFIXES
    try:
        with path.open("rb") as file:
            return file.read(1) == b"G"  # every packet of an MPEG transport stream begins with it
    except OSError:
        return False


def walk(
    folder: Path, passed_over: Counter[str], *, leave_out: Container[Path] = ()
) -> Iterator[Path]:
    """Give every regular file below ``folder`` that is not hidden; count the others by kind."""
    met: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            place = os.stat(here)
            if (place.st_dev, place.st_ino) in met:
                passed_over["folders that were met before"] += 1
                continue
            met.add((place.st_dev, place.st_ino))
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:
            passed_over["folders that cannot be opened"] += 1
            continue
        below = []
        for entry in entries:
            kind = kind_of(Path(entry.path))
            if entry.name.startswith(".") or entry.name in _ASIDE:
                passed_over["hidden"] += 1
            elif kind == "folder":
                path = Path(entry.path)
                if not leave_out or path.resolve() not in leave_out:
                    below.append(path)
            elif kind == "file":
                yield Path(entry.path)
            else:
                passed_over[kind] += 1
        waiting += reversed(below)


def expand_pattern(pattern: str, passed_over: Counter[str]) -> list[Path]:
    """Return the files that match a pattern in which ``**`` stands for any number of folders.

    Folders among the matches are left alone; what is no file is counted.
    """
    parts = pattern.split("/")
    if "**" not in parts:
        files = []
        for match in map(Path, sorted(glob.glob(pattern))):
            kind = kind_of(match)
            if kind == "file":
                files.append(match)
            elif kind != "folder":
                passed_over[kind] += 1
        return files
    # glob follows links in a circle, each way through two of them anew; walk does not.
    at = parts.index("**")
    head = "/".join(parts[:at])
    roots = sorted(glob.glob(head)) if head else ["/" if at else "."]
    found: set[Path] = set()
    for root in filter(os.path.isdir, roots):
        for path in walk(Path(root), Counter()):
            if _matches(path.relative_to(root).parts, parts[at:]):
                found.add(path)
    return sorted(found)


def describe_passed_over(passed_over: PassedOver) -> str:
    """Return "3 .nef (a camera's raw files: export them as JPEG), 2 .txt", or an empty text."""
    parts = []
    for kind, count in sorted(passed_over.items(), key=lambda item: (-item[1], item[0])):
        cure = describe_suffix(kind)
        parts.append(f"{count} {kind}" + (f" ({cure})" if cure else ""))
    return ", ".join(parts)


def is_worth_telling(passed_over: PassedOver) -> bool:
    """Return whether more was passed over than the texts that usually stand beside photos."""
    return any(kind not in _COMPANIONS for kind in passed_over)


def _ending(path: Path) -> str:
    """Return what a file that is no picture is counted as."""
    if not path.suffix and path.name.upper() in _TEXTS:
        return _LICENCES
    return path.suffix.lower() or "without suffix"


def kind_of(path: Path) -> str:
    """Return "file", "folder", or what else stands there: "pipes and devices", …"""
    if is_partial(path.name):
        return "files in the making"
    try:
        mode = path.stat().st_mode
    except OSError:
        return "links that lead nowhere"
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "pipes and devices"


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a pattern."""
    if not patterns:
        return not names
    first, rest = patterns[0], patterns[1:]
    if first == "**":
        return any(_matches(names[start:], rest) for start in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], first) and _matches(names[1:], rest)
