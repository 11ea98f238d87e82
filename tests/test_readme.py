"""Everything that the documents tell a reader to type is typed here."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from documents import ROOT, Command, blocks, commands, run

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")),
             *sorted((ROOT / "docs/models").glob("*.md"))]  # fmt: skip
WRITTEN = [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md",
           ROOT / "examples/photos/LICENSES.md"]  # fmt: skip
WALK = ROOT / "docs/your-own-data.md"
WITH_A_TEST_OF_ITS_OWN = (
    WALK, ROOT / "docs/video.md", ROOT / "docs/confidence.md", ROOT / "docs/elsewhere.md",
    ROOT / "docs/pieces.md", ROOT / "docs/timm.md",
    ROOT / "docs/cluster.md",
)  # fmt: skip


def told() -> list[tuple[Path, list[Command]]]:
    """Return every document with the command lines of its console blocks."""
    found = []
    for document in DOCUMENTS:
        text = "".join(text for language, text in blocks(document) if language == "console")
        if text and document not in WITH_A_TEST_OF_ITS_OWN:
            found.append((document, commands(text)))
    return found


@pytest.fixture
def workplace(reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder as the reader has it before them."""
    monkeypatch.setenv("DEEPLAB_MODEL_PATH", str(reference / "models"))
    monkeypatch.setenv("DEEPLAB_HOME", str(tmp_path / "cache"))
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copyfile(ROOT / "examples/photos/astronaut.jpg", tmp_path / "photo.jpg")
    with Image.open(ROOT / "examples/photos/astronaut.jpg") as photo:
        photo.save(tmp_path / "map.tif")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.reference
@pytest.mark.integration
@pytest.mark.parametrize(
    "lines", [pytest.param(lines, id=document.stem) for document, lines in told()]
)
def test_the_commands_run(
    lines: list[Command], workplace: Path, request: pytest.FixtureRequest
) -> None:
    for line in lines:
        if line.line.startswith("deeplab import"):
            pytest.importorskip("torch")
        if "map.tif" in line.line:
            pytest.importorskip("rasterio")
        if "--to web" in line.line:
            request.getfixturevalue("built_page")
        run(line)


@pytest.mark.integration
def test_the_python_runs_on_a_bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPLAB_MODEL_PATH", raising=False)
    monkeypatch.setenv("DEEPLAB_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "examples/photos/dog.jpg", tmp_path / "photo.jpg")
    (code,) = [text for language, text in blocks(ROOT / "README.md") if language == "python"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = float(re.findall(r"'dog': ([\d.]+)", code)[0])  # what the README promises
    assert float(re.findall(r"'dog': ([\d.]+)", done.stdout)[0]) == pytest.approx(told, abs=0.01)
    assert not (tmp_path / "cache").exists()
    assert (tmp_path / "mask.png").is_file()
    with Image.open(tmp_path / "overlay.png") as fresh:
        ours = np.asarray(fresh.convert("RGB"), np.float32)
    with Image.open(ROOT / "docs/images/dog.overlay.jpg") as shown:
        picture = np.asarray(shown.convert("RGB"), np.float32)
    assert np.abs(ours - picture).mean() < 2, "the README shows another picture: make pictures"


@pytest.mark.reference
@pytest.mark.integration
def test_the_python_about_networks_runs(workplace: Path) -> None:
    pytest.importorskip("torch")
    found = blocks(ROOT / "docs/networks.md")
    code = "\n".join(text for language, text in found if language == "python")
    check = "assert mask.shape == (1, 360, 480) and fine.shape[2] == logits.shape[2]\n"
    check += "assert probabilities.shape == (1, 21, 360, 480)\n"
    subprocess.run([sys.executable, "-W", "error", "-c", f"{code}\n{check}"], check=True)


def test_what_the_readme_does_with_own_pictures_is_in_the_walk() -> None:
    (short,) = [text for _, text in blocks(ROOT / "README.md") if "data check" in text]
    console = "".join(text for language, text in blocks(WALK) if language == "console")
    walked = [shlex.split(command.line, comments=True) for command in commands(console)]
    for line in short.splitlines():
        assert shlex.split(line, comments=True) in walked, line


@pytest.mark.parametrize("document", WRITTEN, ids=lambda path: path.stem)
def test_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text("utf-8"))
    inside = [link for link in links if "://" not in link]
    assert not [link for link in inside if not (document.parent / link).exists()]


def test_every_model_that_runs_is_in_the_readme() -> None:
    from deeplab import zoo

    text = (ROOT / "README.md").read_text("utf-8")
    for model in zoo.MODELS:
        if model.kind == "model":
            row = next(line for line in text.splitlines() if f"`{model.name}`" in line)
            assert f"{model.miou:.3f}" in row
            assert model.input is not None
            assert f"{model.input.height}×{model.input.width}" in row


def test_every_photo_has_a_licence() -> None:
    text = (ROOT / "examples/photos/LICENSES.md").read_text("utf-8")
    photos = {path.name for path in (ROOT / "examples/photos").glob("*.jpg")}
    assert photos == set(re.findall(r"`(\w+\.jpg)`", text))
