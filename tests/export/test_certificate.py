from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("litert_torch")

from pairs import PHOTOS  # noqa: E402

from deeplab import export as room  # noqa: E402
from deeplab.data import open_dataset  # noqa: E402
from deeplab.errors import ExportError, InputError, MissingExtraError, OutputError  # noqa: E402
from deeplab.export import compare, export, tflite  # noqa: E402
from deeplab.export.certificate import Certificate, Round, Scores, find_faults  # noqa: E402
from deeplab.labels import LabelSet  # noqa: E402
from deeplab.tflite import file as tflite_file  # noqa: E402
from deeplab.tflite.edit import GraphEdit  # noqa: E402
from tiny_folder import make_folder  # noqa: E402

pytestmark = pytest.mark.usefixtures("convert_once")

GOOD = Certificate(
    file="net.tflite", precision="float32", output="logits", size=(513, 513), output_stride=16,
    weights="net.safetensors", bytes=8_000_000, weights_bytes=9_000_000, int8_tensors=0,
    kept_float=(), scores=None, latency_ms=10.0, torch_latency_ms=20.0, threads=1, faults=(),
    allowed=False,
    rounds=(
        Round(name="photos", photos=4, max_logit_difference=1e-5, equal_pixels=1.0,
              worst_equal_pixels=1.0, foreground_iou=1.0, worst=(("a.jpg", 1.0),)),
    ),
)  # fmt: skip


def faults(precision: str, *, scores: Scores | None = None, int8: int = 100, **worse: float):
    one = dataclasses.replace(GOOD.rounds[0], **worse)
    found = dataclasses.replace(
        GOOD, precision=precision, rounds=(one,), scores=scores, int8_tensors=int8
    )
    return " ".join(find_faults(found))


def test_what_is_tolerated():
    assert faults("float32") == faults("float16") == faults("int8") == ""
    assert "expected 99.990 %" in faults("float32", worst_equal_pixels=0.99989)
    assert faults("float16", worst_equal_pixels=0.9995) == ""
    assert "99.899 % equal pixels on a.jpg" in faults("float16", worst_equal_pixels=0.99899)
    assert faults("int8", worst_equal_pixels=0.9, foreground_iou=0.96) == ""
    assert "94.900 %" in faults("int8", foreground_iou=0.949)
    assert faults("int8", foreground_iou=None) == ""
    assert "nothing in the file is int8" in faults("int8", int8=0)
    assert "nothing in the file is int8" in faults("dynamic", int8=0)
    assert "94.900 %" in faults("dynamic", foreground_iou=0.949)
    scores = Scores(data="val", pictures=9, torch_miou=0.800, file_miou=0.7901)
    assert faults("int8", foreground_iou=0.9, scores=scores) == ""
    scores = dataclasses.replace(scores, file_miou=0.78)
    assert "2.0 points less" in faults("int8", foreground_iou=0.99, scores=scores)


def test_foreground_is_what_either_mask_calls_an_object():
    torch_mask = np.array([[0, 0, 1, 1, 2, 2, 2, 0]], np.uint8)
    file_mask = np.array([[0, 1, 1, 1, 2, 1, 2, 0]], np.uint8)
    labels = LabelSet(("nothing", "one", "two"))
    found = compare._compare(file_mask, torch_mask, labels, "a", 0.5)
    assert (found.pixels, found.equal, found.foreground, found.same_foreground) == (8, 6, 6, 4)
    streets = LabelSet(("road", "sky", "car"), background=None)
    found = compare._compare(file_mask, torch_mask, streets, "a", None)
    assert (found.foreground, found.same_foreground) == (8, 6)


def test_it_reads_well_as_json_and_as_a_table():
    from rich.console import Console

    marked = dataclasses.replace(GOOD, faults=("photos: 98 %",), allowed=True)
    told = json.loads(marked.to_json())
    assert (told["format"], told["allowed"], told["faults"]) == (
        "deeplab certificate", True, ["photos: 98 %"],
    )  # fmt: skip
    console = Console(width=100, file=open("/dev/null", "w"), record=True)  # noqa: SIM115
    console.print(marked.table())
    text = console.export_text()
    assert "NOT EQUAL ENOUGH (kept)" in text
    assert "100.000 %" in text
    assert GOOD.facts()["latency"] == "10.0 ms (torch 20.0 ms), 1 thread"
    console.file.close()


def test_labels_tell_the_miou(pair, tmp_path):
    """With the network's own masks as labels, torch is right everywhere, and so is the file."""
    from deeplab import Segmenter
    from deeplab.data.masks import write_mask

    data = make_folder(tmp_path / "data", pairs=6)
    segmenter = Segmenter(pair)
    for photo in sorted((data / "images").iterdir()):
        mask = next((data / "masks").glob(f"{photo.stem}.*"))
        write_mask(mask, segmenter(photo).mask, segmenter.labels.palette)
    (data / "labels.txt").write_text("\n".join(segmenter.labels.names))
    dataset = open_dataset(data, split="train")
    found = export(pair, file=tmp_path / "net.tflite", photos=PHOTOS[:1], dataset=dataset)
    scores = found.certificate.scores
    assert scores.torch_miou == 1.0
    assert scores.file_miou > 0.999
    assert scores.pictures == len(dataset)
    assert [one.photos for one in found.certificate.rounds] == [1 + len(dataset), 1]


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the converter make mistakes in the last layer."""
    lower = tflite.lower

    def spoil(network, size):
        file = tflite_file.parse(lower(network, size))
        bias = file.tensors[file.producer(file.outputs[0]).inputs[2]]
        edit = GraphEdit(file)
        edit.set_constant(bias.index, bias.values + np.linspace(-2, 2, len(bias.values)))
        return edit.finish(file.outputs[0])

    monkeypatch.setattr(tflite, "lower", spoil)


def test_a_file_that_answers_otherwise_is_refused(pair, tmp_path, spoiled):
    file = tmp_path / "net.tflite"
    file.write_bytes(b"the good one of yesterday")
    shown: list[Certificate] = []
    with pytest.raises(
        ExportError, match=r"not equal enough.*Nothing was written; --allow"
    ) as caught:
        export(pair, file=file, photos=PHOTOS[:2], overwrite=True, on_certificate=shown.append)
    assert "\n" not in str(caught.value)
    assert [*tmp_path.iterdir()] == [file]
    assert file.read_bytes() == b"the good one of yesterday"
    assert shown[0].faults
    found = export(pair, file=file, photos=PHOTOS[:2], overwrite=True, allow=True)
    assert json.loads(found.certificate_file.read_text("utf-8"))["allowed"] is True
    assert tflite_file.read(file).operators


# --- failures that teach ----------------------------------------------------------------------


@pytest.fixture
def format_of(monkeypatch: pytest.MonkeyPatch):
    """Return a function that puts a format of a given ``convert`` into the table."""

    def put(convert, **given: object) -> None:
        module = types.ModuleType("strange")
        module.convert, module.count_int8 = convert, lambda target: 0
        monkeypatch.setitem(sys.modules, "strange", module)
        form = room.Format(module="strange", suffix=".strange", **given)
        monkeypatch.setitem(room.FORMATS, "strange", form)

    return put


def test_a_disk_that_is_full_leaves_nothing(pair, tmp_path, format_of):
    def fill(plan, target: Path) -> tuple[str, ...]:
        target.write_bytes(b"first half")
        target.with_suffix(".bin").write_bytes(b"weights")
        raise OSError(28, "No space left on device")

    format_of(fill)
    with pytest.raises(OutputError, match=r"cannot write .*net\.strange: No space left on device"):
        export(pair, "strange", file=tmp_path / "net.strange")
    assert [*tmp_path.iterdir()] == []


def test_files_of_several_parts_come_together(pair, tmp_path, format_of):
    def write(plan, target: Path) -> tuple[str, ...]:
        target.mkdir()
        (target / "inner").write_text("new")
        target.with_suffix(".bin").write_bytes(b"weights")
        return ()

    format_of(write)
    (tmp_path / "net.strange").mkdir()
    (tmp_path / "net.strange" / "inner").write_text("old")
    found = export(pair, "strange", file=tmp_path / "net.strange", overwrite=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["net.bin", "net.strange", "net.strange.json"]
    assert (tmp_path / "net.strange" / "inner").read_text() == "new"
    assert found.certificate.rounds == ()  # nothing here runs it
    assert found.certificate.bytes == len("new") + len("weights")


def test_a_package_that_is_missing_is_named(pair, tmp_path, format_of):
    format_of(lambda plan, target: (), needs=("torch", "no-such-package"), extra="strange")
    with pytest.raises(MissingExtraError, match=r"'no-such-package'.*deeplab\[strange\]"):
        export(pair, "strange", file=tmp_path / "net.strange")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"to": "tflit"}, "Did you mean 'tflite'"),
        ({"precision": "int4"}, "float32, float16, dynamic, int8"),
        ({"output": "masks"}, "Did you mean 'mask'"),
        ({"precision": "int8"}, "--calibrate FOLDER"),
        ({"calibrate": PHOTOS}, "calibrate: is for int8"),
        ({"keep_float": "auto"}, "keep_float: is for int8"),
        ({"integer_io": True}, "integer_io: is for int8"),
        ({"size": (512, 512)}, "The nearest is 513×513"),
        ({"size": (129, 100)}, "The nearest is 129×97"),
        ({"size": (129, 129), "output_stride": 32}, None),
        ({"size": (113, 113), "output_stride": 32}, "multiple of 32, plus 1"),
        ({"file": "net.onnx"}, "ends in .tflite"),
    ],
)
def test_what_does_not_fit_is_told_before_the_work(pair, given, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class ReachedError(Exception):
        pass

    def reach(plan, target):
        raise ReachedError

    monkeypatch.setattr(tflite, "convert", reach)
    given = {"file": tmp_path / "net.tflite", **given}
    with pytest.raises(InputError if words else ReachedError, match=words):
        export(pair, **given)
    assert [*tmp_path.iterdir()] == []


def test_other_files_are_no_pairs(pair, tmp_path):
    other = tmp_path / "net.tflite"
    other.write_bytes(b"TFL3")
    with pytest.raises(InputError, match=r"deeplab import .*net\.tflite -o net"):
        export(other)


def test_the_file_is_called_after_the_pair(pair, tmp_path, format_of):
    format_of(lambda plan, target: target.write_text("x") and ())
    for part in (pair, pair.with_suffix(".safetensors")):
        shutil.copy(part, tmp_path)
    export(tmp_path / "tiny", "strange")
    export(tmp_path / "tiny.json", "strange", precision="int8", calibrate=PHOTOS[:1], allow=True)
    assert (tmp_path / "tiny.strange").is_file()
    assert (tmp_path / "tiny.int8.strange").is_file()
    with pytest.raises(OutputError, match=r"tiny\.strange exists already"):
        export(tmp_path / "tiny", "strange")
