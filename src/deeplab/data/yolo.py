"""YOLO segmentation: a data.yaml (or classes.txt), photos, and a text file of outlines for each.

    data.yaml           names, and the folders or lists of train, val and test
    images/train/a.jpg  or train/images/a.jpg
    labels/train/a.txt  one thing a line: class, then x y of each corner in shares of the photo

Source: docs.ultralytics.com, "Instance Segmentation Datasets Overview"; ultralytics/ultralytics,
data/utils.py (``img2label_paths``, ``verify_image_label``); what Roboflow, CVAT and Label Studio
write under that name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from deeplab.data.export import (
    Annotated,
    Drawing,
    Export,
    Region,
    Request,
    largest_first,
    listed,
    unique,
)
from deeplab.data.fields import UnreadableError, naming, number, sequence, shown, text, whole
from deeplab.data.sample import PHOTO_SUFFIXES
from deeplab.data.shapes import Box, Patch, Size, from_share, polygon_patch
from deeplab.errors import DataError, MissingExtraError

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_CLASSES = "classes.txt"
_NOT_OUTLINES = ("classes", "readme", "train", "val", "test")
_OVER = 0.01
"""Shares may leave the photo by rounding, not by more."""


def find_yolo(folder: Path, request: Request) -> Path | None:
    """Return the file that describes a YOLO data set in ``folder``."""
    for path in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
        content = _parse(path, request) if path.is_file() else None
        if isinstance(content, dict) and "names" in content:
            return path
    classes = folder / _CLASSES
    return classes if classes.is_file() and (folder / "labels").is_dir() else None


def read_yolo(path: Path, request: Request) -> Export:
    """Read the data set that ``path``, a data.yaml or classes.txt, describes.

    Args:
        path: the description.
        request: its ``images`` takes the place of the folders that ``path`` names.

    Raises:
        DataError: the description is not complete, a photo it names is not there, or outlines
            belong to no photo.
        MissingExtraError: PyYAML is not installed.
    """
    with naming(path, "YOLO data set"):
        names, photos = _described(path, request)
        drawings: list[Annotated] = []
        labelled: list[Path] = []
        seen: set[Path] = set()
        again: list[str] = []
        for photo, called, split in photos:
            if photo in seen:
                again.append(split)
                continue
            seen.add(photo)
            labels = _label_path(photo)
            labelled.append(labels)
            lines = request.text(labels).splitlines() if labels.is_file() else []
            regions = partial(_regions, labels.name, lines, names)
            drawings.append(Drawing(photo, called, None, regions, split))
    return Export(
        "YOLO", unique(names), tuple(drawings), notes=_check_labels(path, labelled, again)
    )


def _described(path: Path, request: Request) -> tuple[list[str], list[tuple[Path, str, str]]]:
    """Return the class names, and (file, name, split) of every photo."""
    if path.name == _CLASSES:
        names = [line.strip() for line in request.text(path).splitlines() if line.strip()]
        found = _pictures(request.images or path.parent / "images")
        return names, [(photo, name, "") for photo, name in found]
    content = _parse(path, request)
    if not isinstance(content, dict) or "names" not in content:
        raise DataError(f"{path}: has no 'names'; it is no data.yaml of a YOLO data set.")
    if "masks_dir" in content:
        raise DataError(
            f"{path}: is of masks, not of outlines. Write a dataset.toml: classes = […], "
            f'images = "…", masks = "{content["masks_dir"]}".'
        )
    names = _names(content["names"])
    if "nc" in content and whole(content["nc"], "nc") != len(names):
        raise DataError(f"{path}: nc is {content['nc']}, but there are {len(names)} names.")
    return names, _photos(path, content, request)


def _check_labels(path: Path, labelled: Sequence[Path], again: Sequence[str]) -> tuple[str, ...]:
    """Return what is to be said of the files of outlines.

    Raises:
        DataError: there is none, or some belong to no photo.
    """
    missing = [labels for labels in labelled if not labels.is_file()]
    if labelled and len(missing) == len(labelled):
        raise DataError(
            f"{path}: no photo has a file of outlines; {missing[0]} is one that was looked for."
        )
    strays = _strays(set(labelled))
    if strays:
        raise DataError(
            f"{path}: {len(strays)} files of outlines belong to no photo: "
            f"{listed([stray.name for stray in strays])}. Put their photos back, or delete them."
        )
    notes = []
    if missing:
        notes.append(f"{len(missing)} photos have no file of outlines: they are background")
    if again:
        notes.append(
            f"{len(again)} photos of {', '.join(unique(again))} are in another split already and "
            "stay there"
        )
    return tuple(notes)


def _strays(labelled: set[Path]) -> list[Path]:
    """Return the files of outlines that lie beside those of the photos and belong to none."""
    there = {p for folder in {p.parent for p in labelled} for p in folder.glob("*.txt")}
    return [p for p in sorted(there - labelled) if not p.name.lower().startswith(_NOT_OUTLINES)]


def _parse(path: Path, request: Request) -> Any:
    try:
        import yaml
    except ImportError:
        raise MissingExtraError("Reading YOLO's data.yaml", package="yaml", extra="train") from None
    try:
        return yaml.safe_load(request.text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not YAML ({' '.join(str(error).split())}).") from None


def _names(value: Any) -> list[str]:
    """Return the class names by id; they are a list, or {0: name, …}."""
    if isinstance(value, dict):
        by_id = {whole(key, "the number of a name"): name for key, name in value.items()}
        if sorted(by_id) != list(range(len(by_id))):
            raise UnreadableError(f"has names for the classes {sorted(by_id)}, expected 0, 1, 2, …")
        value = [by_id[index] for index in range(len(by_id))]
    names = [text(name, "a name") for name in sequence(value, "names")]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UnreadableError(f"has the names {listed(doubled)} twice")
    return names


def _photos(path: Path, content: dict[str, Any], request: Request) -> list[tuple[Path, str, str]]:
    """Return (file, name, split) of the photos of every split that the description names."""
    if request.images is not None:
        return [(photo, name, "") for photo, name in _pictures(request.images)]
    found: list[tuple[Path, str, str]] = []
    for key, split in _SPLITS.items():
        value = content.get(key)
        for place in value if isinstance(value, list) else [value]:
            if place is not None:
                photos = _at(path, content.get("path"), text(place, key), split, request)
                found += [(photo, name, split) for photo, name in photos]
    if not found:
        raise DataError(f"{path}: names no folder with photos (train, val, test).")
    return found


def _at(path: Path, root: Any, value: str, split: str, request: Request) -> list[tuple[Path, str]]:
    """Return the photos of a folder or a list of names; only what lies at the data set counts.

    Paths inside a data.yaml are of the machine that wrote it: their last folders are looked for
    at the description, as Roboflow's "../train/images" needs it.
    """
    parts = [part for part in value.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    bases = [path.parent]
    if isinstance(root, str) and root.strip() not in ("", "."):
        bases.append(path.parent / root)
    for start in range(len(parts)):
        for base in bases:
            place = base.joinpath(*parts[start:])
            if place.is_dir():
                return [(file, f"{split}/{name}") for file, name in _pictures(place)]
            if place.is_file() and place.suffix == ".txt":
                return _listed(place, request.text(place), bases, split)
    if split == "test":  # Roboflow names one that it does not always write
        return []
    raise DataError(f"{path}: {split}: there is no {value}, as seen from {path.parent}.")


def _listed(
    listing: Path, content: str, bases: Iterable[Path], split: str
) -> list[tuple[Path, str]]:
    found = []
    for line in filter(None, map(str.strip, content.splitlines())):
        parts = [part for part in line.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        candidates = (base.joinpath(*parts[i:]) for i in range(len(parts)) for base in bases)
        photo = next((candidate for candidate in candidates if candidate.is_file()), None)
        if photo is None:
            raise DataError(f"{listing}: the photo {line!r} is not there.")
        # A folder that all photos share falls away later; others keep photos of one name apart.
        found.append((photo, f"{split}/{'/'.join(parts)}"))
    return found


def _pictures(folder: Path) -> list[tuple[Path, str]]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder of photos.")
    return [
        (path, path.relative_to(folder).as_posix())
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file()
    ]


def _label_path(photo: Path) -> Path:
    """Return the file of outlines: "images" in the photo's path is "labels" there, or beside it."""
    parts = list(photo.parts)
    beside = photo.with_suffix(".txt")
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            apart = Path(*parts[:place], "labels", *parts[place + 1 :]).with_suffix(".txt")
            return beside if beside.is_file() and not apart.is_file() else apart
    return beside


def _regions(file: str, lines: Sequence[str], names: Sequence[str], size: Size) -> list[Region]:
    """Return the things of one photo, the largest first, so that small ones stay in sight."""
    regions = []
    for index, line in enumerate(lines):
        values = line.split()
        if values:
            name = _class_name(values[0], names)
            fill = partial(_fill, values[1:])
            regions.append(Region(name, fill, f"{file} line {index + 1}", _box(values[1:], size)))
    return largest_first(regions, size)


def _class_name(value: str, names: Sequence[str]) -> str | None:
    try:
        index = whole(value, "class")
    except UnreadableError:
        return None
    return names[index] if 0 <= index < len(names) else None


def _numbers(values: Sequence[str]) -> list[float]:
    shares = [number(value, "an outline") for value in values]
    outside = [share for share in shares if not -_OVER <= share <= 1 + _OVER]
    if outside:
        raise UnreadableError(f"has {shown(outside[0])} in its outline, expected 0 to 1")
    return shares


def _box(values: Sequence[str], size: Size) -> Box | None:
    height, width = size
    try:
        shares = _numbers(values)
    except UnreadableError:
        return None
    if len(shares) == 4:
        x, y, wide, high = shares
        left, top = (x - wide / 2) * width, (y - high / 2) * height
        return left, top, left + wide * width - 1, top + high * height - 1
    xs, ys = shares[0::2], shares[1::2]
    return (min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height) if ys else None


def _fill(values: Sequence[str], size: Size) -> Patch:
    shares = _numbers(values)
    if len(shares) in (4, 5):
        raise UnreadableError("has no outline, only a box")
    if len(shares) % 2:
        raise UnreadableError(f"has an outline of {len(shares)} numbers, expected x y x y …")
    height, width = size
    corners = zip(shares[0::2], shares[1::2], strict=True)
    return polygon_patch(size, [(from_share(x, width), from_share(y, height)) for x, y in corners])
