"""The folder of a run: one training at a time, and papers that are written once it starts."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from deeplab.errors import InputError, OutputError
from deeplab.files import replacing

try:
    import fcntl
except ImportError:  # Windows: two trainings in one folder are not noticed there
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


class RunFolder:
    """A folder that one training has for itself.

    What is told waits in memory until :meth:`begin`: a training that is refused leaves recipe and
    log of the one before as they are.

    Attributes:
        path: of the folder.
    """

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self.path, self._tell = path, tell
        self._waiting, self._begun = "", False
        self._lock: int | None = None

    def __enter__(self) -> RunFolder:
        if self.path.is_dir():
            self._claim()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def tell(self, text: str) -> None:
        """Tell, and keep what was told in log.txt."""
        self._tell(text)
        self._waiting += f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n"
        if self._begun:
            with (self.path / "log.txt").open("a", encoding="utf-8") as log:
                log.write(self._waiting)
            self._waiting = ""

    def begin(self, recipe: str) -> None:
        """Make the folder, claim it, and write the recipe.

        Raises:
            InputError: another training is at work there.
            OutputError: the folder cannot be made or written.
        """
        try:
            (self.path / "predictions").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"folder: cannot make {self.path}: {error.strerror}.") from error
        self._claim()
        for orphan in [*self.path.glob(".*.part*"), *self.path.glob("predictions/.*.part*")]:
            with contextlib.suppress(OSError):  # half a file of a training that was killed
                orphan.unlink()
        with replacing(self.path / "recipe.toml") as partial:
            partial.write_text(recipe, encoding="utf-8")
        self._begun = True

    def _claim(self) -> None:
        """Lock the folder; the system unlocks it when this process ends, however it ends.

        A record lock is this process's alone: data workers that outlive it by seconds do not
        hold it, as they would a lock of the open file.
        """
        if self._lock is not None or fcntl is None:
            return
        path = self.path / LOCK
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"folder: cannot write {path}: {error.strerror}.") from error
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(lock, 100).decode("ascii", "replace").strip() or "of unknown number"
            os.close(lock)
            raise InputError(
                f"folder: another training (process {owner}) is at work in {self.path}; wait until "
                "it ends, or take another folder (--folder)."
            ) from None
        with contextlib.suppress(OSError):  # the number only tells people
            os.truncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock
