"""The Hub: pushed, opened, checked; the client is the real one, the server speaks its HTTP."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hub_server import Hub

from deeplab import Segmenter
from deeplab.cli import run
from deeplab.errors import DownloadError, InputError, ModelError, ModelNotFoundError, OutputError
from documents import ROOT

pytest.importorskip("torch")
pytest.importorskip("safetensors")
huggingface_hub = pytest.importorskip("huggingface_hub")

from huggingface_hub import constants  # noqa: E402

from deeplab import weights  # noqa: E402
from deeplab.integrations.hub import push, write_folder  # noqa: E402
from deeplab.training.initialise import locate_start  # noqa: E402

PAIR = ROOT / "docs/results/voc-fast/voc-fast"
TFLITE = ROOT / "src/deeplab/zoo/bundled/voc-fast.tflite"
PHOTO = ROOT / "examples/photos/cat.jpg"


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what HF_ENDPOINT does before the client is imported."""
    _, path = constants.HUGGINGFACE_CO_URL_TEMPLATE.split("{repo_id}")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{address}/{{repo_id}}{path}")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub()
    point_to(server.address, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", server.token)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield server
    server.stop()


@pytest.fixture
def pushed(hub):
    assert push(PAIR, "me/fast", tflite=TFLITE) == "hf://me/fast"
    hub.asked.clear()
    return hub


def test_what_is_pushed_is_opened(pushed):
    ours, theirs = Segmenter(TFLITE)(PHOTO), Segmenter("hf://me/fast")(PHOTO)
    np.testing.assert_array_equal(ours.mask, theirs.mask)
    fetched = {line.rsplit("/", 1)[-1] for line in pushed.asked if line.startswith("GET /me")}
    assert fetched == {"config.json", "model.tflite"}
    _, own = weights.load(PAIR.with_suffix(".json"))
    config, state = weights.load("hf://me/fast")
    assert config == weights.load(PAIR.with_suffix(".json"))[0]
    assert all((state[name] == value).all() for name, value in own.items())


def test_the_card_has_the_hubs_metadata(pushed):
    files = pushed.repos["me/fast"]["main"]
    assert set(files) == {
        "README.md", "config.json", "model.json", "model.safetensors", "model.tflite",
    }  # fmt: skip
    card = huggingface_hub.ModelCard(files["README.md"].decode())
    assert card.data.library_name == "deeplab"
    assert card.data.pipeline_tag == "image-segmentation"
    assert card.data.license == "other"
    assert card.data.license_name.startswith("voc-pictures")
    assert 0 < card.data.eval_results[0].metric_value < 1
    assert 'Segmenter("hf://me/fast")' in card.text


def test_a_revision_is_that_revision(pushed):
    other = {"README.md": b"changed", "config.json": b"{}"}
    commit = next(name for name in pushed.repos["me/fast"] if len(name) == 40)
    whole = next(
        name
        for name, files in pushed.repos["me/fast"].items()
        if len(name) == 40 and "model.tflite" in files
    )
    assert commit
    pushed.commit("me/fast", "main", other)
    with pytest.raises(ModelNotFoundError, match="no model in the shape"):
        Segmenter("hf://me/fast")
    assert len(Segmenter(f"hf://me/fast@{whole}").labels) == 21
    with pytest.raises(ModelNotFoundError, match="no such revision"):
        Segmenter("hf://me/fast@nowhere")
    push(PAIR, "me/fast", tflite=TFLITE, revision="v2")
    assert len(Segmenter("hf://me/fast@v2").labels) == 21


def test_what_is_in_the_cache_is_opened_offline(pushed, monkeypatch):
    Segmenter("hf://me/fast")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    pushed.asked.clear()
    assert len(Segmenter("hf://me/fast").labels) == 21
    assert not pushed.asked
    with pytest.raises(DownloadError, match="not in the cache"):
        Segmenter("hf://me/other")


def test_files_that_were_replaced_are_refused(pushed):
    damaged = TFLITE.read_bytes()[:-1] + b"x"
    pushed.commit("me/fast", "main", {"model.tflite": damaged, "model.safetensors": b"x"})
    with pytest.raises(ModelError, match="SHA-256 differs"):
        Segmenter("hf://me/fast")
    with pytest.raises(ModelError, match="SHA-256 differs"):
        weights.load("hf://me/fast")


def test_pickles_are_never_asked_for(hub):
    hub.commit("me/pickle", "main", {"pytorch_model.bin": b"\x80", "config.json": b"{}"})
    for open_it in (Segmenter, weights.load):
        with pytest.raises(ModelNotFoundError, match="Pickles are not opened"):
            open_it("hf://me/pickle")
    assert not [line for line in hub.asked if "pytorch_model.bin" in line]


def test_what_is_not_there_or_not_allowed_is_said(hub, monkeypatch):
    hub.gated.add("me/gated")
    with pytest.raises(ModelNotFoundError, match="no such repository"):
        Segmenter("hf://me/nothing")
    with pytest.raises(DownloadError, match="asks for an agreement"):
        Segmenter("hf://me/gated")
    for address in ("hf://me", "hf://a/b/c", "hf://../x"):
        with pytest.raises(InputError, match="expected hf://user/name"):
            Segmenter(address)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(DownloadError, match="was not written"):
        push(PAIR, "me/fast", tflite=TFLITE)
    assert "me/fast" not in hub.repos
    with pytest.raises(InputError, match="expected user/name"):
        push(PAIR, "fast", tflite=TFLITE)


def test_a_hub_that_is_away_is_said(hub, monkeypatch):
    point_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(DownloadError, match=r"reached|fetched"):
        Segmenter("hf://me/fast")


def test_a_folder_of_that_shape_is_opened_by_its_path(tmp_path):
    folder = write_folder(PAIR, tmp_path / "fast", name="me/fast", tflite=TFLITE)
    assert len(Segmenter(folder).labels) == 21
    assert len(Segmenter(str(folder)).labels) == 21
    assert weights.load(folder)[0].num_classes == 21
    with pytest.raises(OutputError, match="there already"):
        write_folder(PAIR, folder, name="me/fast", tflite=TFLITE)
    (folder / "model.tflite").write_bytes(b"x")
    with pytest.raises(ModelError, match="SHA-256 differs"):
        Segmenter(folder)


def test_a_file_of_other_classes_is_not_pushed(tmp_path, work):
    with pytest.raises(InputError, match="other classes"):
        write_folder(PAIR, tmp_path / "fast", name="me/fast", tflite=work / "float.tflite")
    assert not (tmp_path / "fast").exists()


def test_the_commands(hub, capsys, tmp_path):
    assert run(["push", str(PAIR), "me/typed", "--tflite", str(TFLITE)]) == 0
    assert "pushed: hf://me/typed" in capsys.readouterr().out
    assert (Segmenter("hf://me/typed")(PHOTO).mask > 0).any()
    assert run(["push", str(PAIR), "typed"]) == 2
    assert run(["import", "hf://me/typed", "-o", str(tmp_path / "mine")]) == 0
    assert run(["info", "hf://me/typed"]) == 0
    assert (tmp_path / "mine.safetensors").is_file()
    assert locate_start("hf://me/typed").name == "model.json"


def test_a_missing_extra_names_itself(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'deeplab\[hub\]'"):
        Segmenter("hf://me/fast")
    with pytest.raises(ImportError, match=r"pip install 'deeplab\[hub\]'"):
        push(PAIR, "me/fast", tflite=TFLITE)
