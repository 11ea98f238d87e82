"""Foreign weights in, a release pair out."""

from __future__ import annotations

import hashlib
from pathlib import Path

from deeplab.images import InputSpec
from deeplab.labels import LabelSet
from deeplab.models.config import DeepLabConfig
from deeplab.weights.dispatch import load_with_report
from deeplab.weights.release import default_labels, save
from deeplab.weights.report import ImportReport

_FRAME = (513, 513)  # Source: the crop size of the original's published VOC models


def import_file(
    path: str | Path,
    output: str | Path,
    *,
    output_stride: int | None = None,
    labels: LabelSet | None = None,
    licence: str | None = None,
) -> ImportReport:
    """Write ``OUTPUT.safetensors`` and ``OUTPUT.json`` from weights of any known origin.

    Args:
        path: what :func:`deeplab.weights.load` reads.
        output: name of the pair, without suffix.
        output_stride: to run at; None keeps what the file says, else its origin's default.
        labels: the classes; None takes the set that their count means by custom.
        licence: SPDX name of the weights' licence, where it is known.

    Raises:
        ModelNotFoundError: there is no such file.
        WeightsError: the file is damaged, of no known origin, or a classifier: that has no head.
        InputError: the labels do not fit the classes.
        OutputError: the pair cannot be written.
    """
    path = Path(path)
    config, state, report = load_with_report(path, output_stride=output_stride)
    height, width = _frame(config)
    provenance: dict[str, object] = {
        "imported_from": path.name,
        "kept": len(report.kept),
        "ignored": list(report.ignored),
    }
    if path.is_file():
        provenance["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    save(
        output,
        config,
        state,
        labels=labels or default_labels(config.num_classes),
        input_spec=InputSpec(height=height, width=width),
        provenance=provenance,
        licence=licence,
    )
    return report


def _frame(config: DeepLabConfig) -> tuple[int, int]:
    """Return the frame that the network was made for: its pooling window tells it."""
    return config.image_pooling_crop_size or _FRAME
