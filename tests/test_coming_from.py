"""docs/from-*.md: the settings, options and names of ours that they point to exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from deeplab.cli import build_app

DOCS = Path(__file__).parents[1] / "docs"
SETTINGS = (DOCS / "settings.md").read_text("utf-8")  # written from the settings themselves
PAGES = sorted(DOCS.glob("from-*.md"))
TORCHVISION = """
data-path dataset model aux-loss device batch-size epochs workers lr momentum weight-decay
lr-warmup-epochs lr-warmup-method lr-warmup-decay print-freq output-dir resume start-epoch test-only
use-deterministic-algorithms world-size dist-url weights weights-backbone amp backend use-v2
"""
SMP = """
encoder_name encoder_depth encoder_weights encoder_output_stride decoder_channels
decoder_atrous_rates decoder_aspp_separable decoder_aspp_dropout in_channels classes activation
upsampling aux_params
"""


def test_every_flag_of_torchvision_is_there_once() -> None:
    page = (DOCS / "from-torchvision.md").read_text("utf-8")
    assert re.findall(r"^\| `--([\w-]+)` \|", page, re.MULTILINE) == TORCHVISION.split()


def test_every_argument_of_smp_is_there_once() -> None:
    page = (DOCS / "from-smp.md").read_text("utf-8").split("\n## ")[1]
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == SMP.split()


def _ours(page: Path) -> list[str]:
    """Return what stands in backticks in the right columns."""
    rows = re.findall(r"^\|.*?(?<!\\)\|(.*)\|$", page.read_text("utf-8"), re.MULTILINE)
    return [code for row in rows for code in re.findall(r"`([^`]+)`", row)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_setting_exists(page: Path) -> None:
    rooms = "model|data|augment|init|loss|teacher|schedule|optimiser|run"
    named = {code.split(" = ")[0] for code in _ours(page) if re.match(rf"({rooms})\.\w", code)}
    assert len(named) > 9
    assert not [name for name in named if f"| `{name}` |" not in SETTINGS]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_loss_exists(page: Path) -> None:
    known = re.search(r"`loss.terms`.*", SETTINGS)
    assert known
    for code in _ours(page):
        if found := re.match(r"loss\.terms = \{(\w+) = 1\}", code):
            assert re.search(rf"\b{found[1]}\b", known[0]), code


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_command_and_option_exists(page: Path) -> None:
    checked = 0
    for code in _ours(page):
        words = code.removeprefix("torchrun -m ").split()
        if words[0] != "deeplab" or len(words) == 1:
            continue
        command: Any = typer.main.get_command(build_app(words[1]))
        command = command.commands[words[1]]
        if hasattr(command, "commands"):
            command = command.commands[words[2]]
        options = {option for part in command.params for option in part.opts}
        assert not [word for word in words if word.startswith("-") and word not in options], code
        checked += 1
    assert checked > 3


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_name_in_python_exists(page: Path) -> None:
    pytest.importorskip("torch")
    for code in _ours(page):
        if not re.fullmatch(r"deeplab(\.\w+)+", code):
            continue
        parts = code.split(".")
        try:
            found: Any = importlib.import_module(code)
        except ModuleNotFoundError:
            home = ".".join(parts[:-1])
            try:
                found = getattr(importlib.import_module(home), parts[-1])
            except ModuleNotFoundError:
                owner = getattr(importlib.import_module(".".join(parts[:-2])), parts[-2])
                fields = getattr(owner, "__dataclass_fields__", {})
                assert hasattr(owner, parts[-1]) or parts[-1] in fields, code
                continue
        assert found is not None
