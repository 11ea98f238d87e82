"""Quality against latency: who is worth its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deeplab.plot import Panel, Point, picture, ratio_ticks, round_ticks, text

_BEST, _OTHER, _FAMILY = "#2471a3", "#c0392b", "#aab7c4"
_WIDTH, _HEIGHT = 760, 480
_LINE = 14
_WIDE = 8
"""Latencies further apart than this are drawn by their ratios."""


def find_front(points: Sequence[Point]) -> list[int]:
    """Return the indices of the points that none beats in both, (latency, quality), by latency.

    >>> find_front([(10, 0.7), (20, 0.6), (30, 0.8)])
    [0, 2]
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def draw_pareto(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], score: str, device: str
) -> str | None:
    """Return the picture as SVG; None where quality was not measured.

    Filled points are worth their time: nothing quicker is as good. A thin line joins one model at
    its output strides.

    Args:
        rows: of the report.
        names: of the rows.
        score: what ``miou`` is called.
        device: on which was measured.
    """
    known = [(row, name) for row, name in zip(rows, names, strict=True) if row["miou"] is not None]
    if not known:
        return None
    points = [(row["network_ms"], row["miou"]) for row, _ in known]
    front = find_front(points)
    lowest, highest = min(y for _, y in points), max(y for _, y in points)
    margin = max(0.15 * (highest - lowest), 0.005)
    quickest, slowest = min(x for x, _ in points), max(x for x, _ in points)
    wide = slowest > _WIDE * quickest
    panel = Panel(
        left=70,
        top=50,
        width=_WIDTH - 100,
        height=_HEIGHT - 110,
        x=(quickest / 1.5, slowest * 1.5) if wide else (0.0, 1.1 * slowest),
        y=(max(lowest - margin, 0.0), min(highest + margin, 1.0)),
        log_x=wide,
    )
    ticks = (ratio_ticks if wide else round_ticks)(*panel.x)
    body = [
        text(70, 24, f"{score} against latency, {device}", bold=True),
        panel.grid(x=ticks, y=round_ticks(*panel.y)),
        panel.axes(),
        text(_WIDTH - 30, _HEIGHT - 14, "network, median ms per photo", anchor="end"),
        text(70, 42, score),
        *(panel.line(family, _FAMILY) for family in _families([row for row, _ in known])),
        panel.line([points[index] for index in front], _BEST, dashes="4 3"),
        panel.dots([p for i, p in enumerate(points) if i not in front], _OTHER,
                   radius=4.5, hollow=True),
        panel.dots([points[index] for index in front], _BEST, radius=4.5),
        *_labels(panel, points, [name for _, name in known]),
    ]  # fmt: skip
    return picture(_WIDTH, _HEIGHT, "".join(body))


def _families(rows: Sequence[Mapping[str, Any]]) -> list[list[Point]]:
    """Return the points of every model that runs at several output strides, in their order."""
    families: dict[tuple[Any, ...], list[tuple[int, Point]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("model", "runtime", "device", "threads", "size"))
        stride = row["output_stride"] or 0
        families.setdefault(key, []).append((stride, (row["network_ms"], row["miou"])))
    return [
        [point for _, point in sorted(family)]
        for family in families.values()
        if len({stride for stride, _ in family}) > 1
    ]


def _labels(panel: Panel, points: Sequence[Point], names: Sequence[str]) -> list[str]:
    """Write the names beside their points, each below those that it would cover."""
    drawn = []
    taken: list[tuple[float, float, float]] = []  # left, right, baseline
    for point, name in sorted(zip(points, names, strict=True), key=lambda one: -one[0][1]):
        x, y = panel.place(point)
        width = 6.5 * len(name)
        fits = x + 10 + width < _WIDTH
        left = x + 10 if fits else x - 10 - width
        baseline = y + 4
        while any(
            left < right and start < left + width and abs(baseline - other) < _LINE
            for start, right, other in taken
        ):
            baseline += 2
        taken.append((left, left + width, baseline))
        drawn.append(
            text(x + 10 if fits else x - 10, baseline, name, anchor="start" if fits else "end")
        )
    return drawn
