from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deeplab import zoo
from deeplab.errors import DownloadError, ModelError, ModelNotFoundError
from deeplab.labels import CITYSCAPES, VOC

CONTENT = bytes(range(256)) * 2000


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing.tflite":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:5000] if self.path == "/truncated.tflite" else CONTENT)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Server) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "ein Cache für Modelle"
    monkeypatch.setenv("DEEPLAB_HOME", str(folder))
    monkeypatch.delenv("DEEPLAB_MODEL_PATH", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return folder


def entry(address: str, *, sha256: str | None = None) -> zoo.ZooModel:
    return zoo.ZooModel(
        name="a-model",
        address=address,
        sha256=hashlib.sha256(CONTENT).hexdigest() if sha256 is None else sha256,
        size=len(CONTENT),
        licence="Apache-2.0",
        miou=0.5,
        protocol="none",
    )


def left_over(cache: Path) -> list[str]:
    return sorted(file.name for file in cache.iterdir()) if cache.exists() else []


# --- entries ----------------------------------------------------------------------------------


def test_names_are_unique_and_aliases_lead_somewhere() -> None:
    names = [model.name for model in zoo.MODELS]
    assert len(set(names)) == len(names)
    assert not set(names) & set(zoo.ALIASES)
    assert len({model.file_name for model in zoo.MODELS}) == len(names)
    for alias, name in zoo.ALIASES.items():
        assert zoo.get(alias).name == name
        assert zoo.get(alias).kind == "model"
    assert zoo.get("VOC").labels is VOC
    assert zoo.get("cityscapes").labels is CITYSCAPES


@pytest.mark.parametrize("model", zoo.MODELS, ids=lambda model: model.name)
def test_every_entry_says_what_one_must_know(model: zoo.ZooModel) -> None:
    addresses = ("https://",)
    assert model.comes_inside or model.address.startswith(addresses)
    assert model.licence
    assert model.protocol
    if model.miou is None:
        assert model.labels is None
    else:
        assert 0 < model.miou < 1
    if model.kind == "model":
        assert len(model.sha256) == 64
        assert model.size
        assert model.input is not None
        assert model.labels is not None


@pytest.mark.reference
@pytest.mark.parametrize(
    "model",
    [m for m in zoo.MODELS if m.kind == "model" and not m.comes_inside],
    ids=lambda model: model.name,
)
def test_entries_fit_the_public_files(
    model: zoo.ZooModel, reference: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEEPLAB_MODEL_PATH", f"/nowhere{os.pathsep}{reference / 'models'}")
    assert zoo.find(model) == reference / "models" / model.file_name
    assert zoo.locate(model.name) == zoo.find(model)
    renamed = shutil.copy(reference / "models" / model.file_name, tmp_path / "renamed.bin")
    assert zoo.find_by_file(renamed) is model
    assert zoo.verify(renamed, model) == model.sha256


def test_unknown_names_come_with_the_near_ones() -> None:
    with pytest.raises(ModelNotFoundError, match="Did you mean 'voc'"):
        zoo.get("vocc")
    with pytest.raises(ModelNotFoundError, match="cityscapes"):
        zoo.locate("cityscape")


def test_weights_do_not_run_as_they_are() -> None:
    with pytest.raises(ModelError, match="deeplab import torchvision-resnet50 -o NAME"):
        zoo.locate("torchvision-resnet50")


def test_missing_files_are_told_from_unknown_names(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").touch()
    with pytest.raises(ModelNotFoundError, match=r"no file .*modell\.tflite.*'model\.tflite'"):
        zoo.locate(tmp_path / "modell.tflite")
    with pytest.raises(ModelNotFoundError, match="does not exist either"):
        zoo.locate(str(tmp_path / "nowhere" / "model"))
    with pytest.raises(ModelNotFoundError, match="is a folder"):
        zoo.locate(tmp_path)
    assert zoo.locate(tmp_path / "model.tflite") == tmp_path / "model.tflite"


# --- search -----------------------------------------------------------------------------------


def test_the_search_goes_package_folders_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = entry("http://127.0.0.1:9/m.tflite")
    package, first, second = tmp_path / "package", tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(zoo, "_BUNDLED", package)
    monkeypatch.setenv("DEEPLAB_MODEL_PATH", f"{first}{os.pathsep}{second}")
    order = [package, first, second, cache]
    assert [place.path.parent for place in zoo.places(model)] == order
    assert [place.kind for place in zoo.places(model)] == ["package", "folder", "folder", "cache"]
    assert zoo.find(model) is None
    for folder in reversed(order):
        folder.mkdir()
        (folder / "m.tflite").write_bytes(CONTENT)
        assert zoo.find(model) == folder / "m.tflite"


@pytest.mark.parametrize("content", [b"too short", CONTENT[:-1] + b"\0"])
def test_a_file_of_the_right_name_and_another_hash_is_passed_over(
    content: bytes, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = entry("http://127.0.0.1:9/m.tflite")
    monkeypatch.setenv("DEEPLAB_MODEL_PATH", str(tmp_path))
    (tmp_path / "m.tflite").write_bytes(content)
    assert [place.state for place in zoo.places(model)] == ["missing", "wrong", "missing"]
    assert zoo.find(model) is None
    with pytest.raises(ModelError, match="deeplab models pull a-model"):
        zoo.verify(tmp_path / "m.tflite", model)


def test_an_unknown_file_is_in_no_entry(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert zoo.find_by_file(tmp_path / "file") is None
    assert zoo.find_by_hash("0" * 64) is None
    (tmp_path / "file").write_bytes(b"\0" * 2779264)  # the size of a known model
    assert zoo.find_by_file(tmp_path / "file") is None


def test_a_file_inside_the_package_is_found_there_and_downloaded_from_nowhere(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = entry("")
    assert (model.comes_inside, model.file_name) == (True, "a-model.tflite")
    assert model.origin == "inside the package"
    monkeypatch.setattr(zoo, "_BUNDLED", tmp_path / "bundled")
    monkeypatch.setattr(zoo, "MODELS", (model,))
    inside = tmp_path / "bundled" / model.file_name
    for content in (None, b"damaged"):
        if content is not None:
            inside.parent.mkdir()
            inside.write_bytes(content)
            with pytest.raises(ModelError, match=r"expected .* Install deeplab again"):
                zoo.verify(inside, model)
        with pytest.raises(ModelError, match=r"a-model\.tflite is missing or damaged\. Install"):
            zoo.locate("a-model")
    inside.write_bytes(CONTENT)
    assert zoo.locate("a-model") == inside
    assert zoo.verify(inside, model) == model.sha256
    assert left_over(cache) == []


# --- download ---------------------------------------------------------------------------------


class _Counter:
    def __init__(self) -> None:
        self.total: float = 0
        self.seen = 0
        self.closed = False

    def update(self, amount: int) -> None:
        self.seen += amount

    def reset(self) -> None:
        self.seen = 0

    def close(self) -> None:
        self.closed = True


def test_pull_downloads_once_and_reports_progress(
    server: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, counter = entry(f"{server}/m.tflite"), _Counter()
    monkeypatch.setattr(zoo, "MODELS", (model,))
    path = zoo.locate("a-model", progress=counter)
    assert path == cache / "m.tflite"
    assert path.read_bytes() == CONTENT
    assert left_over(cache) == ["m.tflite"]
    assert counter.total == len(CONTENT)
    assert counter.closed
    offline = dataclasses.replace(model, address="http://127.0.0.1:9/m.tflite")
    monkeypatch.setattr(zoo, "MODELS", (offline,))
    assert zoo.locate("a-model") == path


@pytest.mark.parametrize(
    ("file", "sha256", "words"),
    [
        ("missing.tflite", None, "404"),
        ("truncated.tflite", None, "broke off"),
        ("m.tflite", "0" * 64, "gave a file with the sha256"),
        ("m.tflite", "0" * 8, "expected 00000000"),
    ],
)
def test_a_failed_download_leaves_nothing_and_says_how_to_help(
    file: str, sha256: str | None, words: str, server: str, cache: Path
) -> None:
    model = entry(f"{server}/{file}", sha256=sha256)
    with pytest.raises(DownloadError) as caught:
        zoo.pull(model)
    message = str(caught.value)
    assert words in message
    assert f"get {model.address}" in message
    assert str(cache / file) in message
    assert model.sha256 in message
    assert "\n" not in message
    kept = [".truncated.00000000.part.tflite"] if words == "broke off" else []  # to go on with
    assert left_over(cache) == kept


def test_offline_the_error_names_address_folder_and_hash(cache: Path) -> None:
    model = entry("http://127.0.0.1:9/m.tflite")
    with pytest.raises(DownloadError) as caught:
        zoo.pull(model)
    for words in ("no connection", model.address, str(cache / "m.tflite"), model.sha256):
        assert words in str(caught.value)


def test_a_cache_that_cannot_be_made_is_named(server: str, cache: Path) -> None:
    cache.write_text("a file in place of the folder")
    with pytest.raises(DownloadError, match="cannot be written"):
        zoo.pull(entry(f"{server}/m.tflite"))


def test_without_a_known_hash_the_first_download_is_trusted_and_remembered(
    server: str, cache: Path
) -> None:
    model = dataclasses.replace(entry(f"{server}/m.tflite", sha256=""), size=None)
    path = zoo.pull(model)
    assert left_over(cache) == ["m.tflite", "m.tflite.sha256"]
    assert zoo.verify(path, model) == hashlib.sha256(CONTENT).hexdigest()
    path.write_bytes(b"changed")
    with pytest.raises(ModelError, match="expected " + hashlib.sha256(CONTENT).hexdigest()):
        zoo.verify(path, model)


def test_a_folder_of_a_models_name_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People keep the data set VOC in a folder called so, and work beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voc").mkdir()
    assert zoo.locate("voc").name == "voc.tflite"
    with pytest.raises(ModelNotFoundError, match="is a folder"):
        zoo.locate("./voc")


def test_the_whole_zoo_of_the_original_is_named() -> None:
    named = [model for model in zoo.MODELS if model.name.startswith("tf-")]
    assert len({model.address for model in named}) == len(named) == 24
    assert sum(model.miou is None for model in named) == 6  # backbones to train from
    assert all(len(m.labels) == 151 for m in named if "ade20k" in m.name and m.labels)
