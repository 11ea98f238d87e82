"""The command: what it tells, what it refuses, and that the page it serves works."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import ROOT, serving

from deeplab import LabelSet, Segmenter, cli
from deeplab.errors import InputError, ModelError
from deeplab.serve.limits import Limits

pytest.importorskip("fastapi")

Run = Callable[..., tuple[int, str]]
STARTER = "deeplabv3_257_mv_gpu.tflite"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_one(*arguments: object) -> tuple[int, str]:
        code = cli.run(["serve", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert out == ""
        return code, err

    return run_one


# --- refusals ---------------------------------------------------------------------------------


def test_a_port_that_is_taken(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, err = run("--port", port)
    assert code == 2
    assert f"port: {port} is taken by another program" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", 70000), "port: got 70000, expected 0 to 65535"),
        (("--host", "no.such.host.invalid"), "host: there is no 'no.such.host.invalid'"),
        (("--host", "203.0.113.7"), "host: '203.0.113.7' is no address of this machine"),
        (("--model", "vco"), "Did you mean 'voc'?"),
        (("--model", "nothing.tflite"), "there is no file nothing.tflite"),
        (("--runtime", "litr"), "Did you mean 'litert'?"),
        (("--max-megabytes", 0), "max_megabytes: got 0"),
        (("--timeout", -1), "timeout_seconds: got -1"),
        (("--concurrency", 0), "--concurrency"),
    ],
)
def test_wrong_options(run: Run, arguments: tuple[object, ...], words: str) -> None:
    code, err = run("--port", 0, *arguments)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_models_of_the_same_name_and_labels_for_several(
    run: Run, model: Path, labels: Path, tmp_path: Path
) -> None:
    twin = shutil.copy(model, tmp_path)
    code, err = run("--port", 0, "-m", model, "-m", twin)
    assert (code, "would both be called 'tiny'" in err) == (2, True)
    other = shutil.copy(model, tmp_path / "other.tflite")
    code, err = run("--port", 0, "-m", model, "-m", other, "--labels", labels)
    assert (code, "for 2 models" in err) == (2, True)


def test_an_extra_that_is_not_installed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "fastapi" else find_spec(name)
    )
    code, err = run()
    assert code == 2
    assert "pip install 'deeplab[serve]'" in err


def test_limits_from_python() -> None:
    with pytest.raises(InputError, match="queue: got -1"):
        Limits(queue=-1)
    with pytest.raises(InputError, match="concurrency: got 0"):
        Limits(concurrency=0)
    with pytest.raises(InputError, match="max_megapixels: got inf"):
        Limits(max_megapixels=float("inf"))
    with pytest.raises(InputError, match="timeout_seconds: got 1e\\+09, expected 86400 at most"):
        Limits(timeout_seconds=1e9)


def test_memory_limits_the_size_of_photos_and_how_many_are_at_work() -> None:
    small, large = Limits(memory_bytes=780_000_000), Limits(memory_bytes=7_800_000_000)
    assert (small.max_pixels, small.max_pixels_at_work) == (20_000_000, 20_000_000)
    assert (large.max_pixels, large.max_pixels_at_work) == (50_000_000, 200_000_000)


def test_an_application_needs_a_model(model: Path, tmp_path: Path) -> None:
    from deeplab.serve.app import build_app

    with pytest.raises(InputError, match="model: got none"):
        build_app({})
    broken = tmp_path / "broken.tflite"
    broken.write_text("no model")
    segmenter = Segmenter(model, labels=LabelSet(("a", "b", "c", "d")))
    with pytest.raises(ModelError, match=r"broken\.tflite"):
        build_app({"tiny": segmenter}, files={"tiny": broken})


# --- what it tells ----------------------------------------------------------------------------


def test_it_says_where_it_is_and_warns_of_open_doors(model: Path, labels: Path) -> None:
    with serving("-m", model, "--labels", labels, "--host", "0.0.0.0") as server:
        server.get("/healthz")
        server.stop()
    assert re.match(r"http://127\.0\.0\.1:\d+/ serves tiny; \S+/docs describes", server.log[0])
    assert "no password and no encryption" in server.log[1]


def test_the_page_offers_no_model_that_it_would_run_otherwise_than_the_api(
    model: Path, labels: Path
) -> None:
    """It reads the file alone, and would give another mask without a word."""
    options = ("-m", model, "--labels", labels)
    with serving(*options, "--normalisation", "imagenet") as server:
        assert json.loads(server.get("/models.json").body)["models"] == []
        server.stop()
    with serving(*options) as server:
        assert json.loads(server.get("/models.json").body)["models"]


def test_without_a_log(model: Path, labels: Path, photo: bytes) -> None:
    with serving("-m", model, "--labels", labels, "--no-access-log") as server:
        assert server.post("/v1/segment", photo).status == 200
        server.stop()
    assert [line for line in server.log[1:] if "browser page is not built" not in line] == []


@pytest.mark.reference
def test_several_models(photo: bytes, reference: Path) -> None:
    environment = {"DEEPLAB_MODEL_PATH": str(reference / "models")}
    options = ("-m", "voc", "-m", "cityscapes", "--concurrency", 2)
    with serving(*options, environment=environment) as server:
        models = server.get("/v1/models").json()["models"]
        assert [one["name"] for one in models] == ["voc", "cityscapes"]
        for name in ("voc", "cityscapes"):
            assert server.post(f"/v1/segment?model={name}", photo).json()["model"] == name
        answer = server.post("/v1/segment?model=cityscapes&output=cutout", photo)
        assert (answer.status, "background" in answer.json()["detail"]) == (422, True)
        kept = "/v1/segment?model=cityscapes&output=cutout&only=sky"
        assert server.post(kept, photo).status == 200
        titles = [one["title"] for one in server.get("/models.json").json()["models"]]
        assert titles[:2] == ["voc", "cityscapes"]


# --- the page ---------------------------------------------------------------------------------


def install_wheel(folder: Path) -> Path:
    """Build the wheel and unpack it; return where it lies."""
    build = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    quiet = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    subprocess.run([*build, "wheel", *quiet, "-w", folder, ROOT], check=True)
    (wheel,) = folder.glob("deeplab-*.whl")
    target = folder / "installed"
    subprocess.run([*build, "install", *quiet[:3], "--target", target, wheel], check=True)
    return target


@pytest.mark.integration
def test_from_a_wheel_it_serves_the_page(
    model: Path, labels: Path, photo: bytes, tmp_path: Path, built_page: Path
) -> None:
    pytest.importorskip("hatchling")
    installed = install_wheel(tmp_path)
    environment = {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", "import deeplab; print(deeplab.__file__)"]
    found = subprocess.run(
        command, env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(installed))
    options = ("-m", model, "--labels", labels)
    with serving(*options, environment=environment, cwd=tmp_path) as server:
        answer = server.get("/")
        assert answer.body == (built_page / "index.html").read_bytes()
        for name in re.findall(rb'(?:src|href)="\./([^"]+)"', answer.body):
            assert server.get(f"/{name.decode()}").status == 200
        assert server.post("/v1/segment", photo).status == 200


@pytest.mark.network
@pytest.mark.integration
def test_from_a_wheel_in_an_empty_environment_it_serves_the_page(
    model: Path, labels: Path, photo: bytes, tmp_path: Path, built_page: Path
) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT]
    subprocess.run(pip, check=True)
    (wheel,) = tmp_path.glob("deeplab-*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "empty"], check=True)
    python = tmp_path / "empty" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{wheel}[serve]"], check=True)
    options = ("-m", model, "--labels", labels)
    with serving(*options, python=python, cwd=tmp_path) as server:
        assert server.get("/").body == (built_page / "index.html").read_bytes()
        assert server.post("/v1/segment", photo).status == 200
        server.stop()
