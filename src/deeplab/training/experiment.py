"""From settings to a trained network: open the data, build, start from weights, run the loop."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import torch

from deeplab import weights
from deeplab.files import replacing
from deeplab.labels import LabelSet
from deeplab.models import DeepLab, build
from deeplab.training.feed import Feed, open_feed
from deeplab.training.initialise import take_over
from deeplab.training.judge import Judge
from deeplab.training.loop import train
from deeplab.training.normalisation import (
    choose_batch_norm,
    measure_statistics,
    restore_statistics,
)
from deeplab.training.processes import Processes, join_processes
from deeplab.training.settings import Settings, write_toml
from deeplab.training.state import Progress
from deeplab.training.teacher import open_teacher
from deeplab.weights.release import labels_of

_MEASURED = 4  # steps whose pictures give new batch norms their first statistics


def run_experiment(
    settings: Settings, folder: Path, *, tell: Callable[[str], None] = print
) -> Progress:
    """Train what the settings say, resuming where ``folder`` holds a checkpoint.

    ``folder`` then holds last.pt (to resume), NAME.safetensors and NAME.json (the best weights),
    recipe.toml (the effective settings), log.txt, history.csv with its plot, and predictions/.
    Under ``torchrun`` every process calls this with the same arguments.

    Raises:
        InputError, DataError, WeightsError: the settings, data or starting weights do not fit.
        TrainingError: the training cannot go on.
    """
    with join_processes(settings.run.device) as processes:
        say = _Log(folder, tell) if processes.first else (lambda text: None)
        return _run(settings, folder, processes, say)


class _Log:
    """Tells, and keeps in log.txt what was told; a folder is not made for it alone."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder, self._tell, self._waiting = folder, tell, ""

    def __call__(self, text: str) -> None:
        self._tell(text)
        self._waiting += f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n"
        if self._folder.is_dir():
            with (self._folder / "log.txt").open("a", encoding="utf-8") as log:
                log.write(self._waiting)
            self._waiting = ""


def _run(
    settings: Settings, folder: Path, processes: Processes, tell: Callable[[str], None]
) -> Progress:
    feed = open_feed(settings, processes, tell)
    torch.manual_seed(settings.run.seed)
    network, fresh, started = _start(settings, feed.labels, tell)
    _settle_batch_norm(network, fresh, settings, feed, processes, tell)
    if processes.first:
        (folder / "predictions").mkdir(parents=True, exist_ok=True)
        with replacing(folder / "recipe.toml") as partial:
            partial.write_text(write_toml(settings), encoding="utf-8")
    teacher = None
    if settings.teacher.path:
        teacher = open_teacher(settings.teacher, feed.labels)
        tell(f"Teacher: {Path(settings.teacher.path).name}.")
    judge = Judge(settings, feed.validation, processes, folder, started, tell)
    progress = train(
        network,
        settings,
        batches=feed.batches(settings, network.config, processes),
        validate=judge.validate,
        release=judge.release,
        folder=folder,
        processes=processes,
        teacher=teacher,
        class_weights=feed.class_weights,
        tell=tell,
    )
    reason = f" Stopped: {progress.stopped}." if progress.stopped else ""
    tell(f"{progress.step} steps; best mIoU {progress.best:.4f} at {progress.best_step}.{reason}")
    return progress


def _start(
    settings: Settings, labels: LabelSet, tell: Callable[[str], None]
) -> tuple[DeepLab, tuple[str, ...], str]:
    """Return the network, the names of its new tensors, and where the others came from."""
    classes, path = len(labels), settings.init.path
    if not path:
        network = build(settings.network(classes))
        tell("Starting weights: random.")
        return network, tuple(network.state_dict()), "random"
    found, state, _ = weights.load_with_report(path)
    config = settings.network(classes)
    if not settings.model:
        config = dataclasses.replace(found, num_classes=classes)
    network = build(config)
    report = take_over(
        network,
        state,
        labels=labels,
        source_labels=labels_of(Path(path), found),
        classifier=settings.init.classifier,
    )
    tell(str(report))
    return network, report.rebuilt, Path(path).name


def _settle_batch_norm(
    network: DeepLab,
    fresh: tuple[str, ...],
    settings: Settings,
    feed: Feed,
    processes: Processes,
    tell: Callable[[str], None],
) -> None:
    """Give batch norms that are new, or came folded, statistics; freeze them or train them."""
    pictures: list[torch.Tensor] = []
    if settings.init.path:
        # Every process looks at the pictures of the first, so that all stay equal.
        first = dataclasses.replace(processes, rank=0)
        stream = feed.batches(settings, network.config, first)(0)
        pictures = [batch.image for batch in itertools.islice(stream, _MEASURED)]
        norms = measure_statistics(network, fresh, pictures, processes.device)
        seen = len(pictures) * feed.share
        tell(f"Batch norm: {norms} new ones measured on {seen} pictures.")
    tell(choose_batch_norm(network, settings.run, processes, pretrained=bool(pictures)))
    if (
        pictures
        and not network.batch_norm_frozen
        and restore_statistics(network, pictures, processes.device)
    ):
        tell("Batch norm: it was folded in the starting weights; its statistics are measured anew.")
