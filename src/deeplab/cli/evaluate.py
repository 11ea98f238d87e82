"""``deeplab evaluate``: a model and a data set, to a score with its protocol."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.progress import Progress

from deeplab.cli import labelled_clips, model_options, tiling
from deeplab.cli import panoptic as panoptic_command
from deeplab.cli.console import check_choices, parse_numbers, split_names, stderr, stdout
from deeplab.errors import InputError, OutputError
from deeplab.limits import MAX_SIDE
from deeplab.remote.address import find_address

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from deeplab.data.sample import Dataset
    from deeplab.evaluation.overlap import Looker

_LARGEST_SCALE = 16


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A release pair, weights, an exported file, or a name.")
    ],
    data: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder of the data set.")],
    split: Annotated[str | None, typer.Option(help="The split to score (default: val).")] = None,
    scales: Annotated[str, typer.Option(help="Scales of the photo: 0.5,1,1.5.")] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Also look at mirrored photos.")] = False,
    output_stride: Annotated[
        int | None, typer.Option("--output-stride", max=32, help="8 is finer than the trained 16.")
    ] = None,
    tile: tiling.Tile = None,
    overlap: tiling.Overlap = None,
    context: tiling.Context = None,
    classes: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Also average over these classes only.")
    ] = None,
    trimap: Annotated[
        str | None, typer.Option(metavar="WIDTHS", help="Score bands along borders: 1,4,16.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="Of exported files, where several run them: openvino.")
    ] = None,
    labels: model_options.Labels = None,
    normalisation: model_options.Normalise = None,
    fit: model_options.Fit = None,
    size: model_options.Size = None,
    output_name: model_options.OutputName = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of torch networks: cpu or cuda (default: the GPU, if any); of exported files any "
            "that 'deeplab info --devices' lists (default: cpu).",
        ),
    ] = None,
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration",
            help="Instead: is it right as often as it says? Writes a temperature into the model.",
        ),
    ] = False,
    video: Annotated[
        bool,
        typer.Option("--video", help="DATASET is a folder of clips, with masks of their frames."),
    ] = False,
    panoptic: Annotated[
        bool,
        typer.Option(
            "--panoptic",
            help="MODEL and DATASET are COCO panoptic JSON files: predictions and truth.",
        ),
    ] = False,
    steady: Annotated[
        bool | None,
        typer.Option(
            "--steady/--no-steady", help="With --video, smooth masks over time (default: steady)."
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="auto|local|ADDRESS",
            help="Over the workers of a Ray cluster: ray://head:10001; the counts are the same.",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report.html, report.json, pictures.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="Also write masks: voc or cityscapes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Score a network on a data set: mIoU with its interval, IoU by class, the whole protocol."""
    from deeplab.cli.places import bring, sending
    from deeplab.segmenter import Runtime

    check_choices("--runtime", [runtime] if runtime else [], get_args(Runtime))
    told = model_options.read_model_options(
        labels=labels, normalisation=normalisation, fit=fit, size=size, output_name=output_name
    )
    if panoptic:
        labelled_clips.refuse(
            {
                "--split": split, "--scales": scales != "1", "--flip": flip, "--tile": tile,
                "--overlap": overlap is not None, "--output-stride": output_stride,
                "--calibration": calibration, "--report": report, "--server": server,
                "--video": video, "--steady": steady is not None, "--trimap": trimap,
                "--classes": classes, "--runtime": runtime, "--device": device,
                "--labels": labels, "--normalise": normalisation, "--fit": fit, "--size": size,
                "--output-name": output_name,
            },
            beside="--panoptic: two files are compared, and nothing is run",
        )  # fmt: skip
        panoptic_command.evaluate_segments(bring(Path(model)), bring(data), as_json=as_json)
        return
    widths = (
        [int(width) for width in parse_numbers("--trimap", trimap, most=MAX_SIDE)] if trimap else []
    )
    if video:
        labelled_clips.refuse(
            {
                "--split": split, "--scales": scales != "1", "--flip": flip, "--tile": tile,
                "--overlap": overlap is not None, "--context": context,
                "--output-stride": output_stride, "--calibration": calibration,
                "--report": report, "--server": server, "--cluster": cluster,
            }
        )  # fmt: skip
        told |= {"runtime": runtime, "device": device}
        labelled_clips.evaluate_clips(
            model,
            bring(data),
            steady=steady is not False,
            trimap=widths,
            classes=classes,
            as_json=as_json,
            **told,
        )
        return
    if steady is not None:
        raise InputError("--steady, --no-steady: is of clips; with --video.")
    from deeplab.cli.cluster import evaluate_pictures
    from deeplab.data import open_dataset
    from deeplab.evaluation.protocol import Evaluation, FilePredictor, open_predictor
    from deeplab.evaluation.protocol import evaluate as count
    from deeplab.evaluation.report import describe_shared, summary_table, to_dict, write_report
    from deeplab.evaluation.server import ServerWriter
    from deeplab.training.processes import join_processes

    dataset = open_dataset(bring(data), split=split or "val")
    chosen = None if classes is None else dataset.labels.indices(split_names("--classes", classes))
    if cluster is not None and (calibration or server):
        raise InputError("--cluster: counts; leave out --calibration and --server.")
    if calibration:
        if scales != "1" or flip or tile or output_stride or trimap or classes or server:
            raise InputError(
                "--calibration: is of one look, as 'deeplab segment' takes it; leave out --scales, "
                "--flip, --tile, --output-stride, --trimap, --classes, --server."
            )
        told |= {"runtime": runtime, "device": device}
        _calibrate(model, dataset, report=report, as_json=as_json, **told)
        return
    in_torch = {None: "auto", "gpu": "cuda"}.get(device, device)
    if in_torch not in ("auto", "cpu", "cuda"):
        in_torch = "cpu"
    windows = tiling.read_tiling(tile=tile, overlap=overlap, context=context, size=size)
    if windows is not None and windows.size and windows.size[0] != windows.size[1]:
        raise InputError(f"--tile: got '{tile}', expected one number: windows are square here.")
    with join_processes(in_torch) as processes:
        told |= {
            "scales": parse_numbers("--scales", scales, most=_LARGEST_SCALE),
            "flip": flip,
            "output_stride": output_stride,
            "tile": None if windows is None else windows.size[0] if windows.size else "auto",
            **(windows.arguments if windows else {}),
            "file_device": device,
            "runtime": cast("Runtime | None", runtime),
        }
        predictor = open_predictor(model, device=processes.device, **told)
        if processes.first and isinstance(predictor, FilePredictor):
            opened = predictor.segmenter
            model_options.tell_assumed(model, opened.card)
            model_options.tell_device(model, device, opened.network.device)
        if predictor.labels.overlap or dataset.labels.overlap:
            if widths or classes or report or server or processes.count > 1:
                raise InputError(
                    "--trimap, --classes, --report, --server, several processes: are for classes "
                    "that exclude each other; leave them out."
                )
            _evaluate_overlapping(cast("Looker", predictor), dataset, as_json=as_json)
            return
        writer = None
        if server is not None:
            if find_address(report):
                raise InputError("--server: writes into a folder of this machine; name one.")
            writer = ServerWriter((report or Path()) / "server", server, dataset.labels)
        with Progress(console=stderr(), transient=True, disable=not processes.first) as bar:
            mine = range(processes.rank, len(dataset), processes.count)
            task = bar.add_task("pictures", total=len(mine))

            def each(index: int, name: str, mask: npt.NDArray[np.uint8]) -> None:
                bar.advance(task)
                if writer is not None:
                    writer(index, name, mask)

            if cluster is None:
                part = count(predictor, dataset, trimap=widths, indices=mine, each=each)
            else:
                part = evaluate_pictures(
                    dataset,
                    cluster=cluster,
                    data=data,
                    model=model,
                    told=told,
                    trimap=widths,
                    advance=lambda: bar.advance(task),
                )
        found = functools.reduce(Evaluation.merge, processes.gather(part))
        if not processes.first:
            return
    if shared := describe_shared(found, predictor.labels, dataset.labels):
        stderr().print(shared, markup=False)
    if as_json:
        stdout().print_json(json.dumps(to_dict(found, classes=chosen)))
    else:
        stdout().print(summary_table(found, classes=chosen))
    if report is not None:
        with sending(report) as folder:
            page = write_report(folder, found, predictor=predictor, dataset=dataset, classes=chosen)
        stderr().print(f"Report: {page}")


def _evaluate_overlapping(predictor: Looker, dataset: Dataset, *, as_json: bool) -> None:
    from rich.table import Table

    from deeplab.evaluation.overlap import evaluate_overlapping

    with Progress(console=stderr(), transient=True) as bar:
        task = bar.add_task("pictures", total=len(dataset))
        found = evaluate_overlapping(predictor, dataset, each=lambda: bar.advance(task))
    if as_json:
        stdout().print_json(json.dumps(found.to_dict()))
        return
    table = Table("class (they overlap)", "threshold", "IoU", title_justify="left")
    for name, threshold, iou in zip(found.labels.names, found.thresholds, found.iou, strict=True):
        table.add_row(name, f"{threshold:g}", f"{iou:.4f}")
    stdout().print(table)
    stdout().print(
        f"mIoU {found.miou:.4f}, pixel accuracy {found.accuracy:.4f}, {found.pictures} pictures"
    )


def _calibrate(
    model: str, dataset: Dataset, *, report: Path | None, as_json: bool, **told: Any
) -> None:
    from deeplab.evaluation.calibration import calibrate, draw_reliability, write_temperature
    from deeplab.segmenter import Segmenter
    from deeplab.weights.release import find_pair

    segmenter = Segmenter(find_pair(model) or model, **told)
    model_options.tell_assumed(model, segmenter.card)
    with Progress(console=stderr(), transient=True) as bar:
        task = bar.add_task("pictures", total=len(dataset))
        found = calibrate(segmenter, dataset, each=lambda: bar.advance(task))
    if as_json:
        stdout().print_json(json.dumps(found.to_dict()))
    else:
        for name, one in (("before", found.before), ("after", found.after)):
            temperature = found.own if name == "before" else found.temperature
            stdout().print(
                f"{name}: temperature {temperature:g}, expected calibration error "
                f"{one.error:.2%}, log loss {one.log_loss:.4f}"
            )
        stdout().print(
            f"chosen on {found.chosen_on} pictures, reported on {found.reported_on} others"
        )
    folder = report or Path("calibration")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"report: {folder} cannot be made: {error.strerror or error}.") from error
    draw_reliability(found).save(folder / "reliability.svg")
    stderr().print(f"Picture: {folder / 'reliability.svg'}")
    written = write_temperature(model, segmenter.card, found.temperature)
    if written is None:
        stderr().print(
            f"{model} stays as it is; give --temperature {found.temperature:g} to use it."
        )
    else:
        stderr().print(f"Temperature written into {written}")
