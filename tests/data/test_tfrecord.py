"""Shards that TensorFlow wrote (``tests/oracles/write_shards.py``), whole and damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from shard_pictures import draw

from deeplab import cli
from deeplab.data import open_dataset
from deeplab.data.convert import convert
from deeplab.data.tfrecord import encode, parse_example, scan_records, split_of
from deeplab.errors import DataError, ImageError, InputError
from deeplab.labels import ADE20K, CAMVID

SHARDS = Path(__file__).with_name("shards")
NAMES = ("background", "one", "two", "three")


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES))
    return path


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return Path(shutil.copy(SHARDS / "train-00000-of-00002.tfrecord", tmp_path))


def test_a_folder_of_shards_becomes_photos_and_masks(tmp_path: Path, names: Path) -> None:
    made = convert(SHARDS, tmp_path / "made", labels=names)
    assert made.classes == NAMES
    assert made.splits == {"train": 3, "val": 2, "trainval": 1}
    assert any("1 records have no mask" in n and "val-00000" in n for n in made.notes)
    assert any("2 photos of 'trainval' are in another split" in note for note in made.notes)
    for split, indices in {"train": (0, 1, 2), "val": (3, 4), "trainval": (5,)}.items():
        dataset = open_dataset(tmp_path / "made", split=split)
        assert sorted(dataset.ids) == [f"2007_{index:06}" for index in indices]
        for number, name in enumerate(dataset.ids):
            photo, mask = draw(int(name[-1]))
            sample = dataset[number]
            assert np.array_equal(sample.label, mask)
            assert np.abs(sample.image.astype(int) - photo).mean() < 12  # JPEG


def test_several_shards_are_named_on_the_command_line(
    tmp_path: Path, names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = [str(path) for path in sorted(SHARDS.glob("train-*.tfrecord"))]
    assert (
        cli.run(["data", "convert", *shards, "-o", str(tmp_path / "m"), "--labels", str(names)])
        == 0
    )
    assert "3 pairs" in capsys.readouterr().out


def test_without_labels_the_ids_are_counted_and_that_is_said(tmp_path: Path, shard: Path) -> None:
    made = convert(shard, tmp_path / "made")
    assert made.classes == ("class 0", "class 1", "class 2")
    assert any("assumed: shards name no classes" in note for note in made.notes)
    assert any("'train' has 2 shards by their names, of which 1" in note for note in made.notes)


def test_an_id_that_is_no_class_is_refused(tmp_path: Path, shard: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("background\none")
    with pytest.raises(
        DataError, match=r"1 annotation cannot be read: .*record 2.* no class \(2\)"
    ):
        convert(shard, tmp_path / "made", labels=few)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-7], "record 2 is cut off: it wants the bytes to"),
        (lambda data: data[: data.index(b"2007_000001") + 3], "record 2 is cut off"),
        (
            lambda data: data.replace(b"2007_000001", b"2007_000002"),
            "record 2 has a wrong checksum",
        ),
        (lambda data: data + b"abc", "record 3 is cut off: the file ends"),
        (lambda data: data + bytes(range(20)), "record 3 has a wrong checksum of its length"),
    ],
)
def test_damage_is_said_and_what_is_whole_can_be_kept(
    tmp_path: Path, shard: Path, names: Path, damage, said: str
) -> None:
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(ImageError, match=said):
        convert(shard, tmp_path / "made", labels=names)
    assert not (tmp_path / "made").exists()
    made = convert(shard, tmp_path / "made", labels=names, skip_unreadable=True)
    assert made.count == (2 if "3" in said else 1)
    assert any("1 photos are damaged and left out" in note and said in note for note in made.notes)


def test_every_byte_of_a_record_is_guarded(shard: Path) -> None:
    whole = shard.read_bytes()
    for at in range(0, len(whole), 97):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        shard.write_bytes(changed)
        assert [record for record in scan_records(shard) if record.fault]


def test_what_is_no_record_is_refused_in_words(tmp_path: Path, names: Path) -> None:
    text = tmp_path / "a.tfrecord"
    text.write_text("hello")
    with pytest.raises(ImageError, match="record 1 is cut off"):
        convert(text, tmp_path / "made", labels=names)
    text.write_bytes(b"")
    with pytest.raises(DataError, match="there are no records"):
        convert(text, tmp_path / "made", labels=names)
    with pytest.raises(DataError, match=r"is no tf\.train\.Example"):
        parse_example(b"\xff\xff\xff")
    with pytest.raises(DataError, match="Several sources can only be shards"):
        convert([names, text], tmp_path / "made")
    with pytest.raises(InputError, match="no known label set"):
        convert(SHARDS, tmp_path / "made", labels="pets")


def test_values_follow_the_label_set() -> None:
    assert encode(ADE20K).values == tuple(range(1, 151))  # 0 is "other"
    assert encode(ADE20K).ignore == (0, 255)
    assert encode(CAMVID).ignore == (11, 255)
    assert split_of(Path("val_fine-00003-of-00010.tfrecord")) == "val"
    assert split_of(Path("mine.tfrecord")) == ""
