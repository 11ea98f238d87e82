"""A folder of clips with labelled frames.

street.mp4               a clip; any number of them, in folders too
street/000012.png        the mask of its frame 12, counted from 0; few frames or all of them
street.masks/000012.png  the same, as ``deeplab segment --save mask-pngs`` calls the folder
labels.txt               or dataset.toml: what the masks mean, as of photos
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path

from deeplab.data.description import FILE_NAME, Description
from deeplab.data.folder import NAME_FILES, describe
from deeplab.data.masks import MaskEncoding
from deeplab.errors import DataError
from deeplab.labels import LabelSet
from deeplab.photo.find import describe_passed_over, is_video, walk
from deeplab.photo.formats import readable_suffixes

WITHOUT_MASKS = "clips without masks"

_OF_CLASSES = {"name", "classes", "values", "ignore", "colours", "ignore_colours", "encoding",
               "transparent", "background"}  # fmt: skip
"""The keys of dataset.toml that say something of clips; the others tell where photos lie."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video and the masks of some of its frames.

    Attributes:
        name: its path within the data set.
        path: the file.
        masks: by the number of the frame, counted from 0 as frames are decoded.
    """

    name: str
    path: Path
    masks: Mapping[int, Path]


@dataclass(frozen=True, kw_only=True)
class ClipSet:
    """Clips, and what their masks mean. Nothing is read until asked for.

    Attributes:
        root: the folder.
        labels: the classes.
        encoding: how the masks hold class ids.
        clips: those with masks.
        passed_over: how much else there was, by suffix or kind.
    """

    root: Path
    labels: LabelSet
    encoding: MaskEncoding
    clips: tuple[Clip, ...]
    passed_over: Mapping[str, int] = field(default_factory=dict)


def open_clips(folder: str | PathLike[str]) -> ClipSet:
    """Find the clips in a folder and the masks beside them.

    Raises:
        DataError: there is no such folder, no clip, no mask, or nothing says what the masks mean;
            a mask is not called after its frame, or belongs to two clips.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; expected a folder of clips.")
    passed_over: Counter[str] = Counter()
    files = list(walk(root, passed_over))
    videos = [path for path in files if is_video(path)]
    if not videos:
        there = Counter(path.suffix.lower() or "without suffix" for path in files)
        told = describe_passed_over(passed_over + there)
        raise DataError(
            f"{root}: there are no clips; expected videos, and beside NAME.mp4 a folder NAME with "
            "the masks of its frames." + (f" Passed over: {told}." if told else "")
        )
    description = describe(root)
    _check_description(root / FILE_NAME, description)
    owners = _find_owners(videos)
    masks: dict[Path, dict[int, Path]] = {video: {} for video in videos}
    known = {root / FILE_NAME, *(root / name for name in NAME_FILES), *videos}
    for path in files:
        if path in known:
            continue
        if path.parent in owners and path.suffix.lower() in readable_suffixes():
            _add_mask(masks[owners[path.parent]], path)
        else:
            passed_over[path.suffix.lower() or "without suffix"] += 1
    clips = tuple(
        Clip(name=path.relative_to(root).as_posix(), path=path, masks=dict(sorted(found.items())))
        for path, found in masks.items()
        if found
    )
    if not clips:
        first = videos[0]
        raise DataError(
            f"{root}: no frame is labelled. The mask of frame 12 of {first.name}, counted from 0, "
            f"is expected at {first.with_suffix('').relative_to(root).as_posix()}/000012.png."
        )
    if len(clips) < len(videos):
        passed_over[WITHOUT_MASKS] += len(videos) - len(clips)
    return ClipSet(
        root=root,
        labels=description.labels(),
        encoding=description.mask_encoding(),
        clips=clips,
        passed_over=passed_over,
    )


def _check_description(path: Path, description: Description) -> None:
    """Refuse what is said of photos: where it is followed for them, silence would mislead."""
    for item in fields(description):
        if item.name in _OF_CLASSES:
            continue
        usual = item.default_factory() if callable(item.default_factory) else item.default
        if getattr(description, item.name) != usual:
            raise DataError(
                f"{path}: '{item.name}' is of photos; all clips of a folder are taken, and their "
                "masks found by name. Leave it out, or keep the parts in folders of their own."
            )


def _find_owners(videos: list[Path]) -> dict[Path, Path]:
    """Return the clip that each folder of masks belongs to.

    Raises:
        DataError: a folder belongs to two clips, or a clip has two folders.
    """
    owners: dict[Path, Path] = {}
    for video in videos:
        folders = [video.with_suffix(""), video.with_suffix(".masks")]
        folders = [folder for folder in folders if folder.is_dir()]
        if len(folders) == 2:
            raise DataError(
                f"{video}: there are masks in {folders[0].name}/ and in {folders[1].name}/; "
                "expected one of them."
            )
        for folder in folders:
            if folder in owners:
                raise DataError(
                    f"{folder}: belongs to {owners[folder].name} and to {video.name}; expected "
                    "one clip of that name."
                )
            owners[folder] = video
    return owners


def _add_mask(masks: dict[int, Path], path: Path) -> None:
    if not (path.stem.isascii() and path.stem.isdecimal()):
        raise DataError(
            f"{path}: is not called after a frame; expected its number, counted from 0, such as "
            "000012.png."
        )
    number = int(path.stem)
    if number in masks:
        raise DataError(f"{path}: {masks[number].name} is of frame {number}, too; keep one.")
    masks[number] = path
