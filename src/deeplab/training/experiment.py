"""From settings to a trained network: open the data, build, start from weights, run the loop."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from deeplab import weights
from deeplab.data import open_dataset
from deeplab.data.check import check
from deeplab.data.loader import Batch, train_loader
from deeplab.data.memory import MemoryDataset
from deeplab.data.sample import Dataset
from deeplab.data.transforms import ColourJitter, RareClassCrops, ResizeToRange, TrainTransform
from deeplab.errors import InputError
from deeplab.evaluation.pictures import draw_comparison
from deeplab.evaluation.protocol import Evaluation, TorchPredictor, evaluate
from deeplab.files import replacing
from deeplab.models import DeepLab, DeepLabConfig, build
from deeplab.photo.images import InputSpec
from deeplab.training.balance import choose_class_weights, count_classes, rare_classes
from deeplab.training.guard import collapse_warning
from deeplab.training.initialise import take_over
from deeplab.training.loop import Progress, Score, train
from deeplab.training.normalisation import (
    choose_batch_norm,
    measure_statistics,
    restore_statistics,
)
from deeplab.training.processes import Processes, join_processes
from deeplab.training.settings import Settings, write_toml
from deeplab.training.teacher import open_teacher
from deeplab.weights.release import labels_of, save

_SHOWN = 4  # pictures of the validation split that are drawn each time
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
    run, data = settings.run, settings.data
    share = _share(settings, processes)
    files = [open_dataset(data.path, split=split) for split in (data.train, data.val)]
    if data.check and processes.first:
        report = check(files)
        for fault in report.faults:
            tell(f"Data: {fault}")
        report.raise_if_broken()
    dataset: Dataset
    validation: Dataset
    dataset, validation = files
    classes = len(dataset.labels)
    tell(
        f"Data: {len(dataset)} pictures to learn from ('{data.train}'), {len(validation)} to "
        f"judge by ('{data.val}'), {classes} classes."
    )
    rare = tuple(dataset.labels.indices(data.rare_classes))
    counts = None
    if "auto" in settings.loss.class_weights or (data.rare_class_crops and not rare):
        counts = count_classes(dataset)
    if counts is not None and not rare:
        rare = rare_classes(counts)
    if data.rare_class_crops:
        chosen = (
            ", ".join(dataset.labels.names[index] for index in rare) or "none, no class is rare"
        )
        tell(f"Crops over rare classes: {chosen}.")
    class_weights = choose_class_weights(settings.loss.class_weights, counts, classes)
    if class_weights is not None:
        pairs = zip(dataset.labels.names, class_weights, strict=True)
        tell("Class weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in pairs) + ".")
    if data.memory_gb:
        budget = int(data.memory_gb * 2**30)
        dataset = MemoryDataset(dataset, max_bytes=budget)
        validation = MemoryDataset(validation, max_bytes=max(budget - dataset.bytes, 0))

    torch.manual_seed(run.seed)
    network, fresh, started = _start(settings, dataset, tell)
    batches = _batches(settings, dataset, network.config, rare, processes, share)
    pictures: list[torch.Tensor] = []
    if settings.init.path:
        # Every process looks at the pictures of the first, so that all stay equal.
        first = dataclasses.replace(processes, rank=0)
        stream = _batches(settings, dataset, network.config, rare, first, share)(0)
        pictures = [batch.image for batch in itertools.islice(stream, _MEASURED)]
        norms = measure_statistics(network, fresh, pictures, processes.device)
        tell(f"Batch norm: {norms} new ones measured on {len(pictures) * share} pictures.")
    tell(choose_batch_norm(network, run, processes, pretrained=bool(pictures)))
    if (
        pictures
        and not network.batch_norm_frozen
        and restore_statistics(network, pictures, processes.device)
    ):
        tell("Batch norm: it was folded in the starting weights; its statistics are measured anew.")

    if processes.first:
        (folder / "predictions").mkdir(parents=True, exist_ok=True)
        with replacing(folder / "recipe.toml") as partial:
            partial.write_text(write_toml(settings), encoding="utf-8")
    teacher = None
    if settings.teacher.path:
        teacher = open_teacher(settings.teacher, files[0].labels)
        tell(f"Teacher: {Path(settings.teacher.path).name}.")
    judge = _Judge(settings, validation, processes, folder, started, tell)
    progress = train(
        network,
        settings,
        batches=batches,
        validate=judge.validate,
        release=judge.release,
        folder=folder,
        processes=processes,
        teacher=teacher,
        class_weights=None if class_weights is None else torch.from_numpy(class_weights),
        tell=tell,
    )
    reason = f" Stopped: {progress.stopped}." if progress.stopped else ""
    tell(f"{progress.step} steps; best mIoU {progress.best:.4f} at {progress.best_step}.{reason}")
    return progress


def _share(settings: Settings, processes: Processes) -> int:
    """Return the pictures per step of one process."""
    run = settings.run
    parts = processes.count * run.accumulate
    if run.batch_size % parts:
        raise InputError(
            f"run.batch_size: {run.batch_size} cannot be shared by {processes.count} processes in "
            f"{run.accumulate} parts each; make it a multiple of {parts}."
        )
    return run.batch_size // processes.count


def _start(
    settings: Settings, dataset: Dataset, tell: Callable[[str], None]
) -> tuple[DeepLab, tuple[str, ...], str]:
    """Return the network, the names of its new tensors, and where the others came from."""
    classes, path = len(dataset.labels), settings.init.path
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
        labels=dataset.labels,
        source_labels=labels_of(Path(path), found),
        classifier=settings.init.classifier,
    )
    tell(str(report))
    return network, report.rebuilt, Path(path).name


def _batches(
    settings: Settings,
    dataset: Dataset,
    config: DeepLabConfig,
    rare: tuple[int, ...],
    processes: Processes,
    share: int,
) -> Callable[[int], Iterator[Batch]]:
    data, run = settings.data, settings.run
    resize = None
    if data.resize_range:
        shorter, longer, *factor = data.resize_range
        resize = ResizeToRange(
            min_size=shorter, max_size=longer, factor=factor[0] if factor else None
        )
    jitter, rare_class_crops = None, None
    if data.colour_jitter:
        jitter = ColourJitter(
            brightness=data.colour_jitter,
            contrast=data.colour_jitter,
            saturation=data.colour_jitter,
        )
    if data.rare_class_crops and rare:
        rare_class_crops = RareClassCrops(classes=rare, probability=data.rare_class_crops)
    assert config.pixel_mean is not None
    transform = TrainTransform(
        crop_size=data.crop_size,
        resize=resize,
        min_scale=data.scale_range[0],
        max_scale=data.scale_range[1],
        scale_step=data.scale_step,
        flip=data.flip,
        mean_pixel=config.pixel_mean,
        colour_jitter=jitter,
        rare_class_crops=rare_class_crops,
    )

    def batches(first_step: int) -> Iterator[Batch]:
        return iter(
            train_loader(
                dataset,
                transform,
                batch_size=share,
                steps=run.steps,
                seed=run.seed,
                first_step=first_step,
                workers=data.workers,
                rank=processes.rank,
                world_size=processes.count,
                pin_memory=processes.device.type == "cuda",
            )
        )

    return batches


class _Judge:
    """Validates: counts, draws some predictions, warns of collapse, writes the release pair."""

    def __init__(
        self,
        settings: Settings,
        dataset: Dataset,
        processes: Processes,
        folder: Path,
        started: str,
        tell: Callable[[str], None],
    ) -> None:
        self.settings, self.dataset, self.processes = settings, dataset, processes
        self.folder, self.started, self.tell = folder, started, tell
        self.scores: dict[str, object] = {}
        names = settings.run.validate_classes
        self.classes = dataset.labels.indices(names) if names else None

    def validate(self, network: DeepLab, step: int) -> Score:
        """Score the network on the validation split, over all processes."""
        run, processes = self.settings.run, self.processes
        predictor = TorchPredictor(
            network=network,
            labels=self.dataset.labels,
            name=self.settings.name,
            scales=run.validate_scales,
            flip=run.validate_flip,
            output_stride=run.validate_output_stride or None,
            bfloat16=run.precision == "bfloat16",
            frame=self._input_spec(network.config) if run.validate_frame else None,
        )
        part = evaluate(predictor, self.dataset, rank=processes.rank, count=processes.count)
        found = functools.reduce(Evaluation.merge, processes.gather(part))
        if processes.first:
            self._draw(predictor, step)
        totals = found.confusion.totals
        self.scores = {
            "miou": found.miou,
            "pixel_accuracy": found.accuracy,
            "frequency_weighted_iou": float(totals.frequency_weighted_iou),
            "iou": {
                name: None if np.isnan(iou) else float(iou)
                for name, iou in zip(found.labels.names, totals.iou, strict=True)
            },
            "protocol": found.protocol,
        }
        miou = float(totals.mean_iou(self.classes))
        over = f" over {len(self.classes)} classes" if self.classes else ""
        self.tell(f"step {step}: mIoU {miou:.4f}{over}, pixel accuracy {found.accuracy:.4f}")
        warning = collapse_warning(totals, found.labels)
        if warning:
            self.tell(warning)
        return Score(miou=miou, accuracy=found.accuracy)

    def _input_spec(self, config: DeepLabConfig) -> InputSpec:
        assert config.pixel_mean is not None
        assert config.pixel_std is not None
        height, width = self.settings.data.frame or self.settings.data.crop_size
        return InputSpec(height=height, width=width, mean=config.pixel_mean, std=config.pixel_std)

    def _draw(self, predictor: TorchPredictor, step: int) -> None:
        rows = []
        for index in np.linspace(0, len(self.dataset) - 1, _SHOWN).astype(int):
            sample = self.dataset[int(index)]
            rows.append((sample.image, sample.label, predictor(sample.image)))
        picture = draw_comparison(rows, self.dataset.labels)
        with replacing(self.folder / "predictions" / f"step_{step:06d}.png") as partial:
            picture.save(partial)

    def release(self, network: DeepLab, progress: Progress) -> None:
        """Write the pair of the weights that were just judged the best."""
        settings, config = self.settings, network.config
        if settings.run.validate_output_stride:
            config = dataclasses.replace(config, output_stride=settings.run.validate_output_stride)
        save(
            self.folder / settings.name,
            config,
            network.state_dict(),
            labels=self.dataset.labels,
            input_spec=self._input_spec(config),
            provenance={
                "recipe": settings.to_dict(),
                "step": progress.step,
                "started_from": self.started,
            },
            licence=settings.licence or None,
            scores={self.settings.data.val: self.scores},
        )
