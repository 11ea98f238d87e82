"""How far a training is, for whoever waits: a bar on terminals and in notebooks, lines in logs."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deeplab.photo.notebook_bar import NotebookBar, in_notebook

_SILENCE = 4.0  # seconds after which somebody who waits hears how far it is


class Patience:
    """Tells how far something is, where it lasts: nothing at first, then now and then."""

    def __init__(self, tell: Callable[[str], None], words: str) -> None:
        """``words`` say what is done, with places for {done} and {total}."""
        self._tell, self._words = tell, words
        self._told = time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        """Note that ``done`` of ``total`` are done."""
        if done < total and time.perf_counter() - self._told > _SILENCE:
            self._told = time.perf_counter()
            self._tell(self._words.format(done=done, total=total))


class ProgressLine:
    """A bar with throughput and remaining time on a terminal or notebook; plain lines in a log."""

    def __init__(self, total: int, start: int, *, show: bool, tell: Callable[[str], None]) -> None:
        console = Console(stderr=True)
        self._tell, self._show = tell, show
        self._begin, self._start, self._total = time.perf_counter(), start, total
        self._told, self._done = self._begin, start
        self._bar: Progress | None = None
        self._line = NotebookBar("steps") if show and in_notebook() else None
        if show and console.is_terminal and self._line is None:
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

    def looks(self, what: str, done: int, total: int) -> None:
        """Show that a validation has seen ``done`` of ``total`` pictures."""
        if self._bar:
            self._bar.update(self._task, description=f"{what}: {done}/{total} pictures judged")
        elif self._line:
            self._line.update(self._done, self._total, f"{what}: {done}/{total} pictures judged")
        elif self._show and done < total and time.perf_counter() - self._told > _SILENCE:
            self._told = time.perf_counter()
            self._tell(f"{what}: {done}/{total} pictures judged")

    def update(self, done: int, words: str) -> None:
        """Show that ``done`` steps are finished."""
        self._done = done
        if self._bar:
            self._bar.update(self._task, completed=done, description=words)
        elif self._line:
            self._line.update(done, self._total, words, last=done == self._total)
        elif self._show:
            self._told = time.perf_counter()
            pace = (time.perf_counter() - self._begin) / max(done - self._start, 1)
            left = int(pace * (self._total - done))
            self._tell(f"step {done}/{self._total}  {words}  left {left // 60}:{left % 60:02d}")
