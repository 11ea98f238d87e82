"""Recognise an export of an annotation tool, whether a file or a folder is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deeplab.data.coco import is_coco, read_coco
from deeplab.data.cvat import is_cvat, parse_xml, read_cvat
from deeplab.data.export import (
    Annotated,
    Embedded,
    Export,
    Painted,
    Request,
    listed,
    unique,
)
from deeplab.data.label_studio import is_label_studio, read_label_studio
from deeplab.data.labelme import is_labelme, read_labelme
from deeplab.data.layouts import Layout, find_layout
from deeplab.data.masks import IGNORE, read_mask
from deeplab.data.sample import FileDataset
from deeplab.data.shapes import Size
from deeplab.data.supervisely import check_project, find_supervisely, read_supervisely
from deeplab.data.tfrecord import find_shards, is_tfrecord, read_tfrecords
from deeplab.data.via import is_via, is_via_3, read_via, read_via_csv
from deeplab.data.yolo import find_yolo, read_yolo
from deeplab.errors import DataError
from deeplab.photo import find as photo_files

READS = (
    "COCO JSON, labelme or Supervisely (their folder), CVAT's XML, YOLO's data.yaml, Label "
    "Studio's JSON, VIA's JSON or CSV, TFRecord shards, or a folder of photos and masks"
)

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


def read_export(source: Path, request: Request) -> Export:
    """Recognise an export and read it; its photos and masks are read later.

    Raises:
        DataError: it is none of the known ones, or broken.
    """
    if source.is_dir():
        return _read_folder(source, request)
    if not source.is_file():
        raise DataError(f"{source}: there is no such file or folder. Expected {READS}.")
    suffix = source.suffix.lower()
    if is_tfrecord(source):
        return read_tfrecords([source], request)
    if suffix in _ARCHIVES:
        raise DataError(f"{source}: is an archive. Unpack it first, then name the folder.")
    if suffix == ".xml":
        return read_cvat(source, request)
    if suffix in (".yaml", ".yml") or source.name == "classes.txt":
        return read_yolo(source, request)
    if suffix == ".csv":
        export = read_via_csv(source, request)
        if export is None:
            raise DataError(f"{source}: is not VIA's CSV. Expected {READS}.")
        return export
    return _read_json(source, request.json(source), request)


def read_shards(sources: Sequence[Path], request: Request) -> Export:
    """Read several files as one export, which only TFRecord shards are.

    Raises:
        DataError: one of them is something else, or not there.
    """
    for path in sources:
        if not path.is_file() or not is_tfrecord(path):
            what = "is no TFRecord shard" if path.exists() else "there is no such file"
            raise DataError(f"{path}: {what}. Several sources can only be shards; else name one.")
    return read_tfrecords(sources, request)


def _read_json(source: Path, content: Any, request: Request) -> Export:
    if is_coco(content):
        return read_coco(source, content, request)
    if is_via(content):
        return read_via(source, content, request)
    if is_label_studio(content):
        return read_label_studio(source, content, request)
    if is_labelme(content):
        raise DataError(f"{source}: is one labelme file. Name the folder of all of them.")
    if is_via_3(content):
        raise DataError(
            f"{source}: is a project of VIA 3. Export its annotations as COCO and convert that."
        )
    raise DataError(f"{source}: is not an export that is known. Expected {READS}.")


def _read_folder(folder: Path, request: Request) -> Export:
    project = find_supervisely(folder)
    if project is not None:
        check_project(folder)
        return read_supervisely(project, folder, request)
    description = find_yolo(folder, request)
    if description is not None:
        return read_yolo(description, request)
    found = find_layout(folder)
    if found is not None:
        return _read_layout(*found)
    if shards := find_shards(folder):
        return read_tfrecords(shards, request)
    documents = [p for p in sorted(folder.rglob("*.json")) if _is_document(p)]
    if not documents:
        return _read_other(folder, request)
    kinds = _sort_documents(documents, request)
    if kinds.labelme:
        contents = ((path, request.json(path)) for path in documents)
        return read_labelme(folder, contents, request)
    if kinds.coco:
        return _read_coco_splits(folder, kinds.coco, request)
    if len(kinds.others) == 1:
        return _read_json(kinds.others[0], request.json(kinds.others[0]), request)
    if kinds.others:
        raise DataError(
            f"{folder}: holds several exports ({listed([p.name for p in kinds.others])}). Name one."
        )
    return _read_other(folder, request)


@dataclass(frozen=True)
class _Kinds:
    labelme: bool
    coco: list[Path]
    others: list[Path]


def _sort_documents(documents: list[Path], request: Request) -> _Kinds:
    """Look into JSON files; one of labelme's settles it, as there is one for every photo."""
    coco, others = [], []
    for path in documents:
        try:
            content = request.json(path)
        except DataError:
            if len(documents) == 1:
                raise
            content = None
        if is_labelme(content):
            return _Kinds(True, [], [])
        if is_coco(content):
            coco.append(path)
        elif is_via(content) or is_label_studio(content):
            others.append(path)
    return _Kinds(False, coco, others)


def _read_other(folder: Path, request: Request) -> Export:
    """Read the only XML or CSV of a folder."""
    found = [path for path in sorted(folder.glob("*.csv")) if _is_document(path)]
    tables = [read_via_csv(path, request) for path in found]
    exports = [export for export in tables if export is not None]
    if len(exports) == 1:
        return exports[0]
    documents = [
        path
        for path in sorted(folder.rglob("*.xml"))
        if _is_document(path) and _may_be_cvat(path, request)
    ]
    if len(documents) == 1:
        return read_cvat(documents[0], request)
    if len(documents) > 1:
        names = listed([str(path.relative_to(folder)) for path in documents])
        raise DataError(f"{folder}: holds several exports ({names}). Name one.")
    raise DataError(f"{folder}: holds no labelme JSON, and no other export. Expected {READS}.")


def _is_document(path: Path) -> bool:
    """Return whether a path is a file that people see: a pipe of that name would never end."""
    return path.is_file() and not path.name.startswith(".")


def _may_be_cvat(path: Path, request: Request) -> bool:
    try:
        return is_cvat(parse_xml(path, request))
    except DataError:
        return True  # it is named, and reading it says what is wrong


def _read_coco_splits(folder: Path, documents: list[Path], request: Request) -> Export:
    """Read one COCO file, or one for each split: train/_annotations.coco.json, or *_train.json."""
    if len(documents) == 1:
        return read_coco(documents[0], request.json(documents[0]), request)
    splits = {}
    for path in documents:
        parent = path.parent.name if path.parent != folder else ""
        stem = path.stem.rpartition("_")[2]
        splits[path] = parent if path.name.startswith("_annotations") and parent else stem
    if len(set(splits.values())) < len(documents):
        names = listed([str(path.relative_to(folder)) for path in documents])
        raise DataError(f"{folder}: holds several COCO files ({names}). Name one.")
    exports = [read_coco(p, request.json(p), request, split=s) for p, s in splits.items()]
    drawings: list[Annotated] = []
    for export, split in zip(exports, splits.values(), strict=True):
        drawings += [replace(d, file_name=f"{split}/{d.file_name}") for d in export.drawings]  # type: ignore[type-var]
    return Export(
        tool="COCO",
        names=unique(name for export in exports for name in export.names),
        drawings=tuple(drawings),
        colours={name: c for export in exports for name, c in export.colours.items()},
        complete=exports[0].complete,
        notes=unique(note for export in exports for note in export.notes),
    )


@dataclass(frozen=True)
class _Masked:
    """A photo whose annotation is a mask file already; see :class:`Annotated`."""

    photo: Path | Embedded
    file_name: str
    dataset: FileDataset
    mask: Path
    split: str
    size: Size | None = None

    def paint(self, size: Size, ids: Mapping[str, int], rest: int) -> Painted:
        """Return the mask's label with the ids of the new folder."""
        label = read_mask(self.mask, self.dataset.encoding)
        if label.shape != size:
            raise DataError(
                f"{self.mask}: the mask has {label.shape[0]}×{label.shape[1]} pixels, its photo "
                f"{size[0]}×{size[1]} (height × width)."
            )
        return Painted(self._table(ids)[label], regions=1)

    def _table(self, ids: Mapping[str, int]) -> Any:
        table = np.full(256, IGNORE, np.uint8)
        for index, name in enumerate(self.dataset.labels.names):
            table[index] = ids[name]
        return table


def _read_layout(layout: Layout, root: Path) -> Export:
    """Read photos that have masks already."""
    drawings: list[Annotated] = []
    seen: set[Path] = set()
    bare = unlisted = 0
    names = layout.splits(root)
    if not names:
        raise DataError(f"{root}: has no splits.")
    said: list[str] = []
    for name in sorted(names, key=lambda name: name == "all"):
        dataset = layout.open_split(root, name)
        said += dataset.assumed
        if dataset.passed_over:
            said.append(f"passed over: {photo_files.describe_passed_over(dataset.passed_over)}")
        for photo, mask in zip(dataset.images, dataset.masks, strict=True):
            if photo in seen:
                continue
            seen.add(photo)
            if not mask.is_file():
                bare += 1
            elif name == "all" and len(names) > 1:
                unlisted += 1
            else:
                inside = photo.relative_to(root) if photo.is_relative_to(root) else photo
                split = "" if name in ("default", "all") else name
                drawings.append(_Masked(photo, inside.as_posix(), dataset, mask, split))
    notes = [f"{bare} photos have no mask and are left out"] if bare else []
    if unlisted:
        notes.append(f"{unlisted} photos are in no split and left out")
    return Export(
        tool=f"the layout '{layout.name}'",
        names=dataset.labels.names,
        drawings=tuple(drawings),
        labels=dataset.labels,
        notes=unique((*notes, *said)),
    )
