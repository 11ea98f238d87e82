"""What a training leaves to look at: history.csv, its plot, TensorBoard, a progress bar."""

from __future__ import annotations

import csv
import importlib
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deeplab.files import replacing
from deeplab.plot import Panel, Point, picture, text

COLUMNS = ("step", "loss", "learning_rate", "images_per_second", "seconds", "miou", "accuracy")
Row = dict[str, float]


class History:
    """Rows of numbers by step, kept on disk; resuming drops what lies after the checkpoint."""

    def __init__(self, folder: Path, *, before: int | None = None) -> None:
        """Open the history in ``folder``; ``before`` keeps the rows of earlier steps only."""
        self.path, self.rows = folder / "history.csv", list[Row]()
        if self.path.exists() and before is not None:
            with self.path.open(newline="") as file:
                rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
            self.rows = [row for row in rows if row["step"] <= before]
        self._board = _tensorboard(folder, before)

    def add(self, step: int, **values: float) -> None:
        """Add numbers to the row of a step and write the file."""
        if not self.rows or self.rows[-1]["step"] != step:
            self.rows.append({"step": step})
        self.rows[-1].update(values)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in self.rows)
        _write(self.path, table.getvalue())

    def plot(self) -> None:
        """Write history.svg: the loss, smoothed, and the validation mIoU over the steps."""
        losses = [(row["step"], row["loss"]) for row in self.rows if "loss" in row]
        scores = [(row["step"], row["miou"]) for row in self.rows if "miou" in row]
        panels = [("loss", _smooth(losses), "#c0392b"), ("validation mIoU", scores, "#2471a3")]
        drawn = [panel for panel in panels if panel[1]]
        body = "".join(_panel(*panel, top=20 + 230 * index) for index, panel in enumerate(drawn))
        _write(self.path.with_suffix(".svg"), picture(760, 20 + 230 * len(drawn), body))


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _tensorboard(folder: Path, before: int | None) -> Any:
    """Return TensorBoard's writer where it is installed, else None; later points are dropped."""
    try:
        importlib.import_module("tensorboard")
        board = importlib.import_module("torch.utils.tensorboard")
        return board.SummaryWriter(str(folder), purge_step=None if before is None else before + 1)
    except ImportError:
        return None


def _smooth(points: Sequence[Point]) -> list[Point]:
    width = max(1, len(points) // 60)
    windows = [points[max(0, i - width + 1) : i + 1] for i in range(len(points))]
    return [(w[-1][0], sum(value for _, value in w) / len(w)) for w in windows]


def _panel(title: str, points: Sequence[Point], colour: str, *, top: int) -> str:
    steps, values = [p[0] for p in points], [p[1] for p in points]
    low, high = min(values), max(values)
    top_number = high if high > low else low + 1.0
    panel = Panel(
        left=60, top=top + 20, width=680, height=170, x=(0, max(steps[-1], 1)), y=(low, top_number)
    )
    heading = f"{title}: last {values[-1]:.4g}, from {low:.4g} to {high:.4g}"
    return (
        text(60, top + 8, heading, bold=True)
        + panel.axes()
        + text(54, top + 24, f"{high:.3g}", anchor="end")
        + text(54, top + 194, f"{low:.3g}", anchor="end")
        + text(740, top + 208, f"step {steps[-1]:.0f}", anchor="end")
        + panel.line(points, colour)
        + panel.dots(points if len(points) <= 60 else points[-1:], colour)
    )


class ProgressLine:
    """A bar with throughput and remaining time on a terminal; plain lines in a log."""

    def __init__(self, total: int, start: int, *, show: bool, tell: Callable[[str], None]) -> None:
        console = Console(stderr=True)
        self._tell, self._show = tell, show
        self._begin, self._start, self._total = time.perf_counter(), start, total
        self._bar: Progress | None = None
        if show and console.is_terminal:
            self._bar = Progress(
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=console,
            )
            self._task = self._bar.add_task("", total=total, completed=start)

    def __enter__(self) -> ProgressLine:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, words: str, *, log: bool) -> None:
        """Show that ``done`` steps are finished; ``log`` asks for a line where there is no bar."""
        if self._bar:
            self._bar.update(self._task, completed=done, description=words)
        elif self._show and log:
            pace = (time.perf_counter() - self._begin) / max(done - self._start, 1)
            left = int(pace * (self._total - done))
            self._tell(f"step {done}/{self._total}  {words}  left {left // 60}:{left % 60:02d}")
