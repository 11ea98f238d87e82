"""``deeplab import`` and ``deeplab info``: weights of every origin, and what is in a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeplab.cli.console import in_bytes, parse_size, stdout
from deeplab.errors import InputError, OutputError, WeightsError, near_matches

if TYPE_CHECKING:
    from deeplab.labels import LabelSet
    from deeplab.zoo import ZooModel


def import_weights(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A file of weights, or a name of the zoo.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="NAME", help="Name of the release pair.")
    ],
    output_stride: Annotated[
        int | None, typer.Option(help="To run at: 8, 16 or 32 (default: as trained).")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="Its classes (default: by their number)."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Of the frame: 513 or 1025x2049 (default: 513)."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a pair that exists already.")
    ] = False,
) -> None:
    """Turn foreign weights into a release pair: NAME.safetensors and NAME.json."""
    from deeplab import zoo
    from deeplab.cli.models import show_progress

    pair = [output.with_name(output.name + suffix) for suffix in (".safetensors", ".json")]
    there = [path for path in pair if path.exists()]
    if there and not overwrite:
        raise OutputError(f"output: {there[0]} exists already. Add --overwrite to replace it.")
    with show_progress() as progress:
        path = zoo.locate(source, weights=True, progress=progress)
    from deeplab.images import InputSpec
    from deeplab.weights import load_with_report
    from deeplab.weights.release import default_labels, save

    config, state_dict, report = load_with_report(path, output_stride=output_stride)
    typer.echo(str(report))
    if report.missing:
        raise WeightsError(
            f"{path}: {len(report.missing)} of the network's weights are not in this file, so "
            "there is nothing that could run. It is a start for training."
        )
    entry = zoo.find_by_file(path)
    height, width = parse_size("--size", size) if size else (513, 513)
    spec = InputSpec(height=height, width=width)
    save(
        output,
        config,
        state_dict,
        labels=_labels(labels, entry) or default_labels(config.num_classes),
        input_spec=entry.input if entry and entry.input and not size else spec,
        provenance={"source": entry.address if entry else path.name, "sha256": zoo.hash_file(path)},
        licence=entry.licence if entry else None,
    )
    typer.echo(f"written: {pair[0]} and {pair[1]}")


def info(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A file, a release pair, or a name of the zoo.")
    ],
    size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Count for a photo of this size: 513 or 1025x2049."),
    ] = None,
    output_stride: Annotated[
        int | None, typer.Option(help="Count at this output stride: 8, 16 or 32.")
    ] = None,
) -> None:
    """Describe a model, without running it: parameters and multiply-adds by part."""
    from rich.table import Table

    from deeplab import zoo
    from deeplab.cli.models import show_progress
    from deeplab.info import describe

    with show_progress() as progress:
        path = zoo.locate(model, weights=True, progress=progress)
    found = describe(
        path, size=parse_size("--size", size) if size else None, output_stride=output_stride
    )
    table = Table("part", title=found.architecture, title_justify="left")
    for heading in ("parameters", "folded", "multiply-adds"):
        table.add_column(heading, justify="right")
    for part in found.parts:
        table.add_row(part.name, _count(part.parameters), _count(part.folded_parameters),
                      _count(part.macs))  # fmt: skip
    table.add_section()
    table.add_row("all", _count(found.parameters), _count(found.folded_parameters),
                  _count(found.macs))  # fmt: skip
    stdout().print(table)
    height, width = found.size
    lines = {
        "counted at": f"{height}×{width}"
        + (f", output stride {found.output_stride}" if found.output_stride else ""),
        "precision": found.precision,
        "file": in_bytes(found.file_bytes) if found.file_bytes else None,
        "labels": ", ".join(found.labels.names) if found.labels else None,
        "licence": found.licence,
        "variables": str(found.report) if found.report else None,
        **{f"score {name}": str(value) for name, value in found.scores.items()},
    }
    for field, value in lines.items():
        if value:
            typer.echo(f"{field}: {value}")


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _labels(chosen: str | None, entry: ZooModel | None) -> LabelSet | None:
    """Return the labels that were asked for, else those that the zoo knows."""
    from deeplab.labels import LABEL_SETS, read_label_file

    if chosen is None:
        return entry.labels if entry else None
    if chosen in LABEL_SETS:
        return LABEL_SETS[chosen]
    path = Path(chosen)
    if not path.is_file():
        raise InputError(
            f"--labels: there is no file {chosen}, and no label set of that name."
            f"{near_matches(chosen, LABEL_SETS)} Known are: {', '.join(LABEL_SETS)}."
        )
    return read_label_file(path.read_text("utf-8-sig"))
