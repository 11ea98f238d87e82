"""Time contenders against each other, fairly: interleaved in one run, medians, ratios."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def interleave(
    contenders: Mapping[str, Callable[[], Any]], *, rounds: int, warmup_rounds: int = 1
) -> dict[str, float]:
    """Return the median milliseconds of each contender.

    Every round runs every contender once, so that whatever else the machine does falls on all of
    them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warmup_rounds + rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if number >= warmup_rounds:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def machine() -> str:
    """Return the processor's name and core count, for the head of a table."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        model = f"{names[0]}, {len(names)} cores"
    except (OSError, IndexError):
        pass
    return f"{model}; Python {platform.python_version()}"
