"""``deeplab train``: a recipe, or a folder of pictures, to a trained network."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from deeplab.cli.console import check_number, stderr, stdout
from deeplab.errors import InputError
from deeplab.files import parse_toml
from deeplab.limits import MAX_COUNT
from deeplab.remote.address import find_address, place

if TYPE_CHECKING:
    from deeplab.training.settings import Settings


def train(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RECIPE.toml]", help="A recipe; see recipes/. With --settings, a word."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data set, in any known layout.")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--architecture", help="v1, v2, v3, v3plus.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="mobilenet_v2, resnet_v1_50_beta, …")] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="none|NAME|FILE",
            help="Weights to start from, of any origin; without it, the network 'voc'.",
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(min=0.01, max=MAX_COUNT, help="How often each photo is seen.")
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option(
            "--time",
            metavar="15m",
            help="Plan for this long and stop within it (90s, 15m, 2h); 0: no step, a network "
            "of your classes in seconds.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_COUNT, help="Optimiser steps.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", "--batch", min=1, max=MAX_COUNT, help="Pictures per step."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--lr", max=1e6, callback=check_number, help="Highest learning rate (schedule.base)."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "-s", "--set", metavar="NAME=VALUE", help="Any setting: -s schedule.base=0.01"
        ),
    ] = None,
    list_settings: Annotated[
        bool,
        typer.Option(
            "--settings", help="List all settings, or those that a word finds: --settings rate."
        ),
    ] = False,
    sweep: Annotated[
        Path | None,
        typer.Option(
            metavar="SWEEP.toml", help="Train many times: a grid of settings, seeds, folds."
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where to write, and to resume (default: runs/NAME).")
    ] = None,
) -> None:
    """Train a network; run it again to resume. Several GPUs: torchrun -m deeplab train …"""
    if list_settings:
        _print_settings(None if recipe is None else str(recipe))
        return
    if recipe is None and data is None:
        raise InputError("train: give a recipe, or the folder of a data set with --data.")
    seconds = None if duration is None else _seconds(duration)
    if sweep is not None and seconds is not None:
        raise InputError("--time: is for one training; with --sweep give --steps or --epochs.")
    if steps is not None and (epochs is not None or seconds is not None):
        raise InputError("--steps: already says how long; leave out --epochs and --time.")
    console = stderr()
    console.print("Getting ready: PyTorch is loaded …")  # 3 s, and 20 where others work too
    from deeplab.cli.places import bring, sending
    from deeplab.data.shards import names_shards
    from deeplab.remote.copies import listed_once
    from deeplab.training.experiment import run_experiment
    from deeplab.training.preset import choose_settings, deadline
    from deeplab.training.settings import apply_overrides, read_tables

    stop = deadline(seconds)

    overrides: dict[str, Any] = {
        "data.path": None if data is None else str(place(data)),
        "model.version": "v3+" if version == "v3plus" else version,
        "model.backbone": backbone,
        "init.path": init,
        "run.steps": steps,
        "run.batch_size": batch_size,
        "schedule.base": rate,
    }
    overrides = {name: value for name, value in overrides.items() if value is not None}
    overrides |= read_assignments(settings or [])
    if recipe is not None:
        tables = read_tables(recipe)
    else:
        assert data is not None
        of_set = data.resolve().parent if names_shards(data) else data.resolve()
        tables = {"name": of_set.name}
    own_plan = bool({"schedule", "optimiser"} & set(tables))
    values = apply_overrides(tables, overrides)
    folder = folder or Path("runs") / str(values["name"])
    with listed_once(), sending(folder) as here:
        if address := find_address(values.get("data", {}).get("path")):
            bring(address)

        def choose() -> Settings:
            return choose_settings(
                values,
                folder=here,
                own_plan=own_plan,
                epochs=epochs,
                seconds=seconds,
                tell=console.print,
            )

        if sweep is not None:
            _sweep(sweep, here, choose, values)
            return
        chosen = choose()
        progress = run_experiment(chosen, here, tell=console.print, callbacks=stop)
    if progress.interrupted:
        raise typer.Exit(130)


def _sweep(
    path: Path, folder: Path, choose: Callable[[], Settings], values: dict[str, Any]
) -> None:
    from deeplab.training.sweep import begin_sweep, read_sweep, run_sweep

    plan = read_sweep(path)
    try:
        rows = run_sweep(begin_sweep(folder, choose, values), plan, folder, tell=stderr().print)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo("Best first; mean mIoU over seeds and folds, and its 95 % interval:")
    for row in rows:
        typer.echo(str(row))
    typer.echo(f"table: {folder / 'sweep.csv'}")


def _print_settings(word: str | None) -> None:
    from rich.table import Table

    from deeplab.training.settings_page import find_settings, list_settings

    table = Table("setting", "default", "what", pad_edge=False, show_lines=True)
    for entry in list_settings() if word is None else find_settings(word):
        table.add_row(*map(escape, (entry.name, entry.default, f"{entry.text} ({entry.kind})")))
    console = stdout()
    console.print(table, soft_wrap=False)


def _seconds(text: str) -> float:
    """Return the seconds of "90s", "15m", "2h" or "0"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)", text.strip().lower())
    if text.strip() == "0":
        return 0.0
    if match is None:
        raise InputError(f"--time: got '{text}', expected a time like 90s, 15m or 2h, or 0.")
    return float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}[match[2]]


def read_assignments(assignments: list[str]) -> dict[str, Any]:
    """Return the values of ``-s NAME=VALUE`` by dotted name."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--set: got '{assignment}', expected NAME=VALUE, like run.steps=100.")
        values[name.strip()] = _parse(text.strip())
    return values


def _parse(text: str) -> Any:
    """Return a TOML value; what is none is a text."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except (RecursionError, ValueError):
        return text.strip("'\"")
