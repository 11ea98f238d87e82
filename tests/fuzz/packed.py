"""Data sets in tars, tables and records, written in many ways and damaged: right, or refused."""

from __future__ import annotations

import io
import os
import random as rng
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from photos import change
from PIL import Image

from deeplab.data import open_dataset
from deeplab.data.convert import convert
from deeplab.errors import DeepLabError
from deeplab.weights.crc32c import crc32c
from tiny_folder import NAMES

Pair = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def _draw(index: int) -> Pair:
    """Return (photo, mask), other ones for every index."""
    place = np.add.outer(np.arange(6 + index), np.arange(9))
    photo = np.stack([place * 3 + 40 * index, place * 5, place], -1).astype(np.uint8)
    return photo, (place + index).astype(np.uint8) % 3


def _encode(array: np.ndarray[Any, Any]) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(array).save(stored, "PNG")
    return stored.getvalue()


def _files(index: int) -> tuple[bytes, bytes]:
    photo, mask = _draw(index)
    return _encode(photo), _encode(mask)


# -- writers: each returns how many pairs it wrote ------------------------------------------------


def _write_tar(random: rng.Random, path: Path, first: int) -> int:
    kind = random.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    count = random.randrange(1, 4)
    start = random.choice(("", "./", "a/", "a.b/", "ä/" * 30, "x" * 80 + "/"))
    mask = random.choice(("seg.png", "mask.png", "label.png"))
    entries: list[tuple[str, bytes]] = []
    for index in range(first, first + count):
        photo, label = _files(index)
        entries += [(f"{start}{index}.image.png", photo), (f"{start}{index}.{mask}", label)]
        if random.random() < 0.3:
            entries += [(f"{start}{index}.{random.choice(('json', 'cls', '__key__'))}", b"{}")]
        if random.random() < 0.2:
            entries += [(f"{start}._{index}.png", b"\0\5\x16\7"), (".DS_Store", b"x")]
    if random.random() < 0.3:
        random.shuffle(entries)
    with tarfile.open(path, "w", format=kind) as tar:
        seen: dict[bytes, str] = {}
        for name, data in entries:
            info = tarfile.TarInfo(name)
            if random.random() < 0.1 and data in seen:
                info.type, info.linkname = tarfile.LNKTYPE, seen[data]
                tar.addfile(info)
                continue
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            seen[data] = name
    return count


def _write_table(random: rng.Random, path: Path, first: int) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = random.randrange(1, 4)
    files = [_files(index) for index in range(first, first + count)]
    form = random.choice(("struct", "binary", "large", "dictionary"))
    columns = {}
    for at, name in enumerate(("image", random.choice(("label", "annotation", "mask")))):
        values = [pair[at] for pair in files]
        if form == "struct":
            fields = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            cells = [{"bytes": data, "path": random.choice((None, "a.png"))} for data in values]
            columns[name] = pa.array(cells, fields)
        else:
            columns[name] = pa.array(values, pa.large_binary() if form == "large" else pa.binary())
            if form == "dictionary":
                columns[name] = columns[name].dictionary_encode()
    columns["text"] = pa.array(["x"] * count)
    pq.write_table(
        pa.table(columns), path, row_group_size=random.randrange(1, 4),
        compression=random.choice(("NONE", "snappy", "zstd", "gzip")),
        use_dictionary=random.random() < 0.5, write_page_checksum=random.random() < 0.5,
        data_page_version=random.choice(("1.0", "2.0")),
    )  # fmt: skip
    return count


def _length(content: bytes) -> bytes:
    number, packed = len(content), b""
    while number > 127:
        packed, number = packed + bytes([number & 127 | 128]), number >> 7
    return packed + bytes([number]) + content


def _write_records(random: rng.Random, path: Path, first: int) -> int:
    count, stored = random.randrange(1, 4), b""
    for index in range(first, first + count):
        photo, mask = _files(index)
        named = f"{random.choice(('', 'a/', 'b/'))}{index}.png".encode()
        features = b""
        for key, value in (("image/encoded", photo), ("image/filename", named),
                           ("image/segmentation/class/encoded", mask)):  # fmt: skip
            feature = b"\x0a" + _length(b"\x0a" + _length(value))
            features += b"\x0a" + _length(
                b"\x0a" + _length(key.encode()) + b"\x12" + _length(feature)
            )
        content = b"\x0a" + _length(features)
        for part in (struct.pack("<Q", len(content)), content):
            checksum = crc32c(part)
            masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
            stored += part + struct.pack("<I", masked)
    path.write_bytes(stored)
    return count


_WRITERS = {".tar": _write_tar, ".parquet": _write_table, ".tfrecord": _write_records}


def run_one(random: rng.Random, folder: Path) -> str:
    """Write shards of one kind, damage them or not, and compare what is read with what it was."""
    os.environ["DEEPLAB_HOME"] = str(folder / "home")
    home = folder / "set"
    home.mkdir()
    (home / "labels.txt").write_text("\n".join(NAMES))
    suffix = random.choice(list(_WRITERS))
    if suffix != ".tfrecord" and random.random() < 0.3:
        names = random.choice((("one/0", "two/0"), ("0", "1"), ("train-0", "train/train-0"),
                               ("one/train-0", "two/train-0"), ("a", "a.b")))  # fmt: skip
    else:
        names = ("0",)
    expected, damaged, odd = 0, False, len(names) > 1
    for name in names:
        path = home / f"{name}{suffix}"
        path.parent.mkdir(exist_ok=True)
        expected += _WRITERS[suffix](random, path, expected)
        if random.random() < 0.5:
            before = path.read_bytes()
            path.write_bytes(change(random, before))
            damaged |= path.read_bytes() != before
        elif suffix == ".tar" and random.random() < 0.1:
            odd = True
            expected += _write_tar(random, folder / "more", expected)
            path.write_bytes(path.read_bytes() + (folder / "more").read_bytes())
    refused = ""
    try:
        read_from = home
        if suffix == ".tfrecord":
            read_from = folder / "made"
            convert(
                home, read_from, labels=home / "labels.txt", skip_unreadable=random.random() < 0.3
            )
            if damaged:
                expected = min(expected, len(open_dataset(read_from, split="all")))
        found = open_dataset(read_from, split="all")
        samples = list(found)
    except DeepLabError as error:
        refused = str(error)
    if refused:
        assert "\n" not in refused, refused
        assert str(folder) in refused, refused
        assert damaged or odd, refused
        return "refused" if damaged else "refused, odd"
    assert len(samples) == expected, (len(samples), expected)
    for sample in samples:
        photo, mask = _draw(len(sample.image) - 6)
        assert np.array_equal(sample.image, photo), sample.id
        assert np.array_equal(sample.label, mask), sample.id
    return "read, damaged" if damaged else "read"
