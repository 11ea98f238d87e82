"""Validation: scores, pictures, the warning of collapse, and the release pair of the best."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deeplab.data.check_pictures import flatten
from deeplab.data.masks import UInt8
from deeplab.data.sample import Dataset
from deeplab.evaluation.overlap import OverlapCounts
from deeplab.evaluation.pictures import draw_comparison
from deeplab.evaluation.protocol import Evaluation, TorchPredictor, evaluate
from deeplab.files import replacing
from deeplab.models import DeepLab, DeepLabConfig
from deeplab.photo.images import InputSpec
from deeplab.photo.overlapping import find_masks
from deeplab.training.auxiliary import without_auxiliary
from deeplab.training.feed import Feed
from deeplab.training.guard import collapse_warning
from deeplab.training.loop import Score
from deeplab.training.one_logit import release_state
from deeplab.training.processes import Processes
from deeplab.training.settings import Settings
from deeplab.training.state import Progress
from deeplab.weights.release import save

_SHOWN = 4  # pictures of the validation split that are drawn each time


class _GivenUpError(Exception):
    """Somebody wants the training to end before the validation does."""


class DatasetJudge:
    """Validates: counts, draws some predictions, warns of collapse, writes the release pair."""

    def __init__(
        self,
        settings: Settings,
        feed: Feed,
        processes: Processes,
        folder: Path,
        started: str,
        tell: Callable[[str], None],
    ) -> None:
        self.settings, self.processes = settings, processes
        self.dataset: Dataset = feed.validation
        self.bands = None if feed.measured is None else feed.measured.bands
        self.folder, self.started, self.tell = folder, started, tell
        self.scores: dict[str, object] = {}
        self.thresholds: tuple[float, ...] = ()
        names = settings.run.validate_classes
        self.classes = self.dataset.labels.indices(names) if names else None

    def validate(
        self, network: DeepLab, step: int, watch: Callable[[int, int], bool]
    ) -> Score | None:
        """Score the network on the validation split, over all processes; None where given up."""
        run, processes = self.settings.run, self.processes
        independent = self.dataset.labels.overlap or self.settings.loss.one_logit
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
        if independent:
            return self._validate_each(predictor, step, watch)
        parts = processes.gather(self._count(predictor, watch))
        if any(part is None for part in parts):
            return None
        found: Evaluation = functools.reduce(Evaluation.merge, parts)
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
        when = f"step {step}" if step else "start"
        self.tell(f"{when}: mIoU {miou:.4f}{over}, pixel accuracy {found.accuracy:.4f}")
        warning = collapse_warning(totals, found.labels)
        if warning:
            self.tell(warning)
        iou = zip(found.labels.names, map(float, totals.iou), strict=True)
        return Score(
            miou=miou,
            accuracy=found.accuracy,
            iou={name: value for name, value in iou if not np.isnan(value)},
        )

    def _validate_each(
        self, predictor: TorchPredictor, step: int, watch: Callable[[int, int], bool]
    ) -> Score | None:
        """Score classes one by one, and choose the threshold of each; None where given up."""
        processes = self.processes
        parts = processes.gather(self._count_each(predictor, watch))
        if any(part is None for part in parts):
            return None
        found: OverlapCounts = functools.reduce(OverlapCounts.merge, parts)
        chosen = found.choose()
        self.thresholds = tuple(found.edges[edge] for edge in chosen)
        names, ious = self.dataset.labels.names, found.ious[range(len(chosen)), chosen]
        if self.settings.loss.one_logit:
            ious = np.concatenate([found.complement_iou(chosen[0]), ious])
        iou = {name: float(value) for name, value in zip(names, ious, strict=True)}
        scored = [iou[names[i]] for i in self.classes or range(len(names))]
        known = [value for value in scored if not np.isnan(value)]
        miou = float(np.mean(known)) if known else 0.0
        accuracy = found.accuracy(chosen)
        self.scores = {
            "miou": miou,
            "pixel_accuracy": accuracy,
            "iou": {name: None if np.isnan(value) else value for name, value in iou.items()},
            "thresholds": dict(zip(names[-len(chosen) :], self.thresholds, strict=True)),
            "protocol": {
                **predictor.describe(),
                "split": self.dataset.split,
                "pictures": len(self.dataset),
                "thresholds": "chosen on this split",
            },
        }
        if processes.first:
            self._draw(predictor, step)
        when = f"step {step}" if step else "start"
        levels = ", ".join(
            f"{name} {value:g}"
            for name, value in self.scores["thresholds"].items()  # type: ignore[attr-defined]
        )
        self.tell(f"{when}: mIoU {miou:.4f}, pixel accuracy {accuracy:.4f}; thresholds {levels}")
        return Score(
            miou=miou,
            accuracy=accuracy,
            iou={name: value for name, value in iou.items() if not np.isnan(value)},
        )

    def _count_each(
        self, predictor: TorchPredictor, watch: Callable[[int, int], bool]
    ) -> OverlapCounts | None:
        """Count this process's part of the pictures; None where that is given up."""
        processes, one_logit = self.processes, self.settings.loss.one_logit
        counts = OverlapCounts.none(1 if one_logit else len(self.dataset.labels))
        mine = range(processes.rank, len(self.dataset), processes.count)
        for done, index in enumerate(mine, 1):
            sample = self.dataset[index]
            look, label = predictor.look(sample.image), sample.label
            if one_logit:
                values = look.values[:, :, 1:] - look.values[:, :, :1]
                look, label = dataclasses.replace(look, values=values), label[:, :, None]
            counts.add(label, [look])
            if watch(done, len(mine)):
                return None
        return counts

    def _count(
        self, predictor: TorchPredictor, watch: Callable[[int, int], bool]
    ) -> Evaluation | None:
        """Judge this process's part of the pictures; None where that is given up."""
        processes, done = self.processes, 0
        mine = range(processes.rank, len(self.dataset), processes.count)

        def each(index: int, name: str, mask: UInt8) -> None:
            nonlocal done
            done += 1
            if watch(done, len(mine)):
                raise _GivenUpError

        try:
            return evaluate(predictor, self.dataset, indices=mine, each=each)
        except _GivenUpError:
            return None

    def _input_spec(self, config: DeepLabConfig) -> InputSpec:
        assert config.pixel_mean is not None
        assert config.pixel_std is not None
        height, width = self.settings.data.frame or self.settings.data.crop_size
        return InputSpec(
            height=height,
            width=width,
            mean=config.pixel_mean,
            std=config.pixel_std,
            bands=self.bands,
        )

    def _draw(self, predictor: TorchPredictor, step: int) -> None:
        rows = []
        for index in np.linspace(0, len(self.dataset) - 1, _SHOWN).astype(int):
            sample = self.dataset[int(index)]
            shown = sample.image if self.bands is None else self.bands.show(sample.image)
            label = sample.label
            if label.ndim == 3:
                label = flatten(label)
                looks = [predictor.look(sample.image)]
                _, mask = find_masks(looks, self.thresholds, *label.shape)
            else:
                mask = predictor(sample.image)
            rows.append((shown, label, mask))
        picture = draw_comparison(rows, self.dataset.labels)
        with replacing(self.folder / "predictions" / f"step_{step:06d}.png") as partial:
            picture.save(partial)

    def release(self, network: DeepLab, progress: Progress) -> None:
        """Write the pair of the weights that were just judged the best."""
        settings, config = self.settings, network.config
        if settings.run.validate_output_stride:
            config = dataclasses.replace(config, output_stride=settings.run.validate_output_stride)
        state = network.state_dict()
        if settings.loss.one_logit:
            state = release_state(network, self.thresholds[0])
        save(
            self.folder / settings.name,
            config,
            without_auxiliary(state),
            labels=self.dataset.labels,
            input_spec=self._input_spec(config),
            provenance={
                "recipe": settings.to_dict(),
                "step": progress.step,
                "started_from": self.started,
            },
            licence=settings.licence or None,
            scores={self.settings.data.judged_by: self.scores},
            thresholds=self.thresholds if self.dataset.labels.overlap else (),
        )
