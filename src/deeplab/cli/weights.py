"""``deeplab import`` and ``deeplab info``: other weights become a pair; what is in a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeplab.cli import model_options
from deeplab.cli.console import in_bytes, parse_size, stdout
from deeplab.errors import InputError, OutputError

if TYPE_CHECKING:
    from deeplab.info import ModelInfo
    from deeplab.photo.images import InputSpec


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
    backbone: Annotated[
        str | None,
        typer.Option(metavar="timm/NAME", help="Of SOURCE, where it does not say (docs/timm.md)."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="Its classes (default: as the file says)."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Of the frame: 513 or 1025x2049 (default: as trained)."),
    ] = None,
    normalisation: model_options.Normalise = None,
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
        backbone=backbone,
        labels=open_labels(labels) if labels else known_labels,
        input_spec=spec,
        normalisation=normalisation,
        source=entry.origin if entry else None,
        licence=entry.licence if entry else None,
    )
    typer.echo(str(report))
    typer.echo(f"written: {pair[0]} and {pair[1]}")


def info(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A file, a release pair, or a name of the zoo."),
    ] = None,
    devices: Annotated[
        bool, typer.Option("--devices", help="List on what every engine can run here instead.")
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Count for a photo of this size: 513 or 1025x2049."),
    ] = None,
    output_stride: Annotated[
        int | None, typer.Option(max=32, help="Count at this output stride: 8, 16 or 32.")
    ] = None,
    labels: model_options.Labels = None,
    normalisation: model_options.Normalise = None,
    fit: model_options.Fit = None,
    output_name: model_options.OutputName = None,
) -> None:
    """Describe a model, without running it: how it is fed, what it answers, what its parts cost."""
    if devices == (model is not None):
        raise InputError("info: expected either MODEL or --devices.")
    if model is None:
        _show_devices()
        return
    from deeplab.info import describe

    told = model_options.read_model_options(
        labels=labels, normalisation=normalisation, fit=fit, size=size, output_name=output_name
    )
    found = describe(_locate(model), output_stride=output_stride, **told)
    if found.parts:
        _show_parts(found)
    for field, value in _facts(found).items():
        if value:
            typer.echo(f"{field}: {value}")


def _show_devices() -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    from deeplab.runtimes.device_list import list_devices

    table = Table("engine", "version", "device", "here", "what it is, or what it needs",
                  box=SIMPLE, pad_edge=False)  # fmt: skip
    before = None
    for found in list_devices():
        place = found.place
        here = {True: "yes", False: "no", None: "when a file is opened"}[place.here]
        first = found.engine != before
        if place.here is False:
            words = f"{place.name}; {place.cure}" if found.version is None else place.cure
        else:
            words = place.name
        table.add_row(found.engine if first else "", (found.version or "") if first else "",
                      str(place.device), here, words)  # fmt: skip
        before = found.engine
    stdout().print(table)
    typer.echo("Any device but 'cpu' has to answer a photo as the CPU does before it is used.")


def _show_parts(found: ModelInfo) -> None:
    from rich.table import Table

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


def _facts(found: ModelInfo) -> dict[str, str | None]:
    height, width = found.size
    stride = f", output stride {found.output_stride}" if found.output_stride else ""
    card = found.card
    answer = card and ("probabilities" if card.softmaxed else card.output)
    return {
        "counted at" if found.parts else "frame": f"{height}×{width}{stride}",
        "normalisation": _normalisation(found.input),
        "fit": found.input.fit if found.input else None,
        "answer": f"{answer} of {found.num_classes} classes" if answer else None,
        "assumed": "; ".join(card.assumed.values()) if card else None,
        "precision": found.precision,
        "file": in_bytes(found.file_bytes) if found.file_bytes else None,
        "labels": ", ".join(found.labels.names) if found.labels else None,
        "licence": found.licence,
        "variables": str(found.report) if found.report else None,
        "optimised": "; ".join(found.optimised) or None,
        **{f"score {name}": str(value) for name, value in found.scores.items()},
    }


def _normalisation(spec: InputSpec | None) -> str | None:
    """Return how pixels are brought to the network, by its usual name where it has one."""
    from deeplab.runtimes.network_card import NORMALISATIONS

    if spec is None:
        return None
    for name, usual in NORMALISATIONS.items():
        if usual == (tuple(spec.mean), tuple(spec.std)):
            return name
    mean, std = (",".join(f"{value:g}" for value in part) for part in (spec.mean, spec.std))
    return f"{mean}/{std}"


def _locate(source: str) -> Path:
    """Return the file of a name or a path; a folder, or a checkpoint's prefix, is what it is."""
    from deeplab import zoo
    from deeplab.cli.models import show_progress

    path = Path(source)
    is_folder = path.is_dir() and not zoo.is_name(source)
    if path.name and (is_folder or path.with_name(path.name + ".index").is_file()):
        return path
    with show_progress() as progress:
        return zoo.locate(source, weights=True, progress=progress)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
