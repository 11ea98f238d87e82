"""Annotation files changed at random; `tests/fuzz/annotations.py` changes as many as are wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.annotations import run
from tiny_exports import WRITERS


@pytest.mark.parametrize("tool", WRITERS)
def test_changed_annotations_are_read_right_or_refused_in_words(tmp_path: Path, tool: str) -> None:
    ends, wrong = run(tool, tmp_path, seed=1, count=150)
    assert not wrong
    assert min(ends["converted"], ends["refused"]) > 20
