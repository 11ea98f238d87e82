"""``deeplab segment``: photos in, masks and pictures out."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from deeplab.cli import model_options
from deeplab.cli.console import check_choices, complain, split_names, stderr, stdout, swatch
from deeplab.cli.outputs import SUFFIXES, Job, claimed, plan_jobs
from deeplab.errors import DeepLabError, InputError
from deeplab.limits import MAX_THREADS, MAX_WORKERS

if TYPE_CHECKING:
    from deeplab.cli.work import Done, Outcome
    from deeplab.segmenter import Segmenter

_STAGES = ("decode", "network", "mask", "crf", "draw")


def segment(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO|FOLDER|GLOB…", help="What to segment.")
    ],
    model: Annotated[
        str, typer.Option("-m", "--model", help="A name ('deeplab models list') or a file.")
    ] = "voc",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Folder to write into (default: segmented)."
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            help=f"What to write: {', '.join(SUFFIXES)}; or none (default: overlay,mask).",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="LABELS", help="Keep these classes, for example: cat,dog."),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(help="The engine, where several run the model: litert or openvino."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of the numbers: float32, or bfloat16 (openvino; twice as fast).")
    ] = "float32",
    device: model_options.Device = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_THREADS, help="Threads for a single photo (default: all cores)."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_WORKERS, help="Photos at the same time (default: all cores)."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="For all photos at work: 2GB (default: most of it)."),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Decode every pixel of a JPEG before resizing.")
    ] = False,
    labels: model_options.Labels = None,
    normalisation: model_options.Normalise = None,
    fit: model_options.Fit = None,
    size: model_options.Size = None,
    output_name: model_options.OutputName = None,
    crf: Annotated[
        bool, typer.Option("--crf", help="Refine the edges with a fully connected CRF.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that exist already.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; write files only with -o or --save.")
    ] = False,
) -> None:
    """Segment photos: masks, overlays, cut-outs and more, at each photo's own size."""
    from deeplab.cli.photos import find_photos
    from deeplab.cli.work import Work
    from deeplab.photo.find import describe_passed_over
    from deeplab.photo.memory import default_budget, parse_bytes, resident_bytes
    from deeplab.segmenter import count_cores

    kinds = _kinds(save, writing=bool(output or save is not None or not as_json))
    folder = (output or Path("segmented")) if kinds else None
    found, passed_over = find_photos(photos, output=folder)
    jobs = (
        plan_jobs(found, output=folder, kinds=kinds, overwrite=overwrite)
        if folder
        else [Job(photo, {}) for photo, _ in found]
    )
    _check_settings(runtime, precision)
    told = model_options.read_model_options(
        labels=labels, normalisation=normalisation, fit=fit, size=size, output_name=output_name
    )
    budget = parse_bytes("--memory", memory) if memory else default_budget()
    before = resident_bytes()
    workers = min(workers or count_cores(), len(jobs))
    # Many photos are worked on with one thread each, one with all of them.
    told |= {"threads": threads if len(jobs) == 1 else 1, "streams": workers, "exact": exact}
    told |= {"device": device}
    segmenter = _open(model, runtime=runtime, precision=precision, **told)
    model_options.tell_assumed(model, segmenter.card)
    model_options.tell_device(model, device, segmenter.network.device)
    kept = None if only is None else split_names("--only", only)
    if kept:
        if {*segmenter.labels.indices(kept)} == {segmenter.labels.background}:
            raise InputError(
                f"--only: got '{only}', but what is not named becomes background; name objects."
            )
    elif segmenter.labels.background is None and {"cutout", "blur"} & {*kinds}:
        raise InputError(
            "--save: this model's labels have no background to cut away or to blur; say with "
            f"--only what to keep. It knows: {', '.join(segmenter.labels.names)}."
        )
    start = time.perf_counter()
    work = Work(
        segmenter,
        workers=workers,
        budget=budget,
        before=before,
        only=kept,
        crf=crf,
        overwrite=overwrite,
        summaries=as_json,
    )
    show = _show_json if as_json else _show
    with claimed(folder) if folder else contextlib.nullcontext():
        if folder:  # once more: another command may have written there in the meantime
            plan_jobs(found, output=folder, kinds=kinds, overwrite=overwrite)
        failed = show(work.run(jobs), jobs, folder)
    if not as_json and len(jobs) > 1:
        seconds = time.perf_counter() - start
        stdout().print(f"{len(jobs) - failed} photos in {seconds:.1f} s")
    if passed_over:
        complain(f"passed over: {describe_passed_over(passed_over)}")
    if failed:
        complain(f"{failed} of {len(jobs)} photos could not be done; see above")
        raise typer.Exit(1)


def _kinds(save: str | None, *, writing: bool) -> list[str]:
    if not writing or save == "none":
        return []
    kinds = split_names("--save", "overlay,mask" if save is None else save)
    check_choices("--save", kinds, [*SUFFIXES, "none"])
    if "none" in kinds:
        raise InputError(f"--save: got '{save}'; 'none' stands alone.")
    return list(dict.fromkeys(kinds))


def _check_settings(runtime: str | None, precision: str) -> None:
    from deeplab.runtimes import Precision
    from deeplab.segmenter import Runtime

    check_choices("--precision", [precision], get_args(Precision))
    check_choices("--runtime", [runtime] if runtime else [], get_args(Runtime))


def _open(model: str, *, runtime: str | None, **settings: Any) -> Segmenter:
    from deeplab import zoo
    from deeplab.cli.models import show_progress
    from deeplab.segmenter import Segmenter

    if not Path(model).exists():
        with show_progress() as progress:
            zoo.locate(model, progress=progress)
    if runtime:
        settings["runtime"] = runtime
    return Segmenter(model, **settings)


# --- the printing -----------------------------------------------------------------------------


def _show_json(done: Iterator[tuple[Job, Outcome]], jobs: list[Job], folder: Path | None) -> int:
    entries: list[dict[str, Any]] = []
    failed = 0
    for job, result in done:
        entry: dict[str, Any] = {"photo": str(job.photo)}
        if isinstance(result, DeepLabError):
            failed += 1
            entries.append({**entry, "error": str(result)})
            complain(str(result))
            continue
        files = {kind: str(path) for kind, path in result.job.files.items()}
        entries.append({**result.summary, **entry, "files": files})
    typer.echo(json.dumps({"photos": entries}, indent=1, ensure_ascii=False))
    return failed


def _show(done: Iterator[tuple[Job, Outcome]], jobs: list[Job], folder: Path | None) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = stdout()
    totals: dict[str, float] = {}
    failed = 0
    written: list[Job] = []
    progress_console = stderr()
    quiet = len(jobs) == 1 or not progress_console.is_terminal
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=progress_console, transient=True, disable=quiet) as progress:
        task = progress.add_task("photos", total=len(jobs))
        for _, result in done:
            progress.advance(task)
            if isinstance(result, DeepLabError):
                failed += 1
                complain(str(result))
                continue
            written.append(result.job)
            for stage, ms in result.timings.items():
                totals[stage] = totals.get(stage, 0) + ms
            console.print(_table(result) if len(jobs) == 1 else _line(result))
    if written:
        per_photo = {stage: ms / len(written) for stage, ms in totals.items()}
        split = ", ".join(f"{s} {per_photo[s]:.1f} ms" for s in _STAGES if s in per_photo)
        console.print(f"time{' per photo' if len(jobs) > 1 else ''}: {split}")
        if folder:
            console.print(f"written to {folder}: {_names(written)}")
    return failed


def _names(written: list[Job]) -> str:
    """Return the names of one photo's files; of several, how they end, if not as usual."""
    if len(written) == 1:
        return ", ".join(path.name for path in written[0].files.values())
    ends = dict.fromkeys(SUFFIXES[kind] for kind in written[0].files)
    for job in written:
        for kind, path in job.files.items():
            if path.suffix != Path(SUFFIXES[kind]).suffix:
                ends[f".{kind}{path.suffix}"] = None
    return ", ".join(f"*{end}" for end in ends)


def _table(result: Done) -> Any:
    from rich.table import Table

    height, width = result.size
    title = f"{result.job.photo.name}, {width}×{height}"
    table = Table("", "class", title=title, title_justify="left")
    table.add_column("share", justify="right")
    for entry in result.entries:
        table.add_row(swatch(entry.colour), entry.name, f"{entry.share:.1%}")
    rest = 1 - sum(entry.share for entry in result.entries)
    if rest > 0:
        table.add_row("", "(background)", f"{rest:.1%}", style="dim")
    return table


def _line(result: Done) -> Any:
    from rich.text import Text

    line = Text(f"{result.job.photo.name}: ")
    for number, entry in enumerate(result.entries):
        line.append(", " if number else "")
        line.append_text(swatch(entry.colour)).append(f" {entry.name} {entry.share:.1%}")
    return line if result.entries else line.append("nothing but background")
