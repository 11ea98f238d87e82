"""``deeplab evaluate --panoptic``: predicted and true segments, to panoptic quality."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import Progress

from deeplab.cli.console import stderr, stdout

if TYPE_CHECKING:
    from deeplab.evaluation.panoptic_files import PanopticScores


def evaluate_segments(predictions: Path, truth: Path, *, as_json: bool) -> None:
    """Compare two COCO panoptic JSON files, and print the scores."""
    from deeplab.evaluation.panoptic_files import evaluate_panoptic

    with Progress(console=stderr(), transient=True) as bar:
        task = bar.add_task("pictures", total=None)
        found = evaluate_panoptic(
            predictions,
            truth,
            each=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for note in found.notes:
        stderr().print(f"note: {note}.", markup=False)
    if as_json:
        stdout().print_json(json.dumps(found.to_dict()))
    else:
        _print_table(found)


def _print_table(found: PanopticScores) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table("class", "", box=SIMPLE, pad_edge=False)
    for heading in ("PQ", "SQ", "RQ", "PC", "found", "invented", "missed"):
        table.add_column(heading, justify="right")
    counts = found.counts
    for index, name in enumerate(found.names):
        scores = [values[index] for values in (counts.pq, counts.sq, counts.rq, counts.pc)]
        pieces = (counts.found[index], counts.invented[index], counts.missed[index])
        kind = "thing" if found.is_thing[index] else "stuff"
        table.add_row(name, kind, *map(_percent, scores), *map(str, pieces))
    table.add_section()
    for group, quality in found.groups.items():
        scores = [quality.pq, quality.sq, quality.rq, quality.pc]
        table.add_row(group, f"{quality.classes} classes", *map(_percent, scores))
    stdout().print(table)
    stdout().print(f"{found.pictures} pictures, COCO's panoptic protocol", highlight=False)


def _percent(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{100 * value:.1f}"
