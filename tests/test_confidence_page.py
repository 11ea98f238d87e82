"""docs/confidence.md: what it says to type works, and prints what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab.labels import VOC
from documents import ROOT, blocks, commands, run


@pytest.mark.integration
def test_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = ROOT / "examples/photos"
    (tmp_path / "examples/photos").mkdir(parents=True)
    shutil.copy(photos / "dog.jpg", tmp_path / "examples/photos")
    for kind in ("images", "masks"):
        (tmp_path / "pets" / kind / "val").mkdir(parents=True)
    for number, name in enumerate(("dog", "cat", "dog", "cat")):
        photo = Image.open(photos / f"{name}.jpg").convert("RGB").resize((160, 120))
        photo.save(tmp_path / f"pets/images/val/{number}.png")
        mask = np.zeros((120, 160), np.uint8)
        mask[30:90, 40:120] = VOC.index(name)
        Image.fromarray(mask).save(tmp_path / f"pets/masks/val/{number}.png")
    (tmp_path / "pets/labels.txt").write_text("\n".join(VOC.names) + "\n")
    monkeypatch.chdir(tmp_path)
    for language, text in blocks(ROOT / "docs/confidence.md"):
        if language == "python":
            exec(compile(text, "docs/confidence.md", "exec"), {})
        else:
            for command in commands(text):
                run(command)
    assert (tmp_path / "sure/dog.confidence.png").is_file()
    assert (tmp_path / "confidence.png").is_file()
    assert (tmp_path / "calibration/reliability.svg").is_file()
    assert (tmp_path / "twice/dog.mask.png").is_file()
