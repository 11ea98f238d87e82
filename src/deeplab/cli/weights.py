"""``deeplab import`` and ``deeplab info``: weights of every origin, and what is in a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deeplab.cli.console import in_bytes, parse_size, stdout
from deeplab.errors import InputError, OutputError


def import_weights(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A file of weights, or a name of the zoo.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="NAME", help="Name of the release pair.")
    ],
    output_stride: Annotated[
        int | None, typer.Option(max=32, help="To run at: 8, 16 or 32 (default: as trained).")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of several networks in SOURCE, the one to take."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="Its classes (default: as the file says)."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Of the frame: 513 or 1025x2049 (default: as trained)."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a pair that exists already.")
    ] = False,
) -> None:
    """Turn foreign weights into a release pair: NAME.safetensors and NAME.json."""
    from deeplab import zoo

    if not output.name:
        raise InputError(f"-o: got '{output}', expected the name of the pair to write.")
    frame = parse_size("--size", size) if size else None
    pair = [output.with_name(output.name + suffix) for suffix in (".safetensors", ".json")]
    there = [path for path in pair if path.exists()]
    if there and not overwrite:
        raise OutputError(f"output: {there[0]} exists already. Add --overwrite to replace it.")
    path = _locate(source)
    from deeplab.labels import open_labels
    from deeplab.photo.images import InputSpec
    from deeplab.weights import import_file

    entry = zoo.find_by_file(path)
    known_labels, spec = (entry.labels, entry.input) if entry else (None, None)
    if frame:
        spec = InputSpec(height=frame[0], width=frame[1])
    report = import_file(
        path,
        output,
        output_stride=output_stride,
        part=part,
        labels=open_labels(labels) if labels else known_labels,
        input_spec=spec,
        source=entry.origin if entry else None,
        licence=entry.licence if entry else None,
    )
    typer.echo(str(report))
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
        int | None, typer.Option(max=32, help="Count at this output stride: 8, 16 or 32.")
    ] = None,
) -> None:
    """Describe a model, without running it: parameters and multiply-adds by part."""
    from rich.table import Table

    from deeplab.info import describe

    found = describe(
        _locate(model),
        size=parse_size("--size", size) if size else None,
        output_stride=output_stride,
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
        "optimised": "; ".join(found.optimised) or None,
        **{f"score {name}": str(value) for name, value in found.scores.items()},
    }
    for field, value in lines.items():
        if value:
            typer.echo(f"{field}: {value}")


def _locate(source: str) -> Path:
    """Return the file of a name or a path; a folder, or a checkpoint's prefix, is what it is."""
    from deeplab import zoo
    from deeplab.cli.models import show_progress

    path = Path(source)
    if path.name and (path.is_dir() or path.with_name(path.name + ".index").is_file()):
        return path
    with show_progress() as progress:
        return zoo.locate(source, weights=True, progress=progress)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
