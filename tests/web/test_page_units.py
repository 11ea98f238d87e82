"""The page's own code, part by part: against brute force, and against what Python computes."""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest
from hosting import ROOT
from parity_cases import write_cases

from deeplab.photo.band_pictures import read_values

pytestmark = pytest.mark.integration

# Where the machine has no npm, `make web` has put one here.
ENVIRONMENT = {
    **os.environ,
    "PATH": os.pathsep.join([os.environ["PATH"], str(ROOT / "build" / "node" / "bin")]),
    "NO_COLOR": "1",
}


@pytest.mark.reference
def test_the_pages_code_computes_what_python_computes(built_page, reference, tmp_path):
    write_cases(tmp_path, reference / "models")
    run = subprocess.run(
        [ROOT / "web" / "node_modules" / ".bin" / "vitest", "run"],
        cwd=ROOT / "web",
        env={**ENVIRONMENT, "DEEPLAB_FIXTURES": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "skipped" not in run.stdout
    cases = json.loads((tmp_path / "cases.json").read_text())["overlapping"]
    assert cases
    for case in cases:  # the files that the page saves are read here
        height, width, classes = *case["size"], case["grid"][2]
        expected = np.fromfile(tmp_path / case["masks"], np.uint8).reshape(classes, height, width)
        _, values = read_values(tmp_path / f"{case['masks']}.tif")
        assert (values.transpose(2, 0, 1) == expected).all()


def test_the_pages_code_is_typed_and_formatted(built_page):
    run = subprocess.run(
        ["npm", "run", "--silent", "check"],
        cwd=ROOT / "web",
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
