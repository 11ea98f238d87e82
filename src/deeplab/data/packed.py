"""Photos and masks packed into a few large files, as pairs: what is in one shard.

- WebDataset: a tar in which ``KEY.jpg`` and ``KEY.png`` (or ``KEY.seg.png``, …) are one pair.
- Hugging Face ``datasets``: a parquet table with image columns ``image`` and ``label``,
  ``annotation``, …, each a struct of ``bytes`` and ``path``.
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deeplab.errors import DataError, ImageError, MissingExtraError
from deeplab.photo.formats import PHOTO_SUFFIXES, open_picture

_PHOTO_WORDS = ("image", "img", "photo", "picture", "input", "rgb", "pixel_values")
_MASK_WORDS = (
    "label", "labels", "annotation", "annotations", "mask", "masks", "seg", "segmentation",
    "segmentation_mask", "segmentation_map", "semantic_segmentation", "seg_map", "target", "gt",
)  # fmt: skip
"""What columns, and the middles of names in a tar, are called."""

# Source: webdataset 1.0, tariterators.base_plus_ext and its names of what is no sample.
_MEMBER = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
_META = re.compile(r"(^|/)__[^/]*__($|/)")

_BLOCK = 1 << 20
"""Of a tar, in bytes, that are looked at at a time."""

_ROWS = 32
"""Of a table, that are read at a time."""

_ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif",
            "BMP": ".bmp", "GIF": ".gif"}  # fmt: skip


@dataclass(frozen=True)
class Packed:
    """One file of a picture: its suffix, with the dot, and its bytes."""

    suffix: str
    data: bytes


@dataclass(frozen=True)
class Pair:
    """What a shard has under one key; either part may be missing, not both."""

    key: str
    photo: Packed | None
    mask: Packed | None


def read_shard(path: Path, passed_over: Counter[str]) -> Iterator[Pair]:
    """Yield the pairs of a shard, in its order.

    Args:
        path: of a ``.tar`` or ``.parquet``.
        passed_over: gets the count of what is neither photo nor mask, by ending or column.

    Raises:
        DataError: it is damaged or cut off, or what belongs together is not plain.
        MissingExtraError: of a table, pyarrow is not installed.
    """
    return (_read_table if path.suffix == ".parquet" else _read_tar)(path, passed_over)


# -- WebDataset ----------------------------------------------------------------------------------


def _read_tar(path: Path, passed_over: Counter[str]) -> Iterator[Pair]:
    try:
        with tarfile.open(path, "r:") as tar:
            samples = _group(path, _members(path, tar), passed_over)
            for key, (photo, mask) in samples.items():
                yield Pair(key, _extract(path, tar, photo), _extract(path, tar, mask))
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path}: is no tar, or is cut off ({error}); copy it once more.") from None


def _members(path: Path, tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return the files of a tar that is whole.

    Python's reader stops in silence at whatever is no header; a tar ends with blocks of zeros.
    """
    try:
        members = tar.getmembers()
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        end = tar.fileobj.read(tarfile.BLOCKSIZE)
    except tarfile.ReadError:
        members, end = getattr(tar, "members", []), b""
    if len(end) < tarfile.BLOCKSIZE or end.strip(b"\0"):
        raise DataError(
            f"{path}: is cut off or damaged after {len(members)} files; copy it once more."
        )
    while rest := tar.fileobj.read(_BLOCK):
        if rest.strip(b"\0"):
            raise DataError(
                f"{path}: goes on behind its end, after {len(members)} files: tars that were put "
                "behind each other, perhaps. Give each its own file, or pack them once more."
            )
    return [member for member in members if not member.isdir()]


_Parts = tuple[tarfile.TarInfo | None, tarfile.TarInfo | None]


def _group(
    path: Path, members: Sequence[tarfile.TarInfo], passed_over: Counter[str]
) -> dict[str, _Parts]:
    """Return photo and mask by key.

    Raises:
        DataError: keys have two photos or two labels, or lead out of the folder; they are counted.
    """
    found: dict[str, list[tuple[str, tarfile.TarInfo]]] = {}
    for member in members:
        if not member.isfile() and not member.islnk():
            passed_over["links and devices"] += 1
            continue
        if any(part.startswith(".") for part in PurePosixPath(member.name).parts if part != ".."):
            passed_over["hidden files"] += 1
            continue
        match = _MEMBER.match(member.name)
        if match is None or _META.search(member.name):
            passed_over["without key"] += 1
            continue
        key, ending = match[1].removeprefix("./"), match[2].lower()
        if PurePosixPath(key).is_absolute() or ".." in PurePosixPath(key).parts:
            raise DataError(f"{path}: has a file called {member.name}, which leads out of it.")
        if f".{ending.rpartition('.')[2]}" in PHOTO_SUFFIXES:
            found.setdefault(key, []).append((ending, member))
        else:
            passed_over[f".{ending}"] += 1
    faults: dict[str, list[str]] = {}
    pairs: dict[str, _Parts] = {}
    for key, files in found.items():
        photos, masks = _tell_apart(files)
        for what, some in (("photos", photos), ("labels", masks)):
            if len(some) > 1:
                faults.setdefault(f"two {what}", []).append(key)
        pairs[key] = (photos[0] if photos else None, masks[0] if masks else None)
    for what, keys in faults.items():
        raise DataError(
            f"{path}: {len(keys)} of {len(found)} keys have {what}: {', '.join(keys[:3])}"
            f"{', …' if len(keys) > 3 else ''}. A pair is KEY.jpg and KEY.png, or KEY.seg.png."
        )
    return pairs


def _tell_apart(
    files: Sequence[tuple[str, tarfile.TarInfo]],
) -> tuple[list[tarfile.TarInfo], list[tarfile.TarInfo]]:
    """Return the photos and the masks among the files of one key."""
    named = [one for ending, one in files if ending.partition(".")[0] in _MASK_WORDS]
    rest = [(ending, one) for ending, one in files if one not in named]
    if named:
        return [one for _, one in rest], named
    lossless = [one for ending, one in rest if ending == "png"]
    others = [one for ending, one in rest if ending != "png"]
    return (others, lossless) if others else (lossless, [])


def _extract(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> Packed | None:
    """Return one file; of a file that tar stored once under two names, its bytes.

    Raises:
        DataError: its other name is not in this tar.
    """
    if member is None:
        return None
    try:
        file = tar.extractfile(member)
    except (KeyError, RecursionError):
        file = None
    if file is None:
        raise DataError(
            f"{path}: {member.name} is another name of {member.linkname}, which is not a file in "
            "this tar. Pack them once more, with --hard-dereference."
        )
    return Packed(PurePosixPath(member.name).suffix.lower(), file.read())


# -- Hugging Face --------------------------------------------------------------------------------


def _read_table(path: Path, passed_over: Counter[str]) -> Iterator[Pair]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError(str(path), package="pyarrow", extra="parquet") from None
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as table:
            photo, mask = _choose_columns(path, table.schema_arrow)
            for name in table.schema_arrow.names:
                if name not in (photo, mask):
                    passed_over[f"column '{name}'"] += 1
            row = 0
            for batch in table.iter_batches(batch_size=_ROWS, columns=[photo, mask]):
                for cells in batch.to_pylist():
                    key = f"{row:07}"
                    row += 1
                    photo_file = _cell(path, key, cells[photo])
                    mask_file = _cell(path, key, cells[mask])
                    if photo_file or mask_file:
                        yield Pair(key, photo_file, mask_file)
                    else:
                        passed_over["empty rows"] += 1
            if row != table.metadata.num_rows:  # pages that are damaged may end without a word
                raise DataError(
                    f"{path}: {row} of its {table.metadata.num_rows} rows can be read; copy it "
                    "once more."
                )
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split())[:150].rstrip(".")
        raise DataError(
            f"{path}: is no parquet file, or is cut off ({reason}); copy it once more."
        ) from None


def _choose_columns(path: Path, schema: Any) -> tuple[str, str]:
    """Return the names of the columns of photos and of masks.

    Raises:
        DataError: there is none, or there are several.
    """
    pictures, others = [], {}
    for field in schema:
        if _holds_bytes(field.type):
            pictures.append(field.name)
        else:
            others[field.name] = str(field.type)
    photos = [name for name in pictures if name.lower() in _PHOTO_WORDS]
    masks = [name for name in pictures if name.lower() in _MASK_WORDS]
    if len(photos) == 1 and len(masks) == 1:
        return photos[0], masks[0]
    for name in others:
        if not masks and name.lower() in _MASK_WORDS:
            raise DataError(
                f"{path}: the column '{name}' holds {others[name]}, not pictures: the class of a "
                "whole photo, perhaps. Expected a column of masks: label, annotation, mask."
            )
    there = f"columns of pictures: {', '.join(pictures) or 'none'}"
    what = "masks" if len(photos) == 1 else "photos"
    which = masks if what == "masks" else photos
    some = f"{len(which)} columns of {what} ({', '.join(which)})" if which else f"no {what}"
    raise DataError(f"{path}: has {some}, expected one of each, image and label. It has {there}.")


def _holds_bytes(kind: Any) -> bool:
    """Return whether a column of this type holds files: as bytes, or in a struct's ``bytes``."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_struct(kind):
        at = kind.get_field_index("bytes")
        kind = kind.field(at).type if at >= 0 else kind
        if at >= 0 and types.is_null(kind):  # rows that only name their files
            return True
    known = (types.is_binary, types.is_large_binary, types.is_binary_view)
    return any(check(kind) for check in known)


def _cell(path: Path, key: str, cell: Mapping[str, Any] | bytes | None) -> Packed | None:
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if data is None:
        if isinstance(cell, Mapping) and cell.get("path"):
            raise DataError(
                f"{path}: row {int(key)} names {cell['path']} and does not hold it. Write the "
                "table with its pictures inside (push_to_hub, or embed_external_files)."
            )
        return None
    try:
        with open_picture(data, name="") as picture:
            return Packed(_ENDINGS.get(picture.format or "", ".png"), data)
    except ImageError:
        return Packed(".png", data)  # the doctor says what is wrong with it
