"""Open a file that nobody knows in a process of its own first, because engines may die of it.

An engine that meets a damaged or hostile file may end its process by a signal, which no exception
tells of. So :mod:`deeplab.runtimes.trial` opens and runs a file once elsewhere. It is remembered by
its hash, here and in the cache folder: it costs the first opening a few tenths of a second, later
ones the hash alone. Files of the zoo are not tried.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from deeplab import zoo
from deeplab.errors import ModelError
from deeplab.files import hash_file

_SECONDS = 120
"""For one frame of the largest networks, on one slow core."""

_TRIAL = "deeplab.runtimes.trial"

_known: set[str] = set()
"""Hash and engine of what ran, in this process."""


def check_runs(path: Path, runtime: str, **wishes: Any) -> None:
    """Refuse a file whose engine dies of it.

    Args:
        path: the file.
        runtime: the engine.
        **wishes: what :func:`deeplab.runtimes.describe` takes, as JSON knows it.

    Raises:
        ModelError: the engine ends its process on this file, or does not come to an end.
    """
    if not sys.executable or not path.is_file():
        return
    key = f"{hash_file(path)}.{runtime}"
    remembered = zoo.home() / "checked" / key
    with contextlib.suppress(OSError):
        if key in _known or remembered.is_file():
            return
    request = json.dumps({"path": str(path), "runtime": runtime, **wishes})
    try:
        done = subprocess.run(
            [sys.executable, "-m", _TRIAL, request],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"{path.name}: {runtime} did not come to an end with it in {_SECONDS} s; the file is "
            "damaged, or not meant for a computer like this."
        ) from None
    except OSError:  # no process can be had; the engine is on its own
        return
    if done.returncode < 0:
        raise ModelError(
            f"{path.name}: {runtime} dies of this file ({_name_signal(-done.returncode)}); it is "
            "damaged. It was tried in a process of its own, and is not opened here. Download it "
            "again."
        )
    if done.returncode == 0:
        _known.add(key)
        with contextlib.suppress(OSError):
            remembered.parent.mkdir(parents=True, exist_ok=True)
            remembered.touch()


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
