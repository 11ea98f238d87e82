"""The page with a model in a folder: complete, on any host, and nothing is replaced by mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deeplab import Segmenter, cli
from deeplab.errors import InputError, ModelError, OutputError
from deeplab.export.web import export_page
from deeplab.files import hash_file
from deeplab.serve import browser_page
from tiny_tflite import Builder, schema, tiny_network

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a built page: the real one, or where it is not built, one of the same shape."""
    if not (browser_page.BUILT / "index.html").is_file():
        built = tmp_path / "built"
        (built / "wasm").mkdir(parents=True)
        (built / "index.html").write_text('<script src="./main.js"></script>')
        (built / "main.js").write_text("0")
        (built / "wasm" / "litert_wasm_internal.wasm").write_bytes(b"\0asm")
        monkeypatch.setattr(browser_page, "BUILT", built)
    return browser_page.BUILT


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(tiny_network())
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_one(*arguments: object) -> tuple[int, str, str]:
        code = cli.run(["export", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run_one


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_has_page_runtime_and_model(
    run: Run, page: Path, model: Path, tmp_path: Path
) -> None:
    model.with_name(f"{model.name}.json").write_text("{}")  # a certificate, not a pair
    site = tmp_path / "some" / "where" / "site"
    code, out, _ = run(model, "--to", "web", site)
    assert code == 0
    assert str(site) in out
    models = {"models.json", "models/tiny.tflite"}
    assert contents(site) == contents(page) | models
    (entry,) = json.loads((site / "models.json").read_text("utf-8"))["models"]
    assert entry["title"] == "tiny"
    assert hash_file(site / entry["file"]) == entry["sha256"] == hash_file(model)
    # It may stand anywhere: no address of its own begins at the root or names a host.
    addresses = re.findall(r'(?:src|href)="([^"]*)"', (site / "index.html").read_text("utf-8"))
    assert addresses
    assert not [one for one in addresses if one.startswith("/") or "//" in one]
    assert {one.removeprefix("./") for one in addresses if one[0] != "#"} <= contents(site)
    assert [path.name for path in site.parent.iterdir()] == ["site"]
    assert (site.stat().st_mode & 0o777) == (page.stat().st_mode & 0o777)


def test_what_is_there_is_kept(run: Run, page: Path, model: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()  # an empty folder will do
    assert run(model, "--to", "web", site)[0] == 0
    before = contents(site)
    (site / "old").touch()
    code, _, err = run(model, "--to", "web", site)
    assert (code, "Add --overwrite" in err) == (2, True)
    assert run(model, "--to", "web", site, "--overwrite")[0] == 0
    assert contents(site) == before

    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "mine.jpg").touch()
    code, _, err = run(model, "--to", "web", photos, "--overwrite")
    assert (code, "no such page" in err) == (2, True)
    code, _, err = run(model, "--to", "web", model, "--overwrite")
    assert (code, "is a file, expected a folder" in err) == (2, True)
    assert contents(photos) == {"mine.jpg"}


def test_the_folder_one_is_in(
    page: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.chdir(site)
    for folder in (".", "..", site):
        with pytest.raises(OutputError, match="you are inside"):
            export_page(model, folder)
    export_page(model, "below")
    assert (site / "below" / "index.html").is_file()


def test_a_failure_leaves_nothing(page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_text("no model")
    before = contents(tmp_path)
    with pytest.raises(ModelError, match=r"broken\.tflite"):
        export_page(broken, tmp_path / "site")
    assert contents(tmp_path) == before
    assert not (tmp_path / "site").exists()


def test_a_folder_that_cannot_be_made(page: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot make"):
        export_page(model, model / "site" / "below")


def test_what_does_not_fit(run: Run, page: Path, model: Path, tmp_path: Path) -> None:
    for arguments, words in [
        ((model, "--to", "web"), "--to web DIR"),
        ((model, tmp_path / "x", "--to", "onnx"), "only --to web takes a folder"),
        ((model, "--to", "wbe", tmp_path / "x"), "Did you mean 'web'?"),
        ((model, "--to", "web", tmp_path / "x", "--precision", "int8"), "finished already"),
        (("vco", "--to", "web", tmp_path / "x"), "Did you mean 'voc'?"),
    ]:
        code, _, err = run(*arguments)
        assert (code, words in err) == (2, True), err
        assert len(err.strip().splitlines()) == 1
    onnx = model.rename(tmp_path / "tiny.onnx")
    with pytest.raises(ModelError, match="browsers run only those"):
        export_page(onnx, tmp_path / "x")
    with pytest.raises(InputError, match="size: "):
        export_page(onnx.rename(model), tmp_path / "x", size=(65, 65))


def test_a_page_that_is_not_built(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser_page, "BUILT", tmp_path / "nothing")
    code, _, err = run(model, "--to", "web", tmp_path / "site")
    assert (code, "make web" in err) == (2, True)
    assert len(err.strip().splitlines()) == 1


@pytest.mark.usefixtures("convert_once")
def test_a_pair_is_exported_and_brings_its_certificate(
    run: Run, page: Path, pair: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    code, out, err = run(pair, "--to", "web", site)
    assert code == 0, err
    assert "torch" in out  # the certificate's table
    assert contents(site) == contents(page) | {
        "models.json", "models/tiny.tflite", "models/tiny.tflite.json"
    }  # fmt: skip
    file = site / "models" / "tiny.tflite"
    certificate = json.loads(file.with_name("tiny.tflite.json").read_text("utf-8"))
    assert certificate["format"] == "deeplab certificate"
    photo = next((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))
    assert (Segmenter(file)(photo).mask == Segmenter(pair)(photo).mask).mean() > 0.999


def write_classifier(path: Path) -> Path:
    """Write a network that answers with one number per class for the whole photo."""
    build = Builder()
    picture = build.tensor((1, 9, 9, 3))
    axes = build.tensor((2,), schema.TensorType.INT32, np.array([1, 2], np.int32))
    answer = build.tensor((1, 3))
    build.operator("MEAN", [picture, axes], [answer], schema.ReducerOptionsT())
    path.write_bytes(build.finish([picture], [answer]))
    return path


def test_what_cannot_be_served_makes_no_dead_page(run: Run, page: Path, tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "classifier.tflite")
    with pytest.raises(ModelError) as refused:
        Segmenter(path)
    code, _, err = run(path, "--to", "web", tmp_path / "site")
    assert code == 2
    assert str(refused.value) in err
    assert not (tmp_path / "site").exists()
