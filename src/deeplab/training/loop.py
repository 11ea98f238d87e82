"""The training loop, all of it.

    for each step: learning rate → batch → loss of each part, backwards → clip → step → average
    every so often: log, save, validate (score, picture, best weights, early stop)

A step is a function of the weights and of (seed, step, rank) alone: batches come by number and
dropout is seeded anew at each step. So resuming needs no random state, and a training that was
killed and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from deeplab.data.loader import Batch
from deeplab.data.masks import IGNORE
from deeplab.errors import TrainingError
from deeplab.models.deeplab import DeepLab
from deeplab.training.checkpoint import load_checkpoint, save_checkpoint
from deeplab.training.guard import LossGuard, catch_signals, check_labels, memory_advice
from deeplab.training.history import History, ProgressLine
from deeplab.training.losses import segmentation_loss
from deeplab.training.optimiser import MovingAverage, build_optimiser, set_learning_rate
from deeplab.training.processes import Processes
from deeplab.training.settings import LossSettings, RunSettings, Settings
from deeplab.training.teacher import Teacher

State = dict[str, Tensor]


@dataclass(frozen=True)
class Score:
    """What a validation found: mIoU (decides which weights are best) and pixel accuracy."""

    miou: float
    accuracy: float


_SIGNALLED = "a signal asked for it"


@dataclass(kw_only=True)
class Progress:
    """How far a training is; all of it is in the checkpoint.

    Attributes:
        step: steps done.
        best: the best mIoU so far; negative before the first validation.
        best_step: steps done then.
        stale: validations since.
        stopped: why it ended before the last step, or empty.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    stale: int = 0
    stopped: str = field(default="")

    @property
    def interrupted(self) -> bool:
        """Whether somebody ended it, and its weights are half done."""
        return self.stopped == _SIGNALLED


class StepLoss(nn.Module):
    """Network and loss in one module, so that DDP and the compiler see a step as a whole."""

    def __init__(
        self,
        network: DeepLab,
        loss: LossSettings,
        class_weights: Tensor | None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.network, self.loss, self.teacher = network, loss, teacher
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, image: Tensor, label: Tensor, kept: Tensor, step: int) -> Tensor:
        """Return the loss of a part of a step, float32."""
        logits: Tensor | list[Tensor]
        if self.loss.every_scale and self.network.config.image_pyramid:
            scales = self.network.every_scale(image)
            fused = torch.stack(scales).amax(0)
            logits = [*scales, fused]
        else:
            logits = fused = self.network(image)
        weights = self.class_weights
        loss = segmentation_loss(
            logits,
            label,
            ignore_index=IGNORE,
            class_weights=weights if isinstance(weights, Tensor) else None,
            top_k=self.loss.top_k,
            mining_steps=self.loss.mining_steps,
            step=step,
            upsample_logits=self.loss.upsample_logits,
            align_corners=self.network.config.align_corners,
            kept=kept,
        )
        if self.teacher is None:
            return loss
        cost: Tensor = self.teacher(fused, image, label, kept)
        return loss + cost


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
    run, device = settings.run, processes.device
    network.to(device).to(memory_format=_memory_format(run)).train()  # type: ignore[call-overload]
    network.freeze(settings.optimiser.frozen)
    optimiser = build_optimiser(network, settings.optimiser)
    average = None
    if settings.optimiser.ema_decay:
        average = MovingAverage(network, settings.optimiser.ema_decay)
    started = {name: value.clone() for name, value in network.state_dict().items()}

    def learned() -> State:
        state = dict(network.state_dict()) if average is None else average.state
        share = settings.optimiser.start_share
        return blend(state, started, share) if share else state

    progress = Progress()
    saved = load_checkpoint(folder, settings.to_dict())
    if saved is not None:
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        if average is not None:
            average.load(saved["average"])
        progress = Progress(**saved["progress"])
        progress.stopped = ""
        tell(f"Resuming after step {progress.step}.")
    history = History(folder, before=progress.step) if processes.first else None

    def save() -> None:
        guard.examine()  # never save weights that a NaN has touched
        if processes.first:
            save_checkpoint(
                folder,
                {
                    "recipe": settings.to_dict(),
                    "network": network.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "average": None if average is None else average.state,
                    "progress": vars(progress),
                },
            )

    def judge() -> None:
        guard.examine()
        processes.share_buffers(network)
        with evaluating(network, learned()):
            score = validate(network, progress.step)
            better = score.miou > progress.best
            progress.stale = 0 if better else progress.stale + 1
            if better:
                progress.best, progress.best_step = score.miou, progress.step
                if processes.first:
                    release(network, progress)
        if history is not None:
            history.add(progress.step, miou=score.miou, accuracy=score.accuracy)
            history.plot()
        if run.patience and progress.stale >= run.patience:
            progress.stopped = (
                f"no better mIoU than {progress.best:.4f} (step {progress.best_step}) in "
                f"{progress.stale} validations"
            )

    step_loss = make_step(network, settings, class_weights, processes, teacher)
    guard = LossGuard(folder, network)
    stream = batches(progress.step) if progress.step < run.steps else iter(())
    clock, images = time.perf_counter(), 0
    with (
        catch_signals() as signals,
        ProgressLine(run.steps, progress.step, show=processes.first, tell=tell) as line,
    ):
        while progress.step < run.steps and not progress.stopped:
            step = progress.step
            rate = settings.schedule.learning_rate(step, run.steps)
            set_learning_rate(optimiser, rate)
            torch.manual_seed(hash((run.seed, step, processes.rank)))
            batch = next(stream)
            check_labels(batch, network.config.num_classes, IGNORE)

            loss = backward(step_loss, batch, step, settings, processes)
            if settings.optimiser.clip_norm:
                nn.utils.clip_grad_norm_(network.parameters(), settings.optimiser.clip_norm)
            guard.watch(step, loss, batch, rate)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if average is not None:
                average.update(network, step)

            progress.step, images = step + 1, images + run.batch_size
            last = progress.step == run.steps
            if progress.step % run.log_every == 0 or last:
                value, seconds = guard.examine(), time.perf_counter() - clock
                pace = images / seconds
                if history is not None and value is not None:
                    history.add(
                        progress.step, loss=value, learning_rate=rate,
                        images_per_second=pace, seconds=seconds,
                    )  # fmt: skip
                line.update(
                    progress.step,
                    f"loss {value:.4f}  rate {rate:.2e}  {pace:.2f} images/s",
                    log=True,
                )
                clock, images = time.perf_counter(), 0
            # Several processes ask each other when they meet anyway, so that all stop together.
            if (processes.count == 1 or last or progress.step % run.log_every == 0) and (
                processes.any(bool(signals))
            ):
                progress.stopped = _SIGNALLED
            elif last or (run.validate_every and progress.step % run.validate_every == 0):
                judge()
                clock, images = time.perf_counter(), 0
                save()
                continue
            if progress.stopped or progress.step % run.save_every == 0:
                save()
    network.load_state_dict(learned())
    return progress


def make_step(
    network: DeepLab,
    settings: Settings,
    class_weights: Tensor | None,
    processes: Processes,
    teacher: Teacher | None = None,
) -> nn.Module:
    """Wrap network, loss and teacher for the device, the compiler and the other processes."""
    step_loss: nn.Module = StepLoss(network, settings.loss, class_weights, teacher)
    step_loss.to(processes.device).to(memory_format=_memory_format(settings.run))  # type: ignore[call-overload]
    if settings.run.compile:
        step_loss.compile()
    if processes.count > 1:
        places = [processes.device.index] if processes.device.type == "cuda" else None
        step_loss = DistributedDataParallel(step_loss, device_ids=places, broadcast_buffers=False)
    return step_loss


def backward(
    step_loss: nn.Module,
    batch: Batch,
    step: int,
    settings: Settings,
    processes: Processes,
) -> Tensor:
    """Add the gradient of one step's loss, part by part, and return that loss (detached).

    Every part is divided by the number of labelled pixels of the *whole* step, over all parts
    and processes; so cutting a batch in parts, or sharing it, changes nothing. Mining, and losses
    at the logits' size, count each part by itself; there the parts are averaged.
    """
    run, device = settings.run, processes.device
    whole = settings.loss.top_k == 1.0 and settings.loss.upsample_logits
    kept = processes.sum((batch.label != IGNORE).sum()).to(device)
    # DDP averages the gradients of the processes; sums must be undone by their count.
    scale = processes.count if whole else 1 / run.accumulate
    total = torch.zeros((), device=device)
    images, labels = batch.image.chunk(run.accumulate), batch.label.chunk(run.accumulate)
    try:
        for part, (x, y) in enumerate(zip(images, labels, strict=True)):
            x = x.to(device, non_blocking=True).contiguous(memory_format=_memory_format(run))
            y = y.to(device, non_blocking=True)
            alone = processes.count > 1 and part < len(images) - 1
            with (
                step_loss.no_sync() if alone else contextlib.nullcontext(),  # type: ignore[operator]
                torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bfloat16"),
            ):
                loss = step_loss(x, y, kept, step)
                (loss * scale).backward()
            total += loss.detach() * (scale / processes.count if whole else scale)
    except (RuntimeError, MemoryError) as error:
        advice = memory_advice(error)
        if advice is None:
            raise
        raise TrainingError(advice) from error
    shared = processes.sum(total)
    return shared if whole else shared / processes.count


def blend(state: Mapping[str, Tensor], other: Mapping[str, Tensor], share: float) -> State:
    """Return weights between two states of one network; ``share`` is the other's, 0..1."""
    return {
        name: value.lerp(other[name].to(value), share) if value.is_floating_point() else value
        for name, value in state.items()
    }


@contextlib.contextmanager
def evaluating(network: DeepLab, state: State) -> Iterator[None]:
    """Switch to evaluation with the weights that are to be judged, and back."""
    current = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.load_state_dict(current)
        network.train()


def _memory_format(run: RunSettings) -> torch.memory_format:
    return torch.channels_last if run.channels_last else torch.contiguous_format
