"""What stops a training, and what is said then: NaN, collapse, memory, signals."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor, nn

from deeplab.data.loader import Batch
from deeplab.errors import DataError, TrainingError
from deeplab.evaluation.metrics import ClassTotals
from deeplab.labels import LabelSet

COLLAPSE_SHARE = 0.9


class LossGuard:
    """Stops at a loss that is not a number, with the batch that made it.

    The value is looked at one step late, so a GPU never waits for the question.
    """

    def __init__(self, folder: Path, network: nn.Module) -> None:
        self.folder, self.network = folder, network
        self.recent: deque[float] = deque(maxlen=50)
        self._pending: tuple[int, Tensor, Batch, float] | None = None

    def watch(self, step: int, loss: Tensor, batch: Batch, rate: float) -> None:
        """Note this step's loss and examine the one before.

        Raises:
            TrainingError: that one is NaN or infinite.
        """
        self.examine()
        self._pending = (step, loss, batch, rate)

    def examine(self) -> float | None:
        """Examine the loss that is pending, and return it.

        Raises:
            TrainingError: it is NaN or infinite.
        """
        if self._pending is None:
            return self.recent[-1] if self.recent else None
        step, loss, batch, rate = self._pending
        self._pending = None
        value = float(loss)
        if math.isfinite(value):
            self.recent.append(value)
            return value
        path = self.folder / f"culprit_step{step}.npz"
        np.savez_compressed(
            path, image=batch.image.numpy(), label=batch.label.numpy(), ids=np.array(batch.ids)
        )
        raise TrainingError(
            f"loss: is {value} at step {step}. {self._cause(batch.image, rate)} "
            f"The batch ({', '.join(batch.ids[:4])}, …) is in {path}; "
            f"{self.folder / 'last.pt'} is from before."
        )

    def _cause(self, image: Tensor, rate: float) -> str:
        if not bool(torch.isfinite(image.float()).all()):
            return "The batch itself holds NaN: a picture is damaged, look at it."
        recent = list(self.recent)
        if len(recent) >= 4 and recent[-1] > 2 * min(recent):
            return (
                f"The loss rose from {min(recent):.3g} to {recent[-1]:.3g} before: the learning "
                f"rate ({rate:.2g}) is too high. Try a third of it, schedule.start_steps, or "
                "optimiser.clip_norm = 10."
            )
        broken = [
            name
            for name, value in self.network.state_dict().items()
            if not bool(torch.isfinite(value).all())
        ]
        if broken and not recent:
            return f"The starting weights hold NaN, first in {broken[0]}."
        return (
            f"Likely a learning rate ({rate:.2g}) too high for this batch: try a third of it, "
            "optimiser.clip_norm = 10, or run.precision = 'float32'."
        )


def check_labels(batch: Batch, num_classes: int, ignore_index: int) -> None:
    """Refuse labels that are neither a class nor ignored, before they crash the loss.

    Raises:
        DataError: with the ids that were found.
    """
    label = batch.label
    highest = int(label.masked_fill(label == ignore_index, 0).max())
    if highest >= num_classes:
        found = [int(i) for i in torch.unique(label) if num_classes <= int(i) != ignore_index]
        raise DataError(
            f"label: got the ids {found[:8]}, expected 0 to {num_classes - 1} or {ignore_index} "
            f"(ignored), in one of {', '.join(batch.ids[:8])}. "
            "`deeplab data check` finds all such files."
        )


def collapse_warning(totals: ClassTotals, labels: LabelSet) -> str | None:
    """Return what to say where one class swallows the others, else None.

    That is where it has more than 90 % of the predictions, and the others not half of what is
    theirs: background that covers nine tenths of the photos too is no collapse.
    """
    pixels = int(totals.prediction.sum())
    if pixels == 0:
        return None
    index = int(totals.prediction.argmax())
    share, truth = totals.prediction[index] / pixels, totals.truth[index] / pixels
    if share <= COLLAPSE_SHARE or 1 - share >= (1 - truth) / 2 or len(labels) == 1:
        return None
    return (
        f"Collapse: '{labels.names[index]}' is {share:.0%} of the predictions and {truth:.0%} of "
        "the truth. Likely causes, in order: it is early (look again at the next validation); "
        "masks are read wrongly (`deeplab data check`); classes are unbalanced "
        "(loss.class_weights = 'auto'); the learning rate is too high; batch norm was trained "
        "on few pictures (run.batch_norm = 'frozen')."
    )


def memory_advice(error: BaseException) -> str | None:
    """Return what to do where an error means that memory ran out, else None."""
    full = isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)
    if not full and "can't allocate memory" not in str(error):
        return None
    return (
        "memory: the device is full. In this order: run.accumulate = 2 or more (same result, less "
        "memory), run.precision = 'bfloat16', a smaller data.crop_size, a smaller run.batch_size."
    )


@contextmanager
def failures_in_words() -> Iterator[None]:
    """Say what to do where memory runs out inside, or a data worker dies.

    Raises:
        TrainingError: so it was.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        advice = memory_advice(error)
        if "DataLoader worker" in str(error):
            advice = (
                f"data.workers: {str(error).splitlines()[0]} Most often memory ran out: take fewer "
                "workers, or 0."
            )
        if advice is None:
            raise
        raise TrainingError(advice) from error


@contextmanager
def catch_signals(tell: Callable[[str], None]) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying, so that the step can end and be saved.

    The first is answered at once, in words; a second SIGINT interrupts at once. Outside the main
    thread nothing is caught: Python delivers signals there only.
    """
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and caught:
            raise KeyboardInterrupt
        caught.append(number)
        if len(caught) == 1:
            # A signal may come amid a write to the very stream that is told.
            with contextlib.suppress(RuntimeError):
                tell("Stopping: this step ends and is saved. Ctrl-C once more stops at once.")

    with _handling((signal.SIGINT, signal.SIGTERM), note):
        yield caught


@contextmanager
def interrupt_on_termination() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C: what is half done is tidied up, and the command ends with 130."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling((signal.SIGTERM,), interrupt):
        yield


@contextmanager
def _handling(
    kinds: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(kind, handler) for kind in kinds]
    try:
        yield
    finally:
        for kind, former in zip(kinds, before, strict=True):
            signal.signal(kind, former)
