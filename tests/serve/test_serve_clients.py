"""Other people's programs at the server's door (opt-in: make clients)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from serving import Server, serving

from deeplab import Segmenter

pytest.importorskip("fastapi")

pytestmark = [pytest.mark.clients, pytest.mark.integration]

HERE = Path(__file__).parent


def environment(clients: Path, name: str, program: str) -> Path:
    path = clients / name / "bin" / program
    if not path.exists():
        pytest.skip(f"{name} is not installed: make clients")
    return path


def test_tritonclient_gets_the_mask(
    clients: Path, model: Path, labels: Path, segmenter: Segmenter, photo: bytes, tmp_path: Path
) -> None:
    python = environment(clients, "tritonclient", "python")
    (tmp_path / "photo.png").write_bytes(photo)
    np.save(tmp_path / "mask.npy", segmenter(photo).mask)
    with serving("-m", model, "--labels", labels, "--api", "kserve") as server:
        files = (tmp_path / "photo.png", tmp_path / "mask.npy")
        command = [python, HERE / "triton_client.py", f"127.0.0.1:{server.port}", *files]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}
        )
    assert done.stdout.strip() == "6 masks are right", done.stderr


def run_schemathesis(program: Path, server: Server, *options: str) -> str:
    done = subprocess.run(
        [
            program, "run", "--checks", "all", "--mode", "all", "--max-examples", "15",
            "--continue-on-failure", "--no-color", "--seed", "1", *options,
            f"http://127.0.0.1:{server.port}/openapi.json",
        ],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": "",
            "SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_hooks.py"),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def test_schemathesis_finds_no_fault(clients: Path, model: Path, labels: Path) -> None:
    program = environment(clients, "schemathesis", "schemathesis")
    options = ("-m", model, "--labels", labels, "--api", "kserve", "--api", "huggingface")
    token = "a-token-of-letters"
    with serving(*options, environment={"DEEPLAB_TOKEN": token}) as server:
        told = run_schemathesis(program, server, "-H", f"Authorization: Bearer {token}")
        found = re.search(r"(\d+) generated, (\d+) passed", told)
        assert found is not None, told[-3000:]
        assert found[1] == found[2]
        assert int(found[1]) > 200
        assert "Traceback" not in "".join(server.log)
