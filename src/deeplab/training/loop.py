"""The training loop, all of it.

    for each step: learning rate → batch → loss of each part, backwards → clip → step → average
    every so often: log, save, validate (score, picture, best weights, early stop)

A step is a function of the weights and of (seed, step, rank) alone: batches come by number and
dropout is seeded anew at each step. So resuming needs no random state, and a training that was
killed and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from deeplab.data.loader import Batch
from deeplab.data.masks import IGNORE
from deeplab.models.deeplab import DeepLab
from deeplab.training.guard import LossGuard, catch_signals, check_labels
from deeplab.training.history import History, ProgressLine
from deeplab.training.processes import Processes
from deeplab.training.settings import Settings
from deeplab.training.state import SIGNALLED, Progress, TrainingState
from deeplab.training.step import backward, make_step
from deeplab.training.teacher import Teacher


@dataclass(frozen=True)
class Score:
    """What a validation found: mIoU (decides which weights are best) and pixel accuracy."""

    miou: float
    accuracy: float


def train(
    network: DeepLab,
    settings: Settings,
    *,
    batches: Callable[[int], Iterator[Batch]],
    validate: Callable[[DeepLab, int], Score],
    release: Callable[[DeepLab, Progress], None],
    folder: Path,
    processes: Processes,
    class_weights: Tensor | None = None,
    teacher: Teacher | None = None,
    tell: Callable[[str], None] = print,
) -> Progress:
    """Train ``network`` in place, resuming from ``folder`` where a checkpoint is.

    Args:
        network: on the CPU or on its device, batch norm policy chosen.
        settings: of the experiment.
        batches: given a step, yields this process's share of that step and of all that follow.
        validate: scores the network after that many steps; called on every process.
        release: writes the release pair of the best weights; called on the first process.
        folder: of checkpoint, history and pictures; exists.
        processes: this one and the others.
        class_weights: (K,) float, or None.
        teacher: whose opinion counts too, or None.
        tell: where sentences go.

    Returns:
        How far it came. ``network`` holds the last weights, as they are validated: averaged and
        blended with the first, where the settings say so.

    Raises:
        TrainingError: the loss is not a number, or memory ran out.
        DataError: a label is no class.
    """
    state = TrainingState(network, settings, processes.device)
    if state.resume(folder):
        tell(f"Resuming after step {state.progress.step}.")
    step_loss = make_step(network, settings, class_weights, processes, teacher)
    _Loop(state, step_loss, folder, processes, validate=validate, release=release, tell=tell).run(
        batches
    )
    network.load_state_dict(state.learned())
    return state.progress


class _Loop:
    """The loop, and what its steps share."""

    def __init__(
        self,
        state: TrainingState,
        step_loss: nn.Module,
        folder: Path,
        processes: Processes,
        *,
        validate: Callable[[DeepLab, int], Score],
        release: Callable[[DeepLab, Progress], None],
        tell: Callable[[str], None],
    ) -> None:
        self.state, self.step_loss, self.folder, self.processes = (
            state,
            step_loss,
            folder,
            processes,
        )
        self.validate, self.release, self.tell = validate, release, tell
        self.settings, self.network = state.settings, state.network
        self.guard = LossGuard(folder, state.network)
        self.history = History(folder, before=state.progress.step) if processes.first else None
        self.clock, self.clocked_step = time.perf_counter(), state.progress.step

    def run(self, batches: Callable[[int], Iterator[Batch]]) -> None:
        """Take every step that is left, unless something ends the training before."""
        run, progress = self.settings.run, self.state.progress
        stream = batches(progress.step) if progress.step < run.steps else iter(())
        self._restart_clock()
        with (
            catch_signals() as signals,
            ProgressLine(
                run.steps, progress.step, show=self.processes.first, tell=self.tell
            ) as line,
        ):
            while progress.step < run.steps and not progress.stopped:
                rate = self.settings.schedule.learning_rate(progress.step, run.steps)
                torch.manual_seed(hash((run.seed, progress.step, self.processes.rank)))
                self._take_step(next(stream), rate)

                last = progress.step == run.steps
                logs = last or _is_due(progress.step, run.log_every)
                if logs:
                    self._log(rate, line)
                # Several processes ask each other when they meet anyway, so that all stop together.
                asks = logs or self.processes.count == 1
                if asks and self.processes.any(bool(signals)):
                    progress.stopped = SIGNALLED
                    self._save()
                elif last or _is_due(progress.step, run.validate_every):
                    self._judge()
                    self._save()
                    self._restart_clock()
                elif _is_due(progress.step, run.save_every):
                    self._save()

    def _take_step(self, batch: Batch, rate: float) -> None:
        """Loss of each part, backwards, clip, step, average."""
        settings, step = self.settings, self.state.progress.step
        check_labels(batch, self.network.config.num_classes, IGNORE)
        loss = backward(self.step_loss, batch, step, settings, self.processes)
        if settings.optimiser.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), settings.optimiser.clip_norm)
        self.guard.watch(step, loss, batch, rate)
        self.state.apply_gradient(rate)

    def _log(self, rate: float, line: ProgressLine) -> None:
        """Write the loss and the pace since the last time into history and progress line."""
        step, value = self.state.progress.step, self.guard.examine()
        seconds = time.perf_counter() - self.clock
        pace = (step - self.clocked_step) * self.settings.run.batch_size / seconds
        if self.history is not None and value is not None:
            self.history.add(
                step, loss=value, learning_rate=rate, images_per_second=pace, seconds=seconds
            )
        words = f"loss {value:.4f}  rate {rate:.2e}  {pace:.2f} images/s"
        line.update(step, words, log=True)
        self._restart_clock()

    def _judge(self) -> None:
        """Validate; release the weights that are the best so far; stop where none have come."""
        progress, patience = self.state.progress, self.settings.run.patience
        self.guard.examine()
        self.processes.share_buffers(self.network)
        with self.state.judged() as network:
            score = self.validate(network, progress.step)
            better = score.miou > progress.best
            progress.stale = 0 if better else progress.stale + 1
            if better:
                progress.best, progress.best_step = score.miou, progress.step
                if self.processes.first:
                    self.release(network, progress)
        if self.history is not None:
            self.history.add(progress.step, miou=score.miou, accuracy=score.accuracy)
            self.history.plot()
        if patience and progress.stale >= patience:
            progress.stopped = (
                f"no better mIoU than {progress.best:.4f} (step {progress.best_step}) in "
                f"{progress.stale} validations"
            )

    def _save(self) -> None:
        """Write the checkpoint, but never weights that a NaN has touched."""
        self.guard.examine()
        if self.processes.first:
            self.state.save(self.folder)

    def _restart_clock(self) -> None:
        self.clock, self.clocked_step = time.perf_counter(), self.state.progress.step


def _is_due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps (0: never) happens after this one."""
    return every > 0 and step % every == 0
