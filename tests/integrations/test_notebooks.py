"""Notebooks: they run from top to bottom, and results show themselves in them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from deeplab import Segmenter
from deeplab.training.progress_line import ProgressLine
from documents import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.fixture(scope="module")
def dog():
    return Segmenter("voc-fast")(ROOT / "examples/photos/dog.jpg")


def run_notebook(name: str) -> list[object]:
    """Run the code of a notebook; return what its cells end in."""
    notebook = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text("utf-8"))
    assert notebook["nbformat"] == 4
    names: dict[str, object] = {}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "outputs are not kept"
            *lines, last = "".join(cell["source"]).rstrip().splitlines()
            plain = last[:1].isspace() or last == "\n" or "=" in last.split("(")[0]
            if plain:
                exec("\n".join([*lines, last]), names)
            else:
                exec("\n".join(lines), names)
                shown.append(eval(last, names))
    return shown


@pytest.fixture
def examples(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "examples/photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["export", "five_lines", "own_data"]


def test_five_lines(examples, capsys):
    result, numbers, cutout, planes = run_notebook("five_lines")
    assert "image/png" in result._repr_mimebundle_()
    assert "dog" in numbers[2]
    assert cutout.mode == "RGBA"
    assert ("dog", result.mask.shape[::-1]) in planes
    assert "<Segmentation" in capsys.readouterr().out


@pytest.mark.integration
def test_own_data(examples):
    pytest.importorskip("torch")
    run, seen, scores = run_notebook("own_data")
    assert run._repr_html_()
    assert len(seen.labels) == 2
    assert scores.miou > 0.5


@pytest.mark.integration
def test_export(examples):
    pytest.importorskip("onnxruntime")
    sys.path.insert(0, str(ROOT / "tests/export"))
    try:
        from pairs import write_pair
    finally:
        sys.path.pop(0)
    (examples / "made").mkdir()
    pair = write_pair(examples / "made")
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(pair.with_suffix(suffix), examples / f"network{suffix}")
    exported, seen = run_notebook("export")
    assert exported[0].is_file()
    with Image.open("photos/dog.jpg") as photo:
        assert seen.mask.shape == photo.size[::-1]


def test_a_segmentation_shows_itself(dog):
    bundle = dog._repr_mimebundle_(include=None, exclude=None)
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert "dog" in bundle["text/html"]
    assert f"{100 * dog.shares['dog']:.1f} %" in bundle["text/html"]
    assert bundle["text/plain"] == repr(dog)
    assert len(repr(dog)) < 400


def test_a_segmenter_says_itself():
    assert repr(Segmenter("voc-fast")) == "<Segmenter voc-fast: 21 classes, 577×577, logits>"


def test_the_shape_of_a_pipeline(dog):
    planes = dog.to_pipeline()
    assert [plane["label"] for plane in planes] == [
        name for name in dog.labels.names if name in dog.shares
    ]
    total = sum(np.asarray(plane["mask"]).astype(int) for plane in planes)
    assert (total == 255).all()
    assert all(plane["score"] is None and plane["mask"].mode == "L" for plane in planes)


def test_pandas(dog):
    pytest.importorskip("pandas")
    frame = dog.to_pandas()
    assert list(frame.columns) == ["photo", "id", "class", "pixels", "share"]
    assert frame["pixels"].sum() == dog.mask.size
    assert frame["share"].sum() == pytest.approx(1)


def test_what_nobody_is_sure_of_has_a_name_too(dog):
    unsure = dog.with_unknown(0.9)
    assert "unknown" in unsure._repr_mimebundle_()["text/html"]
    assert "unknown" in [plane["label"] for plane in unsure.to_pipeline()]
    pytest.importorskip("pandas")
    assert unsure.to_pandas()["class"].tolist() == list(unsure.shares)


def test_what_is_missing_names_itself(dog, monkeypatch):
    for package in ("pandas", "supervision", "fiftyone"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'deeplab\[friends\]'"):
        dog.to_pandas()
    with pytest.raises(ImportError, match=r"pip install 'deeplab\[friends\]'"):
        dog.to_supervision()
    with pytest.raises(ValueError, match="pip install fiftyone"):
        dog.to_fiftyone()


def test_fiftyone_gets_the_mask(dog, monkeypatch):
    made = SimpleNamespace(Segmentation=lambda mask: ("segmentation", mask))
    monkeypatch.setitem(sys.modules, "fiftyone", made)
    assert dog.to_fiftyone()[1] is dog.mask


SUPERVISION = """
import sys
sys.path.append(sys.argv[1])
import numpy as np
from importlib import util
spec = util.spec_from_file_location("tables", sys.argv[1] + "/deeplab/photo/tables.py")
tables = util.module_from_spec(spec)
spec.loader.exec_module(tables)
from deeplab.labels import LabelSet
mask = np.zeros((20, 30), np.uint8)
mask[3:9, 4:25], mask[12:18, 10:12] = 2, 1
found = tables.make_detections(mask, LabelSet(("ground", "tree", "sky")))
assert found.class_id.tolist() == [1, 2], found
assert found["class_name"].tolist() == ["tree", "sky"]
assert found.xyxy.tolist() == [[10, 12, 11, 17], [4, 3, 24, 8]]
assert found.area.tolist() == [12, 126]
import supervision as sv
drawn = sv.MaskAnnotator().annotate(np.zeros((20, 30, 3), np.uint8), found)
assert drawn[5, 10].any() and not drawn[0, 0].any()
assert len(tables.make_detections(np.zeros((4, 4), np.uint8), LabelSet(("ground",)))) == 0
"""


@pytest.mark.oracles
def test_supervision_takes_it(oracles):
    done = subprocess.run(
        [oracles, "-c", SUPERVISION, str(ROOT / "src")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def cell(monkeypatch):
    """Be in a notebook; return the outputs of its cell, as the browser would have them."""
    outputs: list[dict[str, str]] = []

    def display(bundle, *, raw, display_id):
        assert raw
        assert display_id
        outputs.append(bundle)
        at = len(outputs) - 1
        return SimpleNamespace(update=lambda new, raw: outputs.__setitem__(at, new))

    shell = SimpleNamespace(kernel=object())
    module = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", module.display)
    return outputs


def test_many_photos_are_counted_in_one_line_of_a_notebook(cell):
    photo = np.full((20, 30, 3), 90, np.uint8)
    segmenter = Segmenter("voc-fast")
    assert len(list(segmenter.map([photo] * 7))) == 7
    (line,) = cell
    assert line["text/plain"].startswith("7/7 photos")
    assert 'value="7" max="7"' in line["text/html"]
    list(segmenter.map(photo for _ in range(2)))
    assert cell[1]["text/plain"].startswith("2 photos")


def test_a_training_is_one_line_of_a_notebook(cell):
    told: list[str] = []
    with ProgressLine(300, 0, show=True, tell=told.append) as line:
        for step in range(1, 301):
            line.looks("judging", 1, 2)
            line.update(step, f"loss {step}")
    assert told == []
    (line,) = cell
    assert line["text/plain"].startswith("300/300 steps")
    assert line["text/plain"].endswith("loss 300")
