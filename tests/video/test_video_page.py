"""The commands and the code of docs/video.md, run as a reader would."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ffmpeg_oracle import ffmpeg

from deeplab.labels import VOC
from documents import ROOT, blocks, commands, run

PAGE = ROOT / "docs" / "video.md"

pytestmark = pytest.mark.integration


@pytest.fixture
def here(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    ffmpeg("-i", clips / "plain.mp4", "-vf", "fps=10", "-frames:v", "20", tmp_path / "clip.mp4")
    return tmp_path


def test_its_commands(here: Path) -> None:
    (here / "clips").mkdir()
    shutil.copy(here / "clip.mp4", here / "clips")
    (here / "clips" / "labels.txt").write_text("\n".join(VOC.names))
    consoles = [text for language, text in blocks(PAGE) if language == "console"]
    assert len(consoles) == 2
    for console in consoles:
        for command in commands(console):
            run(command)


def test_its_code(here: Path) -> None:
    (code,) = [text for language, text in blocks(PAGE) if language == "python"]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("19 1.9")
    assert (here / "clip.contour.mp4").stat().st_size > 1000
