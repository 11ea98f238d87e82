"""``deeplab data``: check, convert and show data sets, and say what to label next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeplab.cli import model_options
from deeplab.cli.console import check_number, complain, stderr, stdout, swatch
from deeplab.errors import InputError
from deeplab.limits import MAX_COUNT

if TYPE_CHECKING:
    from deeplab.data.check import Report

data_app = typer.Typer(
    name="data",
    help="Check data sets, convert exports into them, and say what to label next.",
    no_args_is_help=True,
)

_LISTED = 3  # suspects of a fault in the terminal; the page and the JSON have them all


@data_app.command()
def check(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder of the data set.")],
    split: Annotated[
        list[str] | None,
        typer.Option(help="To look at; give it again for more (default: train and val)."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page with thumbnails.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write everything as JSON.")
    ] = None,
) -> None:
    """Look at every photo and mask of a data set; exit 1 if it should not be trained on."""
    from deeplab.cli.places import bring
    from deeplab.data import list_splits, open_dataset
    from deeplab.data.check import check as check_splits
    from deeplab.data.check_page import write_page

    dataset = bring(dataset)
    known = list_splits(dataset)
    usual = [name for name in ("train", "val") if name in known]
    with _bar("checking") as progress:
        report = check_splits(
            [open_dataset(dataset, split=name) for name in split or usual or known[:1]],
            progress=progress,
        )
    _print_report(report)
    unjudged = not split and "val" not in known
    if unjudged:
        from rich.text import Text

        stdout().print(Text("note", "yellow").append(" there is nothing to judge by", "none"))
        typer.echo(
            "     → Write [splits] into dataset.toml, and below it train = 0.8 and val = 0.2."
        )
    if page is None:
        typer.echo("Add --page check.html to see pairs, suspects and what augmentation does.")
    ready = "Ready to train on, once there is a val." if unjudged else "Ready to train on."
    typer.echo("Do not train on this yet." if report.stops else ready)
    if page is not None:
        write_page(report, page)
        typer.echo(f"page: {page}")
    if json is not None:
        report.save_json(json)
        typer.echo(f"json: {json}")
    if report.stops:
        raise typer.Exit(1)


@data_app.command()
def convert(
    source: Annotated[
        list[Path],
        typer.Argument(
            metavar="EXPORT",
            help="File or folder of COCO, labelme, CVAT, YOLO, Label Studio, Supervisely, VIA, "
            "Roboflow, or of photos with masks; or TFRecord shards.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to make or to add to.")
    ],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the photos (default: beside the export)."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Put all photos into this split (default: the export's own; where it has none to "
            "judge by, photos are divided into train and val)."
        ),
    ] = None,
    validation_share: Annotated[
        float,
        typer.Option(
            max=1,
            callback=check_number,
            help="Share of the divided photos that becomes val; 0 for none.",
        ),
    ] = 0.2,
    seed: Annotated[int, typer.Option(max=MAX_COUNT, help="Another one divides otherwise.")] = 0,
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable",
            help="Go on without annotations and photos that cannot be read; what such an "
            "annotation covers counts for nothing.",
        ),
    ] = False,
    attribute: Annotated[
        str | None, typer.Option(help="VIA: the region attribute that names the class.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of text files that are in none of Unicode's: gbk, latin-1.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="TFRecord: the classes, which shards do not name: voc, cityscapes, ade20k, or a "
            "file with a name per line.",
        ),
    ] = None,
    overlap: Annotated[
        bool,
        typer.Option(
            "--overlap",
            help="Classes may overlap: write a mask for each, in which nothing lies over anything.",
        ),
    ] = False,
) -> None:
    """Turn an annotation tool's export into a folder of photos, masks and a dataset.toml."""
    from deeplab.cli.places import bring, sending
    from deeplab.data.convert import convert as convert_export

    sources, images = [bring(path) for path in source], images and bring(images)
    with sending(output) as folder, _bar("converting") as progress:
        made = convert_export(
            sources,
            folder,
            images=images,
            split=split,
            validation_share=validation_share,
            seed=seed,
            skip_unreadable=skip_unreadable,
            attribute=attribute,
            encoding=encoding,
            labels=labels,
            overlap=overlap,
            progress=progress,
        )
    counts = ", ".join(f"{count} in '{name}'" for name, count in made.splits.items())
    typer.echo(f"{output}: {made.count} pairs, {counts}; classes: {', '.join(made.classes)}")
    for note in made.notes:
        typer.echo(f"note: {note}.")


@data_app.command()
def show(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE", help="A recipe, or the folder of a training (runs/NAME)."),
    ],
    data: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The page.")
    ] = Path("batches.html"),
    steps: Annotated[int, typer.Option(min=1, max=100, help="How many batches.")] = 2,
    settings: Annotated[
        list[str] | None, typer.Option("-s", "--set", metavar="NAME=VALUE", help="Any setting.")
    ] = None,
) -> None:
    """Write an HTML page that shows what the first batches of a training look like."""
    from deeplab.cli.places import bring
    from deeplab.cli.train import read_assignments
    from deeplab.training.batch_page import write_batch_page
    from deeplab.training.settings import read_recipe

    if recipe.is_dir():
        recipe = recipe / "recipe.toml"
    overrides = read_assignments(settings or [])
    if data is not None:
        overrides["data.path"] = str(bring(data))
    count = write_batch_page(read_recipe(recipe, overrides), output, steps=steps)
    typer.echo(f"page: {output} ({count} pictures)")


@data_app.command()
def suggest(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO|FOLDER…", help="Photos without labels.")
    ],
    model: Annotated[
        str, typer.Option("-m", "--model", help="A name or a file; the network that is to learn.")
    ] = "voc",
    count: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="How many photos.")] = 20,
    labelled: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help="Photos that are labelled already: others should be unlike them. May be repeated.",
        ),
    ] = None,
    uncertainty: Annotated[
        float,
        typer.Option(
            metavar="POWER",
            min=0,
            max=100,
            callback=check_number,
            help="How much uncertainty counts: distances are multiplied by its power of this.",
        ),
    ] = 0.0,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the list, a path a line."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page with pictures.")
    ] = None,
    device: model_options.Device = None,
    labels: model_options.Labels = None,
    normalisation: model_options.Normalise = None,
) -> None:
    """Say which photos to label next: unlike each other, and of which the network is unsure."""
    from deeplab.cli.photos import find_and_tell
    from deeplab.evaluation.suggest import suggest as choose_photos
    from deeplab.evaluation.suggest_page import write_page
    from deeplab.files import replacing
    from deeplab.segmenter import Segmenter

    told = model_options.read_model_options(
        labels=labels, normalisation=normalisation, fit=None, size=None, output_name=None
    )
    known = {path.resolve() for path in find_and_tell(labelled)} if labelled else set()
    found = [path for path in find_and_tell(photos) if path.resolve() not in known]
    if not found:
        raise InputError("photos: all of them are among the labelled ones.")
    segmenter = Segmenter(model, device=device, **told)
    model_options.tell_assumed(model, segmenter.card)
    with _bar("looking") as progress:
        made = choose_photos(
            found,
            segmenter,
            count=count,
            labelled=sorted(known),
            uncertainty=uncertainty,
            progress=progress,
        )
    for one in made.chosen:
        typer.echo(f"{one.photo}  unsure {100 * one.uncertainty:.1f} %, new {one.novelty:.2f}")
    for _, words in made.failed:
        complain(words)
    if output is not None:
        with replacing(output) as partial:
            text = "".join(f"{one.photo}\n" for one in made.chosen)
            partial.write_text(text, "utf-8", "surrogateescape")
        typer.echo(f"list: {output}")
    if page is not None:
        write_page(made, segmenter, page)
        typer.echo(f"page: {page}")
    if made.failed:
        raise typer.Exit(1)


def _print_report(report: Report) -> None:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    for sentence in report.assumed:
        typer.echo(f"assumed: {sentence}")
    for split in report.splits:
        labels, counts = split.dataset.labels, split.counts
        height, width = split.median_size
        typer.echo(
            f"{split.dataset.split}: {len(split.dataset)} pairs, median {height}×{width}, "
            f"{100 * counts.ignored_share:.1f} % of the pixels ignored"
        )
        first = split is report.splits[0]
        table = Table("", "class", box=SIMPLE, pad_edge=False)
        for heading in ("photos", "pixels", *(["weight"] if first else [])):
            table.add_column(heading, justify="right")
        for index, name in enumerate(labels.names):
            table.add_row(
                swatch(labels.colours[index]),
                name,
                str(counts.photos[index]),
                f"{100 * counts.shares[index]:.3g} %",
                *([f"{report.class_weights[index]:.3g}"] if first else []),
            )
        console.print(table)
    height, width = report.crop_size
    typer.echo(f"suggested crop: {height}×{width}; weights: median frequency")
    for fault in report.faults:
        mark = Text("STOP", "red") if fault.stops else Text("note", "yellow")
        console.print(mark.append(f" {fault.split}: {len(fault.suspects)} × {fault.what}", "none"))
        for suspect in fault.suspects[:_LISTED]:
            typer.echo(f"     {Path(suspect.what).name}: {suspect.note}")
        if len(fault.suspects) > _LISTED:
            typer.echo(f"     … and {len(fault.suspects) - _LISTED} more")
        typer.echo(f"     → {fault.cure}")


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows (done, all) as a bar on stderr."""
    from rich.progress import MofNCompleteColumn, Progress

    console = stderr()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
