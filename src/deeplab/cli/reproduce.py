"""``deeplab reproduce``: train a recipe, and hold its score against the published one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deeplab.cli.console import stderr
from deeplab.remote.address import place


def reproduce(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE.toml", help="A recipe with a table [published].")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data set, in any known layout.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(metavar="none|NAME|FILE", help="Weights to start from.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("-s", "--set", metavar="NAME=VALUE", help="Any setting.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where to write, and to resume (default: runs/NAME).")
    ] = None,
) -> None:
    """Train a recipe, evaluate it as was published, and print both scores; resumes."""
    from deeplab.cli.places import bring
    from deeplab.cli.train import read_assignments
    from deeplab.training.preset import choose_settings
    from deeplab.training.reproduce import check_published
    from deeplab.training.reproduce import reproduce as run
    from deeplab.training.settings import Settings, apply_overrides, read_tables

    console = stderr()
    overrides: dict[str, Any] = read_assignments(settings or [])
    if data is not None:
        overrides["data.path"] = str(bring(place(data)))
    if init is not None:
        overrides["init.path"] = init
    values = apply_overrides(read_tables(recipe), overrides)
    check_published(Settings.from_dict(values))
    here = folder or Path("runs") / str(values["name"])
    chosen = choose_settings(values, folder=here, own_plan=True, tell=console.print)
    try:
        found = run(chosen, here, tell=console.print)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo(str(found))
