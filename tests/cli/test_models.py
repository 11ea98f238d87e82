from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deeplab import cli, zoo

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("DEEPLAB_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DEEPLAB_MODEL_PATH", raising=False)

    def run_one(*arguments: str | Path) -> tuple[int, str, str]:
        code = cli.run([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run_one


def test_list_names_every_model_even_on_a_narrow_terminal(run: Run) -> None:
    code, out, _ = run("models", "list")
    assert code == 0
    for model in zoo.MODELS:
        assert model.name in out
    assert "'voc' means" in out


@pytest.mark.parametrize("model", zoo.MODELS, ids=lambda model: model.name)
def test_show_prints_everything(model: zoo.ZooModel, run: Run) -> None:
    code, out, _ = run("models", "show", model.name)
    assert code == 0
    for words in (model.address, model.licence, model.sha256, str(model.miou), model.protocol):
        assert words in out


def test_path_prints_the_search_in_order(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPLAB_MODEL_PATH", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "deeplabv3_257_mv_gpu.tflite").write_text("something else")
    code, out, _ = run("models", "path", "voc")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["package", "folder", "cache", "→"]
    assert "there, but with another hash" in out
    assert str(tmp_path / "cache") in out
    assert zoo.get("voc").address in out.splitlines()[-1]


def test_pull_offline_says_how_to_help(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    offline = zoo.ZooModel(
        name="far-away", address="http://127.0.0.1:9/far.tflite", sha256="ab" * 32, size=1,
        licence="Apache-2.0", miou=0.5, protocol="none",
    )  # fmt: skip
    monkeypatch.setattr(zoo, "MODELS", (offline,))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    code, out, err = run("models", "pull", "far-away")
    assert (code, out) == (2, "")
    for words in (offline.address, offline.sha256, "far.tflite", "DEEPLAB_MODEL_PATH"):
        assert words in err


@pytest.mark.reference
def test_verify_and_pull_take_what_is_here(
    run: Run, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    here = tmp_path / "cache" / "deeplabv3_257_mv_gpu.tflite"
    shutil.copyfile(reference / "models" / here.name, here)
    assert run("models", "pull", "voc") == (0, f"{here}\n", "")
    code, out, _ = run("models", "verify", "voc")
    assert code == 0
    assert zoo.get("voc").sha256 in out
    data = bytearray(here.read_bytes())
    data[1000] ^= 1
    here.write_bytes(data)
    code, _, err = run("models", "verify")
    assert code == 2
    assert "deeplab models pull deeplabv3-mobilenetv2-dm05-257" in err
    code, _, err = run("models", "verify", "cityscapes")
    assert code == 2
    assert "not on this machine" in err


@pytest.mark.reference
def test_import_makes_a_pair_that_info_describes(run: Run, reference: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    source = reference / "models" / "deeplabv3_257_mv_gpu.tflite"
    code, out, err = run("import", source, "-o", tmp_path / "mine")
    assert code == 0, err
    assert "kept 55 variables" in out
    assert {path.name for path in tmp_path.glob("mine*")} == {"mine.json", "mine.safetensors"}
    code, _, err = run("import", source, "-o", tmp_path / "mine")
    assert code == 2
    assert "--overwrite" in err
    code, out, _ = run("info", tmp_path / "mine.json")
    assert code == 0
    assert "688,357" in out
    code, out, _ = run("info", tmp_path / "mine.json", "--size", "513", "--output-stride", "16")
    assert code == 0
    assert "output stride 16" in out
    code, _, err = run("info", tmp_path / "mine.json", "--size", "big")
    assert code == 2
    assert "HEIGHTxWIDTH" in err
