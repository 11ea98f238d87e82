"""``deeplab benchmark`` as it is typed."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from deeplab import cli
from tiny_folder import NAMES, make_folder
from tiny_tflite import tiny_network

QUICK = ("--num-runs", "3", "--warmup-min-secs", "0", "--min-secs", "0", "--threads", "1")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_one(*arguments: str | Path) -> tuple[int, str, str]:
        code = cli.run(["benchmark", *(str(argument) for argument in arguments)])
        return code, *capsys.readouterr()

    return run_one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set, a network of its classes and their names."""
    make_folder(tmp_path / "set")
    (tmp_path / "labels.txt").write_text("\n".join(NAMES) + "\n")
    (tmp_path / "net.tflite").write_bytes(tiny_network(classes=3, frame=33))
    return tmp_path


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    torch = pytest.importorskip("torch")
    from deeplab.labels import LabelSet
    from deeplab.models import DeepLabConfig, build
    from deeplab.photo.images import InputSpec
    from deeplab.weights import release

    torch.manual_seed(0)
    config = DeepLabConfig(backbone="mobilenet_v2", num_classes=3, depth_multiplier=0.25)
    release.save(
        tmp_path / "pair",
        config,
        build(config).state_dict(),
        labels=LabelSet(NAMES),
        input_spec=InputSpec(height=65, width=65),
    )
    return tmp_path / "pair"


def test_one_model(run: Run, folder: Path) -> None:
    code, out, err = run(folder / "net.tflite", "--labels", folder / "labels.txt", *QUICK)
    assert (code, err) == (0, "")
    assert out.startswith("net, litert, 1 thread\nThe input model file size (MB): ")
    for words in ("count=3 ", "Inference timings in us: Init: ", "| model | ", "| net "):
        assert words in out


def test_options_of_benchmark_model_may_have_their_underscores(run: Run, folder: Path) -> None:
    code, out, err = run(
        folder / "net.tflite", "--labels", folder / "labels.txt", "--num_runs=2", "--min_secs=0",
        "--warmup_min_secs=0", "--num_threads=1", "--enable_op_profiling",
        "--report_peak_memory_footprint",
    )  # fmt: skip
    assert code == 0, err
    assert "count=2 " in out
    assert "= Summary by node type =" in out
    if sys.platform == "linux":
        assert "Overall peak memory footprint (MB): " in out


def test_the_quality_is_that_of_evaluate(run: Run, folder: Path) -> None:
    from deeplab.data import open_dataset
    from deeplab.evaluation.protocol import evaluate, open_predictor
    from deeplab.evaluation.report import to_dict
    from deeplab.labels import LabelSet

    model, data = folder / "net.tflite", folder / "set"
    labels = ("--labels", folder / "labels.txt")
    code, out, err = run(model, *labels, "--data", data, "--classes", "cat,dog", "--json", *QUICK)
    assert code == 0, err
    (row,) = json.loads(out)["rows"]
    predictor = open_predictor(model, labels=LabelSet(NAMES))
    wanted = to_dict(evaluate(predictor, open_dataset(data, split="val")), classes=[1, 2])
    for one in ("miou", "miou_95", "iou", "subset", "protocol", "pixel_accuracy"):
        assert row["quality"][one] == wanted[one], one
    assert row["miou"] == wanted["subset"]["miou"]


@pytest.mark.reference
def test_the_command_evaluate_says_the_same(
    run: Run, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = reference / "data" / "voc"
    for name in ("JPEGImages", "SegmentationClass"):
        (tmp_path / name).symlink_to(whole / name)
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    names = (whole / "ImageSets" / "Segmentation" / "val.txt").read_text().splitlines()
    (lists / "few.txt").write_text("\n".join(names[:2]) + "\n")
    model = str(reference / "models" / "deeplabv3_257_mv_gpu.tflite")
    asked = ["--split", "few", "--classes", "person,horse", "--json"]
    code, out, err = run(model, "--data", tmp_path, *asked, *QUICK)
    assert code == 0, err
    (row,) = json.loads(out)["rows"]
    assert cli.run(["evaluate", model, str(tmp_path), *asked]) == 0
    wanted = json.loads(capsys.readouterr().out)
    for one in ("miou", "miou_95", "iou", "subset", "protocol", "pixel_accuracy"):
        assert row["quality"][one] == wanted[one], one


def test_a_pair_at_its_sizes_and_strides(run: Run, folder: Path, pair: Path) -> None:
    code, out, err = run(
        pair, "--size", "65,97x129", "--output-stride", "32,16,8", "--device", "cpu",
        "--data", folder / "set", "--limit", "1", "--json", *QUICK,
    )  # fmt: skip
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [(row["size"], row["output_stride"]) for row in rows] == [
        ("65×65", 32), ("65×65", 16), ("65×65", 8), ("97×129", 32), ("97×129", 16), ("97×129", 8),
    ]  # fmt: skip
    from deeplab.data import open_dataset
    from deeplab.evaluation.metrics import ConfusionMatrix
    from deeplab.segmenter import Segmenter

    sample = open_dataset(folder / "set", split="val")[0]
    for row, (size, stride) in zip(
        rows, [(s, o) for s in ((65, 65), (97, 129)) for o in (32, 16, 8)], strict=True
    ):
        segmenter = Segmenter(f"{pair}.json", threads=1, size=size, output_stride=stride)
        mask = segmenter(np.asarray(sample.image)).mask
        wanted = ConfusionMatrix.of(sample.label, mask, 3, ignore_index=255).totals
        assert row["quality"]["miou"] == pytest.approx(float(wanted.mean_iou()))


def test_several_models_and_the_files(run: Run, folder: Path) -> None:
    (folder / "other.tflite").write_bytes(tiny_network(classes=3, frame=65, seed=2))
    command = [
        folder / "net.tflite", folder / "other.tflite", "--labels", folder / "labels.txt",
        "--data", folder / "set", "-o", folder / "out",
        "--profiling-output-csv-file", folder / "operators.csv", *QUICK,
    ]  # fmt: skip
    code, out, err = run(*command)
    assert code == 0, err
    assert "written to" in err
    assert "Run Order" not in out
    assert {path.name for path in (folder / "out").iterdir()} == {
        "benchmark.md", "benchmark.json", "benchmark.csv", "pareto.svg",
    }  # fmt: skip
    with (folder / "operators.csv").open() as file:
        assert {row["node type"] for row in csv.DictReader(file)} == {"CONV_2D"}
    code, _, err = run(*command)
    assert code == 2
    assert "exists already. Add --overwrite" in err
    code, _, err = run(*command, "--overwrite")
    assert code == 0, err


def test_photos_of_ones_own(run: Run, folder: Path) -> None:
    code, out, err = run(
        folder / "net.tflite", "--labels", folder / "labels.txt", "--json",
        "--photos", folder / "set" / "images", *QUICK,
    )  # fmt: skip
    assert code == 0, err
    assert len(json.loads(out)["photos"]) == 10


def test_an_interruption_prints_what_there_is(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def stages() -> Iterator[Callable[[str, int, int], None]]:
        def show(stage: str, done: int, total: int) -> None:
            if (stage, done) == ("measuring", 2):
                raise KeyboardInterrupt

        yield show

    monkeypatch.setattr(sys.modules["deeplab.cli.benchmark"], "show_stages", stages)
    code, out, err = run(folder / "net.tflite", "--labels", folder / "labels.txt", *QUICK)
    assert code == 130
    assert "count=2 " in out
    assert "note: interrupted" in err


def test_mistakes_are_told(run: Run, folder: Path, tmp_path: Path) -> None:
    model, labels = folder / "net.tflite", ("--labels", folder / "labels.txt")
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ((tmp_path / "missing.tflite",), "there is no file"),
        (("vocc",), "Did you mean 'voc'"),
        ((model, *labels, "--threads", "0"), "--threads: got 0, expected 1 to"),
        ((model, *labels, "--threads", "100000"), "--threads: got 100000, expected 1 to"),
        ((model, *labels, "--threads", "two"), "--threads: got 'two', expected whole numbers"),
        ((model, *labels, "--photos", tmp_path / "empty"), "has no pictures"),
        ((model, *labels, "--runtime", "torch"), "torch cannot run"),
        ((model, *labels, "--runtime", "tensorrt"), "--runtime: there is no 'tensorrt'"),
        ((model, *labels, "--size", "513"), "--size: these models have their own"),
        ((model, *labels, "--precision", "float8"), "--precision: there is no 'float8'"),
        ((model, *labels, "--device", "tpu"), "device: got 'tpu', expected one of"),
        ((model, *labels, "--num-runs", "0"), "num_runs: got 0, expected 1 or more"),
        ((model,), "does not say what its 3 classes are called"),
        ((model, *labels, "--data", tmp_path / "empty"), "no known layout"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (2, ""), arguments
        assert words in err, err


def test_a_runtime_that_is_not_installed(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "openvino.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "nothing"))
    model, labels = folder / "net.tflite", folder / "labels.txt"
    code, _, err = run(model, "--labels", labels, "--runtime", "litert,openvino", *QUICK)
    assert code == 2
    assert "pip install 'deeplab[openvino]'" in err
