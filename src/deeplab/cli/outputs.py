"""Which files are written for each photo, and the writing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from deeplab.errors import ImageError, InputError, OutputError
from deeplab.files import replacing
from deeplab.remote import store
from deeplab.remote.address import Place

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from deeplab.photo.overlapping import OverlappingSegmentation
    from deeplab.photo.results import Segmentation

SUFFIXES = {
    "overlay": ".overlay.jpg",
    "mask": ".mask.png",
    "contour": ".contour.jpg",
    "cutout": ".cutout.png",
    "blur": ".blur.jpg",
    "json": ".json",
    "probabilities": ".probabilities.npz",
    "confidence": ".confidence.png",
}
"""What can be saved, and how the files are called: photo.jpg gives photo.overlay.jpg, …"""

CLIP_SUFFIXES = {
    "overlay": ".overlay.mp4",
    "mask": ".mask.mkv",
    "contour": ".contour.mp4",
    "cutout": ".cutout.webm",
    "blur": ".blur.mp4",
    "json": ".jsonl",
    "mask-pngs": ".masks",
}
"""The same of a video: clip.mp4 gives clip.overlay.mp4, …; .masks is a folder of PNGs."""

DATA_SETS = ("coco", "cvat", "labelme", "yolo", "voc")
"""The tools as whose data set all photos can be saved together; its folder is called like it."""

LARGE_MASK = ".mask.tif"
"""How the mask of a picture that is read by region is called: it may fit into no PNG."""

_OF_LARGE = ("overlay", "mask")
"""What can be saved of such a picture."""

_LONGEST_BASE = 255 - max(len(end) for end in (*SUFFIXES.values(), *CLIP_SUFFIXES.values()))
"""Bytes of a name that a suffix is added to; file systems end names at 255."""


@dataclass(frozen=True)
class Job:
    """One photo and the files to write for it, by kind.

    Attributes:
        base: what its files are called without their endings, below the folder.
    """

    photo: Place
    files: Mapping[str, Place]
    base: PurePath = field(default_factory=PurePath)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other commands from writing into a folder, which exists, until the block ends.

    The folder itself is locked, so nothing is left in it, and the system unlocks it when this
    process ends, however it ends. Where folders cannot be locked (Windows) nothing is.

    Raises:
        InputError: another command is at work there.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"output: another command is writing into {folder}; wait until it ends, or "
                    "choose another folder with -o."
                ) from None
        yield


def plan_jobs(
    photos: Sequence[tuple[Place, PurePath]],
    *,
    output: Place,
    kinds: Sequence[str],
    overwrite: bool,
    clips: Container[Place] = (),
    large: Container[Place] = (),
) -> list[Job]:
    """Return the files to write for every photo and clip, after checking that they can be written.

    A photo's files are called after it without its suffix; with it, where two would be the same.

    Args:
        photos: each with its place below the folder that was named.
        output: the folder.
        kinds: what is written.
        overwrite: files that exist may be replaced.
        clips: those that are videos.
        large: those that are read by region, of which a mask and a reduced overlay can be had.

    Raises:
        InputError: something else is to be written of a large picture, or two photos would write
            the same file.
        OutputError: the folder cannot be written, or a file is there and ``overwrite`` is false.
    """
    stems = Counter(relative.with_suffix("") for _, relative in photos)
    jobs = []
    taken: dict[Place, Place] = {}
    for photo, relative in photos:
        unique = stems[relative.with_suffix("")] == 1
        base = relative.with_suffix("") if unique else relative
        base = base.with_name(shorten(base.name))
        ends = CLIP_SUFFIXES if photo in clips else SUFFIXES
        if photo in large:
            _check_large(photo, kinds)
            ends = {**SUFFIXES, "mask": LARGE_MASK}
        files = {kind: output / base.with_name(base.name + ends[kind]) for kind in kinds}
        for file in files.values():
            other = taken.setdefault(file, photo)
            if other != photo:
                raise InputError(
                    f"photos: {other} and {photo} would both write {file}; "
                    "give them in two runs with two output folders."
                )
        jobs.append(Job(photo, files, base))
    there = which_exist(output, taken)
    for file in there:
        if isinstance(file, Path) and file.is_dir() and file.suffix != CLIP_SUFFIXES["mask-pngs"]:
            raise OutputError(f"output: {file} is a folder; choose another with -o.")
    if there and not overwrite:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise OutputError(
            f"output: {there[0]} exists already{more}. "
            "Add --overwrite to replace it, or choose another folder with -o."
        )
    if isinstance(output, Path):
        for folder in sorted({output, *(Path(file.parent) for file in taken)}):
            _check_writable(folder)
    return jobs


def _check_large(photo: Place, kinds: Sequence[str]) -> None:
    for kind in kinds:
        if kind not in _OF_LARGE:
            raise InputError(
                f"--save: {photo} is read by region, and of such a picture there is no {kind}, "
                f"only: {', '.join(_OF_LARGE)}."
            )


def which_exist(output: Place, files: Iterable[Place]) -> list[Place]:
    """Return which files are there already; elsewhere, one listing tells, and that it may."""
    if isinstance(output, Path):
        return [file for file in files if os.path.lexists(file)]
    known = store.list_files(output)
    return [file for file in files if file in known]


def shorten(name: str) -> str:
    """Return a name to which every suffix can be added; a long one ends in digits of its hash."""
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST_BASE:
        return name
    digits = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[: _LONGEST_BASE - 9].decode('utf-8', 'ignore')}~{digits}"


def name_photo(job: Job) -> str:
    """Return how data sets call a photo: as its files are called, with its own suffix."""
    return job.base.as_posix() + job.photo.suffix.lower()


def summarise(result: Segmentation) -> dict[str, Any]:
    """Return what a result says, but for its pixels, as JSON knows it."""
    content = result.to_dict()
    for found in content["classes"]:
        del found["segmentation"]
    return content


class Writer:
    """Writes the files of one result; the photo is decoded once, and only if it is drawn on.

    Args:
        result: what was found.
        only: the classes that were asked for; None where all were.
    """

    def __init__(
        self, result: Segmentation, *, only: Sequence[str] | None, overwrite: bool = True
    ) -> None:
        from deeplab.photo.overlapping import OverlappingSegmentation

        self._result = result
        self._only = only
        self._overwrite = overwrite
        self._overlapping: OverlappingSegmentation | None = (
            result if isinstance(result, OverlappingSegmentation) else None
        )

    def write(self, files: Mapping[str, Place]) -> dict[str, Place]:
        """Write files by kind, each whole or not at all, and return what they are called.

        A picture with a side that no JPEG can have becomes a PNG.

        Raises:
            OutputError: a file cannot be written.
            ImageError: the photo cannot be decoded at full size; or a PNG would replace a file.
        """
        return {kind: self._write(kind, path) for kind, path in files.items()}

    def _write(self, kind: str, path: Place) -> Place:
        from deeplab.photo.draw import MAX_JPEG_SIDE

        if path.suffix == ".jpg" and max(self._result.mask.shape) > MAX_JPEG_SIDE:
            path = path.with_suffix(".png")
            if os.path.lexists(path) and not self._overwrite:
                raise ImageError(f"{self._result.name}: {path} exists already. Add --overwrite.")
        if kind == "mask" and self._overlapping is not None:
            path = path.with_name(path.name.removesuffix(SUFFIXES["mask"]) + ".masks.tif")
            if os.path.lexists(path) and not self._overwrite:
                raise ImageError(f"{self._result.name}: {path} exists already. Add --overwrite.")
        getattr(self, f"_write_{kind}")(path)
        return path

    @cached_property
    def _photo(self) -> Image.Image:
        return self._result.photo.decode()

    @cached_property
    def _kept_probability(self) -> npt.NDArray[np.float32] | None:
        return self._result.kept_probability(self._only)

    def _save(self, picture: Image.Image, path: Place) -> None:
        """Write what was drawn with the photo's pixels."""
        from deeplab.photo.images import keep_profile

        _save(keep_profile(self._photo, picture), path)

    def _write_overlay(self, path: Place) -> None:
        from deeplab.photo.draw import overlay

        picture = overlay(
            self._photo,
            self._result.mask,
            labels=self._result.labels,
            legend=True if self._overlapping is None else self._overlapping.legend,
        )
        self._save(picture, path)

    def _write_contour(self, path: Place) -> None:
        if self._overlapping is not None:
            _save(self._overlapping.contour(), path)
            return
        from deeplab.photo.draw import contour

        drawn = contour(self._photo, self._result.mask, labels=self._result.labels)
        self._save(drawn, path)

    def _write_blur(self, path: Place) -> None:
        from deeplab.photo.draw import blur_background

        blurred = blur_background(
            self._photo,
            self._result.mask,
            labels=self._result.labels,
            probability=self._kept_probability,
        )
        self._save(blurred, path)

    def _write_cutout(self, path: Place) -> None:
        from deeplab.photo.draw import cutout

        cut = cutout(
            self._photo,
            self._result.mask,
            labels=self._result.labels,
            probability=self._kept_probability,
        )
        self._save(cut, path)

    def _write_mask(self, path: Place) -> None:
        if self._overlapping is not None:
            self._overlapping.save_masks(path)
            return
        self._result.save_mask(path)

    def _write_json(self, path: Place) -> None:
        content = self._result.to_dict()
        del content["timings_ms"]  # equal runs write equal files
        content["photo"] = Path(self._result.name).name
        text = json.dumps(content, ensure_ascii=False) + "\n"
        with replacing(path) as partial:  # a name need not be text; one that is not gets "?" in it
            partial.write_text(text, "utf-8", errors="replace")

    def _write_probabilities(self, path: Place) -> None:
        self._result.save_probabilities(path, self._only)

    def _write_confidence(self, path: Place) -> None:
        _save(self._result.confidence_picture(), path)


def _save(picture: Image.Image, path: Place) -> None:
    """Write a picture. Encoded first: Pillow does not notice when a full disk takes only a part."""
    encoded = io.BytesIO()
    if path.suffix == ".jpg":
        picture.save(encoded, "JPEG", quality=92, icc_profile=picture.info.get("icc_profile"))
    else:
        picture.save(encoded, "PNG", compress_level=3)
    with replacing(path) as partial:
        partial.write_bytes(encoded.getbuffer())


def _check_writable(folder: Path) -> None:
    """Find out before the work whether its results can be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"output: cannot write into the folder {folder} ({error.strerror or error}). "
            "Choose another with -o."
        ) from error
