"""The training loop, all of it.

    for each step: learning rate → batch → loss of each part, backwards → clip → step → average
    every so often: log, save, validate (score, picture, best weights, early stop)

A step is a function of the weights and of (seed, step, rank) alone: batches come by number and
dropout is seeded anew at each step. So resuming needs no random state, and a training that was
killed and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deeplab.data.loader import Batch
from deeplab.data.masks import IGNORE
from deeplab.models.deeplab import DeepLab
from deeplab.training.checkpoint import save_checkpoint
from deeplab.training.guard import LossGuard, catch_signals, check_labels
from deeplab.training.history import History
from deeplab.training.processes import Processes
from deeplab.training.progress_line import ProgressLine
from deeplab.training.settings import Settings
from deeplab.training.state import SIGNALLED, Progress, TrainingState
from deeplab.training.step import backward, make_step
from deeplab.training.teacher import Teacher
from deeplab.training.trackers import open_trackers

_SAVE_SECONDS = 60.0  # between checkpoints, where the recipe does not say how many steps


@dataclass(frozen=True)
class Score:
    """What a validation found.

    Attributes:
        miou: decides which weights are best.
        accuracy: share of the pixels that are right.
        iou: of every class that occurs, by name.
    """

    miou: float
    accuracy: float
    iou: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StepNews:
    """What a callback hears after a step: steps done, of how many, loss and learning rate."""

    step: int
    steps: int
    loss: float
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Who wants to hear of a training; whoever returns True, or why, ends it here, saved.

    Attributes:
        step: called after every step, on the first process.
        validation: called after every validation with steps done and the score, there too.
    """

    step: Callable[[StepNews], bool | str | None] | None = None
    validation: Callable[[int, Score], bool | str | None] | None = None


NOBODY = Callbacks()


class Judge(Protocol):
    """Who scores the network and keeps the best."""

    def validate(
        self, network: DeepLab, step: int, watch: Callable[[int, int], bool]
    ) -> Score | None:
        """Score the network after that many steps, on every process alike.

        ``watch`` wants to be called with (pictures judged, of how many) after each picture, and
        returns True where the validation should be given up; the result is None then.
        """

    def release(self, network: DeepLab, progress: Progress) -> None:
        """Write the release pair of the weights just judged; called on the first process."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a training meets outside its own arithmetic.

    Attributes:
        folder: of checkpoint, history and pictures; exists.
        processes: this one and the others.
        judge: who validates.
        tell: where sentences go.
        callbacks: who else wants to hear.
        papers: what a checkpoint holds beside the state: recipe, configuration, identity.
        saved: the checkpoint to resume from, or None.
        judge_start: score the network before the first step, as a candidate for the best.
    """

    folder: Path
    processes: Processes
    judge: Judge
    tell: Callable[[str], None] = print
    callbacks: Callbacks = NOBODY
    papers: Mapping[str, Any] = field(default_factory=dict)
    saved: Mapping[str, Any] | None = None
    judge_start: bool = False


def train(
    network: DeepLab,
    settings: Settings,
    *,
    batches: Callable[[int], Iterator[Batch]],
    around: Surroundings,
    class_weights: Tensor | None = None,
    teacher: Teacher | None = None,
) -> Progress:
    """Train ``network`` in place.

    Args:
        network: on the CPU or on its device, batch norm policy chosen.
        settings: of the experiment.
        batches: given a step, yields this process's share of that step and of all that follow.
        around: files, processes and people.
        class_weights: (K,) float, or None.
        teacher: whose opinion counts too, or None.

    Returns:
        How far it came. ``network`` holds the last weights, as they are validated: averaged and
        blended with the first, where the settings say so.

    Raises:
        InputError: the checkpoint does not fit.
        TrainingError: the loss is not a number, or memory ran out.
        DataError: a label is no class.
    """
    state = TrainingState(network, settings, around.processes.device)
    if around.saved is not None:
        state.restore(around.saved)
    step_loss = make_step(network, settings, class_weights, around.processes, teacher)
    _Loop(state, step_loss, around).run(batches)
    network.load_state_dict(state.learned())
    return state.progress


class _Loop:
    """The loop, and what its steps share."""

    def __init__(self, state: TrainingState, step_loss: nn.Module, around: Surroundings) -> None:
        self.state, self.step_loss, self.around = state, step_loss, around
        self.settings, self.network = state.settings, state.network
        self.processes, self.folder = around.processes, around.folder
        self.first_step = state.progress.step
        self.guard = LossGuard(self.folder, state.network)
        self.history: History | None = None
        if self.processes.first:
            trackers = open_trackers(
                self.settings.run.track,
                self.folder,
                name=self.settings.name,
                settings=self.settings.to_dict(),
            )
            self.history = History(
                self.folder, before=self.first_step, tell=around.tell, trackers=trackers
            )
        self.signals: list[int] = []
        self.end_reason = ""  # why a callback ends the training
        self.clock, self.clocked_step = time.perf_counter(), self.first_step
        self.saved_at = time.perf_counter()

    def run(self, batches: Callable[[int], Iterator[Batch]]) -> None:
        """Take every step that is left, unless something ends the training before."""
        run, progress, first = self.settings.run, self.state.progress, self.processes.first
        stream = batches(progress.step) if progress.step < run.steps else iter(())
        tell = self.around.tell
        with (
            catch_signals(tell) as self.signals,
            ProgressLine(run.steps, progress.step, show=first, tell=tell) as self.line,
        ):
            if self._is_unjudged():
                self._judge_and_save()
            self._stop_if_stale()
            self._restart_clock()
            while progress.step < run.steps and not progress.stopped:
                rate = self.settings.schedule.learning_rate(progress.step, run.steps)
                batch = next(stream)
                # After the batch: the first one draws a number of its own, and only there.
                torch.manual_seed(hash((run.seed, progress.step, self.processes.rank)))
                self._take_step(batch, rate)

                last = progress.step == run.steps
                logs = last or _is_due(progress.step, run.log_interval)
                if logs or progress.step == self.first_step + 1:
                    self._log(rate, keep=logs)
                if self._is_stopped(meet=logs):
                    self._save()
                elif last or _is_due(progress.step, run.validation_interval):
                    self._judge_and_save()
                elif self._saves_now():
                    self._save()
        if self.history is not None:
            self.history.close()
        if progress.interrupted and first:
            kept = f"Saved after step {progress.step}" if progress.step else "No step was done"
            tell(f"{kept}; the same command goes on.")

    def _is_unjudged(self) -> bool:
        """Whether there is something to judge before the next step.

        That is the start, where it knows the classes; and weights whose validation did not end.
        """
        step, run = self.state.progress.step, self.settings.run
        if self.state.progress.judged == step:
            return False
        if step == 0:
            return self.around.judge_start
        return step == run.steps or _is_due(step, run.validation_interval)

    def _take_step(self, batch: Batch, rate: float) -> None:
        """Loss of each part, backwards, clip, step, average."""
        settings, step = self.settings, self.state.progress.step
        check_labels(batch, self.network.config.num_classes, IGNORE)
        if isinstance(self.network, DeepLab):  # paths are dropped more and more
            self.network.set_progress(step / settings.run.steps)
        loss = backward(self.step_loss, batch, step, settings, self.processes)
        if settings.optimiser.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), settings.optimiser.clip_norm)
        self.guard.watch(step, loss, batch, rate)
        self.state.apply_gradient(rate)
        hear = self.around.callbacks.step
        if hear is not None and self.processes.first:
            value = self.guard.examine()
            assert value is not None
            news = StepNews(step + 1, settings.run.steps, value, rate)
            self._heed(hear(news))

    def _log(self, rate: float, *, keep: bool) -> None:
        """Show the loss and the pace since the last time, and keep them in the history."""
        step, value = self.state.progress.step, self.guard.examine()
        seconds = time.perf_counter() - self.clock
        pace = (step - self.clocked_step) * self.settings.run.batch_size / seconds
        if keep and self.history is not None and value is not None:
            self.history.add(
                step, loss=value, learning_rate=rate, images_per_second=pace, seconds=seconds
            )
        self.line.update(step, f"loss {value:.4f}  rate {rate:.2e}  {pace:.2f} images/s")
        self._restart_clock()

    def _is_stopped(self, *, meet: bool) -> bool:
        """Whether a signal or a callback ends the training now, on all processes alike.

        Several processes on GPUs ask each other only when they meet anyway (``meet``): a question
        would make each step wait for the one before.
        """
        progress, asks = self.state.progress, meet or self.processes.device.type == "cpu"
        if asks and self.processes.any(bool(self.signals)):
            progress.stopped = SIGNALLED
        elif asks and self.processes.any(bool(self.end_reason)):
            progress.stopped = self.end_reason or "a callback asked for it"
        return bool(progress.stopped)

    def _judge_and_save(self) -> None:
        """Validate; release the weights that are the best so far; stop where none have come."""
        progress = self.state.progress
        self.guard.examine()
        with self.state.judged() as network:
            self.processes.share_buffers(network)
            score = self.around.judge.validate(network, progress.step, self._watch)
            if score is None:
                progress.stopped = SIGNALLED
            else:
                self._keep_best(network, score)
        self._stop_if_stale()
        if progress.step:
            self._save()
        self._restart_clock()

    def _stop_if_stale(self) -> None:
        progress, patience = self.state.progress, self.settings.run.patience
        if patience and progress.stale >= patience and not progress.stopped:
            progress.stopped = (
                f"no better mIoU than {progress.best:.4f} (step {progress.best_step}) in "
                f"{progress.stale} validations"
            )

    def _keep_best(self, network: DeepLab, score: Score) -> None:
        """Note a score, and release its weights where it is the best so far."""
        progress, first = self.state.progress, self.processes.first
        better = progress.best is None or score.miou > progress.best
        progress.judged, progress.stale = progress.step, 0 if better else progress.stale + 1
        if better:
            progress.best, progress.best_step = score.miou, progress.step
            if first:
                self.around.judge.release(network, progress)
        if self.history is not None:
            classes = {f"iou.{name}": value for name, value in score.iou.items()}
            self.history.add(progress.step, miou=score.miou, accuracy=score.accuracy, **classes)
            self.history.plot()
        hear = self.around.callbacks.validation
        if hear is not None and first:
            self._heed(hear(progress.step, score))

    def _heed(self, answer: bool | str | None) -> None:
        """Note that a callback wants the training to end."""
        if answer and not self.end_reason:
            self.end_reason = answer if isinstance(answer, str) else "a callback asked for it"

    def _watch(self, done: int, total: int) -> bool:
        """Show how far a validation is; return whether it should be given up."""
        step = self.state.progress.step
        self.line.looks(f"step {step}" if step else "start", done, total)
        return bool(self.signals)

    def _saves_now(self) -> bool:
        every = self.settings.run.save_every
        if every == "auto":
            return time.perf_counter() - self.saved_at >= _SAVE_SECONDS
        return _is_due(self.state.progress.step, every)

    def _save(self) -> None:
        """Write the checkpoint, but never weights that a NaN has touched."""
        self.guard.examine()
        if self.processes.first:
            save_checkpoint(self.folder, {**self.around.papers, **self.state.to_dict()})
        self.saved_at = time.perf_counter()

    def _restart_clock(self) -> None:
        self.clock, self.clocked_step = time.perf_counter(), self.state.progress.step


def _is_due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps (0: never) happens after this one."""
    return every > 0 and step % every == 0
