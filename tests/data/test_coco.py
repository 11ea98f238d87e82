"""COCO as it is found in the world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deeplab.data import open_dataset
from deeplab.data.convert import Conversion, convert
from deeplab.data.shapes import decode_coco_rle, fill_polygon
from deeplab.errors import DataError
from tiny_exports import compress, draw_scenes, near_outlines, run_lengths, write_coco
from tiny_folder import HEIGHT, WIDTH, photo

OUTLINE = [10, 8, 30, 8, 30, 28, 10, 28]  # rows 8..28, columns 10..30


def rectangle() -> np.ndarray[Any, Any]:
    where = np.zeros((HEIGHT, WIDTH), bool)
    where[8:29, 10:31] = True
    return where


def entry(number: Any, image: Any = 1, category: Any = 3, **fields: Any) -> dict[str, Any]:
    usual = {"id": number, "image_id": image, "category_id": category, "bbox": [10, 8, 21, 21]}
    return {**usual, "segmentation": [OUTLINE], **fields}


def convert_coco(
    folder: Path,
    annotations: list[dict[str, Any]],
    *,
    ids: tuple[Any, Any] = (1, 2),
    categories: list[dict[str, Any]] | None = None,
    **options: Any,
) -> Conversion:
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(("a.jpg", "b.jpg")):
        Image.fromarray(photo(index)).save(folder / name)
    images = [
        {"id": key, "file_name": name, "height": HEIGHT, "width": WIDTH}
        for key, name in zip(ids, ("a.jpg", "b.jpg"), strict=True)
    ]
    usual = [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}]
    content = {
        "images": images, "annotations": annotations, "categories": categories or usual
    }  # fmt: skip
    (folder / "coco.json").write_text(json.dumps(content))
    options = {"split": "train", **options}
    return convert(folder / "coco.json", folder / "out", **options)


def labels_of(folder: Path) -> list[np.ndarray[Any, Any]]:
    return [sample.label for sample in open_dataset(folder / "out", split="all")]


# -- read right ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "segmentation",
    [
        [OUTLINE],
        OUTLINE,  # flat, as VIA writes it
        [[[10, 8], [30, 8], [30, 28], [10, 28]]],
        [[10, 8], [30, 8], [30, 28], [10, 28]],
        [[str(value) for value in OUTLINE]],
        [[10, 8, 30, 8, 30, 18, 10, 18], [10, 18, 30, 18, 30, 28, 10, 28]],
        {"size": [HEIGHT, WIDTH], "counts": run_lengths(rectangle().T)},
        {"size": [HEIGHT, WIDTH], "counts": compress(run_lengths(rectangle().T))},
        [{"size": [HEIGHT, WIDTH], "counts": compress(run_lengths(rectangle().T))}],
    ],
)
def test_every_way_to_write_an_outline(tmp_path: Path, segmentation: Any) -> None:
    convert_coco(tmp_path, [entry(1, segmentation=segmentation)])
    first, second = labels_of(tmp_path)
    assert np.array_equal(first, rectangle() * 1)
    assert not second.any()


@pytest.mark.parametrize("ids", [(0, 1), ("0", "1"), ("00ab", "1e2"), ("a.jpg", "b.jpg")])
def test_ids_are_numbers_or_texts(tmp_path: Path, ids: tuple[Any, Any]) -> None:
    convert_coco(tmp_path, [entry(1, ids[1], "5")], ids=ids)
    first, second = labels_of(tmp_path)
    assert not first.any()
    assert np.array_equal(second, rectangle() * 2)


def test_ids_as_text_where_images_have_numbers(tmp_path: Path) -> None:
    convert_coco(tmp_path, [entry(1, "0"), entry(2, 1.0, 5)], ids=(0, 1))
    assert [label.max() for label in labels_of(tmp_path)] == [1, 2]


@pytest.mark.parametrize("root", ["pets-abc", "cat"])
def test_the_root_that_roboflow_writes_is_no_class(tmp_path: Path, root: str) -> None:
    categories = [
        {"id": 0, "name": root, "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": root},
        {"id": 5, "name": "dog", "supercategory": root},
    ]
    made = convert_coco(tmp_path, [entry(1)], categories=categories)
    assert made.classes == ("background", "cat", "dog")
    assert any(f"'{root}' (id 0) is only the supercategory" in note for note in made.notes)
    assert any("no pixel is dog" in note for note in made.notes)


def test_a_root_that_is_drawn_is_a_class(tmp_path: Path) -> None:
    categories = [
        {"id": 3, "name": "animal", "supercategory": "none"},
        {"id": 5, "name": "dog", "supercategory": "animal"},
    ]
    made = convert_coco(tmp_path, [entry(1)], categories=categories)
    assert made.classes == ("background", "animal", "dog")


def test_photos_without_annotations_are_told(tmp_path: Path) -> None:
    made = convert_coco(tmp_path, [entry(1)])
    assert any("1 photos have no annotation and are background: b" in n for n in made.notes)


# -- what cannot be read -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"segmentation": None}, "has no segmentation, at most a box"),
        ({"segmentation": []}, "has no segmentation, at most a box"),
        ({"segmentation": [OUTLINE[:-1]]}, "an outline of 7 numbers"),
        ({"segmentation": [OUTLINE[:4]]}, "an outline of 2 points"),
        ({"segmentation": [[*OUTLINE[:-1], None]]}, "has no segmentation|expected a number"),
        ({"segmentation": [[*OUTLINE[:-1], float("nan")]]}, "nan as segmentation"),
        ({"segmentation": [[*OUTLINE[:-1], 1e12]]}, "far outside of any photo"),
        ({"segmentation": "x"}, "'x' as segmentation"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, r"run lengths of \[9, 9\] on a photo"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 6]}}, "add up to 11, expected"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "ä"}}, "letters that COCO's code"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "o"}}, "break off"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [-1, 3073]}}, "a run of 3073|of -1"),
        ({"segmentation": {"size": [HEIGHT, WIDTH]}}, "not whole numbers"),
        ({"category_id": None}, "names no class"),
        ({"category_id": 99}, "names no class"),
    ],
)
def test_what_cannot_be_read_is_named_or_counts_for_nothing(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    annotations = [entry(4, 2, 5), entry(77123, **fields)]
    told = rf"1 annotation cannot be read: annotation 77123 .*{reason}"
    with pytest.raises(DataError, match=told):
        convert_coco(tmp_path, annotations)
    with pytest.raises(DataError, match=r"\(a\.jpg\).*--skip-unreadable"):
        convert_coco(tmp_path, annotations)
    assert not (tmp_path / "out").exists()
    made = convert_coco(tmp_path, annotations, skip_unreadable=True)
    first, second = labels_of(tmp_path)
    assert set(np.unique(first)) == {0, 255}
    assert np.array_equal(first[9:28, 11:30], np.full((19, 19), 255))
    assert np.array_equal(second, rectangle() * 2)
    assert any("1 annotations were skipped" in note and "77123" in note for note in made.notes)


def test_a_photo_is_left_out_where_nobody_knows_what_to_ignore(tmp_path: Path) -> None:
    annotations = [entry(4, 2, 5), entry(5, segmentation=None, bbox=None)]
    made = convert_coco(tmp_path, annotations, skip_unreadable=True)
    assert open_dataset(tmp_path / "out").ids == ("b",)
    assert any("left out" in note and note.endswith(": a") for note in made.notes)


def test_annotations_of_no_photo_stop(tmp_path: Path) -> None:
    annotations = [entry(1), entry(2, 99), entry(3, None)]
    for skip in (False, True):
        with pytest.raises(DataError, match=r"2 annotations point to no photo: 2 \(image_id 99\)"):
            convert_coco(tmp_path, annotations, skip_unreadable=skip)


def test_doubled_ids_stop(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images: the id 1 occurs twice"):
        convert_coco(tmp_path, [entry(1)], ids=(1, "1"))
    categories = [{"id": 3, "name": "cat"}, {"id": 3, "name": "dog"}]
    with pytest.raises(DataError, match="categories: the id 3 occurs twice"):
        convert_coco(tmp_path, [entry(1)], categories=categories)


def test_a_long_run_length_text_is_read_at_once() -> None:
    """A megabyte of it took most of a minute once."""
    where = np.random.default_rng(0).random((1000, 1000)) < 0.5
    text = compress(run_lengths(where.T))
    assert len(text) > 400_000
    assert np.array_equal(decode_coco_rle({"size": [1000, 1000], "counts": text}), where)


@pytest.mark.parametrize("place", ["train2017", "images/train2017", "images", ".", "annotations"])
def test_photos_where_archives_have_them(tmp_path: Path, place: str) -> None:
    path = write_coco(tmp_path / place, draw_scenes(2, 3))
    (tmp_path / "annotations").mkdir(exist_ok=True)
    source = path.rename(tmp_path / "annotations" / "instances_train2017.json")
    assert convert(source, tmp_path / "out").count == 3


def test_a_folder_of_one_coco_file_for_each_split(tmp_path: Path) -> None:
    scenes = draw_scenes(2, 9)
    for split, part in (("train", scenes[:5]), ("valid", scenes[:2]), ("test", scenes[:2])):
        write_coco(tmp_path / "in" / split, part).rename(
            tmp_path / "in" / split / "_annotations.coco.json"
        )
    made = convert(tmp_path / "in", tmp_path / "out")
    assert made.splits == {"train": 5, "val": 2, "test": 2}
    assert open_dataset(tmp_path / "out", split="val").ids == ("valid/p0000", "valid/p0001")


# -- an oracle -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_equal_those_of_pycocotools(tmp_path: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco")
    scenes = draw_scenes(21, 60)
    path = write_coco(tmp_path / "in", scenes)
    convert(path, tmp_path / "out", split="train")
    oracle = pycocotools.COCO(str(path))
    names = {number: name["name"] for number, name in oracle.cats.items()}
    dataset = open_dataset(tmp_path / "out")
    exact = 0
    for scene, number, sample in zip(scenes, sorted(oracle.imgs), dataset, strict=True):
        things = [
            (oracle.annToMask(found).astype(bool), names[found["category_id"]])
            for found in oracle.imgToAnns[number]
        ]
        wanted = np.zeros(scene.size, np.uint8)
        for where, name in sorted(things, key=lambda thing: -int(thing[0].sum())):
            wanted[where] = dataset.labels.names.index(name)
        near = near_outlines(scene)
        assert np.array_equal(sample.label[~near], wanted[~near])
        exact += not near.any()
    assert exact >= 10  # photos of run lengths alone, which are equal to the last pixel


def test_outlines_are_filled_with_their_border() -> None:
    filled = fill_polygon((9, 9), [(1, 2), (5, 2), (5, 6), (1, 6)])
    assert np.array_equal(np.argwhere(filled).min(0), [2, 1])
    assert np.array_equal(np.argwhere(filled).max(0), [6, 5])
    assert filled.sum() == 25
