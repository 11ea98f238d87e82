"""From settings to a trained network: open the data, build, start from weights, run the loop."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deeplab import weights
from deeplab.data.sample import Dataset
from deeplab.errors import InputError
from deeplab.labels import LabelSet
from deeplab.models import DeepLab, DeepLabConfig, build
from deeplab.models.timm_encoder import TimmEncoder
from deeplab.photo.images import InputSpec
from deeplab.training.auxiliary import attach_auxiliary
from deeplab.training.checkpoint import (
    LAST,
    check_checkpoint,
    find_lost_best,
    forget_best,
    load_checkpoint,
)
from deeplab.training.feed import Feed, open_feed
from deeplab.training.first_layer import adapt_channels, describe_adaptation
from deeplab.training.fit import can_fit, fit_classifier
from deeplab.training.folder import RunFolder
from deeplab.training.guard import failures_in_words, interrupt_on_termination
from deeplab.training.initialise import (
    choose_config,
    classifier_rows,
    locate_start,
    take_over,
)
from deeplab.training.judge import DatasetJudge
from deeplab.training.loop import NOBODY, Callbacks, Surroundings, train
from deeplab.training.normalisation import (
    choose_batch_norm,
    measure_statistics,
    restore_statistics,
)
from deeplab.training.one_logit import check_one_logit
from deeplab.training.optimiser import classifier_layers
from deeplab.training.own import find_pieces
from deeplab.training.processes import Processes, join_processes
from deeplab.training.settings import Settings, write_toml
from deeplab.training.state import Progress
from deeplab.training.teacher import open_teacher
from deeplab.weights.release import labels_of

_SILENCE = 4.0  # seconds after which the fit says how far it is
_MEASURED = 4  # steps whose pictures give new batch norms their first statistics


@dataclass(frozen=True, kw_only=True)
class Start:
    """The network before the first step.

    Attributes:
        network: built, with its first weights.
        origin: where they came from, in a word.
        fresh: names of the tensors that did not come from there.
        knows_classes: whether it can be judged: no classifier row is random.
        known: names of the classes whose classifier rows came from there.
        rows: (K', D + 1), the classifier of the starting weights, of whatever classes, and its
            biases.
    """

    network: DeepLab
    origin: str
    fresh: tuple[str, ...]
    knows_classes: bool
    known: tuple[str, ...] = ()
    rows: torch.Tensor | None = None


def run_experiment(
    settings: Settings,
    folder: Path,
    *,
    tell: Callable[[str], None] = print,
    callbacks: Callbacks = NOBODY,
    datasets: tuple[Dataset, Dataset] | None = None,
) -> Progress:
    """Train what the settings say, resuming where ``folder`` holds a checkpoint.

    ``folder`` then holds last.pt (to resume), NAME.safetensors and NAME.json (the best weights),
    recipe.toml (the effective settings), log.txt, history.csv with its plot, and predictions/.
    Under ``torchrun`` every process calls this with the same arguments. ``datasets``, to learn from
    and to judge by, stand in place of ``data.path``.

    Raises:
        InputError, DataError, WeightsError: the settings, data or starting weights do not fit,
            or the folder belongs to another training.
        TrainingError: the training cannot go on.
    """
    with join_processes(settings.run.device) as processes, failures_in_words():
        alone = interrupt_on_termination() if processes.count == 1 else contextlib.nullcontext()
        if not processes.first:
            place = RunFolder(folder, lambda text: None)
            return _run(settings, place, processes, callbacks, datasets)
        with alone, RunFolder(folder, tell) as place:
            return _run(settings, place, processes, callbacks, datasets)


def _run(
    settings: Settings,
    place: RunFolder,
    processes: Processes,
    callbacks: Callbacks,
    datasets: tuple[Dataset, Dataset] | None,
) -> Progress:
    tell = place.tell
    find_pieces(settings)
    feed = processes.together(lambda: open_feed(settings, processes, tell, datasets))
    identity = feed.identity()
    saved = load_checkpoint(place.path)
    torch.manual_seed(settings.run.seed)
    if saved is not None:
        changes = check_checkpoint(saved, settings, identity, place.path)
        start = _continue(saved, feed.labels)
        tell(f"Resuming after step {saved['progress']['step']}.")
        if changes:
            tell(f"Changed since: {', '.join(changes)}.")
        if lost := find_lost_best(saved, settings, place.path):
            best = Progress(**saved["progress"]).best_in_words
            tell(f"The weights of the {best} are lost: {lost} The best from here on are kept.")
            saved = forget_best(saved)
    else:
        if (place.path / f"{settings.name}.json").is_file():
            tell(
                f"There is no {LAST} in {place.path}, so this training begins anew, and will "
                f"replace {settings.name}.json there."
            )
        start = _start(settings, feed, tell)
    network = start.network
    if isinstance(network.backbone, TimmEncoder):
        tell(network.backbone.describe())
    resumed = saved is not None
    if settings.loss.auxiliary:
        attach_auxiliary(network)
    _settle_batch_norm(start, settings, feed, processes, resumed=resumed, tell=tell)
    if settings.loss.one_logit:
        check_one_logit(network)
    if settings.init.fit and not resumed:
        start = _fit(start, settings, feed, processes, tell)
    if not settings.run.steps and not resumed and not start.knows_classes:
        raise InputError(
            "run.steps: 0 releases the start as it is, but this one does not know the classes; "
            "set init.fit = true, or take steps."
        )
    teacher = None
    if settings.teacher.path:
        teacher = open_teacher(settings.teacher, feed.labels)
        tell(f"Teacher: {Path(settings.teacher.path).name}.")
    if processes.first:
        place.begin(write_toml(settings))
    around = Surroundings(
        folder=place.path,
        processes=processes,
        judge=DatasetJudge(settings, feed, processes, place.path, start.origin, tell),
        tell=tell,
        callbacks=callbacks,
        papers={
            "recipe": settings.to_dict(),
            "config": network.config.to_dict(),
            "identity": identity,
            "origin": start.origin,
            "kept classes": list(start.known),
        },
        saved=saved,
        judge_start=start.knows_classes,
    )
    _slow_kept_rows(network, feed.labels.indices(start.known), settings)
    batches = feed.batches(settings, network.config, processes)
    progress = train(
        network,
        settings,
        batches=batches,
        around=around,
        teacher=teacher,
        class_weights=feed.class_weights,
    )
    ended = [f"{progress.step} of {settings.run.steps} steps", progress.best_in_words]
    reason = f" Stopped: {progress.stopped}." if progress.stopped else ""
    tell("; ".join(filter(None, ended)) + f".{reason}")
    return progress


def _continue(saved: Mapping[str, Any], labels: LabelSet) -> Start:
    """Return the network of a checkpoint; the loop gives it its weights."""
    config = DeepLabConfig.from_dict(saved["config"])
    if config.num_classes != len(labels):
        raise InputError(
            f"checkpoint: its network has {config.num_classes} classes, the data {len(labels)}."
        )
    return Start(
        network=build(config),
        origin=saved["origin"],
        fresh=(),
        knows_classes=False,
        known=tuple(saved.get("kept classes", ())),
    )


def _start(settings: Settings, feed: Feed, tell: Callable[[str], None]) -> Start:
    """Return the network with random weights, or with those of ``init.path``."""
    labels, path = feed.labels, settings.init.path
    classes, measured = len(labels), {} if feed.measured is None else feed.measured.model
    if not path:
        network = build(settings.network(classes, **measured))
        tell("Starting weights: random.")
        every = tuple(network.state_dict())
        return Start(network=network, origin="random", fresh=every, knows_classes=False)
    found, state, _ = weights.load_with_report(
        file := locate_start(path), backbone=settings.model.get("backbone")
    )
    network = build(choose_config({**measured, **settings.model}, found, classes))
    if feed.measured is not None:
        state = adapt_channels(state, network, found, feed.measured.bands.shown)
        tell(describe_adaptation(found.channels, network.config.channels))
    source = labels_of(file, found)
    # A logit among others is none by itself, and none by itself one among others.
    alike = source.overlap == labels.overlap
    report = take_over(
        network,
        state,
        labels=labels,
        source_labels=source,
        classifier=settings.init.classifier and alike,
    )
    tell(str(report))
    return Start(
        network=network,
        origin=Path(path).name,
        fresh=report.rebuilt,
        knows_classes=len(report.classes) == classes,
        known=report.classes,
        rows=None if source.overlap else classifier_rows(state),
    )


def _fit(
    start: Start,
    settings: Settings,
    feed: Feed,
    processes: Processes,
    tell: Callable[[str], None],
) -> Start:
    """Compute the rows of the classes at once; every process does it alike."""
    network, config = start.network, start.network.config
    if not can_fit(network) or not settings.init.path:
        tell(
            "Fit: left out; it needs starting weights and a network whose last layer is one 1×1 "
            "convolution at one scale."
        )
        return start
    assert config.pixel_mean is not None
    assert config.pixel_std is not None
    height, width = settings.data.frame or settings.data.crop_size
    frame = InputSpec(
        height=height,
        width=width,
        mean=config.pixel_mean,
        std=config.pixel_std,
        bands=None if feed.measured is None else feed.measured.bands,
    )
    tell("Fit: the rows of the classes are computed from the features of the training photos …")
    told = time.perf_counter()

    def watch(done: int, total: int) -> None:
        nonlocal told
        if done < total and time.perf_counter() - told > _SILENCE:
            told = time.perf_counter()
            tell(f"Fit: {done}/{total} photos")

    report = fit_classifier(
        network,
        feed.training,
        frame=frame,
        known=start.known,
        start_rows=start.rows,
        device=processes.device,
        seed=settings.run.seed,
        watch=watch,
    )
    tell(str(report))
    return dataclasses.replace(start, knows_classes=True, known=report.kept)


def _slow_kept_rows(network: DeepLab, kept: Sequence[int], settings: Settings) -> None:
    """Let classifier rows that came from the start learn like the backbone; new ones learn faster.

    One layer holds both, so the gradient of a kept row is divided by what multiplies its rate.
    """
    faster = settings.optimiser.head_multiplier
    if not kept or faster == 1.0 or not settings.init.fit:
        return
    scale = torch.ones(network.config.num_classes)
    scale[list(kept)] = 1 / faster

    def slow(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * scale.to(gradient).reshape(-1, *[1] * (gradient.ndim - 1))

    for layer in classifier_layers(network):
        for parameter in layer.parameters():
            parameter.register_hook(slow)  # type: ignore[no-untyped-call]


def _settle_batch_norm(
    start: Start,
    settings: Settings,
    feed: Feed,
    processes: Processes,
    *,
    resumed: bool,
    tell: Callable[[str], None],
) -> None:
    """Give batch norms that are new, or came folded, statistics; freeze them or train them."""
    network, device, pretrained = start.network, processes.device, bool(settings.init.path)
    pictures: list[torch.Tensor] = []
    is_new = any(name.endswith(".running_mean") for name in start.fresh)
    if pretrained and not resumed and (is_new or settings.run.batch_norm != "frozen"):
        # Every process looks at the pictures of the first, so that all stay equal.
        first = dataclasses.replace(processes, rank=0)
        stream = feed.batches(settings, network.config, first)(0)
        pictures = [batch.image for batch in itertools.islice(stream, _MEASURED)]
        norms = measure_statistics(network, start.fresh, pictures, device)
        seen = len(pictures) * feed.share
        tell(f"Batch norm: {norms} new ones measured on {seen} pictures.")
    tell(choose_batch_norm(network, settings.run, processes, pretrained=pretrained))
    if network.batch_norm_frozen or not pictures:
        return
    if restore_statistics(network, pictures, device):
        tell("Batch norm: it was folded in the starting weights; its statistics are measured anew.")
