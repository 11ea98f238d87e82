"""Which files are written for each photo, and the writing."""

from __future__ import annotations

import io
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab.errors import InputError, OutputError
from deeplab.files import replacing

if TYPE_CHECKING:
    from PIL import Image

    from deeplab.photo.results import Segmentation

SUFFIXES = {
    "overlay": ".overlay.jpg",
    "mask": ".mask.png",
    "contour": ".contour.jpg",
    "cutout": ".cutout.png",
    "blur": ".blur.jpg",
    "json": ".json",
    "probabilities": ".probabilities.npz",
}
"""What can be saved, and how the files are called: photo.jpg gives photo.overlay.jpg, …"""


@dataclass(frozen=True)
class Job:
    """One photo and the files to write for it, by kind."""

    photo: Path
    files: Mapping[str, Path]


def plan_jobs(
    photos: Sequence[tuple[Path, Path]], *, output: Path, kinds: Sequence[str], overwrite: bool
) -> list[Job]:
    """Return the files to write for every photo, after checking that they can be written.

    A photo's files are called after it without its suffix; with it, where two would be the same.

    Raises:
        InputError: two photos would write the same file.
        OutputError: the folder cannot be written, or a file is there and ``overwrite`` is false.
    """
    stems = Counter(relative.with_suffix("") for _, relative in photos)
    jobs = []
    taken: dict[Path, Path] = {}
    for photo, relative in photos:
        unique = stems[relative.with_suffix("")] == 1
        base = relative.with_suffix("") if unique else relative
        files = {kind: output / base.with_name(base.name + SUFFIXES[kind]) for kind in kinds}
        for file in files.values():
            other = taken.setdefault(file, photo)
            if other != photo:
                raise InputError(
                    f"photos: {other} and {photo} would both write {file}; "
                    "give them in two runs with two output folders."
                )
        jobs.append(Job(photo, files))
    there = [file for file in taken if file.exists()]
    if there and not overwrite:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise OutputError(
            f"output: {there[0]} exists already{more}. "
            "Add --overwrite to replace it, or choose another folder with -o."
        )
    for folder in sorted({output, *(file.parent for file in taken)}):
        _check_writable(folder)
    return jobs


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

    def __init__(self, result: Segmentation, *, only: Sequence[str] | None) -> None:
        self._result = result
        self._only = only

    def write(self, files: Mapping[str, Path]) -> None:
        """Write files by kind, each whole or not at all.

        Raises:
            OutputError: a file cannot be written.
            ImageError: the photo cannot be decoded at full size.
        """
        for kind, path in files.items():
            getattr(self, f"_write_{kind}")(path)

    @cached_property
    def _photo(self) -> Image.Image:
        return self._result.photo.decode()

    def _write_overlay(self, path: Path) -> None:
        from deeplab.photo.draw import overlay

        picture = overlay(self._photo, self._result.mask, labels=self._result.labels)
        _save(picture, path, "JPEG", quality=92)

    def _write_contour(self, path: Path) -> None:
        from deeplab.photo.draw import contour

        picture = contour(self._photo, self._result.mask, labels=self._result.labels)
        _save(picture, path, "JPEG", quality=92)

    def _write_blur(self, path: Path) -> None:
        from deeplab.photo.draw import blur_background

        picture = blur_background(self._photo, self._result.mask, labels=self._result.labels)
        _save(picture, path, "JPEG", quality=92)

    def _write_cutout(self, path: Path) -> None:
        from deeplab.photo.draw import cutout

        picture = cutout(self._photo, self._result.mask, labels=self._result.labels)
        _save(picture, path, "PNG", compress_level=3)

    def _write_mask(self, path: Path) -> None:
        self._result.save_mask(path)

    def _write_json(self, path: Path) -> None:
        content = self._result.to_dict()
        del content["timings_ms"]  # equal runs write equal files
        content["photo"] = Path(self._result.name).name
        text = json.dumps(content, ensure_ascii=False) + "\n"
        with replacing(path) as partial:  # a name need not be text; one that is not gets "?" in it
            partial.write_text(text, "utf-8", errors="replace")

    def _write_probabilities(self, path: Path) -> None:
        self._result.save_probabilities(path, self._only)


def _save(picture: Image.Image, path: Path, format: str, **options: Any) -> None:
    """Write a picture. Encoded first: Pillow does not notice when a full disk takes only a part."""
    encoded = io.BytesIO()
    picture.save(encoded, format, **options)
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
