"""``deeplab segment``: photos in, masks and pictures out."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args

import typer

from deeplab.cli import model_options
from deeplab.cli.console import check_choices, complain, split_names, stderr, stdout, swatch
from deeplab.cli.outputs import SUFFIXES, Job, Writer, plan_jobs, summarise
from deeplab.errors import DeepLabError, InputError
from deeplab.limits import MAX_THREADS, MAX_WORKERS

if TYPE_CHECKING:
    from deeplab.photo.results import Segmentation
    from deeplab.segmenter import Segmenter

_STAGES = ("decode", "network", "mask", "crf", "draw")

Outcome: TypeAlias = "Segmentation | DeepLabError"


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
    from deeplab.photo.find import describe_passed_over

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
    segmenter = _open(
        model, runtime=runtime, precision=precision, threads=threads, exact=exact, **told
    )
    model_options.tell_assumed(model, segmenter.card)
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
    done = _run(segmenter, jobs, workers=workers, only=kept, crf=crf)
    show = _show_json if as_json else _show
    failed = show(done, segmenter, jobs, folder)
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


# --- the work ---------------------------------------------------------------------------------


def _run(
    segmenter: Segmenter, jobs: list[Job], *, workers: int | None, only: list[str] | None, crf: bool
) -> Iterator[tuple[Job, Outcome]]:
    """Segment and write every photo; give back what became of each, in order."""
    workers = workers or os.cpu_count() or 1
    results: Iterable[Outcome]
    if len(jobs) == 1:
        results = [_segment_one(segmenter, jobs[0].photo)]
    else:
        results = segmenter.map([job.photo for job in jobs], workers=workers, on_error="yield")
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Job, Future[Outcome]]] = deque()
        for job, result in zip(jobs, results, strict=True):
            if crf and not isinstance(result, DeepLabError):
                result = _refine(result)
            waiting.append((job, pool.submit(_finish, job, result, only)))
            if len(waiting) > 2 * workers:  # results are as large as the photos
                job, future = waiting.popleft()
                yield job, future.result()
        for job, future in waiting:
            yield job, future.result()


def _segment_one(segmenter: Segmenter, photo: Path) -> Outcome:
    """Segment one photo with all the threads of the network; many run on one thread each."""
    from deeplab.errors import ImageError

    try:
        return segmenter(photo)
    except ImageError as error:
        return error


def _refine(result: Segmentation) -> Outcome:
    from deeplab.crf import refine_segmentation
    from deeplab.errors import ImageError

    try:
        return refine_segmentation(result)
    except ImageError as error:
        return error


def _finish(job: Job, result: Outcome, only: list[str] | None) -> Outcome:
    """Write the files of one photo. A full disk ends the run; a bad photo does not."""
    from deeplab.errors import ImageError
    from deeplab.photo.draw import keep_only

    if isinstance(result, DeepLabError):
        return result
    start = time.perf_counter()
    if only:
        mask, labels = keep_only(result.mask, only, labels=result.labels)
        result = dataclasses.replace(result, mask=mask, labels=labels)
    try:
        Writer(result, only=only).write(job.files)
    except ImageError as error:
        return error
    drawn = 1000 * (time.perf_counter() - start)
    return dataclasses.replace(result, timings={**result.timings, "draw": drawn})


# --- the printing -----------------------------------------------------------------------------


def _show_json(
    done: Iterator[tuple[Job, Outcome]], segmenter: Segmenter, jobs: list[Job], folder: Path | None
) -> int:
    entries: list[dict[str, Any]] = []
    failed = 0
    for job, result in done:
        entry: dict[str, Any] = {"photo": str(job.photo)}
        if isinstance(result, DeepLabError):
            failed += 1
            entries.append({**entry, "error": str(result)})
            complain(str(result))
            continue
        files = {kind: str(path) for kind, path in job.files.items()}
        entries.append({**summarise(result), **entry, "files": files})
    typer.echo(json.dumps({"photos": entries}, indent=1, ensure_ascii=False))
    return failed


def _show(
    done: Iterator[tuple[Job, Outcome]], segmenter: Segmenter, jobs: list[Job], folder: Path | None
) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = stdout()
    totals: dict[str, float] = {}
    failed = 0
    progress_console = stderr()
    quiet = len(jobs) == 1 or not progress_console.is_terminal
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=progress_console, transient=True, disable=quiet) as progress:
        task = progress.add_task("photos", total=len(jobs))
        for job, result in done:
            progress.advance(task)
            if isinstance(result, DeepLabError):
                failed += 1
                complain(str(result))
                continue
            for stage, ms in result.timings.items():
                totals[stage] = totals.get(stage, 0) + ms
            console.print(_table(result) if len(jobs) == 1 else _line(job, result))
    if failed < len(jobs):
        per_photo = {stage: ms / (len(jobs) - failed) for stage, ms in totals.items()}
        split = ", ".join(f"{s} {per_photo[s]:.1f} ms" for s in _STAGES if s in per_photo)
        console.print(f"time{' per photo' if len(jobs) > 1 else ''}: {split}")
        if folder:
            console.print(f"written to {folder}: {_names(jobs)}", markup=False)
    return failed


def _names(jobs: list[Job]) -> str:
    if len(jobs) == 1:
        return ", ".join(path.name for path in jobs[0].files.values())
    return ", ".join(f"*{SUFFIXES[kind]}" for kind in jobs[0].files)


def _table(result: Segmentation) -> Any:
    from rich.table import Table

    from deeplab.photo.draw import legend_entries

    table = Table("", "class", title=_title(result), title_justify="left")
    table.add_column("share", justify="right")
    entries = legend_entries(result.mask, result.labels)
    for entry in entries:
        table.add_row(swatch(entry.colour), entry.name, f"{entry.share:.1%}")
    rest = 1 - sum(entry.share for entry in entries)
    if rest > 0:
        table.add_row("", "(background)", f"{rest:.1%}", style="dim")
    return table


def _title(result: Segmentation) -> str:
    height, width = result.mask.shape
    return f"{Path(result.name).name}, {width}×{height}"


def _line(job: Job, result: Segmentation) -> Any:
    from rich.text import Text

    from deeplab.photo.draw import legend_entries

    line = Text(f"{job.photo.name}: ")
    entries = legend_entries(result.mask, result.labels)
    for number, entry in enumerate(entries):
        line.append(", " if number else "")
        line.append_text(swatch(entry.colour)).append(f" {entry.name} {entry.share:.1%}")
    return line if entries else line.append("nothing but background")
