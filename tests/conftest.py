"""Fixtures shared by all tests, and what switches some of them on."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Each process has one core; torch's threads would wait for one another in circles.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--network", action="store_true", help="also run tests that use the internet")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {}
    if not os.environ.get("DEEPLAB_REFERENCE"):
        reasons["reference"] = "set DEEPLAB_REFERENCE to the folder of reference files"
    if not config.getoption("--network"):
        reasons["network"] = "needs the internet; run with --network"
    if not _clients().is_dir():
        reasons["clients"] = "run `make clients` first"
    if not _oracles().is_file():
        reasons["oracles"] = "run `make oracles` first"
    for item in items:
        for mark, reason in reasons.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


def _clients() -> Path:
    default = Path(__file__).parents[1] / "build" / "clients"
    return Path(os.environ.get("DEEPLAB_CLIENTS", default))


@pytest.fixture(autouse=True)
def _trust(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests that make their own files a process for each; `probe` tests have theirs."""
    if not request.node.get_closest_marker("probe"):
        monkeypatch.setattr("deeplab.runtimes.check_runs", lambda *_, **__: None)


def _oracles() -> Path:
    default = Path(__file__).parents[1] / "build" / "oracles" / "bin" / "python"
    return Path(os.environ.get("DEEPLAB_ORACLES", default))


@pytest.fixture(scope="session")
def oracles() -> Path:
    """Return the Python that has other people's readers of annotations."""
    return _oracles()


@pytest.fixture(scope="session")
def clients() -> Path:
    """Return the folder of environments with other people's readers of model files."""
    return _clients()


@pytest.fixture(scope="session")
def built_page() -> Path:
    """Build the browser page where its sources are newer, and return its folder."""
    from deeplab.serve import browser_page

    if not shutil.which("make"):
        pytest.skip("needs make, which builds the browser page")
    root = Path(__file__).parents[1]
    with (root / "web" / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        subprocess.run(["make", "--silent", "web"], cwd=root, check=True)
    return browser_page.find_page()


@pytest.fixture(scope="session")
def reference() -> Path:
    """Return the folder of reference files: models, golden masks, photos, parity fixtures."""
    folder = Path(os.environ["DEEPLAB_REFERENCE"]).resolve()
    assert folder.is_dir(), f"DEEPLAB_REFERENCE: no such folder: {folder}"
    return folder
