from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("litert_torch")

from pairs import PHOTOS

from deeplab import cli
from documents import ROOT, blocks

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run_one(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        ours = [line for line in err.splitlines() if line.startswith("deeplab: ")]
        return code, out, "\n".join(ours)

    return run_one


def test_the_command_writes_and_tells(run: Run, pair: Path, tmp_path: Path, convert_once) -> None:
    file = tmp_path / "net.tflite"
    code, out, err = run("export", pair, "--photos", PHOTOS[0].parent, "-o", file)
    assert (code, err.strip()) == (0, "")
    assert "net.tflite: certified" in out
    assert "100.000 %" in out
    assert "same-class foreground IoU" in out
    assert "latency: " in out
    assert f"written: {file} and {file}.json" in out
    assert json.loads((tmp_path / "net.tflite.json").read_text("utf-8"))["faults"] == []
    code, _, err = run("export", pair, "-o", file)
    assert code == 2
    assert "Add --overwrite" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "tfl"], "Did you mean 'tflite'"),
        (["--precision", "int8"], "--calibrate FOLDER"),
        (["--precision", "int8", "--calibrate", "."], "has no pictures"),
        (["--precision", "int8", "--calibrate", "nowhere"], "no file or folder nowhere"),
        (["--size", "512"], "The nearest is 513×513"),
        (["--size", "129,x"], "--size: got '129,x'"),
        (["--size", "129,100"], "The nearest is 129×97"),
        (["--keep-float", ","], "--keep-float: got ','"),
        (["--threads", "0"], "--threads"),
        (["-o", "no/folder/net.tflite"], "there is no folder no/folder"),
    ],
)
def test_a_wrong_line_ends_with_one_line(
    arguments: list[str], words: str, run: Run, pair: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    output = [] if "-o" in arguments else ["-o", "net.tflite"]
    code, out, err = run("export", pair, *output, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert [*tmp_path.iterdir()] == []


def test_the_python_in_the_document_runs(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in (pair, pair.with_suffix(".safetensors")):
        shutil.copy(part, tmp_path)
    (tmp_path / "tiny.json").rename(tmp_path / "mine.json")
    (tmp_path / "tiny.safetensors").rename(tmp_path / "mine.safetensors")
    shutil.copy(PHOTOS[0], tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    found = blocks(ROOT / "docs/export.md")
    (code,) = [text for language, text in found if language == "python"]
    exec(compile(code, "docs/export.md", "exec"), {})
    assert "mine.tflite 1.0" in capsys.readouterr().out
