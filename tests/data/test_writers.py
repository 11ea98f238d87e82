"""What is saved as a tool's data set is read back with the same pixels, by us and by others.

Masks, and polygons of tolerance 0, are exact. Polygons of a tolerance of t pixels change no pixel
whose middle is farther than t + 1 from the outline.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from deeplab import LabelSet, cli
from deeplab.cli.outputs import DATA_SETS
from deeplab.data import open_dataset
from deeplab.data.convert import convert
from deeplab.data.encoded_masks import decode_brush
from deeplab.data.run_lengths import encode_brush, encode_brush_mask, encode_coco_rle
from deeplab.data.shapes import merge, polygon_patch
from deeplab.data.writers import WRITERS
from deeplab.data.writing import DataSet, Style
from deeplab.errors import OutputError
from deeplab.photo.outlines import find_objects
from deeplab.photo.polygons import make_polygons
from tiny_tflite import tiny_network

# pycocotools is older than NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LABELS = LabelSet(("background", "cat", "hen house", "dog"))
ORACLES = Path(__file__).parents[1] / "oracles"
Mask = npt.NDArray[np.uint8]


def draw_mask(seed: int) -> Mask:
    """Return blots with holes, islands in them and noise, of every odd size."""
    draw = np.random.default_rng(seed)
    size = draw.integers(4, 60, 2)
    if seed % 3 == 0:
        return draw.integers(0, 2, size).astype(np.uint8)
    planes = [cv2.GaussianBlur(draw.normal(size=size), (0, 0), 1 + seed % 4) for _ in range(4)]
    return np.argmax(planes, axis=0).astype(np.uint8)


def objects(mask: Mask) -> Iterator[tuple[Any, Any]]:
    for one in find_objects(mask, labels=LABELS, outlines=True, pixels=True):
        where = np.zeros(mask.shape, bool)
        x, y, width, height = one.box
        where[y : y + height, x : x + width] = one.where
        yield one, where


# --- polygons and run lengths -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_polygons_that_keep_all_corners_are_exact_for_every_tool(seed: int) -> None:
    mask = draw_mask(seed)
    height, width = mask.shape
    for one, where in objects(mask):
        assert one.area == where.sum()
        polygons = make_polygons(one.rings, tolerance=0)
        flat = [[value for point in polygon for value in point] for polygon in polygons]
        theirs = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(flat, height, width)))
        assert np.array_equal(theirs.astype(bool), where)
        ours = merge([polygon_patch(mask.shape, polygon) for polygon in polygons], mask.shape)
        assert np.array_equal(ours.on(mask.shape), where)
        canvas = np.zeros(mask.shape, np.uint8)
        for polygon in polygons:
            cv2.fillPoly(canvas, [np.array(polygon).astype(np.int32)], 1)
        assert np.array_equal(canvas.astype(bool), where)


@pytest.mark.parametrize("tolerance", [0.75, 1.0, 3.0])
def test_polygons_stay_within_their_tolerance(tolerance: float) -> None:
    corners = [0, 0]
    for seed in range(1, 16):
        mask = draw_mask(seed)
        for one, where in objects(mask):
            exact = make_polygons(one.rings, tolerance=0)
            simple = make_polygons(one.rings, tolerance=tolerance)
            corners[0] += sum(map(len, exact))
            corners[1] += sum(map(len, simple))
            assert all(len(polygon) >= 3 for polygon in simple)
            patches = [polygon_patch(mask.shape, polygon) for polygon in simple]
            changed = merge(patches, mask.shape).on(mask.shape) != where
            padded = np.pad(where, 1).astype(np.uint8)
            # Distances are between middles of pixels; the outline lies half a pixel before.
            inside = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            outside = cv2.distanceTransform(1 - padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            depth = (np.maximum(inside, outside) - 0.5)[1:-1, 1:-1]
            assert depth[changed].max(initial=0) <= tolerance + 1
    assert corners[1] < 0.6 * corners[0]


@pytest.mark.parametrize("seed", range(12))
def test_run_lengths_are_cocos_to_the_letter(seed: int) -> None:
    mask = draw_mask(seed)
    for one, where in objects(mask):
        assert one.where is not None
        mine = encode_coco_rle(one.where, one.box[:2], mask.shape)
        assert (
            mine == coco_masks.encode(np.asfortranarray(where.astype(np.uint8)))["counts"].decode()
        )


def test_brush_streams_of_long_and_short_runs() -> None:
    draw = np.random.default_rng(3)
    values = np.repeat(draw.integers(0, 256, 40), draw.integers(1, 4000, 40)).astype(np.uint8)
    values = np.concatenate([np.zeros(200_000, np.uint8), values])
    values = np.concatenate([values, np.zeros(-len(values) % 400, np.uint8)])
    rows = len(values) // 400
    alpha = decode_brush(encode_brush(values), (rows, 100))
    assert np.array_equal(alpha, values.reshape(rows, 100, 4)[..., 3])
    where = draw.random((13, 17)) < 0.5
    assert np.array_equal(decode_brush(encode_brush_mask(where), (13, 17)) > 0, where)


# --- the command ------------------------------------------------------------------------------

Segment = Callable[..., int]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.tflite"
    path.write_bytes(tiny_network(frame=33))
    (path.parent / "labels.txt").write_text("\n".join(LABELS.names) + "\n")
    return path


@pytest.fixture
def segment(model: Path, photos: Path) -> Segment:
    def run(*arguments: object, source: Path = photos) -> int:
        told = ["--labels", model.parent / "labels.txt", "--normalisation", "-1..1"]
        line = ["segment", source, "-m", model, *told, *arguments]
        return cli.run([str(part) for part in line])

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with one lying on its side, two of one name, and one in a folder."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    draw = np.random.default_rng(5)
    for name, size in (("a.png", (40, 61)), ("a.jpg", (33, 30)), ("sub/b c.png", (35, 52))):
        blocks = np.kron(draw.integers(0, 256, (5, 6, 3)), np.ones((9, 11, 1)))
        picture = np.clip(blocks[: size[0], : size[1]] + draw.normal(0, 9, (*size, 3)), 0, 255)
        Image.fromarray(picture.astype(np.uint8)).save(folder / name)
    exif = Image.Exif()
    exif[274] = 6
    lying = Image.fromarray(draw.integers(0, 256, (20, 44, 3), dtype=np.uint8))
    lying.save(folder / "lying.jpg", exif=exif)
    return folder


def by_name(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Return {photo: (H, W) of class names}."""
    dataset = open_dataset(folder)
    names = np.array([*dataset.labels.names, *["?"] * (256 - len(dataset.labels))], object)
    names[255] = "ignored"
    return {sample.id: names[sample.label] for sample in dataset}


def saved_masks(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the same of the masks that ``segment`` wrote."""
    names = np.array([*LABELS.names, *["?"] * 252], object)
    names[255] = "ignored"
    end = ".mask.png"
    return {
        path.relative_to(folder).as_posix()[: -len(end)]: names[np.array(Image.open(path))]
        for path in folder.rglob(f"*{end}")
    }


@pytest.mark.parametrize("options", [[], ["--shapes", "polygons"], ["--unknown", "0.5"]])
def test_every_data_set_is_read_back(tmp_path: Path, segment: Segment, options: list[str]) -> None:
    out = tmp_path / "out"
    kinds = ",".join(["mask", *DATA_SETS])
    assert segment("-o", out, "--save", kinds, "--tolerance", 0, *options) == 0
    masks = saved_masks(out)
    assert len(masks) == 4
    if "--unknown" in options:
        assert any((mask == "ignored").any() for mask in masks.values())
    for tool in DATA_SETS:
        convert(out / tool, tmp_path / tool, split="train")
        found = by_name(tmp_path / tool)
        assert {*found} == {*masks}, tool
        for name, mask in masks.items():
            assert np.array_equal(found[name], mask), (tool, name)


def test_coco_is_what_its_own_code_reads(tmp_path: Path, segment: Segment) -> None:
    out = tmp_path / "out"
    assert segment("-o", out, "--save", "mask,coco") == 0
    coco = COCO(str(out / "coco" / "annotations" / "instances_default.json"))
    masks = saved_masks(out)
    for image in coco.loadImgs(coco.getImgIds()):
        found = np.full((image["height"], image["width"]), "background", object)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            where = coco.annToMask(annotation).astype(bool)
            assert where.sum() == annotation["area"]
            assert list(coco_masks.toBbox(coco.annToRLE(annotation))) == annotation["bbox"]
            assert (found[where] == "background").all()
            found[where] = coco.cats[annotation["category_id"]]["name"]
        assert np.array_equal(found, masks[Path(image["file_name"]).with_suffix("").as_posix()])


def test_equal_runs_write_equal_data_sets(tmp_path: Path, segment: Segment) -> None:
    kinds = ",".join(DATA_SETS)
    for folder, workers in (("one", 1), ("two", 3)):
        segment("-o", tmp_path / folder, "--save", kinds, "--workers", workers)
    files = [p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file()]
    assert len(files) > 20
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_what_cannot_be_read_is_left_out_and_said(
    tmp_path: Path, photos: Path, segment: Segment, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    assert segment("-o", tmp_path / "out", "--save", "yolo") == 1
    said = capsys.readouterr()
    assert "broken.jpg" in said.err
    assert "4 photos with annotations" in said.out
    assert convert(tmp_path / "out" / "yolo", tmp_path / "back", split="train").count == 4


def test_nothing_is_left_of_a_data_set_that_could_not_be_finished(
    tmp_path: Path, segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deeplab.data.writing.shutil.copyfile", fill_up)
    assert segment("-o", tmp_path / "out", "--save", "coco,labelme") == 2
    assert os.listdir(tmp_path / "out") == []


def test_words_for_what_does_not_go(
    tmp_path: Path, photos: Path, segment: Segment, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / "coco").mkdir(parents=True)
    (out / "coco" / "mine.txt").write_text("work")
    assert segment("-o", out, "--save", "coco", "--overwrite") == 2
    assert "exists already, and a data set is never written over" in capsys.readouterr().err
    assert (out / "coco" / "mine.txt").read_text() == "work"
    for kinds, shapes in (("yolo", "lines"), ("mask", "polygons")):  # none such; for nothing
        assert segment("-o", out, "--save", kinds, "--shapes", shapes) == 2
        assert "--shapes" in capsys.readouterr().err
    assert segment("-o", "memory://b/out", "--save", "yolo") == 2
    assert "a folder of this machine" in capsys.readouterr().err
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    assert segment(other, "-o", out, "--save", "voc") == 2
    assert "would have one name" in capsys.readouterr().err


def test_a_class_that_labelmap_cannot_hold(tmp_path: Path) -> None:
    with DataSet(tmp_path / "voc") as made:
        writer = WRITERS["voc"](made.building, Style())
        with pytest.raises(OutputError, match="'a:b' cannot stand in labelmap"):
            made.finish(writer, LabelSet(("background", "a:b")))
    assert not (tmp_path / "voc").exists()


def test_the_command_knows_every_writer() -> None:
    assert tuple(WRITERS) == DATA_SETS


def test_labelme_files_say_what_its_description_demands(tmp_path: Path, segment: Segment) -> None:
    assert segment("-o", tmp_path, "--save", "labelme") == 0
    for path in (tmp_path / "labelme").rglob("*.json"):
        content = json.loads(path.read_text())
        assert (path.parent / content["imagePath"]).is_file()
        with Image.open(path.parent / content["imagePath"]) as photo:
            size = {photo.size, photo.size[::-1]}
        assert (content["imageWidth"], content["imageHeight"]) in size
        for shape in content["shapes"]:
            (left, top), (right, bottom) = shape["points"]
            assert 0 <= left <= right < content["imageWidth"]
            assert 0 <= top <= bottom < content["imageHeight"]
            assert shape["shape_type"] == "mask"
            assert shape["mask"]


# --- other people's readers -------------------------------------------------------------------


@pytest.mark.oracles
@pytest.mark.parametrize(
    ("reader", "tool", "place", "exact"),
    [
        ("datumaro:coco", "coco", "", True),
        ("datumaro:cvat", "cvat", "", True),
        ("datumaro:voc_segmentation", "voc", "", True),
        ("supervision:coco", "coco", "annotations/instances_default.json", True),
        ("supervision:yolo", "yolo", "data.yaml", False),  # it rounds corners to the nearest pixel
    ],
)
def test_other_readers(
    tmp_path: Path, oracles: Path, photos: Path, segment: Segment, reader: str, tool: str,
    place: str, exact: bool,
) -> None:  # fmt: skip
    (photos / "lying.jpg").unlink()  # supervision and datumaro do not turn photos
    (photos / "a.jpg").unlink()  # they call photos without suffix
    shutil.move(photos / "sub" / "b c.png", photos / "b.png")
    assert segment("-o", tmp_path, "--save", f"mask,{tool}", "--tolerance", 0) == 0
    found = tmp_path / "found.npz"
    images = {"coco": "images/default", "yolo": "images/train"}.get(tool, ".")
    root = tmp_path / tool
    done = subprocess.run(
        [oracles, ORACLES / "ask.py", reader, root / place, root / images, found],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    masks = saved_masks(tmp_path)
    again = {name: np.full(mask.shape, "background", object) for name, mask in masks.items()}
    with np.load(found) as arrays:
        for key in arrays.files:
            name, _, label = key.split("|")
            again[name][arrays[key].astype(bool)] = label
    assert {*again} == {"a", "b"}
    for name, mask in masks.items():
        sure = np.ones(mask.shape, bool) if exact else far_from_outlines(mask)
        assert sure.mean() > 0.4
        assert np.array_equal(again[name][sure], mask[sure]), name


def far_from_outlines(mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return the pixels whose eight neighbours are of their class."""
    padded = np.pad(mask, 1, mode="edge")
    height, width = mask.shape
    shifts = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.logical_and.reduce([shift == mask for shift in shifts])
