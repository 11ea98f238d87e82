"""Foreign weights in, a release pair out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from deeplab.files import hash_file
from deeplab.labels import LabelSet
from deeplab.models.config import DeepLabConfig
from deeplab.photo.images import InputSpec
from deeplab.runtimes.answers import name_two
from deeplab.runtimes.network_card import Normalisation, read_normalisation
from deeplab.weights.dispatch import load_with_report
from deeplab.weights.release import default_labels, save
from deeplab.weights.report import ImportReport

_FRAME = (513, 513)  # Source: the crop size of the original's published VOC models


def import_file(
    path: str | Path,
    output: str | Path,
    *,
    output_stride: int | None = None,
    part: str | None = None,
    backbone: str | None = None,
    labels: LabelSet | None = None,
    input_spec: InputSpec | None = None,
    normalisation: Normalisation | str | None = None,
    source: str | None = None,
    licence: str | None = None,
) -> ImportReport:
    """Write ``OUTPUT.safetensors`` and ``OUTPUT.json`` from weights of another origin.

    Args:
        path: what :func:`deeplab.weights.load` reads.
        output: name of the pair, without suffix.
        output_stride: to run at; None keeps what the file says, else its origin's default.
        part: of a file with several networks the one to take; see :func:`deeplab.weights.load`.
        backbone: ``timm/NAME``, of a file that does not say so; see :func:`deeplab.weights.load`.
        labels: the classes; None takes those that the file names, else the set that their count
            means by custom.
        input_spec: its frame and fit; None takes the file's, else the one that the network
            was made for.
        normalisation: of pixels, as :func:`~deeplab.runtimes.network_card.read_normalisation` reads
            it, where its trainer had another than the file or its library's custom says.
        source: where the file comes from, for the provenance; None takes its name.
        licence: SPDX name of the weights' licence, where it is known.

    Returns:
        What happened to every variable, and what had to be assumed.

    Raises:
        ModelNotFoundError: there is no such file.
        WeightsError: the file is damaged, of no known origin, or a classifier: that has no head.
        InputError: the labels do not fit the classes, or the normalisation is none.
        OutputError: the pair cannot be written.
    """
    path = Path(path)
    config, state, report = load_with_report(
        path, output_stride=output_stride, part=part, backbone=backbone
    )
    if normalisation is not None:
        mean, std = read_normalisation(normalisation)
        config = dataclasses.replace(config, pixel_mean=mean, pixel_std=std)
        assumed = {key: v for key, v in report.assumed.items() if key != "normalisation"}
        report = dataclasses.replace(report, assumed=assumed)
    if report.one_class:
        labels, named = name_two(path.name, labels or report.labels)
        report = dataclasses.replace(report, assumed={**report.assumed, **named})
    elif labels is None:
        labels, report = _choose_labels(config, report)
    input_spec = input_spec or report.input_spec
    if input_spec is None:
        height, width = _frame(config)
        input_spec = InputSpec(height=height, width=width)
    provenance: dict[str, object] = {
        "source": source or path.name,
        "kept": len(report.kept),
        "ignored": list(report.ignored),
        "assumed": dict(report.assumed),
    }
    for key, value in (("part", report.taken), ("beside", list(report.beside))):
        if value:
            provenance[key] = value
    # The index of a checkpoint, and the file that names the last one, hold no weights to identify.
    if path.is_file() and path.suffix != ".index" and path.name != "checkpoint":
        provenance["sha256"] = hash_file(path)
    save(
        output,
        config,
        state,
        labels=labels,
        input_spec=input_spec,
        provenance=provenance,
        licence=licence,
    )
    return report


def _choose_labels(config: DeepLabConfig, report: ImportReport) -> tuple[LabelSet, ImportReport]:
    """Return the classes that the file names, else those that their count means."""
    found = report.labels
    if found is not None and len(found) == config.num_classes:
        return found, report
    labels = default_labels(config.num_classes)
    words = f"{labels.names[0]}, {labels.names[1]}, …, by their count of {len(labels)}"
    if found is not None:
        words += f"; the file names {len(found)}"
    return labels, dataclasses.replace(report, assumed={**report.assumed, "labels": words})


def _frame(config: DeepLabConfig) -> tuple[int, int]:
    """Return the frame that the network was made for: its pooling window tells it."""
    return config.image_pooling_crop_size or _FRAME
