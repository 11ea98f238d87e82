"""What every command that opens a model lets say of it, where its file does not say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from deeplab.cli.console import check_choices, complain, parse_size
from deeplab.errors import InputError

if TYPE_CHECKING:
    from deeplab.runtimes.network_card import NetworkCard

Labels = Annotated[
    str | None,
    typer.Option("--labels", metavar="FILE|NAME", help="Its classes, if its file names none."),
]
Normalise = Annotated[
    str | None,
    typer.Option(
        "--normalisation",
        metavar="HOW",
        help="Of pixels: imagenet, 0..1, -1..1, 0..255 or MEAN/STD (default: as the file says).",
    ),
]
Fit = Annotated[
    str | None,
    typer.Option("--fit", help="How photos meet the network's frame: letterbox or stretch."),
]
Size = Annotated[
    str | None,
    typer.Option("--size", metavar="SIZE", help="Of the frame, if it takes any: 513, 1025x2049."),
]
OutputName = Annotated[
    str | None,
    typer.Option("--output-name", metavar="NAME", help="Which of several outputs is the answer."),
]

Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Where it runs: cpu (default), gpu, npu, cuda, cuda:1, mps, tensorrt, or auto, the "
        "fastest of them ('deeplab info --devices').",
    ),
]


def read_model_options(
    *,
    labels: str | None,
    normalisation: str | None,
    fit: str | None,
    size: str | None = None,
    output_name: str | None,
) -> dict[str, Any]:
    """Return the options as arguments of :class:`~deeplab.segmenter.Segmenter`.

    Raises:
        InputError: one of them cannot be read.
    """
    from deeplab.photo.images import Fit
    from deeplab.runtimes.network_card import read_normalisation

    check_choices("--fit", [fit] if fit else [], get_args(Fit))
    if normalisation is not None:
        try:
            read_normalisation(normalisation)
        except InputError as error:
            raise InputError(f"--{error}") from None
    return {
        "labels": labels,
        "normalisation": normalisation,
        "fit": fit,
        "size": parse_size("--size", size) if size else None,
        "output_name": output_name,
    }


def tell_assumed(name: str, card: NetworkCard) -> None:
    """Say on stderr, once, what neither a model's file nor the caller said."""
    if card.assumed:
        complain(
            f"note: {name} does not say everything; assumed: {'; '.join(card.assumed.values())}."
        )


def tell_device(name: str, asked: str | None, device: str) -> None:
    """Say on stderr on what a model runs, where the choice was left to the program."""
    if asked == "auto":
        complain(f"note: {name} runs on '{device}', the fastest of what answers as the CPU does.")
