"""Any folder of photos and masks.

    images/a.jpg       photos; subfolders are welcome
    masks/a.png        masks under the same names
    dataset.toml       what the masks mean (see ``description.py``), or just
    labels.txt         the class names, one a line, in id order

Splits are, in this order: what ``[splits]`` says; the lists train.txt, val.txt, … beside
``images`` (or in ``splits/``); the folders images/train, images/val, …; and else every fifth pair,
chosen by a hash of its name, is "val" and the rest "train". "all" is every pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deeplab.data.description import FILE_NAME, Description, Split, read_description
from deeplab.data.mask_files import open_mask
from deeplab.data.sample import FileDataset, choose_split, list_pictures
from deeplab.errors import DataError, InputError
from deeplab.labels import read_label_file

NAME = "folder"
LOOKS_FOR = f"images/ and masks/ with {FILE_NAME} or labels.txt"

VALIDATION_SHARE = 0.2
"""The share of pairs that becomes "val" where nobody has said what should."""

_LABELS = "labels.txt"
_USUAL_SPLITS = ("train", "val", "test", "valid", "validation", "trainval")


def find(root: Path) -> Path | None:
    """Return ``root`` when it has a dataset.toml, or images/ and masks/."""
    described = (root / FILE_NAME).is_file()
    plain = (root / "images").is_dir() and (root / "masks").is_dir()
    return root if described or plain else None


def splits(root: Path) -> tuple[str, ...]:
    """Return the names of the splits, "all" last."""
    return (*_splits(root, _describe(root)), "all")


def open_split(root: Path, split: str) -> FileDataset:
    """Return one split.

    Raises:
        DataError: there is no such split, no photo, no description, or it is wrong.
    """
    description = _describe(root)
    for folder in (description.images, description.masks):
        if not (root / folder).is_dir():
            raise DataError(f"{root}: there is no folder {folder}/.")
    photos = list_pictures(root / description.images)
    if not photos:
        raise DataError(f"{root / description.images}: there are no photos.")
    truth = list_pictures(root / description.masks)
    rules = _splits(root, description)
    choose_split(split, (*rules, "all"), root)
    names = _members(split, rules, root, list(photos))
    suffix = description.mask_suffix
    return FileDataset(
        layout=NAME,
        root=root,
        split=split,
        labels=description.labels(),
        encoding=description.mask_encoding(),
        ids=tuple(names),
        images=tuple(photos.get(name, root / description.images / f"{name}.jpg") for name in names),
        masks=tuple(
            truth.get(name + suffix, root / description.masks / f"{name}{suffix}.png")
            for name in names
        ),
        orphans=tuple(
            path for name, path in truth.items() if name.removesuffix(suffix) not in photos
        ),
    )


def _describe(root: Path) -> Description:
    path = root / FILE_NAME
    if path.is_file():
        return read_description(path)
    names = root / _LABELS
    if not names.is_file():
        raise DataError(
            f"{root}: nothing says what the masks mean. Write the class names into {_LABELS}, one "
            f"a line, in id order (or write a {FILE_NAME}).{_first_values(root / 'masks')}"
        )
    try:
        return Description(classes=read_label_file(names.read_text(encoding="utf-8")).names)
    except InputError as error:
        raise DataError(f"{names}: {error}") from None


def _first_values(folder: Path) -> str:
    """Return what the first mask holds, to help with writing the names down."""
    first = next(iter(list_pictures(folder).items()), None)
    if first is None:
        return ""
    mask = open_mask(first[1])
    if mask.pixels.ndim == 3:
        count = len(np.unique(mask.pixels.reshape(-1, 3), axis=0))
        return f" {first[1].name} is an RGB picture with {count} colours; list them in {FILE_NAME}."
    values = [int(value) for value in np.unique(mask.pixels)]
    some = ", ".join(map(str, values[:12])) + (", …" if len(values) > 12 else "")
    return f" {first[1].name} holds the values {some}."


def _splits(root: Path, description: Description) -> Mapping[str, Split]:
    if description.splits:
        return description.splits
    for folder in (root, root / "splits"):
        lists = {name: folder / f"{name}.txt" for name in _USUAL_SPLITS}
        found = {name: path for name, path in lists.items() if path.is_file()}
        if found:
            return {name: path.relative_to(root).as_posix() for name, path in found.items()}
    photos = root / description.images
    folders = {name: name for name in _USUAL_SPLITS if (photos / name).is_dir()}
    return folders or {"train": 1 - VALIDATION_SHARE, "val": VALIDATION_SHARE}


def _members(split: str, rules: Mapping[str, Split], root: Path, names: list[str]) -> list[str]:
    """Return the names in ``split``, in the order of its list, else sorted."""
    if split == "all":
        return names
    rule = rules[split]
    if isinstance(rule, float):
        return _drawn(rules, names)[split]
    if isinstance(rule, str) and (root / rule).is_file():
        lines = (root / rule).read_text(encoding="utf-8").splitlines()
        rule = tuple(line.strip() for line in lines if line.strip())
    elif isinstance(rule, str):
        inside = [name for name in names if name.startswith(f"{rule}/")]
        if not inside:
            raise DataError(
                f"splits.{split}: '{rule}' is neither a list in {root} nor a folder with photos."
            )
        return inside
    known = set(names)
    # A name without a photo stays in: reading it fails, and the doctor lists it.
    return [n if n in known else Path(n).with_suffix("").as_posix() for n in rule]


def _drawn(rules: Mapping[str, Split], names: list[str]) -> dict[str, list[str]]:
    """Deal the names out by share, in the order of a hash: stable, and blind to neighbours."""
    shares = {name: rule for name, rule in rules.items() if isinstance(rule, float)}
    if sum(shares.values()) > 1 + 1e-9:
        raise DataError(f"splits: the shares add up to {sum(shares.values()):g}, more than 1.")
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    dealt, start, total = {}, 0, 0.0
    for split, share in shares.items():
        total += share
        end = round(total * len(order))
        dealt[split] = sorted(order[start:end])
        start = end
    return dealt
