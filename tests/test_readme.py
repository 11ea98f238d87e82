"""Everything that the documents tell a reader to type is typed here."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN = [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md",
           ROOT / "examples/photos/LICENSES.md"]  # fmt: skip


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text("utf-8"), re.M | re.S)


def commands() -> list[tuple[Path, list[str]]]:
    """Return every document with the command lines of its console blocks."""
    found = []
    for document in DOCUMENTS:
        text = "".join(blocks(document, "console"))
        lines = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
        if lines:
            found.append((document, lines))
    return found


@pytest.fixture
def workplace(reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder as the reader has it before them."""
    monkeypatch.setenv("DEEPLAB_MODEL_PATH", str(reference / "models"))
    monkeypatch.setenv("DEEPLAB_HOME", str(tmp_path / "cache"))
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copyfile(ROOT / "examples/photos/astronaut.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.reference
@pytest.mark.integration
@pytest.mark.parametrize(("document", "lines"), commands(), ids=lambda value: Path(str(value)).stem)
def test_the_commands_run(document: Path, lines: list[str], workplace: Path) -> None:
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "deeplab", line
        if words[1] == "import":
            pytest.importorskip("torch")
        script = "from deeplab.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", script, *words[1:]], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert done.stdout, line


@pytest.mark.reference
@pytest.mark.integration
def test_the_python_runs(workplace: Path) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'person': 0.46" in done.stdout
    assert (workplace / "overlay.png").is_file()
    assert (workplace / "mask.png").is_file()


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
