"""A few changed files of every kind; ``tests/fuzz`` has the same for as many as one likes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

FUZZ = Path(__file__).parents[1] / "fuzz" / "weights.py"


def test_changed_pairs_and_checkpoints_are_read_or_refused_in_one_line(tmp_path: Path):
    spec = importlib.util.spec_from_file_location("fuzz_weights", FUZZ)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    counts = module.fuzz(tmp_path, count=60, seed=7)
    assert min(counts.values()) > 3
