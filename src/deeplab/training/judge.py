"""Validation: scores, pictures, the warning of collapse, and the release pair of the best."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deeplab.data.masks import UInt8
from deeplab.data.sample import Dataset
from deeplab.evaluation.pictures import draw_comparison
from deeplab.evaluation.protocol import Evaluation, TorchPredictor, evaluate
from deeplab.files import replacing
from deeplab.models import DeepLab, DeepLabConfig
from deeplab.photo.images import InputSpec
from deeplab.training.auxiliary import without_auxiliary
from deeplab.training.feed import Feed
from deeplab.training.guard import collapse_warning
from deeplab.training.loop import Score
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
        names = settings.run.validate_classes
        self.classes = self.dataset.labels.indices(names) if names else None

    def validate(
        self, network: DeepLab, step: int, watch: Callable[[int, int], bool]
    ) -> Score | None:
        """Score the network on the validation split, over all processes; None where given up."""
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
            rows.append((shown, sample.label, predictor(sample.image)))
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
            without_auxiliary(network.state_dict()),
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
