from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
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
    assert "'starter' means" in out


@pytest.mark.parametrize("model", zoo.MODELS, ids=lambda model: model.name)
def test_show_prints_everything(model: zoo.ZooModel, run: Run) -> None:
    code, out, _ = run("models", "show", model.name)
    assert code == 0
    miou = "" if model.miou is None else str(model.miou)
    for words in (model.origin, model.licence, model.sha256, miou, model.protocol):
        assert words in out


def test_path_prints_the_search_in_order(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPLAB_MODEL_PATH", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "deeplabv3_257_mv_gpu.tflite").write_text("something else")
    code, out, _ = run("models", "path", "starter")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["package", "folder", "cache", "→"]
    assert "there, but with another hash" in out
    assert str(tmp_path / "cache") in out
    assert zoo.get("starter").address in out.splitlines()[-1]


def test_a_file_that_belongs_inside_the_package_has_no_address(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = zoo.ZooModel(
        name="ours", address="", sha256=hashlib.sha256(b"model").hexdigest(), size=5,
        licence="Apache-2.0", miou=0.5, protocol="none",
    )  # fmt: skip
    monkeypatch.setattr(zoo, "MODELS", (inside,))
    monkeypatch.setattr(zoo, "_BUNDLED", tmp_path)
    for command in ("verify", "pull"):
        code, _, err = run("models", command, "ours")
        assert code == 2
        assert "nstall deeplab again" in err
    code, out, _ = run("models", "path", "ours")
    assert (code, out.splitlines()[-1][:10]) == (0, "→ nowhere:")
    assert "inside the package" in run("models", "show", "ours")[1]
    (tmp_path / "ours.tflite").write_bytes(b"model")
    code, out, _ = run("models", "path", "ours")
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["→", "package"], ["cache", str(tmp_path / "cache" / "ours.tflite")]
    ]  # fmt: skip
    assert run("models", "pull", "ours") == (0, f"{tmp_path / 'ours.tflite'}\n", "")
    assert run("models", "verify")[1].startswith("right  ")


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
    assert run("models", "pull", "starter") == (0, f"{here}\n", "")
    code, out, _ = run("models", "verify", "starter")
    assert code == 0
    assert zoo.get("starter").sha256 in out
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
    for wrong, words in ((".", "expected the name"), ("/", "expected the name")):
        code, _, err = run("import", source, "-o", wrong)
        assert code == 2
        assert words in err
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe")
    code, _, err = run("import", source, "-o", tmp_path / "x", "--labels", tmp_path / "labels.txt")
    assert code == 2
    assert "labels" in err
    code, _, err = run("info", tmp_path / "mine.json", "--size", "big")
    assert code == 2
    assert "HEIGHTxWIDTH" in err


@pytest.mark.reference
def test_a_checkpoint_is_named_by_its_folder_its_prefix_or_its_index(
    run: Run, reference: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    folder = reference / "parity" / "tf_checkpoint_mnv2_dm05"
    written = set()
    for number, source in enumerate((folder, folder / "model.ckpt", folder / "model.ckpt.index")):
        code, _, err = run("import", source, "-o", tmp_path / str(number))
        assert code == 0, err
        written.add((tmp_path / f"{number}.safetensors").read_bytes())
        code, out, err = run("info", source)
        assert code == 0, err
        assert "688,357" in out
    assert len(written) == 1
    for source in ("/", "", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        for command in (["import", source, "-o", tmp_path / "wrong"], ["info", source]):
            code, _, err = run(*command)
            assert code == 2
            assert err.startswith("deeplab: ")


def test_weights_without_torch(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_text("never read")
    script = (
        "import sys; sys.modules['torch'] = None; from deeplab import cli;"
        "sys.exit(cli.run(sys.argv[1:]))"
    )
    command = ["import", tmp_path / "weights.pt", "-o", tmp_path / "pair"]
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'deeplab[train]'" in done.stderr
