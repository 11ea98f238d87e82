"""Scores from Python: ``deeplab.evaluate(model, data)``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deeplab.data import open_dataset
from deeplab.data.objects import ObjectDataset
from deeplab.data.sample import Dataset
from deeplab.evaluation.protocol import (
    Evaluation,
    FilePredictor,
    Predictor,
    open_predictor,
)
from deeplab.evaluation.protocol import evaluate as count
from deeplab.evaluation.report import to_dict, write_report
from deeplab.segmenter import Segmenter


class HasModel(Protocol):
    """What a training gives: :class:`deeplab.Run`."""

    @property
    def model(self) -> Path:
        """The release pair of its best weights."""


@dataclass(frozen=True, eq=False)
class Scores:
    """How good a network is on a data set; NaN where a class does not occur.

    Attributes:
        evaluation: the counts behind the scores.
    """

    evaluation: Evaluation
    _predictor: Predictor
    _dataset: Dataset

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur."""
        return self.evaluation.miou

    @property
    def accuracy(self) -> float:
        """Share of the labelled pixels with the right class."""
        return self.evaluation.accuracy

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % bootstrap interval of the mIoU over pictures; NaN of one alone."""
        return self.evaluation.interval()

    @property
    def iou(self) -> dict[str, float]:
        """IoU by class."""
        return self._by_name(self.evaluation.confusion.totals.iou)

    @property
    def precision(self) -> dict[str, float]:
        """Share of a class's predicted pixels that are right, by class."""
        return self._by_name(self.evaluation.confusion.totals.precision)

    @property
    def recall(self) -> dict[str, float]:
        """Share of a class's true pixels that are found, by class."""
        return self._by_name(self.evaluation.confusion.totals.recall)

    @property
    def f1(self) -> dict[str, float]:
        """Harmonic mean of precision and recall (Dice), by class."""
        return self._by_name(self.evaluation.confusion.totals.f1)

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """(K, K) int64 pixels: rows are the truth, columns the prediction."""
        return self.evaluation.confusion.counts

    @property
    def protocol(self) -> dict[str, Any]:
        """Everything that influences the scores."""
        return self.evaluation.protocol

    def to_dict(self) -> dict[str, Any]:
        """Return scores, counts and protocol as JSON knows them."""
        return to_dict(self.evaluation)

    def write_report(self, folder: str | PathLike[str]) -> Path:
        """Write report.html, report.json and pictures, and return the page's path.

        Raises:
            OutputError: the folder cannot be written.
        """
        return write_report(
            Path(folder), self.evaluation, predictor=self._predictor, dataset=self._dataset
        )

    def __repr__(self) -> str:
        low, high = self.interval
        pictures = len(self.evaluation.pictures)
        span = f"({low:.4f} to {high:.4f}), " if pictures > 1 else ""
        return f"<Scores: mIoU {self.miou:.4f} {span}{pictures} pictures>"

    def _repr_html_(self) -> str:
        columns = {"IoU": self.iou, "precision": self.precision, "recall": self.recall}
        columns["F1"] = self.f1
        head = "".join(f"<th>{name}</th>" for name in ("class", *columns))
        rows = "".join(
            f"<tr><td>{escape(name)}</td>"
            + "".join(f"<td>{_percent(values[name])}</td>" for values in columns.values())
            + "</tr>"
            for name in self.evaluation.labels.names
        )
        return f"<p>{escape(repr(self)[1:-1])}</p><table><tr>{head}</tr>{rows}</table>"

    def _by_name(self, values: npt.NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(self.evaluation.labels.names, map(float, values), strict=True))


def _percent(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{100 * value:.1f}"


def evaluate(
    model: str | PathLike[str] | Segmenter | HasModel,
    data: str | PathLike[str] | Any,
    *,
    split: str = "val",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    output_stride: int | None = None,
) -> Scores:
    """Score a network on a data set, as ``deeplab evaluate`` does.

    >>> deeplab.evaluate("voc", "pets").miou

    Args:
        model: a release pair, weights, an exported file, the name of a model, an open
            :class:`deeplab.Segmenter`, or a :class:`deeplab.Run`.
        data: folder of a data set in any known layout, or an object with ``labels``, a length, and
            (image, label) for every index.
        split: of the folder.
        scales: of the photo; torch networks only, as the next two.
        flip: also look at mirrored photos.
        output_stride: 8 is finer than the trained 16.

    Raises:
        InputError: the model has other classes, or is asked for what it cannot do.
        ModelError, DataError: one of them cannot be opened.
    """
    dataset: Dataset
    if isinstance(data, str | PathLike):
        dataset = open_dataset(data, split=split)
    else:
        dataset = ObjectDataset(data, split)
    predictor: Predictor
    if isinstance(model, Segmenter):
        predictor = FilePredictor(model, str(model))
    else:
        path = fspath(model) if isinstance(model, str | PathLike) else fspath(model.model)
        predictor = open_predictor(path, scales=scales, flip=flip, output_stride=output_stride)
    return Scores(count(predictor, dataset), predictor, dataset)
