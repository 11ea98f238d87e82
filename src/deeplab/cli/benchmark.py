"""``deeplab benchmark``: how fast, how good, how large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_args

import typer

from deeplab.cli import model_options
from deeplab.cli.console import (
    check_choices,
    check_number,
    parse_size,
    show_stages,
    split_names,
    stderr,
    stdout,
)
from deeplab.errors import InputError, OutputError
from deeplab.limits import MAX_COUNT, MAX_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deeplab.benchmark.contenders import Device
    from deeplab.benchmark.measure import Benchmark

Choice = TypeVar("Choice")


def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL…", help="Names, exported files, release pairs."),
    ],
    photos: Annotated[
        list[str] | None,
        typer.Option(metavar="PHOTO|FOLDER|GLOB", help="On what (default: those of the package)."),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Engines: litert,openvino (default: one).")
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option("--threads", "--num-threads", metavar="NUMBERS", help="Per photo: 1,2,4."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="SIZES", help="Frames of release pairs: 257,513 or 1025x2049."),
    ] = None,
    output_stride: Annotated[
        str | None,
        typer.Option("--output-stride", metavar="NUMBERS", help="Of release pairs: 32,16,8."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="cpu,gpu,npu,cuda,mps,… ('deeplab info --devices'); auto measures the CPU, and "
            "release pairs on a GPU too, if any.",
        ),
    ] = "auto",
    precision: Annotated[
        str | None, typer.Option(metavar="NAMES", help="OpenVINO computes in: float32,bfloat16.")
    ] = None,
    labels: model_options.Labels = None,
    normalisation: model_options.Normalise = None,
    fit: model_options.Fit = None,
    output_name: model_options.OutputName = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="Measure quality too, on this data set.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the data set.")] = "val",
    limit: Annotated[
        int | None, typer.Option(metavar="N", max=MAX_COUNT, help="Only its first N pictures.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Average quality over these classes only.")
    ] = None,
    warmup_runs: Annotated[int, typer.Option(max=MAX_COUNT, help="At least so many first.")] = 1,
    warmup_min_secs: Annotated[
        float, typer.Option(max=MAX_SECONDS, callback=check_number, help="And at least so long.")
    ] = 0.5,
    num_runs: Annotated[int, typer.Option(max=MAX_COUNT, help="At least so many count.")] = 50,
    min_secs: Annotated[
        float, typer.Option(max=MAX_SECONDS, callback=check_number, help="And at least so long.")
    ] = 1.0,
    max_secs: Annotated[
        float, typer.Option(max=MAX_SECONDS, callback=check_number, help="But no longer, each.")
    ] = 150.0,
    run_delay: Annotated[
        float,
        typer.Option(
            max=MAX_SECONDS, callback=check_number, help="Seconds of rest before every run."
        ),
    ] = 0.0,
    enable_op_profiling: Annotated[
        bool, typer.Option("--enable-op-profiling", help="Time every operator, too.")
    ] = False,
    profiling_output_csv_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Operators as CSV, in place of tables.")
    ] = None,
    report_peak_memory_footprint: Annotated[
        bool, typer.Option("--report-peak-memory-footprint", help="Of the whole process, too.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Write Markdown, JSON, CSV, a picture."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that exist already.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, every run in it.")] = False,
) -> None:
    """Measure models against each other, in turns on real photos: time, memory, quality.

    Names and lines are those of TFLite's benchmark_model. Lists have commas between them; every
    combination that there is takes part in the one run.
    """
    from deeplab.benchmark.contenders import Choices, plan_contenders
    from deeplab.benchmark.measure import Data, Settings, measure
    from deeplab.benchmark.report import check_folder, write_report
    from deeplab.runtimes import Precision
    from deeplab.segmenter import Runtime

    settings = Settings(
        warmup_runs=warmup_runs,
        warmup_min_secs=warmup_min_secs,
        num_runs=num_runs,
        min_secs=min_secs,
        max_secs=max_secs,
        run_delay=run_delay,
    )
    asked = Data(
        path=data or Path(),
        split=split,
        limit=limit,
        classes=split_names("--classes", classes) if classes else (),
    )
    if output is not None:
        check_folder(output, overwrite=overwrite)
    if profiling_output_csv_file and profiling_output_csv_file.exists() and not overwrite:
        raise OutputError(
            f"output: {profiling_output_csv_file} exists already. Add --overwrite to replace it."
        )
    told = model_options.read_model_options(
        labels=labels, normalisation=normalisation, fit=fit, output_name=output_name
    )
    paths = _find_models(models)
    choices = Choices(
        runtimes=_names("--runtime", runtime, get_args(Runtime)),
        threads=_numbers("--threads", threads),
        devices=_devices(device),
        sizes=[parse_size("--size", one) for one in split_names("--size", size)] if size else [],
        output_strides=_numbers("--output-stride", output_stride),
        precisions=_names("--precision", precision, get_args(Precision)),
        labels=labels,
        told={
            name: value for name, value in told.items() if name != "labels" and value is not None
        },
    )
    contenders = plan_contenders(list(zip(models, paths, strict=True)), choices)
    pictures = _find_photos(photos)
    with show_stages() as progress:
        found = measure(
            contenders,
            pictures,
            settings=settings,
            data=asked if data else None,
            profile=enable_op_profiling or profiling_output_csv_file is not None,
            progress=progress,
        )
    if as_json:
        from deeplab.benchmark.report import to_dict

        stdout().print_json(json.dumps(to_dict(found)))
    else:
        _print(found, tables=profiling_output_csv_file is None, peak=report_peak_memory_footprint)
    if profiling_output_csv_file is not None:
        _write_operators(found, profiling_output_csv_file)
    if output is not None:
        written = write_report(output, found)
        stderr().print(f"written to {output}: {', '.join(path.name for path in written)}")
    for words in found.failures:
        stderr().print(f"left out: {words}", markup=False)
    for words in found.notes:
        stderr().print(f"note: {words}", markup=False)
    if found.interrupted or found.failures:
        raise typer.Exit(130 if found.interrupted else 1)


def _find_models(models: Sequence[str]) -> list[Path]:
    from deeplab.benchmark.contenders import find_models
    from deeplab.cli.models import show_progress

    with show_progress() as bar:
        return find_models(models, progress=bar)


def _names(option: str, text: str | None, known: Sequence[Choice]) -> list[Choice]:
    chosen = split_names(option, text) if text else []
    check_choices(option, chosen, [str(one) for one in known])
    return [one for name in chosen for one in known if one == name]


def _numbers(option: str, text: str | None) -> list[int]:
    if text is None:
        return []
    try:
        return [int(part) for part in split_names(option, text)]
    except ValueError:
        raise InputError(
            f"{option}: got '{text}', expected whole numbers with commas between them."
        ) from None


def _devices(device: str) -> list[Device]:
    from deeplab.runtimes.devices import read_device

    if device == "auto":
        return []
    return [str(read_device(name)) for name in split_names("--device", device)]


def _find_photos(sources: Sequence[str] | None) -> list[Path]:
    from deeplab.cli.photos import find_and_tell
    from deeplab.zoo.example_photos import list_example_photos

    if not sources:
        return list_example_photos()
    return find_and_tell(sources)


def _print(found: Benchmark, *, tables: bool, peak: bool) -> None:
    from deeplab.benchmark.report import to_summary, to_table
    from deeplab.benchmark.tool_lines import operator_lines, timing_lines

    for one in found.measurements:
        typer.echo(one.contender.title)
        for line in timing_lines(one, found.settings, peak=peak):
            typer.echo(line)
        if one.profile is not None and tables:
            typer.echo()
            for line in operator_lines(one.profile):
                typer.echo(line)
        typer.echo()
    typer.echo(to_table(found))
    typer.echo()
    typer.echo(to_summary(found))


def _write_operators(found: Benchmark, path: Path) -> None:
    from deeplab.benchmark.tool_lines import operator_csv
    from deeplab.files import replacing

    with replacing(path) as partial:
        partial.write_text(operator_csv(found.measurements), "utf-8")
