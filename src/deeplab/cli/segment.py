"""``deeplab segment``: photos and videos in, masks and pictures out."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from deeplab.cli import model_options, tiling
from deeplab.cli.console import (
    check_choices,
    check_number,
    complain,
    parse_numbers,
    show_stages,
    split_names,
    stderr,
    stdout,
    swatch,
)
from deeplab.cli.outputs import CLIP_SUFFIXES, DATA_SETS, SUFFIXES, Job, claimed, plan_jobs
from deeplab.errors import DeepLabError, InputError
from deeplab.limits import MAX_COUNT, MAX_SECONDS, MAX_SIDE, MAX_THREADS, MAX_WORKERS
from deeplab.remote.address import Place, place

if TYPE_CHECKING:
    from deeplab.cli.clips import ClipWork
    from deeplab.cli.photos import Found
    from deeplab.cli.work import Done, Outcome
    from deeplab.segmenter import Segmenter

_KINDS = tuple(dict.fromkeys((*SUFFIXES, *CLIP_SUFFIXES)))
_STAGES = ("decode", "network", "mask", "crf", "draw")


def segment(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO|VIDEO|FOLDER|GLOB…",
            help="What to segment; also a camera (0, /dev/video0) or an address (rtsp://…).",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help="A name ('deeplab models list') or a file (default: voc; voc-fast for videos).",
        ),
    ] = None,
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
            help=f"What to write: {', '.join(_KINDS)}; one data set of all photos: "
            f"{', '.join(DATA_SETS)}; or none (default: overlay,mask).",
        ),
    ] = None,
    shapes: Annotated[
        str,
        typer.Option(
            help="Of objects in data sets: masks, exact; or polygons, which can be moved by hand."
        ),
    ] = "masks",
    tolerance: Annotated[
        float,
        typer.Option(
            metavar="PIXELS",
            min=0,
            max=MAX_SIDE,
            callback=check_number,
            help="By which polygons may leave the outline; 0 keeps every pixel.",
        ),
    ] = 1.0,
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
    tile: tiling.Tile = None,
    overlap: tiling.Overlap = None,
    context: tiling.Context = None,
    scale: tiling.Scale = None,
    bands: tiling.Bands = None,
    value_range: tiling.Range = None,
    unknown: Annotated[
        float | None,
        typer.Option(
            "--unknown",
            metavar="P",
            max=MAX_COUNT,
            help="Pixels less sure than P become unknown (id 255): 0.5.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="T", max=MAX_COUNT, help="Of the probabilities (default: the model's own)."
        ),
    ] = None,
    scales: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="Look several times, and average: 0.75,1,1.25 (any-size models)."
        ),
    ] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Also look at the mirrored photo.")] = False,
    crf: Annotated[
        bool, typer.Option("--crf", help="Refine the edges with a fully connected CRF.")
    ] = False,
    steady: Annotated[
        bool, typer.Option("--steady/--no-steady", help="Smooth the masks of videos over time.")
    ] = True,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=MAX_SECONDS,
            callback=check_number,
            help="End each video after so much of it.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="auto|local|ADDRESS",
            help="Photos over a Ray cluster (ray://head:10001); goes on with what is there.",
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Draw a preview of videos into the terminal.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that exist already.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; write files only with -o or --save.")
    ] = False,
) -> None:
    """Segment photos and videos: masks, overlays, cut-outs and more, at each one's own size."""
    from deeplab.cli import clips as video
    from deeplab.cli.cluster import ClusterWork
    from deeplab.cli.data_sets import plan_data_sets
    from deeplab.cli.photos import find_photos, takes_arrays
    from deeplab.cli.work import Work
    from deeplab.photo.find import describe_passed_over, is_worth_telling
    from deeplab.photo.memory import default_budget, parse_bytes, resident_bytes
    from deeplab.runtimes.looks import MAX_SCALE
    from deeplab.runtimes.network_card import refuse_special
    from deeplab.segmenter import count_cores

    asked = _kinds(save, writing=bool(output or save is not None or not as_json))
    folder = place(output or Path("segmented")) if asked else None
    kinds = [kind for kind in asked if kind not in DATA_SETS]
    windows = tiling.read_tiling(
        tile=tile, overlap=overlap, context=context, scale=scale, bands=bands,
        value_range=value_range, size=size,
    )  # fmt: skip
    budget = parse_bytes("--memory", memory) if memory else default_budget()
    files, live = video.split_live(photos)
    found: Found = [(name, name) for name in live]
    passed_over = Counter[str]()
    if files or not live:
        more, passed_over = find_photos(
            files, output=folder, videos=video.is_installed(), arrays=takes_arrays(model, files)
        )
        found += more
    clips = video.find_clips(found, live)
    video.check_kinds(kinds, photos=len(found) - len(clips.paths), clips=len(clips.paths))
    if windows is not None and clips.paths:
        raise InputError("--tile: is for pictures; a video's frames are seen whole.")
    here = [photo for photo, _ in found if isinstance(photo, Path)]
    large = tiling.find_large(here, windows, memory=budget)
    plan = partial(
        plan_jobs,
        found,
        kinds=kinds,
        overwrite=overwrite or cluster is not None,
        clips=clips.paths,
        large=large,
    )
    jobs = plan(output=folder) if folder else [Job(photo, {}) for photo, _ in found]
    photo_jobs = [job for job in jobs if job.photo not in clips.paths]
    clip_jobs = [job for job in jobs if job.photo in clips.paths]
    data_sets = plan_data_sets(
        folder, [kind for kind in asked if kind in DATA_SETS], shapes=shapes, tolerance=tolerance
    )
    data_sets.check(jobs, others=len(clip_jobs) + len(large))
    _check_settings(runtime, precision)
    if show and not stderr().is_terminal:
        raise InputError("--show: draws into a terminal, and this is none.")
    if cluster is not None:
        _check_cluster(kinds, clips=bool(clip_jobs), data_sets=bool({*asked} & {*DATA_SETS}))
    if clip_jobs:
        _refuse_for_clips(crf=crf, unknown=unknown, scales=scales, flip=flip)
    if (windows is not None or large) and (scales != "1" or flip):
        raise InputError(
            "--scales, --flip: a picture in windows is looked at once; leave them out."
        )
    if large and unknown is not None:
        raise InputError("--unknown: needs the picture in memory, and one is read by region.")
    told = model_options.read_model_options(
        labels=labels, normalisation=normalisation, fit=fit, size=size, output_name=output_name
    )
    told |= {"runtime": runtime, "precision": precision, "exact": exact, "device": device}
    told |= {"scales": parse_numbers("--scales", scales, most=MAX_SCALE), "flip": flip}
    told |= {"temperature": temperature}
    if windows is not None and windows.size is not None:
        told["size"] = windows.size
    kept = None if only is None else split_names("--only", only)
    before = resident_bytes()
    start = time.perf_counter()
    failed = 0
    entries: dict[str, list[dict[str, Any]]] = {}
    if (clip_jobs or large) and not isinstance(folder, Path | None):
        what = "videos" if clip_jobs else "pictures that are read by region"
        raise InputError(f"output: {what} are written into a folder of this machine, not {folder}.")
    claim = claimed(folder) if isinstance(folder, Path) else contextlib.nullcontext()
    with claim, data_sets:
        if folder:  # once more: another command may have written there in the meantime
            plan(output=folder)
        if photo_jobs:
            at_once = min(workers or count_cores(), len(photo_jobs))
            # Many photos are worked on with one thread each, one with all of them.
            told |= {"threads": threads if len(photo_jobs) == 1 else 1, "streams": at_once}
            here_only = {} if cluster is None else {"device": None, "streams": 1}
            segmenter = _open_checked(
                model or "voc", kept=kept, kinds=kinds, unknown=unknown, **{**told, **here_only}
            )
            if segmenter.labels.overlap and (kept or crf or "voc" in asked):
                raise InputError(
                    "--only, --crf, --save voc: are of one class per pixel, but the classes of "
                    "this model overlap; leave them out."
                )
            if cluster is not None:
                refuse_special(segmenter.card, "--cluster")
            wishes: dict[str, Any] = {
                "only": kept, "crf": crf, "unknown": unknown, "large": large, "summaries": as_json,
                "windows": None if windows is None else windows.arguments,
            }  # fmt: skip
            with contextlib.ExitStack() as stack:
                if cluster is None:
                    work = Work(
                        segmenter,
                        workers=at_once,
                        budget=budget,
                        before=before,
                        overwrite=overwrite,
                        encoders=data_sets.encoders,
                        **wishes,
                    )
                    if windows is not None and len(photo_jobs) == 1:  # of several, photos count
                        work.progress = stack.enter_context(show_stages())
                    # Where an error ends it, photos that were begun are finished before it is told.
                    outcomes = stack.enter_context(contextlib.closing(work.run(photo_jobs)))
                    done = data_sets.keep(outcomes)
                else:
                    assert folder is not None
                    spread = ClusterWork(
                        photo_jobs,
                        cluster=cluster,
                        output=folder,
                        model=model or "voc",
                        told=told,
                        settings=wishes,
                        kinds=kinds,
                        overwrite=overwrite,
                        memory=budget if memory else None,
                        limit=workers,
                    )
                    photo_jobs = spread.due
                    done = spread.run()
                if as_json:
                    entries["photos"], failed = _collect(done)
                else:
                    failed = _show(done, photo_jobs, folder if kinds else None)
            for line in data_sets.finish():
                if not as_json:
                    stdout().print(line)
        if not as_json and len(photo_jobs) > 1:
            seconds_taken = time.perf_counter() - start
            stdout().print(f"{len(photo_jobs) - failed} photos in {seconds_taken:.1f} s")
        if clip_jobs:
            told |= {"threads": 1, "streams": 1}
            clip_work = video.ClipWork(
                segmenter=_open_checked(model or video.MODEL, kept=kept, kinds=kinds, **told),
                live=live,
                only=kept,
                steady=steady,
                seconds=seconds,
                show=show,
                workers=workers,
            )
            entries["videos"], failed_clips = _show_clips(
                clip_work, clip_jobs, folder, quiet=as_json
            )
            failed += failed_clips
    if as_json:
        told = {**entries, "passed_over": dict(passed_over)}
        typer.echo(json.dumps(told, indent=1, ensure_ascii=False))
    if is_worth_telling(passed_over):
        complain(f"passed over: {describe_passed_over(passed_over)}")
    if failed:
        what = "photos" if not clip_jobs else "videos" if not photo_jobs else "photos and videos"
        complain(f"{failed} of {len(jobs)} {what} could not be done; see above")
        raise typer.Exit(1)


def _open_checked(
    model: str,
    *,
    kept: list[str] | None,
    kinds: list[str],
    unknown: float | None = None,
    **settings: Any,
) -> Segmenter:
    """Open a network, tell what was assumed, and check that it knows what is to be kept."""
    segmenter = _open(model, **settings)
    model_options.tell_assumed(model, segmenter.card)
    model_options.tell_device(model, settings["device"], segmenter.network.device)
    _check_certainty(segmenter, kinds, unknown)
    if kept:
        if {*segmenter.labels.indices(kept)} == {segmenter.labels.background}:
            raise InputError(
                f"--only: got '{','.join(kept)}', but what is not named becomes background; name "
                "objects."
            )
    elif segmenter.labels.background is None and {"cutout", "blur"} & {*kinds}:
        raise InputError(
            "--save: this model's labels have no background to cut away or to blur; say with "
            f"--only what to keep. It knows: {', '.join(segmenter.labels.names)}."
        )
    return segmenter


def _kinds(save: str | None, *, writing: bool) -> list[str]:
    if not writing or save == "none":
        return []
    kinds = split_names("--save", "overlay,mask" if save is None else save)
    check_choices("--save", kinds, [*_KINDS, *DATA_SETS, "none"])
    if "none" in kinds:
        raise InputError(f"--save: got '{save}'; 'none' stands alone.")
    return list(dict.fromkeys(kinds))


def _check_settings(runtime: str | None, precision: str) -> None:
    from deeplab.runtimes import Precision
    from deeplab.segmenter import Runtime

    check_choices("--precision", [precision], get_args(Precision))
    check_choices("--runtime", [runtime] if runtime else [], get_args(Runtime))


def _check_cluster(kinds: list[str], *, clips: bool, data_sets: bool) -> None:
    if clips:
        raise InputError("--cluster: is for photos; leave the videos out.")
    if data_sets:
        raise InputError("--cluster: one machine makes a data set; leave its name out of --save.")
    if not kinds:
        raise InputError("--cluster: writes files for each photo; give -o DIR or --save.")


def _refuse_for_clips(*, crf: bool, unknown: float | None, scales: str, flip: bool) -> None:
    if crf:
        raise InputError("--crf: refines photos; it takes seconds for each frame of a video.")
    if unknown is not None or scales != "1" or flip:
        raise InputError("--unknown, --scales, --flip: are for photos; leave the videos out.")


def _check_certainty(segmenter: Segmenter, kinds: list[str], unknown: float | None) -> None:
    """Refuse before the work what needs probabilities, or one class per pixel, without them."""
    if segmenter.labels.overlap:
        wrong = sorted({*kinds} - {"overlay", "contour", "mask", "json", "probabilities"})
        if wrong or unknown is not None:
            raise InputError(
                f"{'--save ' + ', '.join(wrong) if wrong else '--unknown'}: is of one class per "
                "pixel, but the classes of this model overlap; of those there are overlay, "
                "contour, mask (a TIFF with a page per class), json and probabilities."
            )
    if unknown is not None:
        if not 0 < unknown <= 1:
            raise InputError(f"--unknown: got {unknown}, expected above 0, at most 1, such as 0.5.")
        segmenter.labels.with_unknown()
    if segmenter.card.output == "label map" and (unknown is not None or "confidence" in kinds):
        option = "--unknown" if unknown is not None else "--save confidence"
        raise InputError(
            f"{option}: this model gives class ids and does not say how sure it is; use one that "
            "gives logits or probabilities, such as 'voc'."
        )


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


def _collect(done: Iterator[tuple[Job, Outcome]]) -> tuple[list[dict[str, Any]], int]:
    """Return what JSON says of each photo, and how many could not be done."""
    entries: list[dict[str, Any]] = []
    failed = 0
    for job, result in done:
        entry: dict[str, Any] = {"photo": str(job.photo)}
        if isinstance(result, DeepLabError):
            failed += 1
            entries.append({**entry, "error": str(result)})
            complain(str(result))
            continue
        entries.append({**result.summary, **entry, "files": _paths(result.job)})
    return entries, failed


def _paths(job: Job) -> dict[str, str]:
    return {kind: str(path) for kind, path in job.files.items()}


def _show_clips(
    work: ClipWork, jobs: list[Job], folder: Place | None, *, quiet: bool
) -> tuple[list[dict[str, Any]], int]:
    """Run the videos and tell of each; return what JSON says, and how many could not be done."""
    from deeplab.cli.clips import tell

    entries: list[dict[str, Any]] = []
    failed = 0
    for job, result in work.run(jobs):
        if isinstance(result, DeepLabError):
            failed += 1
            entries.append({"video": str(job.photo), "error": str(result)})
            complain(str(result))
            continue
        entries.append({**result.summary, "files": _paths(result.job)})
        tell(result, labels=work.segmenter.labels, quiet=quiet)
        if folder and not quiet:
            names = ", ".join(path.name for path in result.job.files.values())
            stdout().print(f"written to {folder}: {names or 'nothing'}")
    return entries, failed


def _show(done: Iterator[tuple[Job, Outcome]], jobs: list[Job], folder: Place | None) -> int:
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
            if not path.name.endswith(PurePath(f"x{SUFFIXES[kind]}").suffix):
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
    if rest > 0 and not (result.labels is not None and result.labels.overlap):
        table.add_row("", "(background)", f"{rest:.1%}", style="dim")
    return table


def _line(result: Done) -> Any:
    from rich.text import Text

    line = Text(f"{result.job.photo.name}: ")
    for number, entry in enumerate(result.entries):
        line.append(", " if number else "")
        line.append_text(swatch(entry.colour)).append(f" {entry.name} {entry.share:.1%}")
    return line if result.entries else line.append("nothing but background")
