"""``deeplab push``: a release pair on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deeplab.cli.console import stderr, stdout


def push(
    pair: Annotated[str, typer.Argument(metavar="PAIR", help="A release pair.")],
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="The repository.")],
    tflite: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The .tflite exported from it (default: export one)."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="A new repository is seen by its owner alone.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="The branch (default: main).")
    ] = None,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="Of the commit.")] = None,
) -> None:
    """Push a pair, its .tflite and a card to the Hub; `-m hf://USER/NAME` opens it anywhere."""
    from deeplab.integrations import hub

    with stderr().status("reading") as status:
        address = hub.push(
            pair,
            repo,
            tflite=tflite,
            private=private,
            revision=revision,
            message=message,
            on_step=status.update,
        )
    stdout().print(f"pushed: {address}", highlight=False)
