"""Turn exports of annotation tools into a plain folder of photos, masks and a dataset.toml.

    COCO JSON            polygons, run lengths, crowds; panoptic with its folder of PNGs
    labelme              a folder of JSON files, one per photo
    CVAT                 "CVAT for images" XML; "Segmentation mask" and "CamVid" are layouts
    YOLO segmentation    data.yaml, or classes.txt with images/ and labels/
    Label Studio         JSON and JSON-MIN: brush, bitmask, polygon, rectangle, ellipse
    Supervisely          a project, or one data set of it
    VIA                  JSON, CSV, project
    TFRecord             shards of the original's build_*_data.py
    folders              every layout that :mod:`deeplab.data.layouts` knows

Photos are divided into "train" and "val" unless the export or the caller says otherwise. Names and
faults are looked at first, everything is made in a folder of its own, and moved when it is whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from deeplab.data.conversion import Staging, Written, existing_names
from deeplab.data.convert_overlapping import Several, check_overlap, overlapping_classes
from deeplab.data.description import FILE_NAME, Description, read_description
from deeplab.data.division import divide, group_photos, usual_name
from deeplab.data.duplicates import Hash, perceptual_hash
from deeplab.data.export import (
    BACKGROUND,
    Annotated,
    Drawing,
    Embedded,
    Export,
    Painted,
    Request,
    ids_of,
    is_background,
    is_ignored,
    listed,
    path_of,
)
from deeplab.data.export_photos import check_unshared, name_photos
from deeplab.data.mask_files import UInt8
from deeplab.data.masks import IGNORE
from deeplab.data.recognise import read_export, read_shards
from deeplab.errors import DataError, ImageError, InputError
from deeplab.labels import LabelSet, open_labels, voc_colours
from deeplab.photo import images as photo_files

VALIDATION_SHARE = 0.2
"""The share of photos that is kept for judging where nobody has said what should."""

_SPLIT_NAME = re.compile(r"[^\W_][\w-]{0,63}\Z")
_TAKEN = ("all", "labels", "images", "masks", "dataset")
_HASHED_FROM = (64, 64)

_TURNS: Mapping[int, Callable[[UInt8], UInt8]] = {
    5: np.transpose,
    6: lambda label: np.rot90(label, -1),
    7: lambda label: np.rot90(label, 2).T,
    8: np.rot90,
}
"""EXIF orientation -> what turns a stored picture upright, for those that lie on their side."""


@dataclass(frozen=True)
class Conversion:
    """What was made.

    Attributes:
        root: the folder.
        splits: how many pairs each split got.
        classes: the class names, in id order.
        notes: what was assumed, left out or passed over, one sentence each.
    """

    root: Path
    splits: Mapping[str, int]
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many pairs were written."""
        return sum(self.splits.values())


def convert(
    source: str | PathLike[str] | Sequence[str | PathLike[str]],
    destination: str | PathLike[str],
    *,
    images: str | PathLike[str] | None = None,
    split: str | None = None,
    validation_share: float = VALIDATION_SHARE,
    seed: int = 0,
    skip_unreadable: bool = False,
    attribute: str | None = None,
    encoding: str | None = None,
    labels: LabelSet | str | PathLike[str] | None = None,
    overlap: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Write the export at ``source`` into the folder ``destination``.

    Args:
        source: a file or folder as in the module's text; of TFRecord also several shards.
        destination: a new folder, or one that an earlier call made.
        images: the folder of the photos, where they are not beside the annotations.
        split: the split that all photos belong to. None keeps the export's own splits; photos
            that are in none, or all where there is nothing to judge by, are divided into "train"
            and "val" so that near duplicates stay together.
        validation_share: of the photos that are divided, 0 to below 1.
        seed: another number divides otherwise.
        skip_unreadable: go on without annotations and photos that cannot be read. What such an
            annotation covers then counts for nothing (255), and a photo is left out where that
            is not known.
        attribute: the region attribute that names the class, where VIA's export has several.
        encoding: of the text files, where it is none of Unicode's ("gbk").
        labels: the classes, a known label set ("voc") or a file of names, of shards, which name
            none.
        overlap: write a mask for each class, in which nothing lies over anything, in place of one
            class per pixel.
        progress: called with (photos done, photos in all).

    Raises:
        DataError: the export is none of the known ones, or broken; or the destination has other
            classes, or already has the split or a photo of the same name.
        ImageError: a photo cannot be read.
        InputError: an argument is out of its range.
        OutputError: the folder cannot be written.
    """
    _check_arguments(split, validation_share)
    sources = [source] if isinstance(source, str | PathLike) else list(source)
    if not sources:
        raise InputError("source: got no file, expected one or more.")
    paths, root = [Path(one) for one in sources], Path(destination)
    known = None if labels is None else open_labels(labels)
    request = Request(path_of(images), encoding, attribute, known)
    if request.images is not None and not request.images.is_dir():
        raise InputError(f"images: {request.images} is no folder; expected that of the photos.")
    export = read_export(paths[0], request) if len(paths) == 1 else read_shards(paths, request)
    source = paths[0]
    if labels is not None and export.tool != "TFRecord":
        raise InputError(f"labels: {export.tool} names its classes itself; leave out --labels.")
    if not export.drawings:
        raise DataError(f"{source}: the export has no photos.")
    if overlap:
        check_overlap(source, export)
    plan = _plan(source, export, root, split, overlap=overlap)
    with Staging(root) as staging:
        work = _Work(plan, staging, skip_unreadable)
        for number, (drawing, name) in enumerate(zip(export.drawings, plan.names, strict=True)):
            work.add(drawing, name)
            if progress is not None:
                progress(number + 1, len(export.drawings))
        work.stop_at_faults(source)
        splits = _divide(work.written, plan, validation_share, seed)
        lists = {name: [written.name for written in members] for name, members in splits.items()}
        staging.finish(plan.description, lists, work.written)
    notes = (*export.notes, *work.notes(), *_split_notes(export, plan, splits, validation_share))
    counts = {name: len(members) for name, members in splits.items()}
    return Conversion(root, counts, plan.description.classes, notes)


def _check_arguments(split: str | None, share: float) -> None:
    if split is not None and not _may_be_split(split):
        raise InputError(
            f"split: got {split!r}, expected a plain name like 'train': letters, digits, - and _, "
            f"and none of {', '.join(_TAKEN)}."
        )
    if not 0 <= share < 1:
        raise InputError(f"validation share: got {share}, expected 0 to below 1.")


def _may_be_split(name: str) -> bool:
    return bool(_SPLIT_NAME.match(name)) and name.lower() not in _TAKEN


@dataclass(frozen=True)
class _Plan:
    """What will be made: everything that can be known before a pixel is painted."""

    description: Description
    ids: dict[str, int]
    rest: int
    palette: UInt8
    names: list[str]
    split: str | None


def _plan(source: Path, export: Export, root: Path, split: str | None, *, overlap: bool) -> _Plan:
    """Check names, classes and splits against each other and against what is there.

    Raises:
        DataError: they contradict each other.
    """
    odd = [name for name in export.names if not name.isprintable() or not name.strip()]
    if odd:
        raise DataError(f"{source}: the class name {odd[0]!r} cannot be shown; rename the class.")
    described = root / FILE_NAME
    present = read_description(described) if described.is_file() else None
    description = present or _describe(source, export, overlap=overlap)
    if description.overlap != overlap:
        raise DataError(
            f"{described}: its classes {'overlap' if description.overlap else 'exclude each other'}"
            "; convert with the same option, or into a folder of its own."
        )
    ids = ids_of(description.classes, export.names)
    new = [n for n in export.names if n not in ids and not (overlap and is_background(n))]
    if new:
        raise DataError(
            f"{source}: the class '{new[0]}' is new. {described} knows: "
            f"{', '.join(description.classes)}."
        )
    wanted = {split} if split else {usual_name(d.split) or "train" for d in export.drawings}
    odd = [name for name in sorted(wanted) if not _may_be_split(name)]
    if odd:
        raise DataError(f"{source}: '{odd[0]}' cannot be the name of a split; name one (--split).")
    if split is None and "val" not in wanted:
        wanted.add("val")
    doubled = sorted(wanted & set(description.splits))
    if present and doubled:
        raise DataError(
            f"split: {root} already has '{doubled[0]}'. Remove it, name another (--split), or "
            "convert into another folder."
        )
    photos = [drawing.photo for drawing in export.drawings]
    file_names = [_in_place(drawing, root) or drawing.file_name for drawing in export.drawings]
    check_unshared(photos, file_names)
    names = name_photos(file_names)
    existing_names(root, present, names, photos)
    return _Plan(
        description=description,
        ids=ids,
        rest=IGNORE if export.complete or BACKGROUND not in ids else ids[BACKGROUND],
        palette=description.labels().palette,
        names=names,
        split=split,
    )


def _in_place(drawing: Annotated, root: Path) -> str | None:
    """Return the name of a photo that lies in the destination already."""
    inside = (root / "images").resolve()
    if isinstance(drawing.photo, Embedded):
        return None
    photo = drawing.photo.resolve()
    return photo.relative_to(inside).as_posix() if photo.is_relative_to(inside) else None


def _describe(source: Path, export: Export, *, overlap: bool) -> Description:
    """Return the description of a new folder; with the export's colours if they tell all apart."""
    try:
        if export.labels is not None:
            labels = export.labels
            background = "" if labels.background is None else labels.names[labels.background]
            return Description(classes=labels.names, colours=labels.colours, background=background)
        if overlap:
            classes = overlapping_classes(export)
            own = tuple(export.colours[n] for n in classes if n in export.colours)
            told = len(own) == len(set(own)) == len(classes)
            return Description(classes=classes, colours=own if told else (), overlap=True)
        usual = voc_colours(len(export.classes))
        colours = tuple(export.colours.get(n, usual[i]) for i, n in enumerate(export.classes))
        named = bool(export.colours) and len(set(colours)) == len(colours)
        return Description(
            classes=export.classes,
            colours=colours if named else (),
            background=BACKGROUND if BACKGROUND in export.classes else "",
        )
    except InputError as error:
        raise DataError(f"{source}: {error}") from None


class _Work:
    """Paints the photos of an export one by one, and collects what could not be read."""

    def __init__(self, plan: _Plan, staging: Staging, skip: bool) -> None:
        self._plan = plan
        self._staging = staging
        self._skip = skip
        self._faults: list[str] = []
        self._damaged: list[ImageError] = []
        self._lost: list[str] = []
        self._empty: list[str] = []
        self._turned: list[str] = []
        self._regions = self._outside = 0
        self._several = Several()
        self._drawn: Counter[int] = Counter()
        self.written: list[Written] = []

    def add(self, drawing: Annotated, name: str) -> None:
        """Paint and write one pair."""
        try:
            photo, data = _open(drawing.photo)
            hash_ = perceptual_hash(photo.decode(at_least=_HASHED_FROM))
        except ImageError as error:
            self._damaged.append(error)
            if not self._skip:
                raise
            return
        painted, turned = _paint(drawing, photo, self._plan)
        if turned:
            self._turned.append(name)
        self._faults += [f"{fault.rstrip('.')} ({drawing.file_name})" for fault in painted.faults]
        self._regions += painted.regions
        self._outside += painted.outside
        if painted.lost:
            self._lost.append(name)
            return
        if self._faults and not self._skip:
            return  # nothing will come of it; the rest is only looked at
        if not painted.regions:
            self._empty.append(name)
        if painted.label.ndim == 3:
            classes = np.flatnonzero((painted.label == 1).any((0, 1)))
            self._several.add(painted.label)
        else:
            classes = np.flatnonzero(np.bincount(painted.label.ravel(), minlength=256)[:IGNORE])
        self._drawn.update(classes.tolist())
        written = self._staging.add(name, drawing.photo, data, painted.label, self._plan.palette)
        split, shown = usual_name(drawing.split), frozenset(classes.tolist())
        self.written.append(replace(written, hash_=hash_, classes=shown, split=split))

    def stop_at_faults(self, source: Path) -> None:
        """Stop where annotations could not be read, unless they are to be skipped.

        Raises:
            DataError: the message has their count, and the first ones by name.
        """
        if self._faults and not self._skip:
            verb = "annotation cannot" if len(self._faults) == 1 else "annotations cannot"
            raise DataError(
                f"{source}: {len(self._faults)} {verb} be read: {'; '.join(self._faults[:3])}"
                f"{'; …' if len(self._faults) > 3 else ''}. Mend them where they were drawn, or "
                "leave them out with --skip-unreadable: what they cover then counts for nothing."
            )
        if not self.written:
            raise DataError(f"{source}: no photo is left.")

    def notes(self) -> list[str]:
        """Return what is to be said of the annotations."""
        notes = []
        if self._faults:
            notes.append(
                f"{len(self._faults)} annotations were skipped, where they lie counts for nothing "
                f"(255): {'; '.join(self._faults[:3])}{'; …' if len(self._faults) > 3 else ''}"
            )
        if self._lost:
            notes.append(
                f"{len(self._lost)} photos are left out, as it is not known where on them the "
                f"skipped annotations lie: {listed(self._lost)}"
            )
        if self._damaged:
            notes.append(
                f"{len(self._damaged)} photos are damaged and left out: {self._damaged[0]}"
            )
        if self._outside:
            notes.append(
                f"{self._outside} of {self._regions} annotations cover no pixel of their photo"
            )
        if self._turned:
            notes.append(
                f"{len(self._turned)} photos were annotated as they are stored, not as EXIF turns "
                f"them; their masks were turned: {listed(self._turned)}"
            )
        if self._empty:
            notes.append(
                f"{len(self._empty)} photos have no annotation and are background: "
                f"{listed(self._empty)}"
            )
        if self._plan.description.overlap:
            notes.append(self._several.in_words)
        ignored = sorted({n for n, i in self._plan.ids.items() if i == IGNORE and is_ignored(n)})
        if ignored:
            notes.append(f"pixels of {', '.join(ignored)} count for nothing (255)")
        classes = self._plan.description.classes
        never = [name for index, name in enumerate(classes) if not self._drawn[index]]
        if never:
            notes.append(f"no pixel is {listed(never, 8)}")
        return notes


def _open(photo: Path | Embedded) -> tuple[photo_files.Photo, bytes | None]:
    """Return a photo with its header read, and its bytes where they stand in no file."""
    if isinstance(photo, Path):
        return photo_files.Photo(photo), None
    data = photo.read()
    try:
        return photo_files.Photo(data), data
    except ImageError as error:
        raise ImageError(f"{photo.path}: {photo.key}: {error}") from None


def _paint(drawing: Annotated, photo: photo_files.Photo, plan: _Plan) -> tuple[Painted, bool]:
    """Return the label of an upright photo, and whether it was drawn on the photo as stored.

    Raises:
        DataError: the annotation was drawn on a photo of another size.
    """
    size = drawing.size or photo.size

    def paint() -> Painted:
        if plan.description.overlap:
            assert isinstance(drawing, Drawing)
            return drawing.paint_overlapping(size, plan.ids)
        return drawing.paint(size, plan.ids, plan.rest)

    if size == photo.size:
        return paint(), False
    turn = _TURNS.get(photo.orientation)
    if turn is not None and size == photo.size[::-1]:
        painted = paint()
        planes = np.atleast_3d(painted.label).transpose(2, 0, 1)
        turned = np.stack([turn(plane) for plane in planes], axis=2)
        turned = turned if painted.label.ndim == 3 else turned[:, :, 0]
        return replace(painted, label=np.ascontiguousarray(turned)), True
    raise DataError(
        f"{drawing.file_name}: was annotated at {size[0]}×{size[1]} pixels, but {photo.name} has "
        f"{photo.size[0]}×{photo.size[1]} (height × width). Take the photos that were annotated, "
        "not resized copies."
    )


def _divide(
    written: Sequence[Written], plan: _Plan, share: float, seed: int
) -> dict[str, list[Written]]:
    """Return the pairs of every split."""
    if plan.split is not None:
        return {plan.split: list(written)}
    splits: dict[str, list[Written]] = {"train": []}
    for pair in written:
        splits.setdefault(pair.split or "train", []).append(pair)
    if "val" not in splits:
        pairs = splits["train"]
        hashes: list[Hash | None] = [pair.hash_ for pair in pairs]
        names = [pair.name for pair in pairs]
        groups = group_photos(names, hashes)
        chosen = divide(names, groups, [p.classes for p in pairs], share=share, seed=seed)
        if chosen:
            splits["train"] = [p for i, p in enumerate(pairs) if i not in chosen]
            splits["val"] = [p for i, p in enumerate(pairs) if i in chosen]
    return {name: members for name, members in splits.items() if members}


def _split_notes(
    export: Export, plan: _Plan, splits: Mapping[str, Sequence[Written]], share: float
) -> list[str]:
    """Return how the splits came about."""
    if plan.split is not None or any(
        usual_name(drawing.split) == "val" for drawing in export.drawings
    ):
        return []
    if set(splits) >= {"train", "val"}:
        return [
            "train and val were divided here, near duplicates together (--validation-share, "
            "--seed, or --split to name one)"
        ]
    if share > 0 and list(splits) == ["train"]:
        what = "photos that all show the same" if len(splits["train"]) > 1 else "a single photo"
        return [
            f"there is nothing to judge by (val): {what} cannot be divided. Convert others into "
            "the same folder with --split val"
        ]
    return []
