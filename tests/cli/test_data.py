"""``deeplab data check`` and ``deeplab data convert``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab import cli
from deeplab.data import open_dataset
from tiny_folder import HEIGHT, WIDTH, make_folder, photo


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = cli.run([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_a_clean_set_is_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder(tmp_path / "set")
    code, out, err = run(capsys, "data", "check", root)
    assert code == 0
    assert "train: 8 pairs, median 48×64" in out
    assert "val: 2 pairs" in out
    assert "suggested crop: 49×65" in out
    assert out.rstrip().endswith("Ready to train on.")
    assert err == ""


def test_a_broken_set_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder(tmp_path / "set")
    for index in range(5):
        Image.fromarray(np.full((HEIGHT, WIDTH), 9, np.uint8)).save(
            root / "masks" / f"p0{index}.png"
        )
    page, report = tmp_path / "check.html", tmp_path / "check.json"
    code, out, _ = run(capsys, "data", "check", root, "--page", page, "--json", report)
    assert code == 1
    assert "STOP train: 5 × masks with values that are no class" in out
    assert "p00.png: 100.0 % of the pixels have a value that is no class (9)" in out
    assert "… and 2 more" in out
    assert out.rstrip().splitlines()[-3].startswith("Do not train on this yet.")
    assert "p04.png" in page.read_text("utf-8")
    assert json.loads(report.read_text("utf-8"))["stops_training"]
    code, out, _ = run(capsys, "data", "check", root, "--split", "val")
    assert code == 0
    assert "train:" not in out


def test_what_is_assumed_and_what_is_missing_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder(tmp_path / "set")
    (root / "val.txt").unlink()
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(f"{path.stem}_seg.png"))
    (root / "images" / "clip.mov").write_bytes(b"")
    code, out, _ = run(capsys, "data", "check", root)
    assert code == 0
    assert "assumed: the mask of NAME is NAME_seg" in out
    assert (
        ".mov: 1 .mov (videos: deeplab segment takes them, with pip install 'deeplab[video]')"
        in out
    )
    assert "note there is nothing to judge by" in out
    assert "train = 0.8 and val = 0.2" in out
    assert out.rstrip().endswith("Ready to train on, once there is a val.")


def test_no_data_set_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "data", "check", tmp_path)
    assert code == 2
    assert "no known layout" in err
    code, _, err = run(capsys, "data", "check", make_folder(tmp_path / "a"), "--split", "vall")
    assert code == 2
    assert "Did you mean 'val'" in err


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(photo(0)).save(tmp_path / "a.jpg")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "segmentation": [[4, 4, 23, 4, 23, 23, 4, 23]]}
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    code, out, _ = run(
        capsys, "data", "convert", tmp_path / "coco.json", "-o", tmp_path / "out", "--split", "val"
    )
    assert code == 0
    assert "1 pairs, 1 in 'val'; classes: background, cat" in out
    assert (open_dataset(tmp_path / "out", split="val")[0].label == 1).sum() == 400
    code, _, err = run(
        capsys, "data", "convert", tmp_path / "coco.json", "-o", tmp_path / "out", "--split", "val"
    )
    assert code == 2
    assert "already has 'val'" in err
