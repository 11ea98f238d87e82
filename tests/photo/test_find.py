"""Everything below a folder is read, or counted and said."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from deeplab.files import name_partial
from deeplab.photo import formats
from deeplab.photo.find import describe_passed_over, expand_pattern, kind_of, list_pictures


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3)).save(path.with_suffix(".jpg"))
    return path.with_suffix(".jpg").rename(path)


def test_what_is_no_picture_is_counted_by_suffix(tmp_path: Path) -> None:
    names = ["a.jpg", "B.JFIF", "c/d.TIFF", "c/e.j2k"]
    pictures = [save(tmp_path / name) for name in names]
    for name in ("a.nef", "b.NEF", "c/clip.mp4", "c/readme", "c/.hidden.jpg", "notes.txt"):
        (tmp_path / name).write_text("no picture")
    listing = list_pictures(tmp_path)
    assert sorted(listing.pictures) == sorted(pictures)
    assert listing.passed_over == {
        ".nef": 2, ".mp4": 1, "licences and the like": 1, "hidden": 1, ".txt": 1
    }  # fmt: skip
    told = describe_passed_over(listing.passed_over)
    assert told.startswith("2 .nef (a camera's raw files: export them as JPEG), 1 .mp4 (videos: ")
    assert describe_passed_over({}) == ""


def test_what_file_servers_and_macos_put_aside_is_hidden(tmp_path: Path) -> None:
    photo = save(tmp_path / "b" / "a.jpg")
    save(tmp_path / "b" / "@eaDir" / "a.jpg" / "SYNOPHOTO_THUMB_M.jpg")
    save(tmp_path / "__MACOSX" / "b" / "a.jpg")
    listing = list_pictures(tmp_path)
    assert sorted(listing.pictures) == [photo]
    assert listing.passed_over == {"hidden": 2}


def test_without_its_reader_heic_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.heic").write_bytes(b"")
    monkeypatch.setattr(formats, "_can_read_heic", lambda: False)
    listing = list_pictures(tmp_path)
    assert listing.pictures == []
    assert "deeplab[heic]" in describe_passed_over(listing.passed_over)


def test_links_are_followed_once_and_pipes_never(tmp_path: Path) -> None:
    save(tmp_path / "set" / "a.jpg")
    save(tmp_path / "elsewhere" / "b.jpg")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "elsewhere" / "around").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "set" / "pipe.jpg")
    listing = list_pictures(tmp_path / "set")
    assert [path.name for path in listing.pictures] == ["a.jpg", "b.jpg"]
    assert listing.passed_over == {
        "folders that were met before": 2, "links that lead nowhere": 1, "pipes and devices": 1
    }  # fmt: skip
    assert kind_of(tmp_path / "set" / "pipe.jpg") == "pipes and devices"


def test_equal_names_in_two_folders_are_two(tmp_path: Path) -> None:
    for folder in ("day", "night"):
        save(tmp_path / folder / "a.jpg")
    assert len(list_pictures(tmp_path).pictures) == 2


def test_patterns_equal_glob(tmp_path: Path) -> None:
    for name in ("a.jpg", "x/b.jpg", "x/y/c.jpg", "x/y/d.png", "z/y/e.jpg", ".h/f.jpg"):
        save(tmp_path / name)
    (tmp_path / "folder.jpg").mkdir()
    from glob import glob

    for pattern in ("*.jpg", "**/*.jpg", "x/**", "**/y/*", "**", "x/**/c.jpg", "**/y/**/*.p*"):
        whole = f"{tmp_path}/{pattern}"
        expected = sorted(Path(p) for p in glob(whole, recursive=True) if os.path.isfile(p))
        assert expand_pattern(whole, Counter()) == expected


def test_two_links_upward_end(tmp_path: Path) -> None:
    save(tmp_path / "a" / "b" / "c.jpg")
    for name in ("one", "two"):
        (tmp_path / "a" / "b" / name).symlink_to(tmp_path / "a")
    found = expand_pattern(f"{tmp_path}/**/*.jpg", Counter())
    assert [path.name for path in found] == ["c.jpg"]


def test_files_in_the_making_match_no_pattern(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.touch()
    name_partial(photo).touch()
    passed_over = Counter[str]()
    found = expand_pattern(f"{tmp_path}/*", passed_over)
    found += expand_pattern(f"{tmp_path}/.*", passed_over)
    assert found == [photo]
    assert passed_over == {"files in the making": 1}
