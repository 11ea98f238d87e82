"""Several processes that answer at one address, and what keeps them running."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

from deeplab.errors import DeepLabError, InputError
from deeplab.serve.plan import Plan, Tell, serve
from deeplab.serve.shared import CONTEXT, Shared

_SLOWEST_RESTART = 30.0
_log = logging.getLogger("deeplab.serve.error")


def serve_in_processes(
    plan: Plan,
    listening: socket.socket,
    *,
    tell: Tell,
    ready: Callable[[], None],
) -> None:
    """Start ``plan.workers`` processes, start again those that end, and end all on a signal.

    Args:
        plan: what the server is told.
        listening: where all of them listen; it is closed in the end.
        tell: as :func:`~deeplab.serve.plan.serve`; it must be importable by name.
        ready: called when all processes have opened their models.

    Raises:
        InputError: a process could not start; its words.
    """
    keeper = _Keeper(plan, listening, tell)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, keeper.end) for number in numbers}
    try:
        keeper.start()
        if not keeper.over.is_set():
            ready()
        keeper.watch()
    finally:
        keeper.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Keeper:
    """The parent of all processes.

    Attributes:
        over: a signal came.
    """

    def __init__(self, plan: Plan, listening: socket.socket, tell: Tell) -> None:
        self._plan, self._listening, self._tell = plan, listening, tell
        self._shared = Shared.make(plan.workers)
        self._processes: list[Any] = []
        self.over = threading.Event()

    def start(self) -> None:
        """Start all, and wait until each has opened its models."""
        waiting = [self._spawn(number) for number in range(self._plan.workers)]
        for told in waiting:
            while not self.over.is_set() and not told.poll(0.1):
                pass
            if self.over.is_set():
                return
            words = _receive(told)
            if words is not None:
                raise InputError(words)

    def watch(self) -> None:
        """Start processes again that end, until a signal comes."""
        pause = 0.5
        while not self.over.is_set():
            wait([one.sentinel for one in self._processes], timeout=0.5)
            for number, process in enumerate(self._processes):
                if self.over.is_set() or process.is_alive():
                    continue
                _log.error("process %d ended with %s; another starts.", number, process.exitcode)
                started = time.monotonic()
                told = self._spawn(number)
                while not self.over.is_set() and not told.poll(0.1):
                    pass
                if self.over.is_set():
                    return
                if (words := _receive(told)) is not None:
                    _log.error("process %d could not start: %s", number, words)
                is_well = time.monotonic() - started > _SLOWEST_RESTART
                pause = 0.5 if is_well else min(2 * pause, _SLOWEST_RESTART)
                self.over.wait(pause)

    def end(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.over.set()

    def stop(self) -> None:
        """Let all end in order, and wait for them."""
        self._listening.close()  # the others have it still, and decide when it closes
        for process in self._processes:
            if process.is_alive():
                process.terminate()
        limits = self._plan.limits
        most = limits.transfer_seconds + limits.timeout_seconds + self._plan.drain_seconds + 5
        end = time.monotonic() + most
        for process in self._processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    def _spawn(self, number: int) -> Connection:
        told, tells = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(
            target=_work,
            args=(
                self._plan,
                self._listening,
                self._tell if number == 0 else None,
                self._shared,
                number,
                tells,
            ),
            name=f"deeplab-serve-{number}",
        )
        process.start()
        tells.close()  # so that its end is seen here
        if number < len(self._processes):
            self._processes[number] = process
        else:
            self._processes.append(process)
        return told


def _work(
    plan: Plan,
    listening: socket.socket,
    tell: Tell | None,
    shared: Shared,
    number: int,
    tells: Connection,
) -> None:
    """Run one process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends us
    try:
        serve(
            plan,
            listening,
            tell=tell,
            ready=lambda: tells.send(None),
            shared=shared,
            number=number,
        )
    except DeepLabError as error:
        tells.send(str(error))
    except KeyboardInterrupt:
        return  # a signal came before the first request


def _receive(told: Connection) -> str | None:
    """Return why a process could not start; None where it could."""
    try:
        words: str | None = told.recv()
    except EOFError:
        return "a process ended before it was ready; its words are above."
    return words
