"""Data sets in shards: WebDataset's tars, and the parquet tables of Hugging Face's ``datasets``.

    pets/000.tar 001.tar …        or train-000.tar, val-000.tar, or in folders train/, val/
    pets/labels.txt               the names of the classes, one a line; or a dataset.toml

    pets/data/train-00000-of-00002.parquet    validation-…, test-…
    pets/labels.txt                           or id2label.json

A training takes pictures in any order, and shards are read from front to back: so they are unpacked
once, into the cache, and what is there is read as any folder is, with the same order and the same
resume. ``pets/{000..009}.tar`` and ``pets/*.tar`` are some of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from deeplab import zoo
from deeplab.data import folder
from deeplab.data.description import FILE_NAME
from deeplab.data.discovery import SPLITS, find_places
from deeplab.data.packed import Packed, read_shard
from deeplab.data.sample import FileDataset
from deeplab.errors import DataError

NAME = "shards"
LOOKS_FOR = "*.tar (WebDataset) or *.parquet (Hugging Face) with labels.txt beside them"

_SUFFIXES = (".tar", ".parquet")
_VERSION = 2  # of what unpacked shards look like
_NOTES = "shards.json"
_ID2LABEL = "id2label.json"
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def names_shards(path: str | PurePath) -> bool:
    """Return whether a path is that of a shard, or a pattern of shards."""
    return str(path).endswith(_SUFFIXES)


def find(root: Path) -> Path | None:
    """Return ``root`` when it has shards and no photos, or is one or a pattern of them."""
    if names_shards(root) and not root.is_dir():
        return root
    return root if _below(root) and not find_places(root) else None


def splits(root: Path) -> tuple[str, ...]:
    """Return the names of the splits, "all" last."""
    return folder.splits(_unpacked(root))


def open_split(root: Path, split: str) -> FileDataset:
    """Return one split, unpacked.

    Raises:
        DataError: a shard is missing, damaged or cut off; nothing says what the classes are; there
            is no such split; or there is no room.
        MissingExtraError: of tables, pyarrow is not installed.
    """
    place = _unpacked(root)
    found = folder.open_split(place, split)
    notes = json.loads((place / _NOTES).read_text("utf-8"))
    passed_over = Counter(found.passed_over) + Counter(notes["passed_over"])
    return dataclasses.replace(found, layout=NAME, root=root, passed_over=passed_over)


def _below(root: Path) -> list[Path]:
    """Return the shards in a folder and one below it, sorted."""
    some = itertools.chain.from_iterable(root.glob(at) for at in ("*", "*/*"))
    return sorted(
        path for path in some if path.suffix in _SUFFIXES and not path.name.startswith(".")
    )


def _list_shards(root: Path) -> tuple[Path, list[Path]]:
    """Return the folder of shards, and those that are meant.

    Raises:
        DataError: some are missing, or there are tars and tables.
    """
    if root.is_dir():
        home, shards = root, _below(root)
    else:
        home, names = root.parent, list(_expand(root.name))
        if _BRACES.search(str(home)) or set("*?[") & {*str(home)}:
            raise DataError(f"{root}: only the last part may be a pattern.")
        shards = []
        for name in names:
            shards += sorted(home.glob(name)) if set("*?[") & {*name} else [home / name]
        missing = [path for path in shards if not path.is_file()]
        if missing or not shards:
            first = missing[0] if missing else root
            raise DataError(
                f"{root}: {len(missing) or 'all'} of {len(shards) or 'the'} shards are not there: "
                f"{first}."
            )
    kinds = {path.suffix for path in shards}
    if len(kinds) > 1:
        raise DataError(f"{root}: has .tar and .parquet; say which: {root}/*.tar.")
    return home, shards


def _expand(name: str) -> Iterator[str]:
    """Yield the names that braces stand for: {000..009}, {a,b}.

    Source: the notation of the braceexpand package, as webdataset uses it.
    """
    match = _BRACES.search(name)
    if match is None:
        yield name
        return
    bounds = _RANGE.fullmatch(match[1])
    if bounds:
        width = len(bounds[1]) if len(bounds[1]) == len(bounds[2]) else 0
        first, last = int(bounds[1]), int(bounds[2])
        step = 1 if last >= first else -1
        choices = [f"{number:0{width}}" for number in range(first, last + step, step)]
    else:
        choices = match[1].split(",")
    for choice in choices:
        yield from _expand(f"{name[: match.start()]}{choice}{name[match.end() :]}")


# -- unpacking -----------------------------------------------------------------------------------


def _unpacked(root: Path) -> Path:
    """Return a folder of photos and masks with what is in the shards; made where it is not there.

    Raises:
        DataError: see :func:`open_split`.
    """
    home, shards = _list_shards(root)
    described = _descriptions(home, shards)
    if not described:
        raise DataError(
            f"{root}: nothing says what the classes are. Write their names into "
            f"{home / 'labels.txt'}, one a line, in id order."
        )
    states = [(str(path), path.stat()) for path in (*shards, *described)]
    print_ = "\0".join(f"{name}\0{at.st_size}\0{at.st_mtime_ns}" for name, at in states)
    digest = hashlib.sha256(f"{_VERSION}\0{print_}".encode("utf-8", "surrogateescape")).hexdigest()
    where = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()
    of_set = zoo.home() / "shards" / where[:16]
    place = of_set / digest[:16]
    if place.is_dir():
        return place
    of_set.mkdir(parents=True, exist_ok=True)
    with _alone(of_set):
        if not place.is_dir():  # another process may have made it in the meantime
            for old in of_set.iterdir():  # of shards that have changed, or cut off
                if old.is_dir():
                    shutil.rmtree(old)
            _check_room(root, shards, of_set)
            with tempfile.TemporaryDirectory(dir=of_set, prefix=".partial-") as name:
                made = Path(name) / "made"
                _unpack(made, home, shards)
                for path in described:
                    _copy_description(path, made)
                made.rename(place)
    return place


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from unpacking the same, where folders can be locked."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _check_room(root: Path, shards: Sequence[Path], where: Path) -> None:
    needed, free = sum(path.stat().st_size for path in shards), shutil.disk_usage(where).free
    if needed > free:
        raise DataError(
            f"{root}: {needed / 1e9:.1f} GB are to be unpacked, and {where} has room for "
            f"{free / 1e9:.1f}; name another folder in DEEPLAB_HOME."
        )


def _unpack(made: Path, home: Path, shards: Sequence[Path]) -> None:
    names = {path: path.relative_to(home).with_suffix("") for path in shards}
    of_split = {path: _split_of(name) for path, name in names.items()}
    if any(of_split.values()) and not all(of_split.values()):
        some = next(path for path, split in of_split.items() if not split)
        raise DataError(
            f"{some}: other shards are called by their split, such as train-000, and this one is "
            "not; rename it, or say which shards are meant."
        )
    passed_over: Counter[str] = Counter()
    for path in shards:
        split, name = of_split[path], names[path]
        if split and name.parts[0] != split:
            name = Path(split) / (name.name if len(name.parts) > 1 else name)
        for pair in read_shard(path, passed_over):
            for kind, packed in (("images", pair.photo), ("masks", pair.mask)):
                if packed is not None:
                    _write(made / kind / name / pair.key, packed, path)
    if not (made / "images").is_dir():
        raise DataError(f"{home}: there are no photos in its {len(shards)} shards.")
    (made / "masks").mkdir(exist_ok=True)
    (made / _NOTES).write_text(json.dumps({"passed_over": passed_over}), "utf-8")


def _write(base: Path, packed: Packed, shard: Path) -> None:
    """Write one picture.

    Raises:
        DataError: another shard has one of this name already, or no file can be called so.
    """
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        with base.with_name(base.name + packed.suffix).open("xb") as file:
            file.write(packed.data)
    except FileExistsError:
        raise DataError(
            f"{shard}: another shard that is called so, in another folder or spelling, has its "
            f"{base.name}{packed.suffix} already; name the folder of one of them."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{shard}: {ascii(base.name + packed.suffix)[:80]} cannot be unpacked ({reason})."
        ) from None


def _split_of(name: Path) -> str:
    """Return the split that the name of a shard begins with, or its folder has; else nothing."""
    for part in (name.parts[0], name.name):
        word = re.split(r"[-_.\d]", part.lower(), maxsplit=1)[0]
        for split, spellings in SPLITS.items():
            if word in spellings:
                return split
    return ""


def _descriptions(home: Path, shards: Sequence[Path]) -> list[Path]:
    """Return the files that say what the classes are, beside the shards or above them."""
    places = dict.fromkeys((home, shards[0].parent, home.parent)) if shards else {home: None}
    for place in places:
        found = [place / name for name in (FILE_NAME, *folder.NAME_FILES, _ID2LABEL)]
        if there := [path for path in found if path.is_file()]:
            return there
    return []


def _copy_description(path: Path, made: Path) -> None:
    if path.name != _ID2LABEL:
        shutil.copyfile(path, made / path.name)
        return
    if any((made / name).is_file() for name in (FILE_NAME, *folder.NAME_FILES)):
        return
    try:
        stored = json.loads(path.read_text("utf-8"))
        names = {int(index): name for index, name in stored.items()}
    except (ValueError, AttributeError, RecursionError):
        raise DataError(f'{path}: expected the names by id: {{"0": "wall", …}}.') from None
    for index, name in names.items():
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise DataError(f"{path}: the name of {index} is {name!r}, expected one line of text.")
    if len(names) < len(stored) or sorted(names) != list(range(len(names))):
        raise DataError(
            f"{path}: expected the ids 0 to {len(names) - 1}, each once; write a {FILE_NAME}."
        )
    lines = "".join(f"{names[index]}\n" for index in range(len(names)))
    (made / "labels.txt").write_text(lines, "utf-8")
