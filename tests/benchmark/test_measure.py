"""Whole runs on tiny networks: what is measured, and what happens when it cannot be."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from deeplab.benchmark.contenders import Choices, Contender, plan_contenders
from deeplab.benchmark.measure import STAGES, Benchmark, Data, Settings, measure
from deeplab.benchmark.process import Process
from deeplab.benchmark.report import (
    check_folder,
    name_rows,
    to_csv,
    to_dict,
    to_markdown,
    to_rows,
    to_table,
    write_report,
)
from deeplab.benchmark.tool_lines import operator_csv, timing_lines
from deeplab.errors import (
    DataError,
    InputError,
    MissingExtraError,
    ModelError,
    OutputError,
)
from deeplab.zoo.example_photos import list_example_photos
from tiny_folder import NAMES, make_folder
from tiny_tflite import tiny_network

QUICK = Settings(warmup_runs=2, warmup_min_secs=0, num_runs=5, min_secs=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three classes, their names, and two networks of three classes."""
    root = tmp_path_factory.mktemp("benchmark")
    make_folder(root / "set")
    (root / "labels.txt").write_text("\n".join(NAMES) + "\n")
    for seed, name in enumerate(("small", "large")):
        content = tiny_network(classes=3, frame=33 + 32 * seed, seed=seed)
        (root / f"{name}.tflite").write_bytes(content)
    return root


def contenders(folder: Path, *names: str) -> list[Contender]:
    models = [(name, folder / f"{name}.tflite") for name in names]
    return plan_contenders(models, Choices(threads=[1], labels=str(folder / "labels.txt")))


@pytest.fixture(scope="module")
def found(folder: Path) -> Benchmark:
    return measure(
        contenders(folder, "small", "large"),
        list_example_photos(),
        settings=QUICK,
        data=Data(path=folder / "set", limit=1, classes=("cat", "dog")),
        profile=True,
    )


def test_every_run_is_kept(found: Benchmark) -> None:
    assert [one.contender.name for one in found.measurements] == ["small", "large"]
    for one in found.measurements:
        assert len(one.warmup) == 2
        assert [len(one.runs[stage]) for stage in STAGES] == [5, 5, 5]
        assert one.total.ms == [sum(stages) for stages in zip(*one.runs.values(), strict=True)]
        assert one.first_ms == one.warmup[0]
        assert one.network.min <= one.network.median <= one.network.max
    assert found.measurements[1].size == (65, 65)
    assert (found.failures, found.interrupted) == ([], False)


def test_memory_is_that_of_the_process(found: Benchmark) -> None:
    for one in found.measurements:
        if one.memory is None:
            pytest.skip("this system does not say")
        assert 1 << 20 < one.memory["before"] <= one.memory["init"] <= one.memory["peak"]


def test_lines_as_benchmark_model_writes_them(found: Benchmark) -> None:
    lines = timing_lines(found.measurements[0], found.settings, peak=True)
    number = r"[\d.e+]+"
    patterns = [
        rf"The input model file size \(MB\): {number}",
        rf"Initialized session in {number}ms\.",
        r"Running benchmark for at least 2 iterations and at least 0 seconds but terminate if "
        r"exceeding 150 seconds\.",
        r"count=2 first=\d+ curr=\d+ .*|count=2 curr=\d+\(all same\)",
        "",
        r"Running benchmark for at least 5 iterations and at least 0 seconds but terminate if "
        r"exceeding 150 seconds\.",
        r"count=5 first=\d+ curr=\d+ min=\d+ max=\d+ avg=\d+ std=\d+ p5=\d+ median=\d+ p95=\d+",
        "",
        rf"Inference timings in us: Init: \d+, First inference: \d+, Warmup \(avg\): {number}, "
        rf"Inference \(avg\): {number}",
        rf"Memory footprint delta from the start of the tool \(MB\): init={number} "
        rf"overall={number}",
        rf"Overall peak memory footprint \(MB\): {number}",
    ]
    if found.measurements[0].memory is None:
        patterns = patterns[:-2]
    assert len(lines) == len(patterns)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


def test_csv_json_and_markdown_agree(found: Benchmark, tmp_path: Path) -> None:
    written = write_report(tmp_path, found)
    assert [path.name for path in written] == [
        "benchmark.md", "benchmark.json", "benchmark.csv", "pareto.svg",
    ]  # fmt: skip
    told = json.loads((tmp_path / "benchmark.json").read_text())
    table = list(csv.DictReader(io.StringIO((tmp_path / "benchmark.csv").read_text())))
    page = (tmp_path / "benchmark.md").read_text()
    for row, line, one in zip(told["rows"], table, found.measurements, strict=True):
        for name, value in line.items():
            assert value == ("" if row[name] is None else str(row[name])), name
        assert row["network_ms"] == one.network.median
        assert row["runs_ms"] == one.runs
        (shown,) = [text for text in page.splitlines() if text.startswith(f"| {row['model']} ")
                    and "×" in text]  # fmt: skip
        cells = [cell.strip() for cell in shown.strip("|").split("|")]
        assert f"{row['miou']:.4f}" in shown
        assert f"{row['network_ms']:.2f}" in cells or f"{row['network_ms']:.1f}" in cells
        assert str(row["runs"]) in cells
    assert "mIoU of 2 classes" in page
    assert "![Quality against latency](pareto.svg)" in page
    root = ElementTree.parse(tmp_path / "pareto.svg").getroot()
    words = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"small", "large"} <= set(words)


def test_the_operators_csv_has_every_operator(found: Benchmark) -> None:
    rows = list(csv.DictReader(io.StringIO(operator_csv(found.measurements))))
    for one in found.measurements:
        assert one.profile is not None
        mine = [row for row in rows if row["contender"] == one.contender.title]
        assert [row["name"] for row in mine] == [op.name for op in one.profile.operators]
        assert float(mine[-1]["cdf%"]) == pytest.approx(100, abs=0.01)


def test_what_is_there_is_not_written_over(found: Benchmark, tmp_path: Path) -> None:
    write_report(tmp_path, found)
    with pytest.raises(OutputError, match=r"benchmark\.md exists already\. Add --overwrite"):
        check_folder(tmp_path, overwrite=False)
    check_folder(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="cannot make the folder"):
        check_folder(tmp_path / "benchmark.md" / "below", overwrite=False)


def test_without_data_there_is_no_picture(folder: Path, tmp_path: Path) -> None:
    found = measure(contenders(folder, "small"), list_example_photos(), settings=QUICK)
    (tmp_path / "pareto.svg").write_text("of an earlier run")
    assert "pareto.svg" not in [path.name for path in write_report(tmp_path, found)]
    assert not (tmp_path / "pareto.svg").exists()
    assert "mIoU" not in to_table(found)
    (row,) = to_rows(found)
    assert row["speed"] == 1.0
    assert to_dict(found)["rows"][0]["operators"] is None
    assert to_csv(found).count("\n") == 2


def test_an_interruption_keeps_what_there_is(folder: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("measuring", 3):
            raise KeyboardInterrupt

    two = contenders(folder, "small", "large")
    found = measure(two, list_example_photos(), settings=QUICK, progress=stop)
    assert [one.network.count for one in found.measurements] == [3, 3]
    assert found.interrupted
    assert "Note: interrupted; these are the numbers until then." in to_markdown(found)


def test_an_interruption_before_the_first_run_is_one(folder: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "warming up":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(contenders(folder, "small"), list_example_photos(), settings=QUICK, progress=stop)


def test_the_time_can_be_up(folder: Path) -> None:
    short = Settings(warmup_runs=0, warmup_min_secs=0, num_runs=10**6, min_secs=0, max_secs=0.05)
    found = measure(contenders(folder, "small"), list_example_photos(), settings=short)
    count = found.measurements[0].network.count
    assert 0 < count < 10**6
    assert found.notes == [
        f"{count} of 1000000 runs: the time was up (max_secs 0.05 per contender)"
    ]


def test_runs_go_on_until_the_least_time_is_over(folder: Path) -> None:
    settings = Settings(warmup_runs=0, warmup_min_secs=0, num_runs=1, min_secs=0.2)
    found = measure(contenders(folder, "small"), list_example_photos(), settings=settings)
    assert found.measurements[0].network.count > 1


def test_who_cannot_run_is_left_out(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(tiny_network(classes=5))  # five classes and three labels
    models = [("broken", broken), ("small", folder / "small.tflite")]
    labels = str(folder / "labels.txt")
    planned = plan_contenders(models, Choices(threads=[1], labels=labels))
    with pytest.raises(InputError, match="5 classes"):
        measure(planned, list_example_photos(), settings=QUICK)
    (tmp_path / "cut.tflite").write_bytes(tiny_network(classes=3))
    planned[0] = Contender(
        name="cut", path=tmp_path / "cut.tflite", runtime="litert", threads=1, labels=labels
    )
    (tmp_path / "cut.tflite").write_bytes(b"nothing")
    found = measure(planned, list_example_photos(), settings=QUICK)
    assert [one.contender.name for one in found.measurements] == ["small"]
    assert "cut, litert, 1 thread: " in found.failures[0]
    assert "Left out: cut" in to_markdown(found)
    with pytest.raises(ModelError, match="not a TFLite model"):
        measure(planned[:1], list_example_photos(), settings=QUICK)


def test_a_data_set_that_does_not_fit_is_told_first(folder: Path, tmp_path: Path) -> None:
    other = make_folder(tmp_path / "set")
    (other / "labels.txt").write_text("background\nlion\ndog\n")
    stages: list[str] = []

    def watch(stage: str, done: int, total: int) -> None:
        stages.append(stage)

    for data, error, words in (
        (Data(path=other), InputError, "'cat' is none of the data set's"),
        (Data(path=tmp_path / "nothing"), DataError, "no such folder"),
        (Data(path=folder / "set", classes=("lion",)), InputError, "lion"),
    ):
        with pytest.raises(error, match=words):
            measure(
                contenders(folder, "small"),
                list_example_photos(),
                settings=QUICK,
                data=data,
                progress=watch,
            )
    assert set(stages) == {"opening"}


def test_a_worker_that_dies_is_told(folder: Path) -> None:
    process = Process(contenders(folder, "small")[0])
    process._process.send_signal(signal.SIGKILL)
    with pytest.raises(ModelError, match=r"small, litert, 1 thread: the engine ended its process"):
        process.ask("run", photo=str(list_example_photos()[0]))
    process.close()


def test_who_dies_takes_nobody_along(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Process.ask

    def die_at_the_third(process: Process, what: str, **arguments: object) -> dict:
        if what == "run" and process._title.startswith("small"):
            process.runs = getattr(process, "runs", 0) + 1
            if process.runs > 2 + 3:  # of them two for warm-up
                process._process.send_signal(signal.SIGKILL)
        return ask(process, what, **arguments)

    monkeypatch.setattr(Process, "ask", die_at_the_third)
    two = contenders(folder, "small", "large")
    data = Data(path=folder / "set", limit=1)
    found = measure(two, list_example_photos(), settings=QUICK, data=data, profile=True)
    assert [one.network.count for one in found.measurements] == [3, 5]
    assert [one.score is None for one in found.measurements] == [True, False]
    assert len(found.failures) == 1
    assert "small, litert, 1 thread: the engine ended its process (SIGKILL)" in found.failures[0]
    monkeypatch.setattr(Process, "ask", lambda *a, **k: die_at_once(ask, *a, **k))
    with pytest.raises(ModelError, match="ended its process"):
        measure(two[:1], list_example_photos(), settings=QUICK)


def die_at_once(ask: Callable[..., dict], process: Process, what: str, **arguments: object) -> dict:
    if what == "run":
        process._process.send_signal(signal.SIGKILL)
    return ask(process, what, **arguments)


def test_errors_keep_their_kind() -> None:
    from deeplab.benchmark.process import _revive

    error = _revive("MissingExtraError", "The torch runtime needs 'torch'")
    assert isinstance(error, MissingExtraError)
    assert str(error) == "The torch runtime needs 'torch'"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"num_runs": 0}, "num_runs: got 0, expected 1 or more"),
        ({"warmup_runs": -1}, "warmup_runs: got -1, expected 0 or more"),
        ({"min_secs": 10, "max_secs": 5}, "no less than min_secs"),
        ({"run_delay": -0.5}, "run_delay: got -0.5"),
    ],
)
def test_settings_that_contradict_themselves(wrong: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Settings(**wrong)


def test_no_pictures_at_all() -> None:
    with pytest.raises(InputError, match="limit: got 0"):
        Data(path=Path(), limit=0)


def test_names_say_no_more_than_they_must() -> None:
    row = {"model": "a", "runtime": "litert", "device": "cpu", "threads": 1,
           "precision": "float32", "size": "9×9", "output_stride": 8}  # fmt: skip
    rows = [row, {**row, "threads": 2}, {**row, "model": "b", "precision": "int8"}]
    assert name_rows(rows) == ["a, 1 thread", "a, 2 threads", "b, 1 thread"]
    assert name_rows([row, {**row, "output_stride": 16}]) == ["output stride 8", "output stride 16"]
    assert name_rows([row]) == ["a"]
    quick = {**row, "runtime": "openvino"}
    assert name_rows([row, quick], always=("model",)) == ["a, litert", "a, openvino"]
