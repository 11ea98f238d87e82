"""``deeplab models``: what there is, where it is, and whether it is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from deeplab.cli.console import in_bytes, stderr, stdout

models_app = typer.Typer(
    name="models", help="List, download and verify the named models.", no_args_is_help=True
)
_Name = Annotated[str, typer.Argument(metavar="NAME", help="See 'deeplab models list'.")]


@models_app.command("list")
def list_models() -> None:
    """List every model that has a name, and whether it is on this machine."""
    from rich.box import SIMPLE
    from rich.table import Table

    from deeplab import zoo

    table = Table("name", "kind", "size", "here", "mIoU", box=SIMPLE, pad_edge=False)
    for model in zoo.MODELS:
        size = in_bytes(model.size) if model.size else ""
        here = "yes" if zoo.find(model) else ""
        table.add_row(
            model.name, model.kind, size, here, "" if model.miou is None else f"{model.miou:.3f}"
        )
    stdout().print(table)
    for alias, name in zoo.ALIASES.items():
        typer.echo(f"'{alias}' means {name}.")
    typer.echo("'deeplab models show NAME' says how mIoU was measured; numbers with different")
    typer.echo("protocols cannot be compared. 'deeplab import NAME' makes a model of weights.")


@models_app.command()
def show(name: _Name) -> None:
    """Print everything that is known of a model."""
    from deeplab import zoo
    from deeplab.zoo.cards import read_card

    model = zoo.get(name)
    lines = {
        "name": model.name,
        "kind": model.kind,
        "address": model.origin,
        "sha256": model.sha256 if len(model.sha256) == 64 else _hash_words(model.sha256),
        "size": f"{model.size} bytes" if model.size else "not known",
        "licence": model.licence,
        "labels": ", ".join(model.labels.names) if model.labels else "not known",
        "mIoU": model.protocol if model.miou is None else f"{model.miou} on {model.protocol}",
    }
    if model.input:
        spec = model.input
        lines["input"] = (
            f"{spec.height}×{spec.width} RGB, mean {spec.mean}, std {spec.std}, {spec.fit}"
        )
    if card := read_card(model.name):
        lines |= {"purpose": card.purpose, **_scores(card.measured), "card": str(card.path)}
    for field, value in lines.items():
        typer.echo(f"{field + ':':10}{value}")


@models_app.command()
def pull(name: _Name) -> None:
    """Download a model into the cache, unless it is on this machine already."""
    from deeplab import zoo
    from deeplab.files import hash_file

    model = zoo.get(name)
    path = zoo.find(model)
    if path is None:
        with show_progress() as progress:
            path = zoo.pull(model, progress=progress)
        if not model.sha256:
            typer.echo(
                f"The publisher of {model.name} states no hash: this first download is trusted, "
                f"and its sha256 is kept for later checks: {hash_file(path)}",
                err=True,
            )
    typer.echo(path)


@models_app.command("path")
def print_path(name: _Name) -> None:
    """Print where a model is looked for, in order, and which file is taken."""
    from deeplab import zoo

    model = zoo.get(name)
    taken = zoo.find(model)
    for place in zoo.places(model):
        words = {"wrong": "there, but with another hash", "missing": "not there"}
        state = words.get(place.state, "found")
        mark = "→" if place.path == taken else " "
        typer.echo(f"{mark} {place.kind:8} {place.path}  ({state})")
    if model.comes_inside:
        if taken is None:
            typer.echo("→ nowhere: it comes inside the package; install deeplab again")
        return
    mark = " " if taken else "→"
    typer.echo(f"{mark} download {model.address}")


@models_app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Default: all that are here.")
    ] = None,
) -> None:
    """Hash the files on this machine again and compare."""
    from deeplab import zoo
    from deeplab.errors import ModelNotFoundError

    wanted = [zoo.get(name) for name in names] if names else list(zoo.MODELS)
    for model in wanted:
        paths = [place.path for place in zoo.places(model) if place.state != "missing"]
        if names and not paths:
            mend = f"run: deeplab models pull {model.name}"
            raise ModelNotFoundError(
                f"model: '{model.name}' is not on this machine; "
                f"{'install deeplab again.' if model.comes_inside else mend}"
            )
        for path in paths:
            typer.echo(f"right  {zoo.verify(path, model)}  {path}")


def _scores(measured: dict[str, Any] | None) -> dict[str, str]:
    """Return what a card says of quality: the mean's interval, and every class that was shown."""
    if measured is None:
        return {}
    own = measured["scores"][0]
    low, high = own["miou_95"]
    classes = ", ".join(f"{name} {iou:.3f}" for name, iou in own["iou"].items() if iou is not None)
    subset = measured["subset"]
    return {
        "interval": f"{low:.3f} to {high:.3f} (95 %)",
        "subset": f"{own['subset_miou']:.3f} of {len(subset['classes'])} classes on "
        f"{subset['pictures']} of the photos: {', '.join(subset['classes'])}",
        "IoU": classes,
    }


def _hash_words(sha256: str) -> str:
    if sha256:
        return f"begins with {sha256} (the publisher states no more)"
    return "not stated by the publisher; the first download is trusted and remembered"


@contextmanager
def show_progress() -> Iterator[_Bar]:
    """Give a progress bar on stderr that is invisible until a download begins."""
    bar = _Bar()
    try:
        yield bar
    finally:
        bar.stop()


class _Bar:
    """What :func:`deeplab.zoo.pull` reports to, as a bar."""

    def __init__(self) -> None:
        self.total: float = 0
        self._progress: Any = None
        self._task: Any = None

    def update(self, amount: int) -> None:
        from rich.progress import DownloadColumn, Progress

        if self._progress is None:
            console = stderr()
            columns = (*Progress.get_default_columns(), DownloadColumn())
            self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
            self._progress.start()
            self._task = self._progress.add_task("downloading", total=self.total or None)
        self._progress.advance(self._task, amount)

    def reset(self) -> None:
        if self._progress is not None:
            self._progress.reset(self._task)

    def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
