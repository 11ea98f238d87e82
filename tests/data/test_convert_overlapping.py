"""Annotations in which things lie over each other become a mask for each class: nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from deeplab.cli import run as run_command
from deeplab.data import open_dataset
from deeplab.data.convert import convert
from deeplab.errors import DataError

SIZE = (40, 60)


def draw(corners: list[int]) -> np.ndarray:
    """A box of COCO's, [x, y, width, height], as pixels."""
    x, y, width, height = corners
    where = np.zeros(SIZE, np.uint8)
    where[y : y + height, x : x + width] = 1
    return where


def write_coco(folder: Path, annotations: list[dict[str, Any]], names: list[str]) -> Path:
    """Two photos and what is drawn on them, boxes as polygons."""
    folder.mkdir()
    images = []
    for number in (1, 2):
        photo = Image.new("RGB", SIZE[::-1], (40 * number, 90, 30))
        ImageDraw.Draw(photo).rectangle((5 * number, 4, 30, 20), fill=(200, 10 * number, 0))
        photo.save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 40, "width": 60})
    content = {
        "images": images,
        "annotations": [{"id": number, **one} for number, one in enumerate(annotations)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def polygon(category: int, box: list[int], image: int = 1) -> dict[str, Any]:
    x, y, width, height = box
    right, bottom = x + width - 1, y + height - 1  # its edge belongs to a polygon
    corners = [x, y, right, y, right, bottom, x, bottom]
    return {"image_id": image, "category_id": category, "segmentation": [corners], "bbox": box}


PERSON, SHIRT, TIE = [10, 5, 30, 30], [15, 10, 20, 15], [20, 12, 4, 10]


def test_what_lies_under_something_is_kept_and_counted(tmp_path: Path) -> None:
    drawn = [
        polygon(0, PERSON), polygon(1, SHIRT), polygon(2, TIE), polygon(0, [0, 0, 12, 12]),
        polygon(0, PERSON, image=2),
    ]  # fmt: skip
    coco = write_coco(tmp_path / "coco", drawn, ["person", "shirt", "tie"])
    made = convert(coco, tmp_path / "data", overlap=True, split="train")
    assert made.classes == ("person", "shirt", "tie")
    dataset = open_dataset(tmp_path / "data", split="train")
    assert dataset.labels.overlap
    labels = {sample.id: sample.label for sample in dataset}
    person, shirt, tie = (labels["1"][:, :, index] for index in range(3))
    assert (person == (draw(PERSON) | draw([0, 0, 12, 12]))).all()
    assert (shirt == draw(SHIRT)).all()
    assert (tie == draw(TIE)).all()
    assert not labels["2"][:, :, 1:].any()
    several, labelled = draw(SHIRT).sum(), person.sum() + labels["2"][:, :, 0].sum()
    (note,) = (one for one in made.notes if "overlap" in one)
    assert f"on 1 photos; {100 * several / labelled:.1f} % of the pixels" in note


def test_what_counts_for_nothing_does_so_where_nothing_is_seen(tmp_path: Path) -> None:
    broken = {"image_id": 1, "category_id": 1, "segmentation": None, "bbox": [0, 20, 30, 10]}
    drawn = [polygon(0, PERSON), polygon(2, [0, 0, 20, 20]), broken]
    coco = write_coco(tmp_path / "coco", drawn, ["person", "shirt", "ignore"])
    made = convert(coco, tmp_path / "data", overlap=True, split="train", skip_unreadable=True)
    assert made.classes == ("person", "shirt")
    label = open_dataset(tmp_path / "data", split="train")[0].label
    person, ignored = draw(PERSON) == 1, draw([0, 0, 20, 20]) == 1
    assert (label[:, :, 0] == np.where(person, 1, np.where(ignored, 255, 0))).all()
    shirt = ignored | (draw([0, 20, 31, 11]) == 1)
    assert (label[:, :, 1] == np.where(shirt, 255, 0)).all()


def test_it_is_an_option_of_the_command_and_never_mixed(tmp_path: Path, capsys: Any) -> None:
    drawn = [polygon(0, PERSON), polygon(1, SHIRT), polygon(0, PERSON, image=2)]
    coco = write_coco(tmp_path / "coco", drawn, ["person", "shirt"])
    words = ["data", "convert", str(coco), "-o", str(tmp_path / "data"), "--overlap"]
    assert run_command(words) == 0
    assert "classes overlap on 1 photos" in capsys.readouterr().out
    assert run_command([*words[:-1], "--split", "more"]) == 2
    assert "its classes overlap" in capsys.readouterr().err
    assert run_command(["data", "check", str(tmp_path / "data"), "--no-page"]) in (0, 1, 2)


def test_what_has_one_class_per_pixel_is_refused(tmp_path: Path) -> None:
    one = write_coco(tmp_path / "one", [polygon(0, PERSON)], ["person"])
    with pytest.raises(DataError, match="overlap: is for two classes or more, it has person"):
        convert(one, tmp_path / "data", overlap=True)
    content = json.loads(one.read_text())
    content["annotations"] = [
        {"image_id": 1, "file_name": "1.png", "segments_info": [{"id": 1, "category_id": 0}]}
    ]
    one.write_text(json.dumps(content))
    with pytest.raises(DataError, match="one class per pixel"):
        convert(one, tmp_path / "data", overlap=True)
