"""Any folder of photos and masks.

    images/a.jpg       photos; subfolders are welcome
    masks/a.png        masks under the same names, or with something before or behind them
    dataset.toml       what the masks mean (see ``description.py``), or just
    labels.txt         the class names, one a line, in id order

Where the folders have other names, see ``discovery.py``; where the names of photos and masks
differ, ``pairing.py``. What was found so, and not said by anybody, is told as assumed.

Splits are, in this order: what ``[splits]`` says; the lists train.txt, val.txt, … beside
``images`` (or in ``splits/``); the folders images/train, images/val, …; and else every fifth pair,
chosen by a hash of its name, is "val" and the rest "train". "all" is every pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from deeplab.data.description import FILE_NAME, Description, Split, read_description
from deeplab.data.discovery import SPLITS, Place, find_places
from deeplab.data.label_maps import (
    read_class_dict,
    read_class_names,
    read_classes_csv,
    read_label_colors,
    read_labelmap,
)
from deeplab.data.mask_files import open_mask
from deeplab.data.masks import list_colours
from deeplab.data.overlapping import OverlappingDataset, locate_masks, read_white
from deeplab.data.pairing import Affixes, divide, find_affixes
from deeplab.data.sample import FileDataset, choose_split, list_pictures
from deeplab.data.split_rules import Member, SplitRules
from deeplab.errors import DataError
from deeplab.photo import find as photo_files
from deeplab.photo.band_pictures import count_channels, count_shades

NAME = "folder"
LOOKS_FOR = f"images/ and masks/ with {FILE_NAME} or labels.txt"

VALIDATION_SHARE = 0.2
"""The share of pairs that becomes "val" where nobody has said what should."""

NAME_FILES = {
    "labels.txt": read_class_names, "classes.txt": read_class_names,
    "class_names.txt": read_class_names, "codes.txt": read_class_names,
    "labelmap.txt": read_labelmap, "label_colors.txt": read_label_colors,
    "class_dict.csv": read_class_dict, "_classes.csv": read_classes_csv,
}  # fmt: skip
"""The files that say what the classes are, and what reads them."""

_LIST_FOLDERS = (".", "splits", "lists", "ImageSets/Segmentation")
_LOOKED_AT, _FEW_SHADES = 8, 32
"""So many pictures of 16 bits tell whether they are photos; as such these would keep too few of 256
shades of grey. Scanners and thermal cameras of 12 bits write 16."""

_DEFAULT = Description(classes=("any",))


@dataclass
class _Found:
    """The pairs of a folder, by key: the common part of the two names.

    Attributes:
        photos, masks: by key; every photo has a mask, though its file may be missing.
        spellings: how lists may call a photo -> its key.
        folders: the folder of each split, where folders make them.
        orphans, passed_over, assumed: see :class:`FileDataset`.
    """

    photos: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, Path] = field(default_factory=dict)
    spellings: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    orphans: list[Path] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    assumed: list[str] = field(default_factory=list)


def find(root: Path) -> Path | None:
    """Return ``root`` when it has a dataset.toml, or photos and masks with the names of classes."""
    if (root / FILE_NAME).is_file() or ((root / "images").is_dir() and (root / "masks").is_dir()):
        return root
    places = find_places(root)
    return root if _names_file(root) and any(_has_masks(root, place) for place in places) else None


def _has_masks(root: Path, place: Place) -> bool:
    """Return whether some of the pictures of a place are masks; photos alone are no data set."""
    if place.images != place.masks:
        return True
    folder = root / place.images
    try:
        return bool(divide(photo_files.list_pictures(folder).pictures, folder, None)[1])
    except DataError:  # there are several masks for each photo; opening it says so
        return True


def splits(root: Path) -> tuple[str, ...]:
    """Return the names of the splits, "all" last."""
    description = describe(root)
    return (*_rules(root, description, _find_pairs(root, description)), "all")


def open_split(root: Path, split: str) -> FileDataset:
    """Return one split.

    Raises:
        DataError: there is no such split, it is empty, there is no photo, no description, or it is
            wrong.
    """
    description = describe(root)
    found = _find_pairs(root, description)
    rules = _rules(root, description, found)
    split = _choose(split, rules, root)
    members = SplitRules(rules, root, found.photos, found.spellings).members(split)
    channels = description.channels or _find_channels(found)
    ids = tuple(member.key for member in members)
    if description.overlap:
        kind: type[FileDataset] = OverlappingDataset
        masks = locate_masks(root, description, ids, found.assumed)
    else:
        kind = FileDataset
        masks = tuple(_mask_of(member, found, root, description) for member in members)
    dataset = kind(
        layout=NAME,
        root=root,
        split=split,
        labels=description.labels(),
        encoding=description.mask_encoding(),
        ids=ids,
        images=tuple(_photo_of(member, found, root, description) for member in members),
        masks=masks,
        orphans=tuple(found.orphans),
        passed_over=found.passed_over,
        assumed=tuple(found.assumed),
        channels=channels,
        rgb=description.rgb,
    )
    if isinstance(dataset, OverlappingDataset) and not description.values:
        return read_white(dataset)
    return dataset


def _find_channels(found: _Found) -> int:
    """Return how many channels the pictures have where they are plainly no photos, else 0."""
    first = next(iter(found.photos.values()))
    channels = count_channels(first)
    why = "is no photo"
    if not channels:
        shades = count_shades(list(islice(found.photos.values(), _LOOKED_AT)))
        if shades and shades[1] < shades[2] and shades[0] < _FEW_SHADES:
            channels = 1
            why = f"holds 16 bits; {shades[1]} to {shades[2]} is too little of them for a photo"
    if channels:
        found.assumed.append(
            f"pictures of {channels} channel{'s' * (channels != 1)} in their own numbers, as "
            f"{first.name} {why}"
        )
    return channels


def _photo_of(member: Member, found: _Found, root: Path, description: Description) -> Path:
    if member.key in found.photos:
        return found.photos[member.key]
    named = root / member.photo
    if member.photo and named.is_file():
        return named
    return root / description.images / f"{member.key}.jpg"  # is missing; the doctor says so


def _mask_of(member: Member, found: _Found, root: Path, description: Description) -> Path:
    if member.mask:
        return root / member.mask
    return found.masks.get(member.key, root / description.masks / f"{member.key}.png")


# -- photos and masks ----------------------------------------------------------------------------


def _find_pairs(root: Path, description: Description) -> _Found:
    found = _Found()
    places = _places(root, description, found)
    for place in places:
        folder = place.images.split("/")[0] if place.split else ""
        if place.split:
            found.folders[place.split] = folder
        _add_pairs(root, place, f"{folder}/" if folder else "", description, found)
    if not found.photos:
        where = ", ".join(str(root / place.images) for place in places)
        there = photo_files.describe_passed_over(found.passed_over)
        raise DataError(
            f"{where}: there are no photos." + (f" Passed over: {there}." if there else "")
        )
    if not found.folders:
        images = root / places[0].images
        for split, spellings in SPLITS.items():
            inside = [name for name in spellings if (images / name).is_dir()]
            if inside:
                found.folders[split] = inside[0]
    found.photos = dict(sorted(found.photos.items(), key=lambda item: Path(item[0])))
    return found


def _places(root: Path, description: Description, found: _Found) -> tuple[Place, ...]:
    stated = Place(description.images, description.masks)
    usual = Place(_DEFAULT.images, _DEFAULT.masks)
    missing = [name for name in (stated.images, stated.masks) if not (root / name).is_dir()]
    if not missing:
        return (stated,)
    places = find_places(root) if stated == usual else ()
    if not places:
        raise DataError(f"{root}: there is no folder {missing[0]}/.")
    for place in places:
        where = f"photos and masks in {place.images or '.'}/"
        if place.images != place.masks:
            where = f"photos in {place.images}/, masks in {place.masks}/"
        found.assumed.append(where)
    return places


def _add_pairs(
    root: Path, place: Place, prefix: str, description: Description, found: _Found
) -> None:
    """Add the pairs of one place; ``prefix`` stands before their keys."""
    where, truth = root / place.images, root / place.masks
    affixes = description.affixes
    if place.images == place.masks:
        listing = photo_files.list_pictures(where)
        photos, masks, affixes = divide(listing.pictures, where, affixes)
        for suffix in (".txt", ".csv", ".toml", ".json", ".xml"):  # lists, names and annotations
            listing.passed_over.pop(suffix, None)
        found.passed_over.update(listing.passed_over)
        if not photos and listing.pictures:
            raise DataError(
                f"{where}: nothing tells its photos from its masks. Say in {FILE_NAME} how the "
                'masks are called: mask_suffix = "_mask" where the mask of a.jpg is a_mask.png.'
            )
    else:
        photos = list_pictures(where, found.passed_over, arrays=_has_arrays(where, description))
        # Those of overlapping classes are found one by one, see ``overlapping.py``.
        masks = {} if description.overlap else list_pictures(truth, found.passed_over)
        affixes = affixes or find_affixes(photos, masks, truth)
    if description.affixes is None and affixes != Affixes():
        found.assumed.append(str(affixes))
    keys = {}
    for name, path in photos.items():
        key = affixes.key_of_photo(name)
        if key is None:
            found.passed_over[f"photos that are not called {affixes.photo_pattern}"] += 1
            continue
        keys[key] = prefix + key
        found.photos[prefix + key] = path
        found.spellings[name] = found.spellings[prefix + name] = prefix + key
        found.masks[prefix + key] = truth / f"{affixes.mask_name(key)}.png"
    for name, path in masks.items():
        key = affixes.key_of_mask(name)
        if key is None:
            found.passed_over[f"masks that are not called {affixes.mask_pattern}"] += 1
        elif key in keys:
            found.masks[keys[key]] = path
        else:
            found.orphans.append(path)


def _has_arrays(folder: Path, description: Description) -> bool:
    """Return whether ``.npy`` files are the pictures: something says so, or there are no others."""
    return bool(description.channels) or not photo_files.list_pictures(folder).pictures


# -- what the masks mean -------------------------------------------------------------------------


def describe(root: Path) -> Description:
    """Return what the files in ``root`` say of the classes and the masks.

    Raises:
        DataError: there is none, or it is wrong.
    """
    names = _names_file(root)
    beside = None if names is None else _read_names(names)
    if (root / FILE_NAME).is_file():
        return read_description(root / FILE_NAME, beside=beside)
    if beside is None:
        raise DataError(
            f"{root}: nothing says what the masks mean. Write the class names into labels.txt, "
            f"one a line, in id order (or write a {FILE_NAME}).{_first_values(root / 'masks')}"
        )
    return beside


def _names_file(root: Path) -> Path | None:
    """Return the file with the names of the classes: in the root, or beside photos and masks."""
    for name in NAME_FILES:
        if (root / name).is_file():
            return root / name
    for place in find_places(root):
        for name in NAME_FILES:
            if (root / place.images / name).is_file():
                return root / place.images / name
    return None


def _read_names(path: Path) -> Description:
    known = NAME_FILES[path.name](path)
    labels, encoding = known.labels, known.encoding
    background = "" if labels.background is None else labels.names[labels.background]
    return Description(
        classes=labels.names,
        values=encoding.values,
        ignore=encoding.ignore,
        colours=encoding.colours,
        ignore_colours=encoding.ignore_colours,
        encoding="colour" if encoding.by_colour else "value",
        background=background,
    )


def _first_values(folder: Path) -> str:
    """Return what the first mask holds, to help with writing the names down."""
    first = next(iter(list_pictures(folder).items()), None) if folder.is_dir() else None
    if first is None:
        return ""
    mask = open_mask(first[1])
    if mask.grey is None:
        return f" {first[1].name} is an RGB picture. {list_colours(mask)} Write {FILE_NAME}."
    values = [int(value) for value in np.unique(mask.grey)]
    some = ", ".join(map(str, values[:12])) + (", …" if len(values) > 12 else "")
    return f" {first[1].name} holds the values {some}."


# -- splits --------------------------------------------------------------------------------------


def _rules(root: Path, description: Description, found: _Found) -> Mapping[str, Split]:
    if description.splits:
        return description.splits
    for folder in _LIST_FOLDERS:
        lists = {
            split: f"{folder}/{spelling}.txt".removeprefix("./")
            for split, spellings in SPLITS.items()
            for spelling in spellings
            if (root / folder / f"{spelling}.txt").is_file()
        }
        if lists:
            return lists
    if found.folders:
        return dict(found.folders)
    return {"train": 1 - VALIDATION_SHARE, "val": VALIDATION_SHARE}


def _choose(split: str, rules: Mapping[str, Split], root: Path) -> str:
    """Return the split that is meant; "val", "valid" and "validation" are one.

    Raises:
        DataError: there is none; the message has the line to write.
    """
    known = (*rules, "all")
    for spellings in SPLITS.values():
        if split in spellings and split not in known:
            split = next((name for name in spellings if name in known), split)
    return choose_split(split, known, root)
