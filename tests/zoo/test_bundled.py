"""The models that come inside the package: what they promise, on a bare machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deeplab import Segmenter, cli, zoo
from deeplab.errors import ModelError
from deeplab.files import hash_file
from deeplab.labels import VOC
from deeplab.runtimes import open_network
from deeplab.zoo.example_photos import list_example_photos

ROOT = Path(__file__).parents[2]
MOST_BYTES = {"voc": 2_800_000, "voc-fast": 1_000_000}
PHOTOS = {path.stem: path for path in list_example_photos()}


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave nothing but the package; return the empty folder where downloads would go."""
    monkeypatch.delenv("DEEPLAB_MODEL_PATH", raising=False)
    monkeypatch.setenv("DEEPLAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module", params=MOST_BYTES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def segmenter(name: str) -> Segmenter:
    return Segmenter(zoo.get(name).name, threads=1)


def bundled(name: str) -> Path:
    return ROOT / "src/deeplab/zoo/bundled" / f"{name}.tflite"


def test_these_and_no_others_come_inside() -> None:
    assert {model.name for model in zoo.MODELS if model.comes_inside} == {*MOST_BYTES}
    files = {path.name for path in bundled("voc").parent.iterdir()}
    assert files == {f"{name}.tflite" for name in MOST_BYTES}


def test_the_file_is_the_one_that_the_zoo_describes(name: str, bare: Path) -> None:
    model, file = zoo.get(name), bundled(name)
    assert zoo.locate(name) == zoo.find(model) == file
    assert hash_file(file) == model.sha256
    assert file.stat().st_size == model.size
    assert model.size <= MOST_BYTES[name]
    assert zoo.find_by_file(file) is model
    assert not bare.exists()


def test_the_file_says_by_itself_what_the_zoo_says(name: str) -> None:
    model = zoo.get(name)
    network = open_network(bundled(name), runtime="litert", threads=1)
    assert network.labels is not None
    assert network.labels.names == VOC.names
    assert network.labels.colours == VOC.colours
    assert network.labels.background == VOC.background
    assert network.spec == model.input
    assert network.align_corners == model.align_corners
    assert network.output == "logits"


@pytest.mark.parametrize(
    ("photo", "label", "least", "most"),
    [
        ("astronaut", "person", 0.4, 0.5),
        ("cat", "cat", 0.7, 1.0),
        ("dog", "dog", 0.25, 0.4),
        ("photographer", "person", 0.25, 0.35),
    ],
)
def test_it_finds_a_cat_a_dog_and_people(
    photo: str, label: str, least: float, most: float, segmenter: Segmenter
) -> None:
    shares = segmenter(PHOTOS[photo]).shares
    assert least < shares[label] < most
    strange = 1 - shares[label] - shares["background"]
    assert strange < 0.08, shares


def test_the_subject_is_one_piece_without_the_corners(segmenter: Segmenter) -> None:
    mask = segmenter(PHOTOS["dog"]).mask
    assert mask.shape == (480, 640)
    inside = {"back": (202, 277), "chest": (192, 459), "head": (100, 525)}
    assert {part: VOC.names[mask[place]] for part, place in inside.items()} == dict.fromkeys(
        inside, "dog"
    )
    assert not mask[:60, :300].any()
    assert not mask[:, :10].any()


def test_the_default_of_python_and_of_the_commands_is_ours_and_needs_nothing(
    bare: Path, tmp_path: Path
) -> None:
    photo = PHOTOS["cat"]
    own = Segmenter("voc")(photo).mask
    assert np.array_equal(Segmenter()(photo).mask, own)
    script = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('the internet was asked')\n"
        "socket.socket.connect = refuse\n"
        "from deeplab.cli import main; main()"
    )
    environment = {key: value for key, value in os.environ.items() if "DEEPLAB" not in key}
    for command in (["segment", photo, "-o", tmp_path / "out"], ["models", "verify"],
                    ["benchmark", "voc-fast", "--num-runs", "1", "--min-secs", "0"]):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, command)],
            env={**environment, "DEEPLAB_HOME": str(bare)}, cwd=tmp_path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out" / "cat.mask.png") as mask:
        assert np.array_equal(np.asarray(mask), own)
    assert not bare.exists()


def test_a_damaged_installation_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_BUNDLED", tmp_path)
    (tmp_path / "voc.tflite").write_bytes(bundled("voc").read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"'voc' comes inside the package, but .* Install"):
        Segmenter()


def test_optimize_keeps_every_mask(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "fast.tflite"
    code = cli.run(["optimize", name, "-o", str(target), "--photo", str(PHOTOS["cat"])])
    told = capsys.readouterr()
    if code:  # there may be nothing to spare
        assert not target.exists()
        assert "nothing" in told.err
    else:
        assert "all masks are equal" in told.out


def test_show_tells_of_the_card(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models", "show", name]) == 0
    told = capsys.readouterr().out
    assert "inside the package" in told
    assert f"card:     {ROOT / 'docs/models' / name}.md" in told
    assert cli.run(["models", "list"]) == 0


@pytest.mark.integration
def test_wheel_and_source_bring_models_and_cards(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    for kind in ("wheel", "sdist"):
        script = (
            f"from hatchling.build import build_{kind} as build; import sys; build(sys.argv[1])"
        )
        subprocess.run([sys.executable, "-c", script, tmp_path], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as packed:
        inside = set(packed.namelist())
        for name in MOST_BYTES:
            assert packed.read(f"deeplab/zoo/bundled/{name}.tflite") == bundled(name).read_bytes()
            card = (ROOT / "docs/models" / f"{name}.md").read_bytes()
            assert packed.read(f"deeplab/zoo/cards/{name}.md") == card
    assert "deeplab/zoo/photos/dog.jpg" in inside
    with tarfile.open(source) as packed_source:
        names = {name.split("/", 1)[1] for name in packed_source.getnames()}
    for name in MOST_BYTES:
        assert {f"src/deeplab/zoo/bundled/{name}.tflite", f"docs/models/{name}.md"} <= names


@pytest.mark.integration
def test_the_card_is_made_of_what_is_measured(tmp_path: Path) -> None:
    """The generator on a data set of two photos, whose truth is what the faster model says."""
    data, docs = tmp_path / "data", tmp_path / "docs"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (data / folder).mkdir(parents=True)
    for folder in ("models", "images"):
        (docs / folder).mkdir(parents=True)
    truth = Segmenter("voc-fast", fit="stretch")
    for photo in ("cat", "dog"):
        (data / f"JPEGImages/{photo}.jpg").write_bytes(PHOTOS[photo].read_bytes())
        truth(PHOTOS[photo]).save_mask(data / f"SegmentationClass/{photo}.png")
    (data / "ImageSets/Segmentation/val.txt").write_text("cat\ndog\n")
    page = docs / "models/voc.md"
    page.write_text((ROOT / "docs/models/voc.md").read_text("utf-8"), "utf-8")
    command = [sys.executable, ROOT / "benchmarks/card.py", "voc", "--docs", docs]
    options = [
        "--data",
        data,
        "--peer",
        "voc-fast",
        "--rounds",
        "2",
        "--threads",
        "1",
        "--split",
        "val",
    ]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured: dict[str, Any] = json.loads(page.with_suffix(".json").read_text("utf-8"))
    perfect = next(
        s for s in measured["scores"] if (s["model"], s["fit"]) == ("voc-fast", "stretch")
    )
    assert perfect["miou"] == 1.0
    assert measured["scores"][0]["miou"] < 1
    assert measured["difference"]["fit"] == "stretch"
    assert measured["difference"]["miou"] == pytest.approx(measured["scores"][0]["miou"] - 1)
    assert measured["shown_in"]["background"] == measured["pictures"] == 2
    assert [row["threads"] for row in measured["times"]] == [1]
    assert zoo.get("voc").sha256 in done.stdout
    text = page.read_text("utf-8")
    assert f"| {measured['scores'][0]['miou']:.3f} |" in text
    with Image.open(docs / "images/voc.jpg") as strip:
        assert strip.height == 240
    subprocess.run([*command, "--tables"], check=True, stdout=subprocess.DEVNULL)
    assert page.read_text("utf-8") == text
