"""Pieces of the reader's own, as docs/pieces.md has them, through training, scores and export."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deeplab import Segmenter
from deeplab.data.rows import Rows
from deeplab.errors import ConfigError, DataError, InputError
from deeplab.models import DeepLabConfig, build
from deeplab.models.pieces import find_piece, find_trusted, name_piece
from deeplab.photo import images
from deeplab.training.own import name_pieces
from deeplab.training.settings import Settings
from documents import ROOT, blocks

PAGE = ROOT / "docs/pieces.md"


@pytest.fixture
def workplace(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files."""
    texts = blocks(PAGE)
    (tmp_path / "my_pieces.py").write_text(next(t for kind, t in texts if kind == "python"))
    (tmp_path / "mine.toml").write_text(next(t for kind, t in texts if kind == "toml"))
    shapes.rename(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPLAB_PIECES", raising=False)
    return tmp_path


@pytest.mark.integration
def test_the_commands_of_the_page_run(workplace: Path) -> None:
    """All in one process of its own, as imports take most of the time."""
    lines = next(t for kind, t in blocks(PAGE) if kind == "console").splitlines()
    program = ["import os, sys", "from deeplab.cli import run"]
    for line in lines:
        words = shlex.split(line.removeprefix("$ "))
        named = [word for word in words if word.startswith("DEEPLAB_PIECES=")]
        program += [
            f"os.environ['DEEPLAB_PIECES'] = {named[0].partition('=')[2]!r}" if named else
            "os.environ.pop('DEEPLAB_PIECES', None)",
            f"assert run({words[len(named) + 1:]!r}) == 0, {line!r}",
        ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(program)], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(Path("runs/mine/mine.json").read_text())
    assert told["architecture"]["own"] == "my_pieces.py:Network"
    certificate = json.loads(Path("mine.onnx.json").read_text())
    assert all(found["equal_pixels"] >= 0.9999 for found in certificate["rounds"])
    assert not certificate["faults"]
    assert list(Path("masks").glob("0*.png"))
    # Nobody has named it in this process: the pair runs no code.
    with pytest.raises(InputError, match=r"code of its author, my_pieces\.py:Network.*DEEPLAB_P"):
        Segmenter("runs/mine/mine.json")


def test_the_python_of_the_page_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(workplace))
    scope: dict[str, Any] = {"__name__": "page"}
    for kind, text in blocks(PAGE)[1:]:
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), scope)
    assert scope["mask"].shape == (48, 64)
    recipe = scope["run"].settings
    assert recipe.model == {"own": "my_pieces:Network"}
    assert recipe.loss.terms == {"dice": 1.0, "my_pieces:hard_pixels": 0.5}
    assert len(scope["run"].history) > 0


class _Wrong(nn.Module):
    """One class too few."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, classes - 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def _nothing(classes: int) -> None:
    return None


def test_what_an_own_network_returns_is_looked_at() -> None:
    config = DeepLabConfig(own=name_piece(_Wrong, "network"), num_classes=3)
    with pytest.raises(ConfigError, match=r"returned 2 channels, expected 3"):
        build(config)(torch.zeros(1, 3, 9, 9))
    with pytest.raises(InputError, match=r"returned NoneType, expected an nn\.Module"):
        build(DeepLabConfig(own=name_piece(_nothing, "network"), num_classes=3))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no.py:Net", r"there is no file .*no\.py"),
        ("no_such_module:Net", r"no_such_module cannot be imported: ModuleNotFoundError"),
        ("json:lods", r"json has no 'lods'\. Did you mean 'loads'"),
        ("broken.py:Net", r"broken\.py cannot be imported: ZeroDivisionError"),
        ("json:", r"expected FILE\.py:NAME or MODULE:NAME"),
    ],
)
def test_a_name_that_is_none_is_words(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("1 / 0\n")
    with pytest.raises(InputError, match=words):
        find_piece(name, "model.own")


def test_a_pair_cannot_name_code_that_nobody_has_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"Where you trust it"):
        find_trusted("os:abort")
    monkeypatch.setenv("DEEPLAB_PIECES", "math:sqrt, math:floor")
    assert find_trusted("math:floor")(2.5) == 2


def test_settings_that_an_own_network_does_not_read_are_refused() -> None:
    with pytest.raises(InputError, match=r"model\.head_channels: is not read by a network of your"):
        Settings.from_dict({"name": "a", "model": {"own": "a:b", "head_channels": 8}})


def test_pieces_need_names() -> None:
    with pytest.raises(InputError, match=r"loss: got a lambda"):
        name_pieces(loss=lambda logits, label: 0)
    with pytest.raises(InputError, match=r"loss: two of them have one name"):
        name_pieces(loss={nn.CrossEntropyLoss(): 1.0, nn.CrossEntropyLoss(weight=None): 0.5})
    with pytest.raises(InputError, match=r"network: got a module, expected what makes one"):
        name_pieces(network=nn.Conv2d(3, 3, 1))  # type: ignore[arg-type]


def test_rows_of_colours_or_without_the_column_are_words() -> None:
    from PIL import Image

    rows = [{"pixels": Image.new("RGB", (4, 3)), "annotation": Image.new("RGB", (4, 3))}]
    with pytest.raises(DataError, match=r"no column 'image'\. There are: \['pixels', 'annotation"):
        Rows(rows, labels=("a", "b"))
    named = Rows(rows, labels=("a", "b"), image="pixels", mask="annotation")
    with pytest.raises(DataError, match=r"row 0 is RGB: colours instead of class ids"):
        named[0]
    rows[0]["annotation"] = Image.fromarray(np.ones((3, 4), np.uint8))
    assert named[0].label.tolist() == [[1] * 4] * 3
    rows[0]["annotation"] = Image.new("1", (4, 3), 1)
    assert named[0].label.tolist() == [[1] * 4] * 3
    assert named[0].label.dtype == np.uint8


def test_pictures_of_16_bits_in_rows_are_no_white() -> None:
    from PIL import Image

    grey = Image.fromarray(np.linspace(0, 65535, 12).astype(np.uint16).reshape(3, 4))
    image = Rows([{"image": grey, "label": grey}], labels=("a", "b"))[0].image
    assert np.array_equal(image, images.read(grey))
    assert len(np.unique(image)) == 12
