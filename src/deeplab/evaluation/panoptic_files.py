"""Panoptic truth and predictions as COCO writes them: a JSON file and a folder of PNGs.

    panoptic_val2017.json            categories, annotations with segments_info
    panoptic_val2017/000000000139.png   id = R + 256·G + 65536·B

Source: cocodataset.org, "Data format", panoptic segmentation; cocodataset/panopticapi.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import DataError, ImageError, InputError
from deeplab.evaluation.panoptic import PanopticCounts, Quality, Segment
from deeplab.files import read_text
from deeplab.photo.formats import open_picture

_SCORES = ("pq", "sq", "rq", "pc")
_COUNTS = ("found", "invented", "missed")


@dataclass(frozen=True)
class PanopticScores:
    """Scores of a folder of predictions.

    Attributes:
        names: of the classes.
        is_thing: (K,) bool: whether a class has instances.
        counts: of all pictures.
        pictures: how many were compared.
        notes: what was passed over, one sentence each.
    """

    names: tuple[str, ...]
    is_thing: npt.NDArray[np.bool_]
    counts: PanopticCounts
    pictures: int
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> dict[str, Quality]:
        """The means over all classes, over things and over stuff."""
        return {
            "all": self.counts.mean(),
            "things": self.counts.mean(self.is_thing),
            "stuff": self.counts.mean(~self.is_thing),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return scores and counts as JSON knows them; null where a class does not occur."""
        counts = self.counts
        return {
            "pictures": self.pictures,
            "protocol": "COCO panoptic: IoU above 0.5, void and crowds left out; parsing covering "
            "with areas as shares of a picture",
            **{
                group: {name: _plain(value) for name, value in vars(quality).items()}
                for group, quality in self.groups.items()
            },
            "classes": [
                {
                    "name": name,
                    "is_thing": bool(self.is_thing[index]),
                    **{key: _plain(getattr(counts, key)[index]) for key in _SCORES},
                    **{key: int(getattr(counts, key)[index])
                       for key in _COUNTS},
                }
                for index, name in enumerate(self.names)
            ],
            "notes": list(self.notes),
        }  # fmt: skip


def _plain(value: float) -> float | int | None:
    if isinstance(value, int):
        return value
    return None if np.isnan(value) else float(value)


@dataclass(frozen=True)
class _File:
    """A panoptic JSON file, and the folder of its PNGs."""

    path: Path
    folder: Path
    content: dict[str, Any]
    annotations: dict[Any, dict[str, Any]]


def evaluate_panoptic(
    predictions: Path,
    truth: Path,
    *,
    each: Callable[[int, int], None] = lambda done, total: None,
) -> PanopticScores:
    """Compare two panoptic JSON files; the PNGs of NAME.json are in the folder NAME beside it.

    Args:
        predictions: its annotations; categories are the truth's.
        truth: with categories.
        each: called with (pictures done, pictures in all).

    Raises:
        DataError: a file is not panoptic, a PNG is missing or holds ids that no segment explains,
            or a picture has no prediction.
    """
    true, found = _read(truth, "truth"), _read(predictions, "predictions")
    categories = _read_categories(true)
    missing = [key for key in true.annotations if key not in found.annotations]
    if missing:
        raise DataError(
            f"{predictions}: {len(missing)} of {len(true.annotations)} pictures have no "
            f"prediction, such as image_id {missing[0]!r}. Predict all, or leave them out of the "
            "truth."
        )
    total = PanopticCounts(len(categories))
    crowds = 0
    for done, (key, annotation) in enumerate(true.annotations.items(), 1):
        segments = _segments(true, annotation, categories)
        crowds += sum(segment.is_crowd for segment in segments)
        try:
            one = PanopticCounts.of(
                _read_ids(true, annotation),
                _read_ids(found, found.annotations[key]),
                truth_segments=segments,
                predicted_segments=_segments(found, found.annotations[key], categories),
                num_classes=len(categories),
            )
        except (DataError, InputError) as error:
            raise DataError(f"image_id {key!r}: {error}") from None
        total.merge(one)
        each(done, len(true.annotations))
    extra = len(found.annotations) - len(true.annotations)
    notes = [f"{extra} predictions are of pictures that the truth has not"] if extra else []
    notes += [f"{crowds} crowds were neither found nor missed"] if crowds else []
    names = tuple(str(entry["name"]) for entry in categories.values())
    is_thing = np.array([entry["isthing"] == 1 for entry in categories.values()], bool)
    return PanopticScores(names, is_thing, total, len(true.annotations), tuple(notes))


def _read(path: Path, what: str) -> _File:
    try:
        content = json.loads(read_text(path))
    except InputError as error:
        raise DataError(f"{what}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what}: {path} is not JSON ({error}).") from None
    entries = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict)
        and isinstance(entry.get("file_name"), str)
        and isinstance(entry.get("segments_info"), list)
        and isinstance(entry.get("image_id"), int | str)
        for entry in entries
    ):
        raise DataError(
            f"{what}: {path} is not COCO's panoptic JSON, whose annotations have image_id, "
            "file_name and segments_info. Instances (polygons) have no panoptic quality."
        )
    folder = path.with_suffix("")
    if not folder.is_dir():
        raise DataError(f"{what}: {folder} is no folder; expected the PNGs of {path.name} there.")
    annotations = {entry["image_id"]: entry for entry in entries}
    if not entries or len(annotations) < len(entries):
        fault = "has no annotations" if not entries else "has an image_id twice"
        raise DataError(f"{what}: {path} {fault}.")
    return _File(path, folder, content, annotations)


def _read_categories(truth: _File) -> dict[Any, dict[str, Any]]:
    entries = truth.content.get("categories")
    if (
        not isinstance(entries, list)
        or not entries
        or not all(
            isinstance(e, dict) and isinstance(e.get("id"), int) and "name" in e and "isthing" in e
            for e in entries
        )
    ):
        raise DataError(
            f"truth: {truth.path} has no categories with id, name and isthing (1 or 0)."
        )
    categories = {entry["id"]: entry for entry in entries}
    if len(categories) < len(entries):
        raise DataError(f"truth: {truth.path} has a category id twice.")
    return categories


def _segments(
    file: _File, annotation: Mapping[str, Any], categories: Mapping[Any, Any]
) -> list[Segment]:
    places = {identity: index for index, identity in enumerate(categories)}
    segments = []
    for entry in annotation["segments_info"]:
        identity = entry.get("id") if isinstance(entry, dict) else None
        category = entry.get("category_id") if isinstance(entry, dict) else None
        if not isinstance(identity, int) or category not in places:
            raise DataError(
                f"{file.path}: image_id {annotation['image_id']!r} has the segment "
                f"{str(entry)[:80]}, expected an id, and a category_id that the truth lists."
            )
        crowd = entry.get("iscrowd", 0) == 1
        segments.append(Segment(id=identity, category=places[category], is_crowd=crowd))
    return segments


def _read_ids(file: _File, annotation: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Return the ids of a PNG, (H, W) int64."""
    path = file.folder / annotation["file_name"]
    try:
        data = path.read_bytes()
        with open_picture(data, name=str(path), what="panoptic picture") as image:
            if image.format != "PNG" or image.mode not in ("RGB", "RGBA"):
                raise DataError(
                    f"{path}: is {image.format} with {image.mode} pixels; expected an RGB PNG."
                )
            pixels = np.asarray(image.convert("RGB"), np.int64)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except ImageError as error:
        raise DataError(f"{path}: {error}") from None
    return np.asarray(pixels @ np.array([1, 256, 65536]))
