"""docs/python.md, from top to bottom, with a network and crops that are small enough."""

from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path

import pytest

from documents import ROOT, blocks
from tiny_folder import make_folder


@pytest.mark.integration
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    import deeplab

    make_folder(tmp_path / "pets")
    shutil.copyfile(ROOT / "examples/photos/dog.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    small = {
        "model.depth_multiplier": 0.1, "model.head_channels": 8, "data.crop_size": [33, 33],
        "data.workers": 0, "run.device": "cpu",
    }  # fmt: skip
    inner = deeplab.train

    @functools.wraps(inner)
    def train(data: object, *, steps: int, **options: object) -> object:
        return inner(data, steps=min(steps, 3), settings=small, **options)

    monkeypatch.setattr(deeplab, "train", train)
    names: dict[str, object] = {}
    for language, text in blocks(ROOT / "docs/python.md"):
        assert language == "python"
        exec(compile(text, "docs/python.md", "exec"), names)
    assert names["losses"]
    assert (tmp_path / "report" / "report.html").is_file()
    assert (tmp_path / "history.svg").is_file()
    assert "torch" in sys.modules
