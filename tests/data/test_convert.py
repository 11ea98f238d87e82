"""Exports become folders whose labels are what was drawn."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deeplab.data import open_dataset
from deeplab.data.check import check
from deeplab.data.convert import convert
from deeplab.data.shapes import (
    box_points,
    decode_coco_rle,
    decode_row_rle,
    ellipse_points,
    fill_polygon,
    rotate_points,
)
from deeplab.errors import DataError, DeepLabError
from tiny_exports import compress, run_lengths
from tiny_folder import HEIGHT, WIDTH, photo

SQUARE = [4, 4, 23, 4, 23, 23, 4, 23]  # x, y, …: 20 × 20 pixels with its border


def save_photos(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(photo(index)).save(folder / name)


def square() -> np.ndarray[Any, Any]:
    where = np.zeros((HEIGHT, WIDTH), bool)
    where[4:24, 4:24] = True
    return where


# -- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_run_lengths_equal_their_masks(seed: int) -> None:
    draw = np.random.default_rng(seed)
    where = draw.random((13, 29)) < (0.02, 0.5, 0.9, 0.0, 1.0, 0.3, 0.99, 0.001)[seed]
    columns = run_lengths(where.T)
    assert np.array_equal(decode_coco_rle({"size": [13, 29], "counts": columns}), where)
    text = compress(columns)
    assert np.array_equal(decode_coco_rle({"size": [13, 29], "counts": text}), where)
    assert np.array_equal(decode_row_rle(run_lengths(where), (13, 29)), where)


def test_compressed_runs_of_every_length() -> None:
    large = np.zeros((700, 900), bool)
    large[::7, 3:800] = True
    large[300:, 850:] = True
    text = compress(run_lengths(large.T))
    assert np.array_equal(decode_coco_rle({"size": [700, 900], "counts": text}), large)


def test_wrong_run_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="add up to 5, expected 6"):
        decode_row_rle([2, 3], (2, 3))
    with pytest.raises(DataError, match="a run of -2 pixels"):
        decode_row_rle([8, -2], (2, 3))


def test_shapes() -> None:
    pairs = list(zip(SQUARE[::2], SQUARE[1::2], strict=True))
    assert np.array_equal(fill_polygon((HEIGHT, WIDTH), pairs), square())
    assert np.array_equal(fill_polygon((HEIGHT, WIDTH), box_points([(23, 23), (4, 4)])), square())
    disc = fill_polygon((100, 100), ellipse_points((50, 50), (30, 20)))
    assert disc.sum() == pytest.approx(np.pi * 30 * 20, rel=0.06)
    turned = fill_polygon(
        (100, 100), rotate_points(ellipse_points((50, 50), (30, 20)), (50, 50), 90)
    )
    assert (turned != disc.T).mean() < 0.01
    assert rotate_points([(1, 0)], (0, 0), 90)[0] == pytest.approx((0, 1))
    with pytest.raises(DataError, match="an outline of 2 points"):
        fill_polygon((9, 9), [(1, 1), (5, 5)])


# -- COCO ----------------------------------------------------------------------------------------


def coco(annotations: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH},
            {"id": 9, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 44, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": annotations,
        **extra,
    }


def test_coco_instances(tmp_path: Path) -> None:
    save_photos(tmp_path / "photos", "a.jpg", "b.jpg")
    small = np.zeros((HEIGHT, WIDTH), bool)
    small[10:15, 8:13] = True
    runs = run_lengths(small.T)
    annotations = [
        {
            "image_id": 7,
            "category_id": 3,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs},
        },
        {"image_id": 7, "category_id": 44, "segmentation": [SQUARE]},
    ]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco(annotations)))
    seen: list[tuple[int, int]] = []
    made = convert(
        path,
        tmp_path / "out",
        images=tmp_path / "photos",
        split="train",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert made.splits == {"train": 2}
    assert seen == [(1, 2), (2, 2)]
    dataset = open_dataset(tmp_path / "out")
    assert dataset.ids == ("a", "b")
    assert dataset.labels.names == ("background", "cat", "dog")
    assert dataset.labels.background == 0
    expected = np.where(small, 1, np.where(square(), 2, 0))
    assert np.array_equal(dataset[0].label, expected)  # the small cat lies on the large dog
    assert not dataset[1].label.any()
    assert not check([dataset]).stops


def test_a_second_split_keeps_the_ids(tmp_path: Path) -> None:
    save_photos(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    path = tmp_path / "train.json"
    path.write_text(json.dumps(coco([{"image_id": 7, "category_id": 3, "segmentation": [SQUARE]}])))
    convert(path, tmp_path / "out", split="train")
    second = coco([{"image_id": 5, "category_id": 1, "segmentation": [SQUARE]}])
    second["images"] = [{"id": 5, "file_name": "x/c.jpg", "height": HEIGHT, "width": WIDTH}]
    second["categories"] = [{"id": 1, "name": "dog"}]
    (tmp_path / "val.json").write_text(json.dumps(second))
    convert(tmp_path / "val.json", tmp_path / "out", split="val")
    assert open_dataset(tmp_path / "out", split="train").ids == ("a", "b")
    val = open_dataset(tmp_path / "out", split="val")
    assert val.ids == ("c",)
    assert set(np.unique(val[0].label)) == {0, 2}
    with pytest.raises(DataError, match="already has 'val'"):
        convert(tmp_path / "val.json", tmp_path / "out", split="val")
    with pytest.raises(DataError, match="exists already"):
        convert(tmp_path / "val.json", tmp_path / "out", split="test")
    second["categories"] = [{"id": 1, "name": "bird"}]
    (tmp_path / "new.json").write_text(json.dumps(second))
    (tmp_path / "out" / "masks" / "c.png").unlink()
    with pytest.raises(DataError, match="the class 'bird' is new"):
        convert(tmp_path / "new.json", tmp_path / "out", split="test")


def test_coco_panoptic(tmp_path: Path) -> None:
    save_photos(tmp_path, "a.jpg", "b.jpg")
    ids = np.where(square(), 300, 70000)
    ids[0] = 0
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    (tmp_path / "panoptic").mkdir()
    Image.fromarray(rgb).save(tmp_path / "panoptic" / "a.png")
    segments = [{"id": 300, "category_id": 3}, {"id": 70000, "category_id": 44}]
    annotation = {"image_id": 7, "file_name": "a.png", "segments_info": segments}
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps(coco([annotation])))
    assert convert(path, tmp_path / "out").count == 1
    dataset = open_dataset(tmp_path / "out")
    assert dataset.labels.names == ("cat", "dog")
    assert dataset.labels.background is None
    expected = np.where(square(), 0, 1)
    expected[0] = 255
    assert np.array_equal(dataset[0].label, expected)


# -- labelme -------------------------------------------------------------------------------------


def shape(label: str, points: list[list[float]], kind: str, **extra: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, **extra}


def test_labelme(tmp_path: Path) -> None:
    save_photos(tmp_path / "set", "a.jpg", "b.jpg")
    buffer = io.BytesIO()
    Image.fromarray(np.full((5, 6), 255, np.uint8)).save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    first = {
        "imagePath": "a.jpg",
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
        "shapes": [
            shape("cat", [[4, 4], [23, 23]], "rectangle"),
            shape("dog", [[10, 10], [15, 14]], "mask", mask=encoded),
            shape("__ignore__", [[40, 4], [50, 4], [50, 14], [40, 14]], "polygon"),
            shape("_background_", [[4, 4], [5, 4], [5, 5], [4, 5]], "polygon"),
        ],
    }
    second = {"imagePath": "..\\x\\b.jpg", "shapes": [shape("dog", [[30, 20], [30, 30]], "circle")]}
    (tmp_path / "set" / "a.json").write_text(json.dumps(first))
    (tmp_path / "set" / "b.json").write_text(json.dumps(second))
    convert(tmp_path / "set", tmp_path / "out", split="train")
    dataset = open_dataset(tmp_path / "out")
    assert dataset.labels.names == ("background", "cat", "dog")
    expected = np.where(square(), 1, 0)
    expected[10:15, 10:16] = 2
    expected[4:15, 40:51] = 255
    expected[4:6, 4:6] = 0
    assert np.array_equal(dataset[0].label, expected)
    assert (dataset[1].label == 2).sum() == pytest.approx(np.pi * 100, rel=0.1)


def test_labelme_lines_are_refused(tmp_path: Path) -> None:
    save_photos(tmp_path, "a.jpg")
    content = {"imagePath": "a.jpg", "shapes": [shape("cat", [[0, 0], [5, 5]], "line")]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="'cat' is a line, which has no area"):
        convert(tmp_path, tmp_path / "out")


# -- CVAT ----------------------------------------------------------------------------------------

CVAT = f"""<?xml version="1.0"?><annotations><meta><task><labels>
<label><name>cat</name><color>#ff0102</color></label>
<label><name>dog</name><color>#0000ff</color></label></labels></task></meta>
<image id="0" name="sub/a.jpg" width="{WIDTH}" height="{HEIGHT}">
<box label="dog" xtl="8" ytl="8" xbr="12" ybr="12" z_order="1"/>
<polygon label="cat" points="4,4;23,4;23,23;4,23" z_order="0"/>
<mask label="dog" rle="2, 3, 1, 4, 2" left="40" top="10" width="4" height="3" z_order="2"/>
<ellipse label="cat" cx="50" cy="35" rx="8" ry="4" rotation="90" z_order="0"/>
<tag label="cat"/></image></annotations>"""


def test_cvat(tmp_path: Path) -> None:
    save_photos(tmp_path / "images", "a.jpg")
    (tmp_path / "annotations.xml").write_text(CVAT)
    convert(tmp_path / "annotations.xml", tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert dataset.labels.names == ("background", "cat", "dog")
    assert dataset.labels.colours == ((0, 0, 0), (255, 1, 2), (0, 0, 255))
    label = dataset[0].label
    expected = np.where(square(), 1, 0)
    expected[8:13, 8:13] = 2
    assert np.array_equal(label[:24, :32], expected[:24, :32])
    assert label[10:13, 40:44].tolist() == [[0, 0, 2, 2], [2, 0, 2, 2], [2, 2, 0, 0]]
    assert label[42, 50] == 1
    assert label[35, 57] == 0  # the ellipse stands upright
    assert not check([dataset]).stops


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CVAT.replace("<tag", "<polyline"), "polyline 5 'cat' has no area"),
        (CVAT.replace('width="64"', ""), "image 0 has no width"),
        ("<html></html>", "begins with <html>"),
        ("<annotations><track/></annotations>", "CVAT for video"),
        ("<annotations>", "is not XML"),
        ("<annotations></annotations>", "no photos"),
        (CVAT.replace("a.jpg", "b.jpg"), r"1 photo is not in .*: 'sub/b\.jpg'"),
        (CVAT.replace("a.jpg", "a.txt"), r"a\.txt: the file is empty"),
    ],
)
def test_wrong_xml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    save_photos(tmp_path / "images", "a.jpg")
    (tmp_path / "images" / "a.txt").write_text("")
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(DeepLabError, match=message):
        convert(tmp_path / "annotations.xml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not an export that is known"),
        ('{"shapes": [], "imagePath": "a.jpg"}', "Name the folder"),
        ('{"images": [{}], "annotations": [], "categories": []}', r"images\[0\] has no id"),
    ],
)
def test_wrong_json_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "x.json", tmp_path / "out")
    with pytest.raises(DataError, match="no such file"):
        convert(tmp_path / "y.json", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no labelme JSON"):
        convert(tmp_path / "empty", tmp_path / "out")
