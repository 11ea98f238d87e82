"""``deeplab optimize``: a foreign ``.tflite`` made faster, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deeplab.cli.console import in_bytes


def optimize(
    model: Annotated[
        str, typer.Argument(metavar="FILE", help="A .tflite file, or a name of the zoo.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="OUT", help="File to write (default: FILE.optimized.tflite)."
        ),
    ] = None,
    photo: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Compare on this one, not on those of the package; may be repeated.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that exists already.")
    ] = False,
) -> None:
    """Make a .tflite faster without changing what it computes, and prove it."""
    from deeplab import zoo
    from deeplab.cli.models import show_progress
    from deeplab.export.optimize import optimize as run

    with show_progress() as progress:
        path = zoo.locate(model, progress=progress)
    report = run(
        path,
        output or Path(f"{path.stem}.optimized.tflite"),
        photos=photo or (),
        overwrite=overwrite,
    )
    for change in report.changes:
        typer.echo(change)
    for reason in report.left:
        typer.echo(f"kept: {reason}")
    before, after = report.steps
    sizes = [in_bytes(size) for size in report.bytes]
    typer.echo(f"operators: {before} before, {after} now; file: {sizes[0]} before, {sizes[1]} now")
    proof = report.comparison
    typer.echo(
        f"compared on {proof.pictures} pictures: logits differ by at most {proof.difference:.1e} "
        f"(the largest is {proof.largest_logit:.1f})"
    )
    masks = "all masks are equal" if proof.equal == proof.pixels else (
        f"{proof.equal:,} of {proof.pixels:,} pixels of the masks are equal"
    )  # fmt: skip
    typer.echo(f"{masks}; {proof.equal_to_file / proof.pixels:.3%} as the file answers by itself")
    typer.echo(f"written: {report.target}")
