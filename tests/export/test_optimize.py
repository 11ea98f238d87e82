"""``deeplab optimize`` writes what computes the same, says what it did, and refuses the rest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab import Segmenter, cli, zoo
from deeplab.errors import ExportError, InputError, ModelError, ModelNotFoundError, OutputError
from deeplab.export import optimize as module
from deeplab.export.optimize import optimize
from deeplab.info import describe
from deeplab.labels import VOC, LabelSet
from deeplab.photo.images import InputSpec
from deeplab.runtimes import litert
from deeplab.runtimes.tflite_network import understand
from deeplab.tflite import file as tflite_file
from deeplab.tflite.edit import cut
from deeplab.tflite.metadata import read_metadata
from deeplab.tflite.optimise import read_record
from deeplab.zoo.example_photos import list_example_photos
from tiny_tflite import pooled_network, tiny_network, with_files

Run = Callable[..., tuple[int, str, str]]
LABELS = LabelSet(("ground", "cat", "dog", "tree"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "foreign.tflite"
    path.write_bytes(pooled_network())
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_one(*arguments: str | Path) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run_one


def test_the_new_file_gives_the_same_masks(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "fast.tflite"
    report = optimize(model, target)
    assert report.comparison.pictures == len(list_example_photos()) + 3  # and noise of three grains
    assert report.comparison.equal == report.comparison.pixels == report.comparison.pictures * 33**2
    assert report.comparison.equal_to_file == report.comparison.pixels
    assert report.comparison.difference < 1e-5 * report.comparison.largest_logit
    assert report.macs == 24 * 6 * 7
    assert report.bytes == (model.stat().st_size, target.stat().st_size)
    photo = np.random.default_rng(3).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    masks = [Segmenter(path, labels=LABELS)(photo).mask for path in (model, target)]
    assert (masks[0] == masks[1]).all()


def test_it_says_what_was_done(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "fast.tflite"
    report = optimize(model, target)
    record = read_record(tflite_file.read(target))
    assert record is not None
    assert record.changes == report.changes
    assert record.align_corners is True
    assert record.source == tflite_file.read(model).sha256
    with pytest.raises(ModelError, match="was optimised already"):
        optimize(target, tmp_path / "faster.tflite")
    assert not (tmp_path / "faster.tflite").exists()


@pytest.mark.parametrize("align_corners", [True, False])
def test_how_the_logits_lie_is_remembered(align_corners: bool, tmp_path: Path) -> None:
    # At 9 pixels and 3 cells the rule says True; the file that was cut knew better.
    model, target = tmp_path / "m.tflite", tmp_path / "o.tflite"
    model.write_bytes(tiny_network(align_corners=align_corners, half_pixel=not align_corners))
    optimize(model, target)
    assert litert.open(target, threads=1).align_corners is align_corners


def test_a_known_file_keeps_its_labels_and_normalisation(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = InputSpec(height=33, width=33, mean=(1, 2, 3), std=(4, 5, 6), fit="stretch")
    entry = zoo.ZooModel(
        name="tiny",
        kind="model",
        address="https://example.org/tiny.tflite",
        sha256=tflite_file.read(model).sha256,
        size=model.stat().st_size,
        licence="CC0-1.0",
        labels=LABELS,
        input=spec,
        miou=0.0,
        protocol="none",
    )
    monkeypatch.setattr(zoo, "MODELS", (entry,))
    target = tmp_path / "fast.tflite"
    optimize(model, target)
    segmenter = Segmenter(target)
    assert segmenter.labels == LABELS
    assert segmenter.spec == spec
    metadata = read_metadata(tflite_file.read(target))
    assert metadata is not None
    assert metadata.licence == "CC0-1.0"


def test_packed_files_stay(tmp_path: Path) -> None:
    model, target = tmp_path / "m.tflite", tmp_path / "o.tflite"
    model.write_bytes(with_files(pooled_network(), {"labels.txt": b"a\nb\nc\nd\n"}))
    optimize(model, target)
    assert tflite_file.read(target).associated_files == {"labels.txt": b"a\nb\nc\nd\n"}


def test_a_file_that_computes_something_else_is_not_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = tflite_file.parse(pooled_network(seed=1))
    other = cut(stranger, understand(stranger).output_tensor.index)
    monkeypatch.setattr(module.Optimisation, "apply", lambda self, **_: other)
    target = tmp_path / "fast.tflite"
    target.write_bytes(b"older")
    with pytest.raises(ExportError, match="does not compute the same: logits differ by up to"):
        optimize(model, target, overwrite=True)
    assert target.read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fast.tflite", "foreign.tflite"]


def test_errors_teach(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "fast.tflite"
    with pytest.raises(ModelNotFoundError, match="there is no file"):
        optimize(tmp_path / "none.tflite", target)
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(pooled_network()[:500])
    with pytest.raises(ModelError, match="damaged or cut off"):
        optimize(broken, target)
    broken.write_text("hello")
    with pytest.raises(ModelError, match="is not a TFLite model"):
        optimize(broken, target)
    with pytest.raises(InputError, match=r"pair\.json is a release pair.*'deeplab export'"):
        optimize(tmp_path / "pair.json", target)
    broken.write_bytes(tiny_network(resize=False))
    with pytest.raises(ModelError, match="there is nothing to leave out"):
        optimize(broken, target)
    broken.write_bytes(tiny_network(align_corners=False))
    with pytest.raises(ModelError, match="3×3 to 9×9 stays: it follows neither convention"):
        optimize(broken, target)
    with pytest.raises(OutputError, match="is the model itself"):
        optimize(model, model, overwrite=True)
    target.write_text("mine")
    with pytest.raises(OutputError, match=r"exists already\. Add --overwrite"):
        optimize(model, target)
    with pytest.raises(OutputError, match="there is no folder"):
        optimize(model, tmp_path / "nowhere" / "o.tflite")

    def disk_full(self: Path, data: bytes) -> int:
        self.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OutputError, match="No space left"):
        optimize(model, target, overwrite=True)
    assert target.read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_it_needs_no_torch(model: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from deeplab.export.optimize import optimize; "
        f"optimize({str(model)!r}, {str(tmp_path / 'fast.tflite')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_info_tells_and_import_points_to_the_original(
    model: Path, tmp_path: Path, run: Run
) -> None:
    target = tmp_path / "fast.tflite"
    report = optimize(model, target)
    assert describe(target).optimised == report.changes
    assert describe(model).optimised == ()
    _, out, _ = run("info", target)
    assert "optimised: dropped what lies behind the logits" in out
    pytest.importorskip("torch")
    code, _, err = run("import", target, "-o", tmp_path / "pair")
    assert code == 2
    assert f"import the file it was made from (sha256 {tflite_file.read(model).sha256})" in err


# --- the command ------------------------------------------------------------------------------


def test_the_command(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30), (200, 10, 10)).save("photo.png")
    code, out, err = run("optimize", model, "--photo", "photo.png")
    assert (code, err) == (0, "")
    assert "dropped what lies behind the logits" in out
    assert "folded the pooled image into" in out
    assert "compared on 4 pictures" in out
    assert "all masks are equal; 100.000% as the file answers by itself" in out
    assert (tmp_path / "foreign.optimized.tflite").is_file()
    code, _, err = run("optimize", model)
    assert code == 2
    assert "exists already" in err
    code, out, _ = run("optimize", model, "--overwrite")
    assert code == 0
    code, _, err = run("optimize", model, "-o", "o.tflite", "--photo", "none.png")
    assert code == 2
    assert "none.png" in err
    assert not (tmp_path / "o.tflite").exists()


# --- the public files -------------------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.parametrize("name", ["deeplabv3_257_mv_gpu", "deeplabv3_with_metadata"])
def test_the_golden_mask_of_the_optimised_starter(
    name: str, reference: Path, tmp_path: Path
) -> None:
    target = tmp_path / "renamed.tflite"
    photo = reference / "golden" / "segmentation_input_rotation0.jpg"
    report = optimize(reference / "models" / f"{name}.tflite", target, photos=[photo])
    assert report.macs == 71_303_168
    assert report.comparison.equal == report.comparison.equal_to_file == report.comparison.pixels
    segmenter = Segmenter(target, fit="stretch")
    assert segmenter.labels == VOC
    with Image.open(reference / "golden" / "segmentation_golden_rotation0.png") as golden:
        assert (segmenter(photo).mask == np.asarray(golden) // 10).all()


@pytest.mark.reference
@pytest.mark.parametrize(
    "name", ["deeplabv3_mnv2_dm05_pascal_quant", "deeplab_mobilenet_edgetpu_slim_cityscapes_quant"]
)
def test_integer_files_are_cut(name: str, reference: Path, tmp_path: Path) -> None:
    target = tmp_path / "cut.tflite"
    report = optimize(reference / "models" / f"{name}.tflite", target)
    assert report.comparison.difference == 0
    assert report.comparison.equal == report.comparison.pixels
    assert "integer arithmetic" in report.left[0]
    assert Segmenter(target).labels is not None
