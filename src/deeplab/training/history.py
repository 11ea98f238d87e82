"""What a training leaves to look at: history.csv, its plot, TensorBoard."""

from __future__ import annotations

import csv
import importlib
import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deeplab.errors import InputError
from deeplab.files import replacing
from deeplab.training.history_plot import draw_history
from deeplab.training.trackers import Tracker

COLUMNS = ("step", "loss", "learning_rate", "images_per_second", "seconds", "miou", "accuracy")
Row = dict[str, float]


class History:
    """Rows of numbers by step, kept on disk; resuming drops what lies after the checkpoint.

    Attributes:
        path: history.csv.
        rows: one per step that has numbers; ``iou.NAME`` is the IoU of a class.
    """

    def __init__(
        self,
        folder: Path,
        *,
        before: int | None = None,
        tell: Callable[[str], None] = print,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        """Open the history in ``folder``; ``before`` keeps the rows up to that step only.

        A file that is no history is put aside, and ``tell`` says so.
        """
        self.path, self.rows = folder / "history.csv", list[Row]()
        if before is not None and self.path.exists():
            try:
                self.rows = [row for row in read_history(self.path) if row["step"] <= before]
            except InputError as error:
                aside = self.path.with_name("history.damaged.csv")
                os.replace(self.path, aside)
                tell(f"{error} It is kept as {aside.name}, and a new one begun.")
        self._board = _tensorboard(folder, before)
        self._trackers = list(trackers)

    def add(self, step: int, **values: float) -> None:
        """Add numbers to the row of a step and write the file."""
        if not self.rows or self.rows[-1]["step"] != step:
            self.rows.append({"step": step})
        self.rows[-1].update(values)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        for tracker in self._trackers:
            tracker.add(step, values)
        table = io.StringIO()
        classes = dict.fromkeys(name for row in self.rows for name in row if name not in COLUMNS)
        writer = csv.DictWriter(table, (*COLUMNS, *classes), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: _cell(k, v) for k, v in row.items()} for row in self.rows)
        _write(self.path, table.getvalue())

    def close(self) -> None:
        """Let those who keep the numbers elsewhere end."""
        for tracker in self._trackers:
            tracker.close()

    def plot(self) -> None:
        """Write history.svg."""
        _write(self.path.with_suffix(".svg"), draw_history(self.rows))


def read_history(path: Path) -> list[Row]:
    """Return the rows of a history.csv.

    Raises:
        InputError: it is no such table.
    """
    try:
        table = csv.DictReader(io.StringIO(path.read_text("utf-8"), newline=""))
        rows = [{k: float(v) for k, v in row.items() if v} for row in table]
        if all("step" in row and all(map(math.isfinite, row.values())) for row in rows):
            return rows
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, TypeError, AttributeError):
        pass
    raise InputError(f"history: {path} is damaged, or no history.")


def _cell(name: str, value: float) -> str:
    return f"{value:.0f}" if name == "step" else f"{value:.6g}"


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
