"""What stands on the disk after a conversion: all of it or nothing, and nobody's file is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deeplab.data import list_splits, open_dataset
from deeplab.data.check import check
from deeplab.data.convert import convert
from deeplab.errors import DataError, DeepLabError, InputError, OutputError
from tiny_exports import WRITERS, Scene, draw_scenes, write_coco
from tiny_folder import make_folder, photo


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def square_export(folder: Path, names: list[str], **image: Any) -> Path:
    """Write photos and a COCO file with one square on each."""
    entries = []
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(sum(name.encode()) * 7 + index)).save(folder / name)
        size = {"height": 48, "width": 64}
        entries.append({"id": index, "file_name": name, **(size | image)})
    annotations = [
        {"id": i, "image_id": i, "category_id": 1, "segmentation": [[4, 4, 20, 4, 20, 20, 4, 20]]}
        for i in range(len(names))
    ]
    path = folder / "set.json"
    path.write_text(
        json.dumps(
            {
                "images": entries,
                "annotations": annotations,
                "categories": [{"id": 1, "name": "cat"}],
            }
        )
    )
    return path


# -- names ---------------------------------------------------------------------------------------


def test_folders_keep_photos_of_one_name_apart(tmp_path: Path) -> None:
    names = ["data/left/0001.jpg", "data/right/0001.jpg", "data/right/deep/0001.jpg"]
    convert(square_export(tmp_path / "in", names), tmp_path / "out", split="train")
    dataset = open_dataset(tmp_path / "out")
    assert dataset.ids == ("left/0001", "right/0001", "right/deep/0001")
    for name, path in zip(names, dataset.images, strict=True):
        assert path.read_bytes() == (tmp_path / "in" / name).read_bytes()


def test_photos_that_differ_in_their_suffix_alone_are_both_kept(tmp_path: Path) -> None:
    made = convert(
        square_export(tmp_path / "in", ["a.jpg", "a.png", "b.jpg"]), tmp_path / "out", split="train"
    )
    assert made.count == 3
    assert open_dataset(tmp_path / "out").ids == ("a_jpg", "a_png", "b")


def test_two_entries_that_come_to_one_photo_stop(tmp_path: Path) -> None:
    source = square_export(tmp_path / "in", ["x/a.jpg", "y/a.jpg"])
    shutil.move(tmp_path / "in" / "x" / "a.jpg", tmp_path / "in" / "a.jpg")
    shutil.rmtree(tmp_path / "in" / "y")
    with pytest.raises(DataError, match=r"'x/a\.jpg' and 'y/a\.jpg' are both found as .*in/a\.jpg"):
        convert(source, tmp_path / "out")


def test_an_image_twice_in_the_export_stops(tmp_path: Path) -> None:
    source = square_export(tmp_path / "in", ["a.jpg", "b.jpg"])
    source.write_text(source.read_text().replace('"b.jpg"', '"a.jpg"'))
    with pytest.raises(DataError, match=r"a\.jpg occurs twice|both found as"):
        convert(source, tmp_path / "out")


def test_photo_names_that_no_list_can_hold_are_refused(tmp_path: Path) -> None:
    source = square_export(tmp_path / "in", ["a\nb.jpg"])
    with pytest.raises(DataError, match="control character"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize("name", ["a/b", "..", "all", "labels", "", "x y", "-x", ".x", "a" * 300])
def test_split_names_that_cannot_be_are_refused_before_the_work(tmp_path: Path, name: str) -> None:
    source = square_export(tmp_path / "in", ["a.jpg"])
    with pytest.raises(InputError, match="split"):
        convert(source, tmp_path / "out", split=name)
    assert not (tmp_path / "out").exists()


# -- sizes ---------------------------------------------------------------------------------------


def test_a_claimed_size_is_compared_not_believed(tmp_path: Path) -> None:
    source = square_export(tmp_path / "in", ["a.jpg"], height=60_000, width=60_000)
    start = time.perf_counter()
    with pytest.raises(DataError, match=r"a\.jpg: was annotated at 60000×60000 .* has 48×64"):
        convert(source, tmp_path / "out")
    assert time.perf_counter() - start < 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("unknown", [0, -1, None, ""])
def test_an_unknown_size_is_the_photos(tmp_path: Path, unknown: Any) -> None:
    source = square_export(tmp_path / "in", ["a.jpg"], height=unknown, width=unknown)
    assert convert(source, tmp_path / "out").count == 1


def test_a_photo_annotated_as_it_is_stored_gets_a_turned_mask(tmp_path: Path) -> None:
    for orientation, turn in ((6, -1), (8, 1)):
        folder = tmp_path / str(orientation)
        source = square_export(folder / "in", ["a.jpg"])
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(photo(0)).save(folder / "in" / "a.jpg", exif=exif)  # 64 × 48 upright
        made = convert(source, folder / "out", split="train")
        assert any("EXIF" in note for note in made.notes)
        stored = np.zeros((48, 64), np.uint8)
        stored[4:21, 4:21] = 1
        assert np.array_equal(open_dataset(folder / "out")[0].label, np.rot90(stored, turn))


# -- whole or not at all -------------------------------------------------------------------------


@pytest.mark.parametrize("tool", WRITERS)
def test_a_fault_leaves_nothing_and_the_mended_export_converts(tmp_path: Path, tool: str) -> None:
    source = WRITERS[tool](tmp_path / "in", draw_scenes(1, 4, masks=tool not in ("yolo", "via")))
    last = sorted((tmp_path / "in").rglob("*.png"))[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    images = tmp_path / "in" if tool == "label_studio" else None
    with pytest.raises(DeepLabError, match=last.name):
        convert(source, tmp_path / "made" / "out", images=images)
    assert not [*(tmp_path / "made").iterdir()]
    last.write_bytes(whole)
    assert convert(source, tmp_path / "made" / "out", images=images).count == 4
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["out"]


def test_damaged_photos_can_be_left_out(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "in", draw_scenes(1, 4))
    (tmp_path / "in" / "p0002.png").write_bytes(b"\x89PNG")
    made = convert(source, tmp_path / "out", split="train", skip_unreadable=True)
    assert made.count == 3
    assert any("1 photos are damaged and left out" in note for note in made.notes)


def test_a_photo_of_the_same_name_is_never_lost(tmp_path: Path) -> None:
    source = square_export(tmp_path / "in", ["a.jpg"])
    other = tmp_path / "out" / "images" / "a.jpg"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"images/a\.jpg: exists already"):
        convert(source, tmp_path / "out")
    assert snapshot(tmp_path / "out") == {"images/a.jpg": b"mine"}
    original = tmp_path / "elsewhere.jpg"
    original.write_bytes(b"also mine")
    other.unlink()
    other.symlink_to(original)
    with pytest.raises(DataError, match=r"images/a\.jpg: exists already"):
        convert(source, tmp_path / "out")
    assert original.read_bytes() == b"also mine"


def test_photos_that_lie_in_place_stay_there(tmp_path: Path) -> None:
    source = square_export(tmp_path / "set", ["images/a.jpg", "images/sub/b.jpg"])
    before = snapshot(tmp_path / "set")
    convert(source, tmp_path / "set", split="train")
    after = snapshot(tmp_path / "set")
    assert after.items() >= before.items()
    assert set(after) - set(before) == {
        "masks/a.png",
        "masks/sub/b.png",
        "train.txt",
        "dataset.toml",
    }
    assert not check([open_dataset(tmp_path / "set")]).stops


def test_a_folder_of_photos_that_is_none_is_refused(tmp_path: Path) -> None:
    source = square_export(tmp_path / "in", ["a.jpg"])
    with pytest.raises(InputError, match=r"images: .*nowhere is no folder"):
        convert(source, tmp_path / "out", images=tmp_path / "nowhere")


@pytest.mark.parametrize("place", [".", "empty"])
def test_a_folder_that_is_there_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    source = square_export(tmp_path / "in", ["a.jpg", "b.jpg"])
    folder = tmp_path / "work" / place
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    convert(source, place)
    assert {path.name for path in folder.iterdir()} == {
        "dataset.toml", "images", "masks", "train.txt", "val.txt"
    }  # fmt: skip
    assert len(open_dataset(place, split="all")) == 2


def test_a_destination_that_is_a_file_is_refused(tmp_path: Path) -> None:
    source = square_export(tmp_path / "in", ["a.jpg"])
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match="is a file"):
        convert(source, tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    source = square_export(tmp_path / "in", ["a.jpg"])
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="cannot write"):
        convert(source, tmp_path / "locked" / "out")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = square_export(tmp_path / "in", ["a.jpg", "b.jpg"])

    def copy_half(source: Path, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", copy_half)
    (tmp_path / "made").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*out: No space left"):
        convert(source, tmp_path / "made" / "out")
    assert not [*(tmp_path / "made").iterdir()]


def test_moving_into_a_folder_that_is_there_is_undone_on_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(square_export(tmp_path / "first", ["a.jpg"]), tmp_path / "out", split="train")
    before = snapshot(tmp_path / "out")
    source = square_export(tmp_path / "second", ["b.jpg", "c.jpg"])
    moves = 0
    replace = os.replace

    def stop_at_the_third(source: Path, target: Path) -> None:
        nonlocal moves
        if Path(target).is_relative_to(tmp_path / "out"):
            moves += 1
            if moves == 3:
                raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", split="val")
    monkeypatch.undo()
    assert snapshot(tmp_path / "out") == before
    assert convert(source, tmp_path / "out", split="val").splits == {"val": 2}


def test_what_a_killed_run_left_is_no_hindrance(tmp_path: Path) -> None:
    convert(square_export(tmp_path / "first", ["a.jpg"]), tmp_path / "out", split="train")
    source = square_export(tmp_path / "second", ["b.jpg", "c.jpg"])
    convert(source, tmp_path / "other", split="val")
    for part in ("images/b.jpg", "masks/b.png"):  # as far as the move came
        shutil.copyfile(tmp_path / "other" / part, tmp_path / "out" / part)
    assert convert(source, tmp_path / "out", split="val").splits == {"val": 2}
    assert open_dataset(tmp_path / "out", split="val").ids == ("b", "c")


@pytest.mark.integration
def test_a_rerun_ends_well_after_kills(tmp_path: Path) -> None:
    scenes = draw_scenes(2, 60)
    source = write_coco(tmp_path / "in", scenes)
    code = textwrap.dedent(
        f"""
        from deeplab.data.convert import convert
        print("go", flush=True)
        convert({str(source)!r}, {str(tmp_path / "made" / "out")!r})
        """
    )
    for number in range(6):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(0.03 * (number + 1))
            process.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[number % 3])
        out = tmp_path / "made" / "out"
        if out.exists():  # it was whole before the signal came
            assert len(open_dataset(out, split="all")) == 60
            shutil.rmtree(out)
    assert convert(source, tmp_path / "made" / "out").count == 60


# -- splits --------------------------------------------------------------------------------------


def test_photos_are_divided_so_that_training_can_begin(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "in", draw_scenes(4, 40))
    made = convert(source, tmp_path / "out")
    assert made.splits == {"train": 32, "val": 8}
    assert list_splits(tmp_path / "out") == ("train", "val", "all")
    assert any("divided here" in note for note in made.notes)
    datasets = [open_dataset(tmp_path / "out", split=split) for split in ("train", "val")]
    report = check(datasets)
    assert not report.stops
    assert not {fault.code for fault in report.faults} & {"leak", "duplicates"}
    shown = {value for sample in datasets[1] for value in np.unique(sample.label).tolist()}
    assert shown == {0, 1, 2, 3}
    again = convert(source, tmp_path / "again")
    assert snapshot(tmp_path / "again") == snapshot(tmp_path / "out")
    assert again.splits == made.splits
    convert(source, tmp_path / "other", seed=1)
    assert (tmp_path / "other" / "val.txt").read_bytes() != (tmp_path / "out/val.txt").read_bytes()


def test_near_duplicates_stay_together(tmp_path: Path) -> None:
    names = [f"film{film}_{frame}.png" for film in range(5) for frame in range(6)]
    source = square_export(tmp_path / "in", names)
    for name in names:
        film, frame = (int(part) for part in name.removeprefix("film").split(".")[0].split("_"))
        pixels = np.clip(photo(film).astype(np.int16) + frame, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    made = convert(source, tmp_path / "out")
    assert made.splits == {"train": 24, "val": 6}
    films = {name.split("_")[0] for name in (tmp_path / "out" / "val.txt").read_text().split()}
    assert len(films) == 1


def test_what_the_caller_says_of_splits_holds(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "in", draw_scenes(4, 10))
    assert convert(source, tmp_path / "one", split="test").splits == {"test": 10}
    assert convert(source, tmp_path / "two", validation_share=0).splits == {"train": 10}
    half = convert(source, tmp_path / "three", validation_share=0.5)
    assert half.splits == {"train": 5, "val": 5}
    with pytest.raises(InputError, match="validation share: got 1"):
        convert(source, tmp_path / "four", validation_share=1)
    with pytest.raises(DataError, match="already has 'test'"):
        convert(source, tmp_path / "one", split="test")


# -- a folder of photos and masks is an export too -----------------------------------------------


def test_a_round_trip_loses_nothing(tmp_path: Path) -> None:
    scenes = [Scene(f"{s.file_name[:-4]}.png", *s.size, s.things) for s in draw_scenes(9, 12)]
    convert(write_coco(tmp_path / "in", scenes), tmp_path / "first")
    made = convert(tmp_path / "first", tmp_path / "second")
    first, second = snapshot(tmp_path / "first"), snapshot(tmp_path / "second")
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} <= {"dataset.toml"}
    for split in made.splits:
        one, two = (open_dataset(tmp_path / f, split=split) for f in ("first", "second"))
        assert one.ids == two.ids
        assert one.labels == two.labels
        assert all(np.array_equal(a.label, b.label) for a, b in zip(one, two, strict=True))


def test_a_folder_with_other_values_and_names_comes_out_the_same(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "set")
    (root / "labels.txt").unlink()
    (root / "dataset.toml").write_text(
        'classes = ["void", "cat", "background"]\nbackground = "background"\n'
        "values = [2, 1, 0]\n[splits]\ntrain = 'train.txt'\nval = 'val.txt'\n"
    )
    made = convert(root, tmp_path / "out")
    assert made.splits == {"train": 8, "val": 2}
    for split in ("train", "val"):
        one, two = (open_dataset(folder, split=split) for folder in (root, tmp_path / "out"))
        assert one.labels.names == two.labels.names == ("void", "cat", "background")
        assert all(np.array_equal(a.label, b.label) for a, b in zip(one, two, strict=True))
