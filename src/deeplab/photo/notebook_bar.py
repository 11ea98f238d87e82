"""How far something is, in a notebook: one line that changes, not one line each time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from html import escape
from typing import Any, TypeVar

Item = TypeVar("Item")

_PAUSE_SECONDS = 0.2
"""Between two changes; each is a message to the browser."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class NotebookBar:
    """One line of a cell's output, which is shown with the first :meth:`update`.

    Args:
        what: is counted: "photos".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._handle: Any = None
        self._begin = time.perf_counter()
        self._shown = -_PAUSE_SECONDS

    def update(self, done: int, total: int | None, words: str = "", *, last: bool = False) -> None:
        """Show that ``done`` of ``total`` are done; None where nobody knows how many there are.

        Args:
            done: so many.
            total: of so many.
            words: stand behind the numbers.
            last: nothing follows, so this is shown whatever was shown just now.
        """
        now = time.perf_counter()
        if not last and now < self._shown + _PAUSE_SECONDS and done != total:
            return
        self._shown = now
        of_all = f"{done}" if total is None else f"{done}/{total}"
        text = f"{of_all} {self._what}, {now - self._begin:.0f} s{'  ' if words else ''}{words}"
        bar = "" if total is None else f'<progress value="{done}" max="{total}"></progress> '
        bundle = {"text/plain": text, "text/html": f"{bar}<code>{escape(text)}</code>"}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def counted(items: Iterator[Item], source: Iterable[Any], *, what: str) -> Iterator[Item]:
    """Pass items on, and show in a notebook how many there were; elsewhere nothing is shown.

    Args:
        items: what is counted.
        source: what they are made of, one of each; its length is taken, where it has one.
        what: they are: "photos".
    """
    if not in_notebook():
        yield from items
        return
    bar, done = NotebookBar(what), 0
    total = len(source) if isinstance(source, Sized) else None
    for item in items:
        yield item
        done += 1
        bar.update(done, total)
    bar.update(done, total, last=True)
