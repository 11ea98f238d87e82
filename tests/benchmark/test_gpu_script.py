"""The script for GPUs runs where a CPU stands in, and needs little more than torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
def test_parts_run_without_the_packages_that_a_bare_machine_lacks(tmp_path: Path) -> None:
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    for package in ("ai_edge_litert", "typer", "pooch", "isal", "rich", "onnxruntime", "openvino"):
        (lacking / f"{package}.py").write_text("raise ImportError('not here')")
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--device", "cpu", "--tiny",
         "--only", "nccl,x65", "--out", str(out)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{lacking}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    logs = "".join(path.read_text("utf-8") for path in out.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    rows = [json.loads(line) for line in (out / "gpu.jsonl").read_text("utf-8").splitlines()]
    assert rows[0]["gradients_differ"] < 1e-4
    assert [row["what"] for row in rows[1:]] == [
        "x65, plain loop", "x65, ours, bfloat16", "x65, waiting for pictures",
        "x65, ours, bfloat16, compiled",
    ]  # fmt: skip
    assert all(rows[index]["images_per_s"] > 0 for index in (1, 2, 4))
    table = (out / "gpu.md").read_text("utf-8")
    assert all(row["what"] in table for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/gpu.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "finds no GPU here; --device cpu --tiny" in done.stdout
