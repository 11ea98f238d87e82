"""What a training is fed: the pictures, how their classes count, and the batches of every step."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from deeplab.data import open_dataset
from deeplab.data.channels import Measured, channels_of, measure
from deeplab.data.check import check
from deeplab.data.loader import Batch, train_loader
from deeplab.data.memory import MemoryDataset
from deeplab.data.mixing import Augmented
from deeplab.data.repeats import RepeatedDataset
from deeplab.data.sample import Dataset, join
from deeplab.data.transforms import ColourJitter, RareClassCrops, ResizeToRange, TrainTransform
from deeplab.errors import DataError, InputError
from deeplab.labels import LabelSet
from deeplab.models import DeepLabConfig
from deeplab.training.augment_settings import AugmentSettings, augment
from deeplab.training.balance import (
    choose_class_weights,
    count_classes,
    rare_classes,
    repeat_factors,
)
from deeplab.training.folds import split_fold
from deeplab.training.processes import Processes
from deeplab.training.progress_line import Patience
from deeplab.training.settings import DataSettings, Settings


@dataclass(frozen=True, kw_only=True)
class Feed:
    """The data of a training, opened and looked at.

    Attributes:
        training: the pictures to learn from.
        validation: the pictures that decide which weights are best.
        class_weights: (K,) float32 of the loss, or None.
        rare: the ids of the classes over which crops are laid.
        share: pictures per step of one process.
        measured: what was measured on pictures that are no photos; None of photos.
    """

    training: Dataset
    validation: Dataset
    class_weights: torch.Tensor | None
    rare: tuple[int, ...]
    share: int
    measured: Measured | None = None

    @property
    def labels(self) -> LabelSet:
        """The classes."""
        return self.training.labels

    def identity(self) -> dict[str, Any]:
        """Return what makes this data this data and no other: classes, and each list's print.

        The lists count with the sizes of their photo files, not with the folder's name: a data
        set may be moved, and its masks mended.
        """
        identity: dict[str, Any] = {
            "classes": list(self.labels.names),
            "pictures to learn from": _fingerprint(self.training),
            "pictures to judge by": _fingerprint(self.validation),
        }
        if self.measured is not None:
            identity["channels"] = str(self.measured)
        if self.labels.overlap:
            identity["overlap"] = True
        return identity

    def transform(self, settings: Settings, config: DeepLabConfig) -> TrainTransform | Augmented:
        """Return what happens to each pair on its way into a batch."""
        plain = _transform(settings.data, config, self.rare)
        return augment(plain, settings.augment, self.labels)

    def batches(
        self, settings: Settings, config: DeepLabConfig, processes: Processes
    ) -> Callable[[int], Iterator[Batch]]:
        """Return what yields, from a given step on, the batches of one process."""
        transform = self.transform(settings, config)

        def batches(first_step: int) -> Iterator[Batch]:
            return iter(
                train_loader(
                    self.training,
                    transform,
                    batch_size=self.share,
                    steps=settings.run.steps,
                    seed=settings.run.seed,
                    first_step=first_step,
                    workers=settings.data.workers,
                    rank=processes.rank,
                    world_size=processes.count,
                    pin_memory=processes.device.type == "cuda",
                )
            )

        return batches


def open_feed(
    settings: Settings,
    processes: Processes,
    tell: Callable[[str], None],
    datasets: tuple[Dataset, Dataset] | None = None,
) -> Feed:
    """Open the data set, let the doctor look at it, and count what the settings ask to be counted.

    Args:
        settings: of the experiment.
        processes: this one and the others.
        tell: where sentences go.
        datasets: to learn from and to judge by, in place of ``data.path``; None opens that.

    Raises:
        InputError, DataError: the settings do not fit the data, or the data is broken.
    """
    data, share = settings.data, _share(settings, processes)
    if datasets is None:
        tell(f"Data: opening {data.path} …")
        datasets = _open_files(data, processes, tell)
    if data.folds:
        datasets = split_fold(datasets[0], fold=data.fold, folds=data.folds)
    training, validation = files = datasets
    labels = training.labels
    if validation.labels.names != labels.names or validation.labels.overlap != labels.overlap:
        raise DataError(
            f"data: the classes to judge by ({', '.join(validation.labels.names)}) are not those "
            f"to learn from ({', '.join(labels.names)})."
        )
    for split in files:
        if len(split) == 0:
            raise DataError(f"data: the split '{split.split}' of {data.path} holds no picture.")
    _check_heads(settings, labels)
    measured = _measure_channels(training, validation, settings)
    if measured is not None:
        tell(f"Data: {measured}.")
    tell(
        f"Data: {len(training)} pictures to learn from ('{training.split}'), {len(validation)} to "
        f"judge by ('{validation.split}'), {len(labels)} classes."
    )
    rare = tuple(labels.indices(data.rare_classes))
    counts = None
    if settings.loss.class_weights == "auto" or (data.rare_class_crops and not rare):
        counts = count_classes(training)
    if counts is not None and not rare:
        rare = rare_classes(counts)
    if data.rare_class_crops:
        chosen = ", ".join(labels.names[index] for index in rare) or "none, no class is rare"
        tell(f"Crops over rare classes: {chosen}.")
    class_weights = choose_class_weights(settings.loss.class_weights, labels, counts)
    if class_weights is not None:
        pairs = zip(labels.names, class_weights, strict=True)
        tell("Class weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in pairs) + ".")
    if data.memory_gb:
        budget = int(data.memory_gb * 2**30)
        read = Patience(tell, "Data: {done} of {total} pictures read into memory")
        training = MemoryDataset(training, max_bytes=budget, progress=read)
        validation = MemoryDataset(
            validation, max_bytes=max(budget - training.bytes, 0), progress=read
        )
    if data.repeat_threshold:
        factors = repeat_factors(files[0], data.repeat_threshold)
        training = RepeatedDataset(training, factors, seed=settings.run.seed)
        tell(
            f"Repeats: {len(training)} pictures an epoch, each {factors.min():.1f} to "
            f"{factors.max():.1f} times."
        )
    return Feed(
        training=training,
        validation=validation,
        class_weights=None if class_weights is None else torch.from_numpy(class_weights),
        rare=rare,
        share=share,
        measured=measured,
    )


def _check_heads(settings: Settings, labels: LabelSet) -> None:
    """Refuse at once what is for classes that exclude each other, where they do not.

    Raises:
        InputError: names the setting.
    """
    data, loss = settings.data, settings.loss
    special = "loss.one_logit" if loss.one_logit else "overlapping classes" * labels.overlap
    if not special:
        return
    if loss.one_logit and (labels.overlap or len(labels) != 2 or labels.background != 0):
        raise InputError(
            "loss.one_logit: is for two classes that exclude each other, the background and one "
            f"object; these are {', '.join(labels.names)}."
        )
    more = settings.augment
    geometric = (
        more.rotate, more.perspective, more.mosaic, more.copy_paste, more.rand_augment,
        more.pipeline, more.own,
    )  # fmt: skip
    asked = {
        "augment": any(geometric) and labels.overlap,  # but blur, noise and jpeg
        "loss.class_weights": loss.class_weights == "auto",
        "loss.top_k": loss.top_k < 1,
        "loss.terms.cross_entropy": bool(loss.terms.get("cross_entropy")),
        "data.rare_class_crops": bool(data.rare_class_crops) and labels.overlap,
        "data.repeat_threshold": bool(data.repeat_threshold) and labels.overlap,
        "teacher.path": bool(settings.teacher.path),
        "run.validate_scales": tuple(settings.run.validate_scales) != (1.0,),
        "run.validate_flip": settings.run.validate_flip,
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise InputError(f"{name}: does not go with {special}; leave it out.")


def _measure_channels(
    training: Dataset, validation: Dataset, settings: Settings
) -> Measured | None:
    """Measure pictures that are no photos; None of photos.

    Raises:
        InputError: a setting is for photos.
        DataError: the two splits have different channels; and as ``measure``.
    """
    channels = channels_of(training)
    if channels_of(validation) != channels:
        raise DataError(
            f"data: the pictures to learn from have {channels or 3} channels, those to judge by "
            f"{channels_of(validation) or 3}."
        )
    if not channels:
        return None
    data = settings.data
    if settings.augment != AugmentSettings():
        raise InputError(
            f"augment: is for photos, but these pictures have {channels} channels of their own "
            "numbers; leave it out."
        )
    if data.colour_jitter:
        raise InputError(
            f"data.colour_jitter: is for photos, but these pictures have {channels} channels of "
            "their own numbers; set it to 0."
        )
    return measure(training)  # type: ignore[arg-type]


def _open_files(
    data: DataSettings, processes: Processes, tell: Callable[[str], None]
) -> tuple[Dataset, Dataset]:
    """Open both splits, and let the doctor look at them."""
    if not data.path:
        raise InputError("data.path: is missing; give the folder of a data set (--data).")
    training, validation = (
        open_dataset(data.path, split=split) for split in (data.train, data.val)
    )
    training = join([training, *(open_dataset(path, split="train") for path in data.more)])
    if data.check and processes.first:
        seen = Patience(tell, "Data: {done} of {total} pictures looked at")
        report = check([training, validation], progress=seen)
        for sentence in report.assumed:
            tell(f"Data: assumed: {sentence}.")
        for fault in report.faults:
            tell(f"Data: {fault}")
        report.raise_if_broken()
    return training, validation


def _fingerprint(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for name, photo in itertools.zip_longest(dataset.ids, dataset.images):
        size = photo.stat().st_size if photo is not None and photo.is_file() else 0
        digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
    return f"{len(dataset)} ({digest.hexdigest()[:16]})"


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


def _transform(data: DataSettings, config: DeepLabConfig, rare: tuple[int, ...]) -> TrainTransform:
    """Return what happens to each pair on its way into a batch."""
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
    return TrainTransform(
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
