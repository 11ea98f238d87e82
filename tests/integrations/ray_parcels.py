"""What workers do in the tests of Ray; it travels to them by value."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deeplab.errors import InputError


def open_squares(*, folder: Path, deadly: int) -> Callable[[Sequence[int]], Sequence[int]]:
    """Return what squares numbers, leaves this process's number, and dies of one of them."""
    (folder / str(os.getpid())).touch()

    def do(numbers: Sequence[int]) -> Sequence[int]:
        for number in numbers:
            time.sleep(0.02)
            if number == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
        return [number * number for number in numbers]

    return do


def open_nothing() -> Callable[[Sequence[int]], Sequence[int]]:
    raise InputError("model: there is none.")
