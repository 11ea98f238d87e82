"""An evaluation told: a table for the terminal, JSON with the whole protocol, a page to look at."""

from __future__ import annotations

import base64
import functools
import io
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.table import Table
from rich.text import Text

from deeplab.data.channels import channels_of, shown_alone
from deeplab.data.sample import Dataset
from deeplab.errors import OutputError
from deeplab.evaluation.pictures import draw_comparison, draw_confusion
from deeplab.evaluation.protocol import Evaluation, Predictor, share_labels
from deeplab.files import replacing
from deeplab.labels import LabelSet

_WORST = 8
_BY_CLASS = {"iou": "IoU", "precision": "Precision", "recall": "Recall", "f1": "F1"}


def to_dict(evaluation: Evaluation, *, classes: Sequence[int] | None = None) -> dict[str, Any]:
    """Return scores, counts and protocol as JSON knows them; None stands for n/a.

    Args:
        evaluation: of all pictures.
        classes: class ids over which to average as well, beside all.
    """
    totals, names = evaluation.confusion.totals, evaluation.labels.names
    low, high = evaluation.interval()
    named = functools.partial(_by_name, evaluation)
    result: dict[str, Any] = {
        "miou": _number(evaluation.miou),
        "miou_95": [_number(low), _number(high)],
        "pixel_accuracy": _number(evaluation.accuracy),
        "frequency_weighted_iou": _number(float(totals.frequency_weighted_iou)),
        "iou": named(totals.iou),
        "precision": named(totals.precision),
        "recall": named(totals.recall),
        "f1": named(totals.f1),
        "absent_classes": [
            name for name, iou in zip(names, totals.iou, strict=True) if math.isnan(iou)
        ],
    }
    if classes is not None:
        low, high = evaluation.interval(classes)
        result["subset"] = {
            "classes": [names[index] for index in classes],
            "miou": _number(float(totals.mean_iou(classes))),
            "miou_95": [_number(low), _number(high)],
        }
    if evaluation.bands:
        result["trimap_miou"] = {
            str(width): _number(float(band.totals.mean_iou()))
            for width, band in evaluation.bands.items()
        }
    objects = evaluation.objects
    result["objects"] = {"count": objects.objects, "two_coloured": objects.two_coloured}
    result["protocol"] = evaluation.protocol
    result["confusion"] = evaluation.confusion.counts.tolist()
    result["ms_per_picture"] = 1e3 * evaluation.seconds / max(len(evaluation.pictures), 1)
    return result


def _by_name(evaluation: Evaluation, values: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """Return a value per class; classes that the network does not share have none."""
    names, shared = evaluation.labels.names, evaluation.shared
    return {
        name: _number(float(value))
        for index, (name, value) in enumerate(zip(names, values, strict=True))
        if shared is None or index in shared
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def describe_shared(evaluation: Evaluation, source: LabelSet, target: LabelSet) -> str:
    """Return which classes are scored and which are not; empty where all are.

    Args:
        evaluation: of both.
        source: the network's classes.
        target: the data set's.
    """
    shared = evaluation.shared
    if shared is None:
        return ""
    left = [name for i, name in enumerate(target.names) if i not in shared]
    unknown = [name for name in source.names if name not in evaluation.labels.names]
    return (
        f"Scored: the {len(shared)} classes that network and data share by name. Not of "
        f"the network: {', '.join(left) or 'none'}; not of the data: {len(unknown)} classes."
    )


def summary_table(
    evaluation: Evaluation, *, classes: Sequence[int] | None = None, title: str | None = None
) -> Table:
    """Return the scores by class and their means, for a terminal."""
    totals = evaluation.confusion.totals
    low, high = evaluation.interval()
    table = Table(
        title=title or f"{evaluation.protocol['model']} on {evaluation.protocol['split']}"
    )
    headings = "class", "IoU", "precision", "recall", "F1", "share of truth", "of prediction"
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "class" else "right")
    pixels = max(int(totals.truth.sum()), 1)
    for index, name in enumerate(evaluation.labels.names):
        scored = evaluation.shared is None or index in evaluation.shared
        table.add_row(
            name,
            *(
                _percent(values[index]) if scored else "not shared"
                for values in (totals.iou, totals.precision, totals.recall, totals.f1)
            ),
            _percent(totals.truth[index] / pixels),
            _percent(totals.prediction[index] / pixels),
        )
    table.add_section()
    table.add_row(
        Text("mIoU" if evaluation.shared is None else "mIoU of shared classes", "bold"),
        Text(_percent(evaluation.miou), "bold"),
        f"{_span(low, high)}",
    )
    if classes is not None:
        table.add_row(
            f"mIoU of {len(classes)} classes",
            _percent(float(totals.mean_iou(classes))),
            _span(*evaluation.interval(classes)),
        )
    table.add_row("pixel accuracy", _percent(evaluation.accuracy))
    table.add_row("frequency-weighted IoU", _percent(float(totals.frequency_weighted_iou)))
    for width, band in evaluation.bands.items():
        table.add_row(f"mIoU ≤ {width} px from borders", _percent(float(band.totals.mean_iou())))
    objects = evaluation.objects
    if objects.objects:
        table.add_row(
            "objects in two colours",
            _percent(objects.two_coloured / objects.objects),
            f"{objects.two_coloured} of {objects.objects}",
        )
    return table


def _percent(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{100 * value:.2f}"


def _span(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"95 %: {_percent(low)} to {_percent(high)}"


def write_report(
    folder: Path,
    evaluation: Evaluation,
    *,
    predictor: Predictor,
    dataset: Dataset,
    classes: Sequence[int] | None = None,
) -> Path:
    """Write report.json, confusion.png and report.html, and return the page's path.

    The pictures with the lowest own mIoU are predicted once more, to be drawn.

    Raises:
        OutputError: the folder cannot be written.
    """
    told = to_dict(evaluation, classes=classes)
    confusion = draw_confusion(evaluation.confusion, evaluation.labels)
    translate, labels, _ = share_labels(predictor.labels, dataset.labels)
    worst = []
    for index, name, score in evaluation.worst(_WORST):
        sample = dataset[index]
        shown = sample.image
        if channels_of(dataset):
            shown = shown_alone(shown, getattr(dataset, "rgb", ()))
        picture = draw_comparison(
            [(shown, sample.label, translate[predictor(sample.image)])], labels
        )
        worst.append((name, score, picture))
    page = _page(evaluation, told, confusion, worst)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "report.json", json.dumps(told, indent=1, ensure_ascii=False).encode())
        _write(folder / "confusion.png", _png(confusion))
        _write(folder / "report.html", page.encode())
    except OSError as error:
        raise OutputError(f"report: {folder} cannot be written: {error}.") from error
    return folder / "report.html"


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(content)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _embedded(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _page(
    evaluation: Evaluation,
    told: dict[str, Any],
    confusion: Image.Image,
    worst: Sequence[tuple[str, float, Image.Image]],
) -> str:
    protocol = evaluation.protocol
    title = escape(f"{protocol['model']} on {protocol['split']}")
    classes = "".join(
        f'<tr><td><i style="background:rgb{colour}"></i>{escape(name)}</td>'
        + "".join(
            f"<td>{_cell(told[key][name]) if name in told[key] else 'not shared'}</td>"
            for key in _BY_CLASS
        )
        + "</tr>"
        for name, colour in zip(evaluation.labels.names, evaluation.labels.colours, strict=True)
    )
    low, high = told["miou_95"]
    scores = {
        "mIoU": f"{_cell(told['miou'])} (95 %: {_cell(low)} to {_cell(high)})",
        "pixel accuracy": _cell(told["pixel_accuracy"]),
        "frequency-weighted IoU": _cell(told["frequency_weighted_iou"]),
    }
    if "subset" in told:
        names = ", ".join(told["subset"]["classes"])
        scores[f"mIoU of {escape(names)}"] = _cell(told["subset"]["miou"])
    for width, score in told.get("trimap_miou", {}).items():
        scores[f"mIoU ≤ {width} px from borders"] = _cell(score)
    objects = told["objects"]
    scores["objects in two colours"] = f"{objects['two_coloured']} of {objects['count']}"
    pictures = "".join(
        f'<figure><img src="{_embedded(picture)}" alt="{escape(name)}"><figcaption>'
        f"{escape(name)}: own mIoU {_percent(score)}</figcaption></figure>"
        for name, score, picture in worst
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>'
        "body{font:15px/1.5 system-ui,sans-serif;max-width:1320px;margin:2em auto;padding:0 1em}"
        "td{padding:2px 14px 2px 0}i{display:inline-block;width:1em;height:1em;margin-right:.5em;"
        "vertical-align:middle}img{max-width:100%}figure{margin:0 0 1.2em}</style>"
        f"<h1>{title}</h1><table>{_rows(scores)}</table>"
        "<h2>Classes</h2><table><tr><th></th>"
        f"{''.join(f'<th>{heading}</th>' for heading in _BY_CLASS.values())}</tr>"
        f"{classes}</table>"
        f"<h2>Confusion</h2><p>Rows are the truth, in per cent of its pixels.</p>"
        f'<img src="{_embedded(confusion)}" alt="confusion matrix">'
        "<h2>Worst pictures</h2><p>Photo, truth, prediction, errors in red.</p>"
        f"{pictures}<h2>Protocol</h2><table>"
        f"{_rows({key: escape(str(value)) for key, value in protocol.items()})}</table></html>\n"
    )


def _cell(value: float | None) -> str:
    return "n/a" if value is None else _percent(value)


def _rows(values: dict[str, str]) -> str:
    return "".join(f"<tr><td>{key}</td><td>{value}</td></tr>" for key, value in values.items())
