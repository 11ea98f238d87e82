"""CVAT's own command line annotates a task with a model of ours."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deeplab import Segmenter
from deeplab.errors import InputError

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"
SCRIPT = Path(__file__).parent / "cvat_client.py"


def annotate(clients: Path, folder: Path, out: Path, *options: str) -> dict[str, np.ndarray]:
    """Return what arrived at the server: photo → (H, W) ids."""
    python = clients / "cvat" / "bin" / "python"
    if not python.is_file():
        pytest.skip("run `make clients` first")
    done = subprocess.run(
        [python, SCRIPT, folder, "voc-fast", out, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(out) as arrays:
        return dict(arrays)


@pytest.mark.clients
@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ([], (8, 12)),
        (["--conv-mask-to-poly", "-p", "tolerance=float:0"], (8, 12)),
        (["-p", "shapes=str:polygons", "-p", "tolerance=float:0"], (8, 12)),
        (["-p", "only=str:cat", "--conf-threshold", "0.1"], (8,)),
        (["--conf-threshold", "1"], ()),
    ],
)
def test_what_arrives_is_the_mask(
    tmp_path: Path, clients: Path, options: list[str], kept: tuple[int, ...]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("cat.jpg", "dog.jpg"):
        (folder / name).symlink_to(PHOTOS / name)
    found = annotate(clients, folder, tmp_path / "found.npz", *options)
    segmenter = Segmenter("voc-fast")
    assert {*found} == {"cat", "dog"}
    for name, ids in found.items():
        mask = segmenter(folder / f"{name}.jpg").mask
        assert np.array_equal(ids, np.where(np.isin(mask, kept), mask, 0)), name


def test_words_without_cvats_package() -> None:
    if importlib.util.find_spec("cvat_sdk"):
        pytest.skip("it is installed")
    sys.modules.pop("deeplab.integrations.cvat", None)
    with pytest.raises(InputError, match="pip install cvat-sdk cvat-cli"):
        importlib.import_module("deeplab.integrations.cvat")
