"""The near end of a worker: starts the process, asks, and passes its errors on."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from deeplab import errors
from deeplab.benchmark.contenders import Contender
from deeplab.errors import DeepLabError, ModelError

Answer = dict[str, Any]
Tell = Callable[[int, int], None]


class Process:
    """A contender, opened in a process of its own; see ``worker.py``.

    Args:
        contender: what to open.

    Attributes:
        opened: what opening it told: ``init_ms``, ``size``, ``fit``, ``memory``.

    Raises:
        DeepLabError: the model cannot be opened, with the error of the worker.
    """

    def __init__(self, contender: Contender) -> None:
        self._title = contender.title
        self._told = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deeplab.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._told,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the parent alone
        )
        try:
            self.opened = self.ask("open", **contender.arguments)
        except BaseException:
            self.close()
            raise

    def ask(self, what: str, *, tell: Tell | None = None, **arguments: Any) -> Answer:
        """Let the worker do something, and return its answer.

        Args:
            what: a method of :class:`deeplab.benchmark.worker.Worker`.
            tell: called with (done, total) while it is at work.
            arguments: of the method.

        Raises:
            DeepLabError: whatever the worker raised.
            ModelError: the worker died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, "with": arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        while line := self._process.stdout.readline():
            ((kind, content),) = json.loads(line).items()
            if kind == "answer":
                answer: Answer = content
                return answer
            if kind == "error":
                raise _revive(*content)
            if tell is not None:
                tell(*content)
        raise self._death()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._told):
            if stream is not None:
                with contextlib.suppress(OSError):  # a request that nobody reads any more
                    stream.close()

    def _death(self) -> ModelError:
        code = self._process.wait()
        self._told.seek(0)
        words = self._told.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return ModelError(
            f"{self._title}: the engine ended its process ({how}). {' '.join(words)}".strip()
        )


def _revive(kind: str, message: str) -> DeepLabError:
    """Return a worker's error; some of them are built from other things than their message."""
    found: type[DeepLabError] = getattr(errors, kind, DeepLabError)
    error = found.__new__(found)
    Exception.__init__(error, message)
    return error
