"""What TFLite's ``benchmark_model`` prints, line for line, so that its readers can go on reading.

Source: tensorflow/lite/tools/benchmark (benchmark_model.cc), util/stats_calculator.cc.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deeplab.benchmark.measure import Measurement, Settings
from deeplab.benchmark.operators import Profile
from deeplab.benchmark.timings import Timings, micro

_MIB = 1 << 20


def timing_lines(one: Measurement, settings: Settings, *, peak: bool = False) -> list[str]:
    """Return the lines about a contender's times and memory.

    Args:
        one: who.
        settings: how long was measured.
        peak: also the memory of the whole process.
    """
    warmup = Timings(one.warmup)
    lines = [
        f"The input model file size (MB): {one.contender.file_bytes / 1e6:.6g}",
        f"Initialized session in {one.init_ms:.6g}ms.",
        _begin(settings.warmup_runs, settings.warmup_min_secs, settings.max_secs),
        warmup.line(),
        "",
        _begin(settings.num_runs, settings.min_secs, settings.max_secs),
        one.network.line(),
        "",
        f"Inference timings in us: Init: {micro(one.init_ms)}, "
        f"First inference: {micro(one.first_ms)}, "
        f"Warmup (avg): {1e3 * warmup.avg if warmup.count else 0:.6g}, "
        f"Inference (avg): {1e3 * one.network.avg:.6g}",
    ]
    if one.memory is not None:
        before = one.memory["before"]
        init, overall = one.memory["init"] - before, one.memory["peak"] - before
        lines.append(
            "Memory footprint delta from the start of the tool (MB): "
            f"init={init / _MIB:.6g} overall={overall / _MIB:.6g}"
        )
        if peak:
            lines.append(f"Overall peak memory footprint (MB): {one.memory['peak'] / _MIB:.6g}")
    return lines


def _begin(runs: int, least: float, most: float) -> str:
    return (
        f"Running benchmark for at least {runs} iterations and at least {least:g} seconds but "
        f"terminate if exceeding {most:g} seconds."
    )


def operator_lines(profile: Profile) -> list[str]:
    """Return the three tables of operators."""
    rows = _rows(profile)
    by_time = _rows(profile, by_time=True)
    sums = Timings([math.fsum(ms) for ms in zip(*(one.ms for one in profile.operators))])  # noqa: B905
    lines = [
        f"Operators timed by: {profile.method}",
        *_table("Run Order", rows),
        "",
        *_table("Top by Computation Time", by_time[:10]),
        "",
        f"Number of nodes executed: {len(rows)}",
        *_summary(rows),
        "",
        f"Timings (microseconds): {sums.line()}",
    ]
    if profile.whole_ms:
        lines.append(f"In one piece (microseconds): {Timings(profile.whole_ms).line()}")
    return [*lines, f"{len(rows)} nodes observed"]


@dataclass(frozen=True, kw_only=True)
class _Row:
    order: int
    type: str
    name: str
    first: float
    avg: float
    share: float
    cumulative: float
    kilobytes: float | None

    @property
    def memory(self) -> str:
        return "-" if self.kilobytes is None else f"{self.kilobytes:.3f}"


def _rows(profile: Profile, *, by_time: bool = False) -> list[_Row]:
    timed = [
        (order, one, Timings(one.ms).avg) for order, one in enumerate(profile.operators, start=1)
    ]
    total = math.fsum(avg for *_, avg in timed) or 1.0
    if by_time:
        timed.sort(key=lambda entry: -entry[2])
    rows: list[_Row] = []
    until = 0.0
    for order, one, avg in timed:
        until += avg
        rows.append(
            _Row(
                order=order,
                type=one.type,
                name=one.name,
                first=one.ms[0],
                avg=avg,
                share=100 * avg / total,
                cumulative=100 * until / total,
                kilobytes=one.kilobytes,
            )
        )
    return rows


def _heading(title: str) -> str:
    return f"{'=' * 30} {title} {'=' * 30}"


def _fields(values: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"\t{value:>{width}}" for value, width in zip(values, widths, strict=True))


_WIDTHS = (24, 9, 9, 8, 8, 10, 9)


def _table(title: str, rows: Iterable[_Row]) -> list[str]:
    names = ("[node type]", "[first]", "[avg ms]", "[%]", "[cdf%]", "[mem KB]", "[times called]")
    lines = [_heading(title), f"{_fields(names, _WIDTHS)}\t[Name]"]
    for row in rows:
        values = (
            row.type,
            f"{row.first:.3f}",
            f"{row.avg:.3f}",
            f"{row.share:.3f}%",
            f"{row.cumulative:.3f}%",
            row.memory,
            "1",
        )
        lines.append(f"{_fields(values, _WIDTHS)}\t{row.name}")
    return lines


def _summary(rows: Sequence[_Row]) -> list[str]:
    widths = (24, 9, 10, 11, 11, 10, 10)
    names = ("[Node type]", "[count]", "[avg ms]", "[avg %]", "[cdf %]", "[mem KB]")
    lines = [_heading("Summary by node type"), _fields((*names, "[times called]"), widths)]
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.type, []).append(row)
    until = 0.0
    for kind, group in sorted(groups.items(), key=lambda entry: -sum(r.avg for r in entry[1])):
        share = math.fsum(row.share for row in group)
        until += share
        known = [row.kilobytes for row in group if row.kilobytes is not None]
        values = (
            kind,
            str(len(group)),
            f"{math.fsum(row.avg for row in group):.3f}",
            f"{share:.3f}%",
            f"{until:.3f}%",
            f"{math.fsum(known):.3f}" if known else "-",
            str(len(group)),
        )
        lines.append(_fields(values, widths))
    return lines


def operator_csv(measurements: Iterable[Measurement]) -> str:
    """Return the operators of all contenders as one CSV table, in run order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("contender", "order", "node type", "first", "avg_ms", "%", "cdf%", "mem KB",
         "times called", "name")
    )  # fmt: skip
    for one in measurements:
        for row in _rows(one.profile) if one.profile else ():
            writer.writerow(
                (one.contender.title, row.order, row.type, f"{row.first:.6f}", f"{row.avg:.6f}",
                 f"{row.share:.4f}", f"{row.cumulative:.4f}", row.memory, 1, row.name)
            )  # fmt: skip
    return text.getvalue()
