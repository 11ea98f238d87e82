"""What labelme, CVAT, YOLO, Label Studio, Supervisely and VIA write becomes what was drawn."""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deeplab.data import open_dataset
from deeplab.data.convert import convert
from deeplab.data.encoded_masks import decode_brush
from deeplab.data.shapes import ellipse_points, fill_polygon, rotate_points
from deeplab.errors import DataError
from tiny_exports import (
    NAMES,
    OUTLINES_ONLY,
    WRITERS,
    base64_png,
    brush,
    draw_scenes,
    png,
    run_lengths,
    save_photos,
)
from tiny_folder import HEIGHT, WIDTH, photo

SIZE = (HEIGHT, WIDTH)
CORNERS = [[10, 8], [30, 8], [30, 28], [10, 28]]
Label = np.ndarray[Any, Any]


def rectangle(top: int = 8, left: int = 10, bottom: int = 28, right: int = 30) -> Label:
    label = np.zeros(SIZE, np.uint8)
    label[top : bottom + 1, left : right + 1] = 1
    return label


def save(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(seed)).save(path)


def write(path: Path, content: Any, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_bytes(text.encode(encoding))
    return path


def only_label(folder: Path) -> Label:
    [sample] = open_dataset(folder, split="all")
    return sample.label


@pytest.mark.parametrize("tool", WRITERS)
def test_random_scenes_come_out_as_they_were_drawn(tmp_path: Path, tool: str) -> None:
    scenes = draw_scenes(5, 25, masks=tool not in OUTLINES_ONLY)
    source = WRITERS[tool](tmp_path / "in", scenes)
    made = convert(source, tmp_path / "out", split="train")
    dataset = open_dataset(tmp_path / "out")
    assert set(made.classes) == set(NAMES)
    assert dataset.ids == tuple(scene.file_name[:-4] for scene in scenes)
    for scene, sample in zip(scenes, dataset, strict=True):
        filled = [
            (fill_polygon(scene.size, t.outline) if t.mask is None else t.mask, t.name)
            for t in scene.things
        ]
        if tool in ("coco", "yolo"):  # these have no layers: the smaller lies on top
            filled.sort(key=lambda thing: -int(thing[0].sum()))
        wanted = np.zeros(scene.size, np.uint8)
        for where, name in filled:
            wanted[where] = made.classes.index(name)
        assert np.array_equal(sample.label, wanted), scene.file_name


@pytest.mark.parametrize("tool", ["coco", "labelme", "cvat", "label_studio", "supervisely", "via"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_and_utf_16_are_read(tmp_path: Path, tool: str, encoding: str) -> None:
    scenes = draw_scenes(5, 3, masks=tool not in OUTLINES_ONLY)
    source = WRITERS[tool](tmp_path / "in", scenes)
    convert(source, tmp_path / "plain", split="train")
    for path in (tmp_path / "in").rglob("*"):
        if path.suffix in (".json", ".xml"):
            text = path.read_text("utf-8").replace('encoding="utf-8"', f'encoding="{encoding[:6]}"')
            path.write_text(text.replace('"utf-8-"', '"utf-8"'), encoding)
    convert(source, tmp_path / "marked", split="train")
    for one, two in zip(*(open_dataset(tmp_path / f) for f in ("plain", "marked")), strict=True):
        assert np.array_equal(one.label, two.label)


def test_gbk_is_named_and_can_be_told(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.jpg")
    shape = {"label": "斑马", "shape_type": "polygon", "points": CORNERS}
    write(tmp_path / "in" / "a.json", {"imagePath": "a.jpg", "shapes": [shape]}, "gbk")
    with pytest.raises(DataError, match=r"a\.json: is not text in UTF-8 .*--encoding gbk"):
        convert(tmp_path / "in", tmp_path / "out")
    made = convert(tmp_path / "in", tmp_path / "out", encoding="gbk")
    assert made.classes == ("background", "斑马")


# -- labelme -------------------------------------------------------------------------------------


def labelme(folder: Path, shapes: list[dict[str, Any]], **fields: Any) -> Path:
    save(folder / "a.jpg")
    content = {"version": "5.8", "imagePath": "a.jpg", "imageData": None, "shapes": shapes}
    write(folder / "a.json", {**content, **fields})
    return folder


def labelme_shape(kind: str | None, points: Any, **fields: Any) -> dict[str, Any]:
    return {"label": "cat", "shape_type": kind, "points": points, "flags": {}, **fields}


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("polygon", CORNERS),
        (None, CORNERS),
        ("rectangle", [[30, 28], [10, 8]]),
        ("rectangle", CORNERS),  # X-AnyLabeling's, with all four corners
        ("oriented_rectangle", CORNERS),
        ("rotation", CORNERS),
        ("quadrilateral", CORNERS),
    ],
)
def test_labelme_shapes_with_corners(tmp_path: Path, kind: str | None, points: Any) -> None:
    convert(labelme(tmp_path / "in", [labelme_shape(kind, points)]), tmp_path / "out")
    assert np.array_equal(only_label(tmp_path / "out"), rectangle())


@pytest.mark.parametrize("kind", ["point", "points", "line", "linestrip"])
def test_labelme_shapes_without_area(tmp_path: Path, kind: str) -> None:
    shapes = [labelme_shape(None, CORNERS), labelme_shape(kind, [[1, 1], [40, 40]])]
    source = labelme(tmp_path / "in", shapes)
    with pytest.raises(DataError, match=rf"shape 2 \('{kind}'\) of 'cat' is a {kind}, .* no area"):
        convert(source, tmp_path / "out")
    made = convert(source, tmp_path / "out", skip_unreadable=True)
    assert np.array_equal(only_label(tmp_path / "out"), rectangle())
    assert any("1 annotations were skipped" in note for note in made.notes)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (labelme_shape("star", CORNERS), "the shape_type 'star', which is not known"),
        (labelme_shape("polygon", CORNERS[:2]), "an outline of 2 points"),
        (labelme_shape("polygon", None), "has no points"),
        (labelme_shape("polygon", [[1, 2, 3]]), r"\[1, 2, 3\] in points"),
        (labelme_shape("circle", CORNERS), "a circle of 4 points"),
        (labelme_shape("rectangle", CORNERS[:1]), "a box of 1 points"),
        (labelme_shape("mask", [[1, 1], [2, 2]]), "has no mask"),
        (labelme_shape("mask", [[1, 1], [2, 2]], mask="!"), "not a PNG|not base64"),
        (
            labelme_shape("mask", [[1, 1], [9, 9]], mask=base64_png(np.ones((3, 3), np.uint8))),
            "a mask of 3×3 pixels in a box of 9×9",
        ),
        (
            labelme_shape(
                "mask", [[0, 0], [999, 999]], mask=base64_png(np.ones((1000, 1000), np.uint8))
            ),
            "a mask of 1000×1000 on a photo of 64×48",
        ),
        ({**labelme_shape("polygon", CORNERS), "label": None}, "names no class"),
    ],
)
def test_labelme_shapes_that_cannot_be_read(
    tmp_path: Path, shape: dict[str, Any], reason: str
) -> None:
    source = labelme(tmp_path / "in", [labelme_shape(None, CORNERS), shape])
    with pytest.raises(DataError, match=rf"shape 2 .*{reason}.*\(a\.jpg\)"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize(("left", "top"), [(-3, -2), (WIDTH - 4, HEIGHT - 3), (-3, HEIGHT - 3)])
def test_labelme_masks_end_at_the_photos_edge(tmp_path: Path, left: int, top: int) -> None:
    encoded = base64_png(np.full((10, 12), 255, np.uint8))
    shape = labelme_shape("mask", [[left, top], [left + 11, top + 9]], mask=encoded)
    convert(labelme(tmp_path / "in", [shape]), tmp_path / "out")
    wanted = np.zeros(SIZE, np.uint8)
    wanted[max(0, top) : top + 10, max(0, left) : left + 12] = 1
    assert np.array_equal(only_label(tmp_path / "out"), wanted)


def test_labelme_photos_that_stand_in_the_json(tmp_path: Path) -> None:
    source = labelme(tmp_path / "in", [labelme_shape(None, CORNERS)])
    data = (source / "a.jpg").read_bytes()
    (source / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"1 photo is not in .*'a\.jpg'"):
        convert(source, tmp_path / "out")
    document = json.loads((source / "a.json").read_text())
    write(source / "a.json", {**document, "imageData": base64.b64encode(data).decode()})
    convert(source, tmp_path / "out")
    assert (tmp_path / "out" / "images" / "a.jpg").read_bytes() == data
    write(source / "a.json", {**document, "imageData": base64.b64encode(data[:500]).decode()})
    with pytest.raises(Exception, match=r"a\.json|photo") as caught:
        convert(source, tmp_path / "again")
    assert "a.json" in str(caught.value)


def test_labelme_files_and_photos_that_do_not_belong(tmp_path: Path) -> None:
    source = labelme(tmp_path / "in", [labelme_shape(None, CORNERS)], imagePath="old name.jpg")
    save(source / "bare.jpg", 1)
    write(source / "settings.json", {"a": 1})
    made = convert(source, tmp_path / "out")
    told = " / ".join(made.notes)
    assert "1 JSON files are not labelme's and left out: settings.json" in told
    assert "1 files name a photo that is not there" in told
    assert "1 photos have no JSON file and are left out" in told
    assert np.array_equal(only_label(tmp_path / "out"), rectangle())


def test_labelme_photos_in_a_folder_beside(tmp_path: Path) -> None:
    source = labelme(tmp_path / "json", [labelme_shape(None, CORNERS)], imagePath="../jpg/a.jpg")
    (tmp_path / "jpg").mkdir()
    (source / "a.jpg").rename(tmp_path / "jpg" / "a.jpg")
    convert(source, tmp_path / "out")
    assert np.array_equal(only_label(tmp_path / "out"), rectangle())


def test_labelme_folders_keep_photos_of_one_name_apart(tmp_path: Path) -> None:
    for index, folder in enumerate(("one", "two")):
        source = labelme(tmp_path / "in" / folder, [labelme_shape(None, CORNERS)])
        save(source / "a.jpg", index)
    convert(tmp_path / "in", tmp_path / "out", split="train")
    assert open_dataset(tmp_path / "out").ids == ("one/a", "two/a")


# -- CVAT ----------------------------------------------------------------------------------------


def cvat_mask(**fields: object) -> str:
    usual = {"rle": "0, 4", "left": 1, "top": 1, "width": 2, "height": 2}
    attributes = (f'{key}="{value}"' for key, value in {**usual, **fields}.items())
    return f'<mask label="cat" {" ".join(attributes)}/>'


def cvat(folder: Path, shapes: str, image: str = "") -> Path:
    save(folder / "images" / "a.jpg")
    label = "<label><name>cat</name></label>"
    return write(
        folder / "annotations.xml",
        f"<annotations><meta><task><labels>{label}</labels></task></meta>"
        f'<image id="0" name="a.jpg" width="{WIDTH}" height="{HEIGHT}" {image}>{shapes}</image>'
        "</annotations>",
    )


POINTS = ";".join(f"{x},{y}" for x, y in CORNERS)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (f'<polygon points="{POINTS}"/>', "polygon 1 names no class"),
        ('<polygon label="cat" points="1,2;3"/>', "'3' in its points, expected x,y"),
        ('<polygon label="cat" points="1,2;3,x;5,6"/>', "'x' as points"),
        ('<polygon label="cat"/>', "in its points"),
        (f'<polygon label="cat" points="{POINTS}" z_order="up"/>', "'up' as z_order"),
        ('<box label="cat" xtl="1" ytl="2" xbr="5"/>', "has no ybr"),
        (
            '<mask label="cat" rle="3, 4" left="1" top="1" width="2" height="2"/>',
            "run of 4|up to 7",
        ),
        (cvat_mask(rle=""), "'' as rle"),
        (
            '<mask label="cat" rle="1" left="0" top="0" width="90000" height="90000"/>',
            "90000×90000",
        ),
        ('<polyline label="cat" points="1,2;3,4"/>', "polyline 1 'cat' has no area"),
        ('<skeleton label="cat"><points label="x" points="1,2"/></skeleton>', "has no area"),
        ('<cuboid label="cat" xtl1="1"/>', "has no area"),
    ],
)
def test_cvat_shapes_that_cannot_be_read(tmp_path: Path, shape: str, reason: str) -> None:
    with pytest.raises(DataError, match=rf"{reason}.*\(a\.jpg\)"):
        convert(cvat(tmp_path / "in", shape), tmp_path / "out")


def test_cvat_masks_end_at_the_photos_edge(tmp_path: Path) -> None:
    shape = '<mask label="cat" rle="0, 30" left="-2" top="45" width="6" height="5"/>'
    convert(cvat(tmp_path / "in", shape), tmp_path / "out")
    assert np.array_equal(only_label(tmp_path / "out"), rectangle(45, 0, 47, 3))


def test_cvat_subsets_are_splits_and_keep_names_apart(tmp_path: Path) -> None:
    source = cvat(tmp_path / "in", f'<polygon label="cat" points="{POINTS}"/>', 'subset="Train"')
    other = source.read_text().replace("Train", "Validation")
    image = other[other.index("<image") : other.index("</annotations>")]
    source.write_text(source.read_text().replace("</annotations>", image + "</annotations>"))
    for index, subset in enumerate(("Train", "Validation")):
        save(tmp_path / "in" / "images" / subset / "a.jpg", index)
    made = convert(source, tmp_path / "out")
    assert made.splits == {"train": 1, "val": 1}


@pytest.mark.parametrize("subset", ["../../evil", "all", "a\\b"])
def test_cvat_subsets_that_cannot_be_splits(tmp_path: Path, subset: str) -> None:
    source = cvat(tmp_path / "in", "", f'subset="{subset}"')
    with pytest.raises(DataError, match="cannot be the name of a split"):
        convert(source, tmp_path / "deep" / "out")
    assert {path.name for path in tmp_path.iterdir()} <= {"in", "deep"}
    assert convert(source, tmp_path / "out", split="train").count == 1


def test_xml_in_an_encoding_that_is_not_read_is_named(tmp_path: Path) -> None:
    source = cvat(tmp_path / "in", "")
    text = '<?xml version="1.0" encoding="gbk"?>' + source.read_text().replace("cat", "猫")
    source.write_bytes(text.encode("gbk"))
    with pytest.raises(DataError, match=r"annotations\.xml: is .*(encoding|XML)"):
        convert(source, tmp_path / "out")
    assert convert(source, tmp_path / "out", encoding="gbk").classes == ("background", "猫")


# -- YOLO ----------------------------------------------------------------------------------------

SHARES = " ".join(f"{value / side:.6f}" for x, y in CORNERS for value, side in ((x, 64), (y, 48)))


def yolo(root: Path, line: str, names: str = "names: [cat, dog]") -> Path:
    save(root / "train" / "images" / "a.jpg")
    write(root / "train" / "labels" / "a.txt", line)
    return write(
        root / "data.yaml", f"train: ../train/images\nval: ../valid/images\n{names}\nnc: 2\n"
    )


@pytest.mark.parametrize(
    "names",
    [
        "names: [cat, dog]",
        "names:\n- cat\n- dog",
        "names:\n  0: cat\n  1: dog",
        'names: {0: cat, 1: "dog"}',
    ],
)
def test_yolo_as_roboflow_lays_it_out(tmp_path: Path, names: str) -> None:
    yolo(tmp_path / "in", f"0 {SHARES}\n\n", names)
    save(tmp_path / "in" / "valid" / "images" / "a.jpg", 1)
    write(tmp_path / "in" / "valid" / "labels" / "a.txt", f"1.0 {SHARES}")
    made = convert(tmp_path / "in", tmp_path / "out")
    assert made.splits == {"train": 1, "val": 1}
    for split, class_id in (("train", 1), ("val", 2)):
        [sample] = open_dataset(tmp_path / "out", split=split)
        assert np.array_equal(sample.label, rectangle() * class_id)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.2 0.2", "no outline, only a box"),
        ("7 " + SHARES, "names no class"),
        ("cat " + SHARES, "names no class"),
        ("0 " + SHARES + " 0.5", "an outline of 9 numbers"),
        ("0 0.1 0.2", "an outline of 1 points"),
        ("0 10 20 30 40 50 60", "'10.0'|10.0 in its outline, expected 0 to 1"),
        ("0 0.1 0.2 nan 0.4 0.5 0.6", "'nan' as an outline"),
        ("0", "an outline of 0 points"),
    ],
)
def test_yolo_lines_that_cannot_be_read(tmp_path: Path, line: str, reason: str) -> None:
    yolo(tmp_path / "in", f"0 {SHARES}\n{line}\n")
    save(tmp_path / "in" / "valid" / "images" / "b.jpg", 1)
    with pytest.raises(DataError, match=rf"a\.txt line 2 .*({reason}).*a\.jpg"):
        convert(tmp_path / "in", tmp_path / "out")


def test_yolo_lists_and_files_that_belong_to_nothing(tmp_path: Path) -> None:
    save(tmp_path / "in" / "images" / "train" / "a.jpg")
    write(tmp_path / "in" / "labels" / "train" / "a.txt", f"0 {SHARES}")
    write(tmp_path / "in" / "train.txt", "data/images/train/a.jpg\n")
    source = write(tmp_path / "in" / "data.yaml", "path: .\ntrain: train.txt\nnames: [cat]\n")
    convert(source, tmp_path / "out")
    assert np.array_equal(only_label(tmp_path / "out"), rectangle())
    write(tmp_path / "in" / "labels" / "train" / "b.txt", f"0 {SHARES}")
    with pytest.raises(DataError, match=r"1 files of outlines belong to no photo: b\.txt"):
        convert(source, tmp_path / "again")
    shutil.rmtree(tmp_path / "in" / "labels")
    with pytest.raises(DataError, match="no photo has a file of outlines"):
        convert(source, tmp_path / "again")
    write(tmp_path / "in" / "train.txt", "images/train/z.jpg\n")
    with pytest.raises(
        DataError, match=r"train\.txt: the photo 'images/train/z\.jpg' is not there"
    ):
        convert(source, tmp_path / "again")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: [a, b]\ntrain: nowhere", "train: there is no nowhere"),
        ("names: [a, a]\ntrain: images", "names a twice"),
        ("names: {0: a, 2: b}\ntrain: images", r"names for the classes \[0, 2\]"),
        ("names: [a]\nnc: 2\ntrain: images", "nc is 2, but there are 1 names"),
        ("names: 7\ntrain: images", "7 as names, expected a list"),
        ("names: [a]", "names no folder with photos"),
        ("train: images", "has no 'names'"),
        ("names: [a", "is not YAML"),
        ("names: [a]\nmasks_dir: masks", "is of masks, not of outlines"),
    ],
)
def test_data_yaml_that_is_not_right(tmp_path: Path, text: str, reason: str) -> None:
    save(tmp_path / "images" / "a.jpg")
    with pytest.raises(DataError, match=rf"data\.yaml: .*{reason}"):
        convert(write(tmp_path / "data.yaml", text), tmp_path / "out")


# -- Label Studio --------------------------------------------------------------------------------


def region(value: dict[str, Any], kind: str = "polygonlabels", **fields: Any) -> dict[str, Any]:
    return {
        "id": "r1",
        "type": kind,
        "value": {**value, kind: ["cat"]},
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        **fields,
    }


def label_studio(folder: Path, *regions: dict[str, Any], **task: Any) -> Path:
    save(folder / "a b.jpg")
    usual = {"id": 5, "data": {"image": "/data/upload/3/0a1b2c3d-a%20b.jpg"}}
    annotations = [{"id": 9, "result": [*regions]}]
    return write(folder / "x.json", [{**usual, "annotations": annotations, **task}])


PERCENT = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in CORNERS]
BOX = {"x": 100 * 10 / 64, "y": 100 * 8 / 48, "width": 100 * 20 / 64, "height": 100 * 20 / 48}


def coloured(alpha: Label) -> Label:
    """Return (H, W, 4) of noise with this alpha, as a browser's canvas has it."""
    noise = np.random.default_rng(1).integers(0, 256, (*SIZE, 3))
    return np.dstack([noise, alpha]).astype(np.uint8)


@pytest.mark.parametrize(
    "value",
    [
        {"points": PERCENT, "closed": True},
        BOX,
        {"rle": brush(np.repeat(rectangle()[..., None], 4, 2) * 200), "format": "rle"},
        {"rle": brush(coloured(rectangle() * 9)), "format": "rle"},
        {"imageDataURL": "data:image/png;base64," + base64_png(coloured(rectangle() * 255))},
    ],
)
def test_label_studio_regions(tmp_path: Path, value: dict[str, Any]) -> None:
    kind = "brushlabels" if "rle" in value else "polygonlabels"
    convert(label_studio(tmp_path / "in", region(value, kind)), tmp_path / "out")
    assert np.array_equal(only_label(tmp_path / "out"), rectangle())


def test_label_studio_turned_rectangles_and_ellipses(tmp_path: Path) -> None:
    turned = region({**BOX, "rotation": 30}, "rectanglelabels")
    convert(label_studio(tmp_path / "in", turned), tmp_path / "out")
    corners = rotate_points([(10, 8), (30, 8), (30, 28), (10, 28)], (10, 8), 30)
    assert np.array_equal(only_label(tmp_path / "out"), fill_polygon(SIZE, corners))
    oval = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 12.5, "rotation": 20}
    convert(label_studio(tmp_path / "two", region(oval, "ellipselabels")), tmp_path / "out2")
    outline = rotate_points(ellipse_points((32, 24), (16, 6)), (32, 24), 20)
    assert np.array_equal(only_label(tmp_path / "out2"), fill_polygon(SIZE, outline))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (region({"points": PERCENT}, image_rotation=90), "drawn on a turned photo"),
        (region({"points": PERCENT}, original_width=65), "annotated at 48×65|photo of"),
        (region({"rle": [1, 2, 3], "format": "rle"}, "brushlabels"), "breaks off"),
        (
            region({"rle": brush(np.zeros((2, 2, 4), np.uint8))}, "brushlabels"),
            "mask of 16 numbers",
        ),
        (region({"rle": [256]}, "brushlabels"), "not a list of bytes"),
        (region({"rle": "x"}, "brushlabels"), "not a list of bytes"),
        (region({"points": PERCENT[:2]}), "an outline of 2 points"),
        (region({"x": 5, "y": 5, "width": 1}, "keypointlabels"), "has no area"),
        (region({"points": PERCENT, "closed": False}), "has no area"),
        ({**region({}), "value": {"points": PERCENT, "polygonlabels": []}}, "names no class"),
        (
            {**region({}), "value": {"points": PERCENT, "polygonlabels": ["a", "b"]}},
            "names no class",
        ),
    ],
)
def test_label_studio_regions_that_cannot_be_read(
    tmp_path: Path, wrong: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        convert(label_studio(tmp_path / "in", wrong), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_label_studio_tasks(tmp_path: Path) -> None:
    old = {"id": 1, "updated_at": "2020-01-01", "result": []}
    new = {"id": 2, "updated_at": "2021-01-01", "result": [region({"points": PERCENT})]}
    cancelled = {**old, "id": 3, "updated_at": "2022-01-01", "was_cancelled": True}
    source = label_studio(tmp_path / "in", annotations=[new, old, cancelled])
    tasks = json.loads(source.read_text())
    bare = {"id": 6, "data": {"image": "none.jpg"}, "annotations": [], "predictions": [{}]}
    write(source, [*tasks, bare])
    made = convert(source, tmp_path / "out")
    assert np.array_equal(only_label(tmp_path / "out"), rectangle())
    told = " / ".join(made.notes)
    assert "1 tasks have no annotation and are left out" in told
    assert "1 tasks have several annotations" in told


def test_label_studio_json_min(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.jpg")
    value = {
        "points": PERCENT,
        "polygonlabels": ["cat"],
        "original_width": 64,
        "original_height": 48,
    }
    task = {"id": 1, "image": "/data/local-files/?d=photos/a.jpg", "label": [value], "annotator": 1}
    source = write(tmp_path / "in" / "min.json", [{**task, "annotation_id": 1}])
    convert(source, tmp_path / "out")
    assert np.array_equal(only_label(tmp_path / "out"), rectangle())


@pytest.mark.parametrize("seed", range(6))
def test_brush_masks_of_any_content(seed: int) -> None:
    draw = np.random.default_rng(seed)
    values = draw.integers(0, 256, (7, 300, 4), dtype=np.uint8)
    values[draw.random((7, 300)) < (0.1, 0.5, 0.9, 0.99, 1, 0)[seed]] = 0
    assert np.array_equal(decode_brush(brush(values), (7, 300)), values[..., 3])


# -- Supervisely ---------------------------------------------------------------------------------


def supervisely(root: Path, *objects: dict[str, Any]) -> Path:
    save(root / "ds" / "img" / "a.jpg")
    write(root / "meta.json", {"classes": [{"title": "cat", "color": "#FF0000"}]})
    size = {"height": HEIGHT, "width": WIDTH}
    write(root / "ds" / "ann" / "a.jpg.json", {"size": size, "objects": [*objects], "tags": []})
    return root


def thing(kind: str, points: Any = None, **fields: Any) -> dict[str, Any]:
    return {"id": 3, "classTitle": "cat", "geometryType": kind, "points": points, **fields}


HUGE = np.ones((3000, 3000), np.uint8)


def packed(array: Any) -> str:
    return base64.b64encode(zlib.compress(png(array))).decode()


def test_supervisely_objects(tmp_path: Path) -> None:
    convert(
        supervisely(tmp_path / "in", thing("rectangle", {"exterior": CORNERS[::2]})), tmp_path / "1"
    )
    assert np.array_equal(only_label(tmp_path / "1"), rectangle())
    hole = [[15, 12], [20, 12], [20, 20], [15, 20]]
    ring = thing("polygon", {"exterior": CORNERS, "interior": [hole]})
    convert(supervisely(tmp_path / "in", ring), tmp_path / "2")
    wanted = rectangle()
    wanted[12:21, 15:21] = 0
    assert np.array_equal(only_label(tmp_path / "2"), wanted)
    alpha = np.full((21, 21, 4), 255, np.uint8)
    alpha[5:9, 5:9, 3] = 0
    convert(
        supervisely(
            tmp_path / "in", thing("bitmap", bitmap={"origin": [10, 8], "data": packed(alpha)})
        ),
        tmp_path / "3",
    )
    wanted = rectangle()
    wanted[13:17, 15:19] = 0
    assert np.array_equal(only_label(tmp_path / "3"), wanted)
    turned = thing("oriented_bbox", CORNERS[::2], angle=math.pi / 6)
    convert(supervisely(tmp_path / "in", turned), tmp_path / "4")
    corners = rotate_points([(10, 8), (30, 8), (30, 28), (10, 28)], (20, 18), 30)
    assert np.array_equal(only_label(tmp_path / "4"), fill_polygon(SIZE, corners))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (thing("line", {"exterior": CORNERS}), "has no area"),
        (thing("polygon"), "has no points"),
        (thing("bitmap", bitmap={"origin": [1, 1], "data": "!"}), "base64|not a PNG"),
        (thing("bitmap", bitmap={"origin": [1, 1]}), "has no data"),
        (thing("bitmap", bitmap=None), "has no bitmap"),
        (thing("bitmap", bitmap={"origin": [0, 0], "data": packed(HUGE)}), "3000×3000|not a PNG"),
        (thing("sphere"), "'sphere', which is not known"),
        ({**thing("polygon", {"exterior": CORNERS}), "classTitle": None}, "names no class"),
    ],
)  # fmt: skip
def test_supervisely_objects_that_cannot_be_read(
    tmp_path: Path, wrong: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=rf"object 3 .*({reason}).*a\.jpg"):
        convert(supervisely(tmp_path / "in", wrong), tmp_path / "out")


def test_supervisely_data_sets_of_one_project(tmp_path: Path) -> None:
    root = supervisely(tmp_path / "in", thing("polygon", {"exterior": CORNERS}))
    shutil.copytree(root / "ds", root / "other")
    save(root / "other" / "img" / "a.jpg", 1)
    save(root / "other" / "img" / "bare.jpg", 2)
    made = convert(root, tmp_path / "out", split="train")
    assert open_dataset(tmp_path / "out").ids == ("ds/a", "other/a")
    assert any("1 photos have no annotation file" in note for note in made.notes)
    convert(root / "ds", tmp_path / "one", split="train")
    assert open_dataset(tmp_path / "one").ids == ("a",)
    (root / "ds" / "img" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"1 photo is not in .*'a\.jpg'"):
        convert(root, tmp_path / "two")


# -- VIA -----------------------------------------------------------------------------------------

XS, YS = ([point[axis] for point in CORNERS] for axis in (0, 1))
VIA_BOX = {"name": "rect", "x": 10, "y": 8, "width": 20, "height": 20}
VIA_POLYGON = {"name": "polygon", "all_points_x": XS, "all_points_y": YS}


def via(folder: Path, regions: Any, wrap: Callable[[Any], Any] = lambda entries: entries) -> Path:
    save(folder / "a.jpg")
    entry = {"filename": "a.jpg", "size": 7, "regions": regions, "file_attributes": {}}
    return write(folder / "via.json", wrap({"a.jpg7": entry}))


def via_region(shape: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


@pytest.mark.parametrize(
    ("regions", "wrap"),
    [
        ([via_region(VIA_POLYGON, kind="cat")], lambda entries: entries),
        ({"0": via_region(VIA_POLYGON, kind="cat")}, lambda entries: entries),  # VIA 1
        ([via_region(VIA_POLYGON, kind={"cat": True, "dog": False})], lambda entries: entries),
        ([via_region(VIA_BOX, kind="cat")], lambda entries: entries),
        ([via_region(VIA_POLYGON, kind="cat")], lambda entries: {"_via_img_metadata": entries}),
    ],
)
def test_via_json(tmp_path: Path, regions: Any, wrap: Callable[[Any], Any]) -> None:
    made = convert(via(tmp_path / "in", regions, wrap), tmp_path / "out")
    assert made.classes == ("background", "cat")
    assert np.array_equal(only_label(tmp_path / "out"), rectangle())


def test_via_csv(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.jpg")
    shape, kind = (json.dumps(part).replace('"', '""') for part in (VIA_POLYGON, {"kind": "cat"}))
    source = write(
        tmp_path / "in" / "via.csv",
        "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
        f'region_attributes\na.jpg,7,"{{}}",1,0,"{shape}","{kind}"\n',
    )
    for place in (source, source.parent):
        convert(place, tmp_path / place.name / "out")
        assert np.array_equal(only_label(tmp_path / place.name / "out"), rectangle())


def test_via_attributes(tmp_path: Path) -> None:
    bare = convert(via(tmp_path / "in", [via_region(VIA_POLYGON)]), tmp_path / "1")
    assert bare.classes == ("background", "object")
    assert any("all are of one class, 'object'" in note for note in bare.notes)
    several = via(tmp_path / "in", [via_region(VIA_POLYGON, kind="cat", size="big")])
    with pytest.raises(DataError, match=r"several attributes: kind, size.*--attribute kind"):
        convert(several, tmp_path / "2")
    assert convert(several, tmp_path / "2", attribute="size").classes == ("background", "big")
    with pytest.raises(DataError, match="no region has the attribute 'colour'"):
        convert(several, tmp_path / "3", attribute="colour")
    mixed = via(tmp_path / "in", [via_region(VIA_POLYGON), via_region(VIA_POLYGON, kind="cat")])
    with pytest.raises(DataError, match=r"region 0 \('polygon'\) names no class"):
        convert(mixed, tmp_path / "3")
    line = via(tmp_path / "in", [via_region({**VIA_POLYGON, "name": "polyline"}, kind="cat")])
    with pytest.raises(DataError, match="is a polyline, which has no area"):
        convert(line, tmp_path / "3")


# -- what is none of these -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.zip", "PK", "is an archive. Unpack it first"),
        ("x.csv", "a,b\n1,2\n", "is not VIA's CSV"),
        ("x.json", {"project": {}, "metadata": {}, "view": {}, "file": {}}, "a project of VIA 3"),
        ("x.json", [], "is not an export that is known"),
    ],
)
def test_what_is_no_export_is_named(tmp_path: Path, name: str, content: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        convert(write(tmp_path / name, content), tmp_path / "out")


def test_a_folder_of_several_exports_is_refused(tmp_path: Path) -> None:
    scenes = draw_scenes(1, 2)
    save_photos(tmp_path / "in", scenes)
    for name in ("one.json", "two.json"):
        write(tmp_path / "in" / name, {"a": {"filename": "p0000.png", "regions": []}})
    with pytest.raises(DataError, match=r"several exports \(one\.json, two\.json\)\. Name one"):
        convert(tmp_path / "in", tmp_path / "out")


def test_run_lengths_of_the_helper() -> None:
    assert run_lengths(np.array([[0, 1, 1], [0, 0, 1]], bool)) == [1, 2, 2, 1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    source = labelme(tmp_path / "in", [labelme_shape(None, CORNERS)])
    for name in ("pipe.json", "pipe.csv", "pipe.xml", "pipe.yaml", "pipe.jpg"):
        os.mkfifo(source / name)
    write(source / "._a.json", "\x00")
    assert convert(source, tmp_path / "out").count == 1


def test_yaml_that_would_unfold_without_end_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)
    ]
    source = write(tmp_path / "data.yaml", "\n".join([*lines, "names: [*a29]", "train: ."]))
    with pytest.raises(DataError, match=r"data\.yaml: has .* as a name, expected a text"):
        convert(source, tmp_path / "out")
