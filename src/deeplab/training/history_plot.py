"""The plot of a history: loss and rate, scores, IoU by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deeplab.plot import Panel, Point, Svg, picture, round_ticks, text

_COLOURS = (
    "#c0392b", "#2471a3", "#239b56", "#b9770e", "#7d3c98", "#117a65", "#5d6d7e", "#d35400",
    "#1a5276", "#9a7d0a",
)  # fmt: skip
_HEIGHT = 250
_LINE = 16  # pixels of a line of the legend
_MOST = 20  # classes that are drawn; the worst say most


def draw_history(rows: Sequence[Mapping[str, float]]) -> Svg:
    """Return an SVG: the smoothed loss, the validation scores from 0 to 1, the IoU by class."""
    losses = _column(rows, "loss")
    scores = {"mIoU": _column(rows, "miou"), "pixel accuracy": _column(rows, "accuracy")}
    classes = {
        name.removeprefix("iou."): _column(rows, name)
        for name in dict.fromkeys(name for row in rows for name in row)
        if name.startswith("iou.")
    }
    lowest = sorted(classes, key=lambda name: classes[name][-1][1])[:_MOST]
    end = max((row["step"] for row in rows), default=1) or 1
    body, top = "", 20
    if losses:
        body += _loss(losses, end, top)
        top += _HEIGHT
    if scores["mIoU"]:
        body += _shares("validation", scores, end, top)
        top += _HEIGHT
    if lowest:
        title = "IoU by class" if len(classes) <= _MOST else f"IoU of the {_MOST} lowest classes"
        body += _shares(title, {name: classes[name] for name in lowest}, end, top)
        top += max(_HEIGHT, 60 + _LINE * len(lowest))
    return picture(1000, top, body)


def _column(rows: Sequence[Mapping[str, float]], name: str) -> list[Point]:
    return [(row["step"], row[name]) for row in rows if name in row]


def _loss(points: Sequence[Point], end: float, top: int) -> str:
    smooth = _smooth(points)
    values = [value for _, value in smooth]
    heading = f"loss: first {values[0]:.4g}, last {values[-1]:.4g}, lowest {min(values):.4g}"
    # From 0, so that a small change looks small.
    panel, axes = _panel(heading, end, max(*values, 1e-9), top)
    return axes + panel.line(smooth, _COLOURS[0]) + panel.dots(smooth[-1:], _COLOURS[0])


def _shares(title: str, lines: Mapping[str, Sequence[Point]], end: float, top: int) -> str:
    panel, body = _panel(title, end, 1.0, top)
    for index, (name, points) in enumerate(lines.items()):
        if not points:
            continue
        colour = _COLOURS[index % len(_COLOURS)]
        dashes = "none" if index < len(_COLOURS) else "6 3"
        best = max(points, key=lambda point: point[1])
        body += panel.line(points, colour, dashes=dashes)
        body += panel.dots(points if len(points) <= 60 else points[-1:], colour)
        down = top + 34 + _LINE * index
        words = f"{name}: {points[-1][1]:.3f} (best {best[1]:.3f} at {best[0]:.0f})"
        body += f'<path d="M650 {down - 4}h18" stroke="{colour}" stroke-width="2" '
        body += f'stroke-dasharray="{dashes}"/>' + text(674, down, words)
    return body


def _panel(heading: str, end: float, high: float, top: int) -> tuple[Panel, str]:
    panel = Panel(left=60, top=top + 20, width=570, height=180, x=(0, end), y=(0, high))
    grid = panel.grid(x=[0, end / 2, end], y=round_ticks(0, high))
    return panel, text(60, top + 8, heading, bold=True) + grid + panel.axes()


def _smooth(points: Sequence[Point]) -> list[Point]:
    width = max(1, len(points) // 60)
    windows = [points[max(0, i - width + 1) : i + 1] for i in range(len(points))]
    return [(w[-1][0], sum(value for _, value in w) / len(w)) for w in windows]
