"""Which photos are meant by what was typed: files, folders and patterns."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path, PurePath, PurePosixPath

from deeplab.cli.console import complain
from deeplab.cli.outputs import CLIP_SUFFIXES, LARGE_MASK, SUFFIXES
from deeplab.errors import DeepLabError, InputError, near_matches
from deeplab.photo.find import (
    describe_passed_over,
    expand_pattern,
    is_worth_telling,
    kind_of,
    list_pictures,
)
from deeplab.photo.formats import VIDEO_SUFFIXES, readable_suffixes
from deeplab.remote import store
from deeplab.remote.address import Address, Place, find_address
from deeplab.remote.copies import keep_file
from deeplab.zoo import home

Found = list[tuple[Place, PurePath]]
"""(photo, path relative to what was asked for) of every photo."""


def find_photos(
    sources: Sequence[str],
    *,
    output: Place | None,
    videos: bool = False,
    arrays: bool = False,
) -> tuple[Found, Counter[str]]:
    """Return every photo, sorted within folders, and how many files were passed over, by kind.

    Folders are searched to the bottom, but for hidden files and for ``output``. Where ``output``
    is the folder itself, earlier results beside their photo are no photos. With ``videos``, those
    are found too; with ``arrays`` ``.npy`` files, for networks of other pictures than photos.

    Raises:
        InputError: a path is empty or does not exist, a pattern matches nothing, or nothing that
            was named is a photo.
    """
    found: dict[Place, PurePath] = {}
    passed_over: Counter[str] = Counter()
    for source in sources:
        path = Path(source)
        if not source:
            raise InputError("photos: got an empty path; write . for the folder you are in.")
        address = find_address(source)
        if address is not None:
            found.update(_find_elsewhere(address, output, passed_over, videos))
        elif path.is_dir():
            photos = _in_folder(path, output, passed_over, videos=videos, arrays=arrays)
            found.update((photo, photo.relative_to(path)) for photo in photos)
        elif path.exists():
            if kind_of(path) == "file":
                found[path] = Path(path.name)
            else:
                passed_over[kind_of(path)] += 1
        elif files := expand_pattern(source, passed_over):
            found.update((file, Path(file.name)) for file in files)
        else:
            raise InputError(f"photos: there is no file or folder {source}.{_neighbours(path)}")
    if not found:
        where = f"the folder {sources[0]}" if len(sources) == 1 else ", ".join(sources)
        there = describe_passed_over(passed_over)
        raise InputError(
            f"photos: {where} has no pictures in it ({', '.join(sorted(readable_suffixes()))})."
            + (f" Passed over: {there}." if there else "")
        )
    return list(found.items()), passed_over


def find_and_tell(sources: Sequence[str], *, arrays: bool = False) -> list[Path]:
    """Return every photo, after saying on stderr what was passed over; copies of those elsewhere.

    Raises:
        InputError: as :func:`find_photos` does.
    """
    found, passed_over = find_photos(sources, output=None, arrays=arrays)
    if is_worth_telling(passed_over):
        complain(f"passed over: {describe_passed_over(passed_over)}")
    return [photo if isinstance(photo, Path) else keep_file(photo, home()) for photo, _ in found]


def takes_arrays(model: str | None, sources: Sequence[str]) -> bool:
    """Return whether ``.npy`` files in folders are pictures: there are some, and the model says so.

    One that cannot be opened does not; whoever opens it says what is wrong with it.
    """
    from deeplab.runtimes import describe
    from deeplab.weights.release import find_pair

    if model is None or find_address(model) is not None:
        return False
    path = find_pair(model) or Path(model)
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    if not path.is_file() or not any(next(one.rglob("*.npy"), None) for one in folders):
        return False
    try:
        return describe(path).card.spec.bands is not None
    except DeepLabError:
        return False


def _find_elsewhere(
    address: Address, output: Place | None, passed_over: Counter[str], videos: bool
) -> Found:
    """Return the photos at an address: of one file, of a pattern, or below a folder.

    A video is copied first, as it is read to and fro; those in folders are passed over.
    """
    if any(sign in str(address) for sign in "*[") and not address.scheme.startswith("http"):
        files = store.match(address)
        root = None
    elif address.scheme.startswith("http") or store.is_file(address):
        name = PurePosixPath(address.file_name)
        moving = videos and name.suffix.lower() in VIDEO_SUFFIXES
        return [(keep_file(address, home()) if moving else address, name)]
    else:
        files = list(store.list_files(address))
        root = address
    photos: Found = []
    bases = {file.with_name(name) for file in files for name in (file.name, file.stem)}
    for file in files:
        if output is not None and root != output and output in file.parents:
            continue
        if file.name.startswith("."):
            passed_over["hidden"] += 1
        elif file.suffix.lower() not in readable_suffixes():
            passed_over[file.suffix.lower() or "without suffix"] += 1
        elif root == output and _is_result(file, bases):
            passed_over["earlier results"] += 1
        else:
            photos.append((file, file.relative_to(root) if root else PurePosixPath(file.name)))
    if not files:
        raise InputError(f"photos: there is no file or folder {address}.")
    return photos


def _in_folder(
    folder: Path,
    output: Place | None,
    passed_over: Counter[str],
    *,
    videos: bool,
    arrays: bool,
) -> list[Path]:
    outside = output.resolve() if isinstance(output, Path) else None
    mixed = folder.resolve() == outside
    leave_out = () if mixed or outside is None else (outside,)
    listing = list_pictures(folder, leave_out=leave_out, videos=videos, arrays=arrays)
    passed_over.update(listing.passed_over)
    if not mixed:
        return listing.pictures
    bases = {
        photo.with_name(name) for photo in listing.pictures for name in (photo.name, photo.stem)
    }
    photos = [photo for photo in listing.pictures if not _is_result(photo, bases)]
    if len(photos) < len(listing.pictures):
        passed_over["earlier results"] += len(listing.pictures) - len(photos)
    return photos


def _is_result(path: Place, bases: Container[PurePath]) -> bool:
    """Return whether a file, or its folder, is called as what is written for one of ``bases``."""
    return any(
        place.name.endswith(end) and place.with_name(place.name[: -len(end)]) in bases
        for place in (path, path.parent)
        for end in (*SUFFIXES.values(), *CLIP_SUFFIXES.values(), LARGE_MASK)
        if len(place.name) > len(end)
    )


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f" The folder {path.parent} does not exist either."
    return near_matches(path.name, os.listdir(path.parent))
