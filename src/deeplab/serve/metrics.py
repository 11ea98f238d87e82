"""Counts for Prometheus, in its text format.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import deeplab

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends, seconds."""


class Metrics:
    """What a server counts. Labels take few values: none comes from a request as it is."""

    def __init__(self) -> None:
        self._started = time.time()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._stages: Counter[tuple[str, str]] = Counter()
        self._photos: Counter[str] = Counter()
        self._received = 0
        self._sent = 0

    def count_request(
        self, route: str, method: str, status: int, *, seconds: float, received: int, sent: int
    ) -> None:
        """Count one request that is over."""
        self._requests[route, method, status] += 1
        self._seconds[route] += seconds  # type: ignore[assignment]
        self._buckets[route, next((b for b in _BUCKETS if seconds <= b), float("inf"))] += 1
        self._received += received
        self._sent += sent

    def count_photo(self, model: str, timings_ms: Mapping[str, float]) -> None:
        """Count one photo that was segmented."""
        self._photos[model] += 1
        for stage, ms in timings_ms.items():
            self._stages[model, stage] += ms / 1000  # type: ignore[assignment]

    def to_text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return everything, and ``gauges``: name → (what it is, value now)."""
        lines = [
            *_head("deeplab_info", "gauge", "The version that runs."),
            f'deeplab_info{{version="{deeplab.__version__}"}} 1',
            *_head("deeplab_requests_total", "counter", "Requests that are over."),
        ]
        for (route, method, status), count in sorted(self._requests.items()):
            labels = f'route="{_escape(route)}",method="{method}",status="{status}"'
            lines.append(f"deeplab_requests_total{{{labels}}} {count}")
        name = "deeplab_request_seconds"
        lines += _head(name, "histogram", "From the first byte of a request to the last answered.")
        for route, total in sorted(self._seconds.items()):
            labels, count = f'route="{_escape(route)}"', 0
            for bound in (*_BUCKETS, float("inf")):
                count += self._buckets[route, bound]
                end = "+Inf" if bound == float("inf") else f"{bound:g}"
                lines.append(f'{name}_bucket{{{labels},le="{end}"}} {count}')
            lines += [f"{name}_sum{{{labels}}} {total:.6f}", f"{name}_count{{{labels}}} {count}"]
        lines += _head("deeplab_photos_total", "counter", "Photos that were segmented.")
        for model, count in sorted(self._photos.items()):
            lines.append(f'deeplab_photos_total{{model="{_escape(model)}"}} {count}')
        lines += _head("deeplab_stage_seconds_total", "counter", "Time of those photos by stage.")
        for (model, stage), seconds in sorted(self._stages.items()):
            labels = f'model="{_escape(model)}",stage="{stage}"'
            lines.append(f"deeplab_stage_seconds_total{{{labels}}} {seconds:.6f}")
        for direction, count in (("received", self._received), ("sent", self._sent)):
            name = f"deeplab_{direction}_bytes_total"
            lines += [*_head(name, "counter", f"Bytes of bodies {direction}."), f"{name} {count}"]
        for name, (what, value) in {**gauges, **_process(self._started)}.items():
            lines += [*_head(name, "gauge", what), f"{name} {value:.12g}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _process(started: float) -> dict[str, tuple[str, float]]:
    found = {"process_start_time_seconds": ("Since the epoch.", started)}
    with contextlib.suppress(OSError):  # Linux only
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        found["process_resident_memory_bytes"] = ("In memory.", float(resident))
    return found
