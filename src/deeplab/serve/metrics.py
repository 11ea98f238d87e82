"""Counts for Prometheus, in its text format.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import deeplab

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends, seconds."""

_ENDS = (*(f"{bound:g}" for bound in _BUCKETS), "+Inf")

Labels = tuple[str, ...]
Gauges = Mapping[str, tuple[str, float]]  # name -> (what it is, value now)

_COUNTERS = {
    "deeplab_requests_total": ("Requests that are over.", ("route", "method", "status")),
    "deeplab_photos_total": ("Photos that were segmented.", ("model",)),
    "deeplab_stage_seconds_total": ("Time of those photos by stage.", ("model", "stage")),
    "deeplab_received_bytes_total": ("Bytes of bodies received.", ()),
    "deeplab_sent_bytes_total": ("Bytes of bodies sent.", ()),
}
_HISTOGRAMS = {
    "deeplab_request_seconds": ("From the first byte of a request to the last answered.", "route"),
    "deeplab_photo_seconds": ("Of one photo: decoding, network, mask and answer.", "model"),
    "deeplab_wait_seconds": ("From a photo's last byte until a thread took it.", "model"),
}
"""Name -> (what it is, names of its labels)."""


class Metrics:
    """What a server counts. Labels take few values: none comes from a request as it is.

    Args:
        models: whose counts are there from the beginning, at 0.
    """

    def __init__(self, models: Iterable[str] = ()) -> None:
        self._started = time.time()
        self._counts: dict[str, Counter[Labels]] = {name: Counter() for name in _COUNTERS}
        for name in _HISTOGRAMS:
            self._counts[f"{name}_bucket"] = Counter()
            self._counts[f"{name}_sum"] = Counter()
        for model in models:
            self._counts["deeplab_photos_total"][model,] = 0
            self._counts["deeplab_photo_seconds_sum"][model,] = 0
            self._counts["deeplab_wait_seconds_sum"][model,] = 0

    def count_request(
        self, route: str, method: str, status: int, *, seconds: float, received: int, sent: int
    ) -> None:
        """Count one request that is over."""
        self._counts["deeplab_requests_total"][route, method, str(status)] += 1
        self._observe("deeplab_request_seconds", route, seconds)
        self._counts["deeplab_received_bytes_total"][()] += received
        self._counts["deeplab_sent_bytes_total"][()] += sent

    def count_photo(self, model: str, timings_ms: Mapping[str, float], *, seconds: float) -> None:
        """Count one photo that was segmented."""
        self._counts["deeplab_photos_total"][model,] += 1
        self._observe("deeplab_photo_seconds", model, seconds)
        for stage, ms in timings_ms.items():
            self._add("deeplab_stage_seconds_total", (model, stage), ms / 1000)

    def count_wait(self, model: str, seconds: float) -> None:
        """Count that photos waited for a thread."""
        self._observe("deeplab_wait_seconds", model, seconds)

    def _observe(self, name: str, label: str, seconds: float) -> None:
        end = next((e for e, b in zip(_ENDS, _BUCKETS, strict=False) if seconds <= b), _ENDS[-1])
        self._counts[f"{name}_bucket"][label, end] += 1
        self._add(f"{name}_sum", (label,), seconds)

    def _add(self, name: str, labels: Labels, amount: float) -> None:
        self._counts[name][labels] += amount  # type: ignore[assignment]

    # --- several processes --------------------------------------------------------------------

    def dump(self, gauges: Gauges) -> bytes:
        """Return everything, for :meth:`load` and :meth:`to_text` of another process."""
        counts = {name: [[*key, n] for key, n in found.items()] for name, found in
                  self._counts.items()}  # fmt: skip
        now = {**gauges, **_process(self._started)}
        return json.dumps({"counts": counts, "gauges": now}).encode()

    def load(self, dumped: bytes) -> None:
        """Go on counting where a process that is over has stopped."""
        _add_up(self._counts, dumped)

    def to_text(self, gauges: Gauges, others: Sequence[bytes] = ()) -> str:
        """Return everything as Prometheus reads it.

        Args:
            gauges: of this process.
            others: what :meth:`dump` gave in other processes of the same server; all is added up.
        """
        counts = {name: Counter(found) for name, found in self._counts.items()}
        now = {**gauges, **_process(self._started)}
        for other in others:
            for name, (what, value) in _add_up(counts, other).items():
                before = now.get(name, (what, 0.0))[1]
                is_start = name == "process_start_time_seconds"
                now[name] = (what, min(before, value) if is_start else before + value)
        lines = [
            *_head("deeplab_info", "gauge", "The version that runs."),
            f'deeplab_info{{version="{deeplab.__version__}"}} 1',
        ]
        for name, (what, labels) in _COUNTERS.items():
            lines += _head(name, "counter", what)
            found = counts[name] or ({} if labels else {(): 0})
            lines += [f"{name}{_braces(labels, k)} {_number(n)}" for k, n in sorted(found.items())]
        for name, (what, label) in _HISTOGRAMS.items():
            lines += [*_head(name, "histogram", what), *_histogram(name, label, counts)]
        for name, (what, value) in now.items():
            lines += [*_head(name, "gauge", what), f"{name} {value:.12g}"]
        return "\n".join(lines) + "\n"


def _histogram(name: str, label: str, counts: Mapping[str, Counter[Labels]]) -> Iterable[str]:
    for key, total in sorted(counts[f"{name}_sum"].items()):
        count = 0
        for end in _ENDS:
            count += counts[f"{name}_bucket"][(*key, end)]
            yield f"{name}_bucket{_braces((label, 'le'), (*key, end))} {count}"
        yield f"{name}_sum{_braces((label,), key)} {total:.6f}"
        yield f"{name}_count{_braces((label,), key)} {count}"


def _add_up(counts: dict[str, Counter[Labels]], dumped: bytes) -> dict[str, tuple[str, float]]:
    """Add another process's counts, and return its gauges."""
    content = json.loads(dumped)
    for name, entries in content["counts"].items():
        for *key, amount in entries:
            counts[name][tuple(key)] += amount
    gauges: dict[str, tuple[str, float]] = content["gauges"]
    return gauges


def _head(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]


def _braces(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{','.join(pairs)}}}"


def _number(value: float) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _process(started: float) -> dict[str, tuple[str, float]]:
    found = {"process_start_time_seconds": ("Since the epoch.", started)}
    with contextlib.suppress(OSError):  # Linux only
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        found["process_resident_memory_bytes"] = ("In memory.", float(resident))
    return found
