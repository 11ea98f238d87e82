"""docs/dataset-toml.md has every key, and what it shows is read."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from deeplab.data.description import Description, read_description
from deeplab.data.folder import NAME_FILES
from documents import ROOT, blocks

PAGE = ROOT / "docs/dataset-toml.md"
TEXT = PAGE.read_text("utf-8")
KEYS = [item.name for item in fields(Description)]


def section(key: str) -> str:
    return re.split(r"^## ", TEXT.split(f"\n## {key}\n")[1], flags=re.M)[0]


def test_every_key_has_a_section_and_no_other() -> None:
    headings = re.findall(r"^## (\w+)$", TEXT, re.M)
    assert sorted(headings) == sorted(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_shown_with_its_default(key: str) -> None:
    shown = "".join(
        text for language, text in re.findall(r"```(\w+)\n(.*?)```", section(key), re.S)
    )
    assert re.search(rf"^{key} = |^\[{key}\]", shown, re.M)
    default = next(item.default for item in fields(Description) if item.name == key)
    if isinstance(default, str) and default:
        assert default in section(key)


@pytest.mark.parametrize("number", range(len(blocks(PAGE))))
def test_every_example_is_read(tmp_path: Path, number: int) -> None:
    language, text = blocks(PAGE)[number]
    assert language == "toml"
    beside = Description(classes=("background", "cat", "dog"))
    (tmp_path / "dataset.toml").write_text(text)
    read_description(tmp_path / "dataset.toml", beside=beside)


def test_every_file_of_names_is_told() -> None:
    assert [name for name in NAME_FILES if f"`{name}`" not in TEXT] == []
