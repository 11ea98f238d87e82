"""A short version of the load that benchmarks/serve.py puts on a server."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from serving import ROOT

pytest.importorskip("fastapi")


@pytest.mark.integration
def test_under_load_every_answer_is_right_and_nothing_is_left_over() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/serve.py", "--seconds", "8"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in ("mask", "too many bytes", "no picture", "slow"):
        assert f"| {kind} |" in done.stdout
