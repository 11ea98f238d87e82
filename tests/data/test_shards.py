"""Data sets in shards give the pictures that the same data set gives as a folder."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from deeplab.cli import run
from deeplab.data import open_dataset
from deeplab.data.check import check
from deeplab.data.layouts import list_splits
from deeplab.errors import DataError
from deeplab.remote import copies
from tiny_folder import NAMES, make_folder

WRITER = Path(__file__).parents[1] / "oracles" / "write_packed.py"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPLAB_HOME", str(tmp_path / "home"))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "pets", pairs=10)


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pair(pets: Path, index: int, key: str | None = None) -> dict[str, bytes]:
    name = f"p{index:02}"
    return {
        f"{key or name}.jpg": (pets / "images" / f"{name}.jpg").read_bytes(),
        f"{key or name}.png": (pets / "masks" / f"{name}.png").read_bytes(),
    }


def write_names(folder: Path) -> None:
    (folder / "labels.txt").write_text("\n".join(NAMES) + "\n")


def assert_same(found, pets: Path, indices) -> None:
    """Compare with the pairs of the folder, which come in the order of their names."""
    whole = open_dataset(pets, split="all")
    assert len(found) == len(indices)
    for sample, index in zip(found, indices, strict=True):
        np.testing.assert_array_equal(sample.image, whole[index].image)
        np.testing.assert_array_equal(sample.label, whole[index].label)


def make_shards(pets: Path, folder: Path) -> Path:
    """Write train-0.tar, train-1.tar and val-0.tar of ten pairs."""
    for name, indices in (("train-0", (0, 1, 2)), ("train-1", (3, 4, 5, 6)), ("val-0", (7, 8, 9))):
        files = {}
        for index in indices:
            files |= {**pair(pets, index), f"p{index:02}.json": b"{}"}
        write_tar(folder / f"{name}.tar", files)
    write_names(folder)
    return folder


def test_tars_are_the_folder_that_they_were_made_of(pets, tmp_path):
    folder = make_shards(pets, tmp_path / "shards")
    assert list_splits(folder) == ("train", "val", "all")
    assert_same(open_dataset(folder), pets, range(7))
    val = open_dataset(folder, split="val")
    assert_same(val, pets, range(7, 10))
    assert val.ids == ("val/val-0/p07", "val/val-0/p08", "val/val-0/p09")
    assert val.passed_over[".json"] == 10
    assert val.root == folder
    assert_same(open_dataset(folder / "train-{0..1}.tar", split="all"), pets, range(7))
    assert_same(open_dataset(folder / "train-*.tar", split="all"), pets, range(7))
    assert_same(open_dataset(folder / "val-0.tar", split="all"), pets, range(7, 10))
    assert not check([open_dataset(folder)]).stops
    write_tar(folder / "val-0.tar", pair(pets, 0))  # what has changed is unpacked anew
    assert_same(open_dataset(folder, split="val"), pets, [0])


def test_a_description_beside_shards_is_theirs_and_tars_beside_photos_are_not_shards(
    pets, tmp_path
):
    folder = make_shards(pets, tmp_path / "shards")
    (folder / "labels.txt").unlink()
    (folder / "dataset.toml").write_text('classes = ["a", "b", "c"]\n')
    assert open_dataset(folder).labels.names == ("a", "b", "c")
    write_tar(pets / "backup.tar", pair(pets, 0))
    assert open_dataset(pets).layout == "folder"


def test_names_in_a_tar_say_what_is_photo_and_what_is_label(pets, tmp_path):
    one = pair(pets, 0)
    photo, mask = one["p00.jpg"], one["p00.png"]
    files = {
        "a/x.jpg": photo, "a/x.png": mask,
        "b.JPG": photo, "b.seg.PNG": mask,
        "c.image.jpg": photo, "c.mask.png": mask, "c.cls": b"3",
    }  # fmt: skip
    write_tar(tmp_path / "some/000.tar", files)
    write_names(tmp_path / "some")
    found = open_dataset(tmp_path / "some", split="all")
    assert found.ids == ("000/a/x", "000/b", "000/c")
    assert_same(found, pets, [0, 0, 0])


def test_what_is_wrong_with_shards_is_said_and_counted(pets, tmp_path, capsys):
    folder = tmp_path / "some"
    path = write_tar(folder / "000.tar", {**pair(pets, 0), **pair(pets, 1)})
    with pytest.raises(DataError, match=r"nothing says what the classes are.*labels\.txt"):
        open_dataset(folder, split="all")
    write_names(folder)
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        third = tar.getmembers()[2]
    for cut in (700, third.offset, third.offset + 100, third.offset_data + 9):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"000\.tar: is cut off or damaged after \d"):
            open_dataset(folder, split="all")
    path.write_bytes(whole[:300])
    with pytest.raises(DataError, match=r"000\.tar: is no tar, or is cut off"):
        open_dataset(folder, split="all")
    photo = pair(pets, 0)["p00.jpg"]
    two = {"p00.seg.png": photo, "p00.mask.png": photo}
    write_tar(path, {**pair(pets, 1), **two})
    with pytest.raises(DataError, match="1 of 2 keys have two labels: p00"):
        open_dataset(folder, split="all")
    write_tar(path, {"../../x.jpg": photo})
    with pytest.raises(DataError, match="leads out of it"):
        open_dataset(folder, split="all")
    write_tar(path, {**pair(pets, 1), "lone.jpg": photo})
    faults = check([open_dataset(folder, split="all")]).faults
    (fault,) = [fault for fault in faults if fault.code == "missing-mask"]
    assert fault.suspects[0].what.endswith("masks/000/lone.png")
    assert run(["data", "check", str(folder), "--split", "all"]) == 1
    assert "lone.png: there is no such file" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"1 of 2 shards are not there: .*001\.tar"):
        open_dataset(folder / "{000..001}.tar", split="all")
    write_tar(folder / "train-7.tar", pair(pets, 2))
    with pytest.raises(DataError, match="called by their split"):
        open_dataset(folder, split="all")


def test_tables_are_the_folder_that_they_were_made_of(pets, tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
    pq = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "hub"
    (folder / "data").mkdir(parents=True)

    def write(name: str, indices, **more) -> Path:
        rows = [list(pair(pets, index).values()) for index in indices]
        columns = {
            "image": [{"bytes": photo, "path": None} for photo, _ in rows],
            "annotation": [{"bytes": mask, "path": "x.png"} for _, mask in rows],
            "scene": [3 for _ in rows],
            **more,
        }
        path = folder / "data" / name
        pq.write_table(pa.table(columns), path, row_group_size=2)
        return path

    write("train-00000-of-00002.parquet", range(4))
    write("train-00001-of-00002.parquet", range(4, 7))
    path = write("validation-00000-of-00001.parquet", range(7, 10))
    names = {str(index): name for index, name in enumerate(NAMES)}
    (folder / "id2label.json").write_text(json.dumps(names))
    assert list_splits(folder) == ("train", "val", "all")
    train = open_dataset(folder)
    assert train.labels.names == NAMES
    assert_same(train, pets, range(7))
    assert_same(open_dataset(folder, split="val"), pets, range(7, 10))
    assert train.passed_over["column 'scene'"] == 3

    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    with pytest.raises(DataError, match="is no parquet file, or is cut off"):
        open_dataset(folder)
    write(path.name, [7], label=[{"bytes": b"", "path": ""}])
    with pytest.raises(DataError, match=r"2 columns of masks \(annotation, label\)"):
        open_dataset(folder)
    write(path.name, [7], annotation=[{"bytes": None, "path": "elsewhere.png"}])
    with pytest.raises(DataError, match=r"row 0 names elsewhere\.png and does not hold it"):
        open_dataset(folder)
    write(path.name, [7], annotation=[4])
    with pytest.raises(DataError, match="'annotation' holds int64, not pictures"):
        open_dataset(folder)


def test_shards_at_an_address_which_a_training_lists_once(pets, tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    folder = make_shards(pets, tmp_path / "shards")
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/bucket/set", recursive=True)
    try:
        assert_same(open_dataset("memory://bucket/set"), pets, range(7))
        assert_same(
            open_dataset("memory://bucket/set/val-{0..0}.tar", split="all"), pets, [7, 8, 9]
        )
        listings = []
        plain = copies.list_files
        monkeypatch.setattr(copies, "list_files", lambda at: listings.append(at) or plain(at))
        with copies.listed_once():
            for split in ("train", "val", "train"):
                open_dataset("memory://bucket/set", split=split)
        assert len(listings) == 1
        open_dataset("memory://bucket/set")
        assert len(listings) == 2
    finally:
        store.rm("/bucket", recursive=True)


@pytest.mark.oracles
@pytest.mark.parametrize("kind", ["webdataset", "datasets"])
def test_shards_as_their_own_packages_write_them(pets, tmp_path, oracles, kind):
    out = tmp_path / "out"
    subprocess.run([oracles, WRITER, kind, pets, out], check=True, capture_output=True)
    found = open_dataset(out / "{000..002}.tar" if kind == "webdataset" else out, split="all")
    assert_same(found, pets, range(10))


def test_what_tar_programs_write_beside_photos_is_told_from_them(pets, tmp_path):
    home = tmp_path / "shards"
    home.mkdir()
    write_names(home)
    photo, mask = pair(pets, 0).values()
    with tarfile.open(home / "0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in {"a/._0.png": b"x", "a/0.jpg": photo, "a/0.png": mask}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target, kind in (
            ("a/1.jpg", "a/0.jpg", tarfile.LNKTYPE),
            ("a/1.png", "a/0.png", tarfile.LNKTYPE),
            ("a/2.jpg", "a/0.jpg", tarfile.SYMTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    found = open_dataset(home, split="all")
    assert_same(found, pets, [0, 0])
    assert found.passed_over == {"hidden files": 1, "links and devices": 1}


def test_shards_that_would_lose_pairs_are_refused(pets, tmp_path):
    first = write_tar(tmp_path / "behind" / "0.tar", pair(pets, 0))
    second = write_tar(tmp_path / "1.tar", pair(pets, 1))
    write_names(first.parent)
    first.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(DataError, match=r"0\.tar: goes on behind its end, after 2 files"):
        open_dataset(first.parent)
    for number, name in enumerate(("full", "small")):
        write_tar(tmp_path / "configs" / name / "train-0.tar", pair(pets, number, "0"))
    write_names(tmp_path / "configs")
    with pytest.raises(DataError, match=r"small/train-0\.tar: another shard that is called so"):
        open_dataset(tmp_path / "configs")
    assert_same(open_dataset(tmp_path / "configs" / "small"), pets, [1])


def test_a_table_that_ends_early_is_refused(pets, tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    home = tmp_path / "table"
    home.mkdir()
    write_names(home)
    photo, mask = pair(pets, 3).values()
    parquet.write_table(pa.table({"image": [photo] * 2, "mask": [mask] * 2}), home / "0.parquet")
    whole = parquet.ParquetFile.iter_batches
    monkeypatch.setattr(
        parquet.ParquetFile, "iter_batches", lambda *a, **k: (b[:1] for b in whole(*a, **k))
    )
    with pytest.raises(DataError, match=r"0\.parquet: 1 of its 2 rows can be read"):
        open_dataset(home, split="all")


def test_a_table_may_repeat_its_pictures_and_says_what_changed(pets, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    home = tmp_path / "table"
    home.mkdir()
    write_names(home)
    photo, mask = pair(pets, 3).values()
    table = {
        "image": pa.array([photo] * 3).dictionary_encode(),
        "mask": pa.array([mask] * 3).dictionary_encode(),
    }
    parquet.write_table(
        pa.table(table), home / "0.parquet", compression="NONE", write_page_checksum=True
    )
    assert_same(open_dataset(home, split="all"), pets, [3, 3, 3])
    stored = (home / "0.parquet").read_bytes()
    at = stored.index(photo) + len(photo) // 2
    (home / "0.parquet").write_bytes(stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :])
    with pytest.raises(DataError, match=r"0\.parquet: is no parquet file, or is cut off"):
        open_dataset(home, split="all")
    (home / "0.parquet").write_bytes(stored.replace(b"\x05image", b"\x05\xffmage"))
    with pytest.raises(DataError, match=r"0\.parquet: is no parquet file, or is cut off \('utf-8"):
        open_dataset(home, split="all")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("id2label.json", '{"0": "a", "1": "b\\nc"}', r"the name of 1 is 'b\\nc', expected one"),
        ("id2label.json", '{"0": "a", "1": ""}', r"the name of 1 is '', expected one line"),
        ("id2label.json", '{"0": "a", "00": "b"}', r"expected the ids 0 to 0, each once"),
        ("id2label.json", "[" * 100_000, r"expected the names by id"),
        ("labels.txt", "a\n\nb\n", r"labels\.txt: line 2 is empty, before another name"),
        ("labels.txt", "# names\na\nb\n", r"labels\.txt: line 1 is '# names', expected the name"),
        ("labels.txt", "a\u2028b\nc\n", r"labels\.txt: line 1 is 'a.u2028b', expected the name"),
    ],
)
def test_names_that_could_be_counted_two_ways_are_refused(pets, tmp_path, name, text, words):
    write_tar(tmp_path / "set" / "0.tar", pair(pets, 0))
    (tmp_path / "set" / name).write_text(text, "utf-8")
    with pytest.raises(DataError, match=words):
        open_dataset(tmp_path / "set")
