"""The options of pictures that are looked at in windows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from deeplab.cli.console import check_number, parse_size, split_names
from deeplab.errors import InputError

Tile = Annotated[
    str | None,
    typer.Option(
        "--tile",
        metavar="auto|SIZE",
        help="Look at the picture in windows: the network's frame, or SIZE if it takes any.",
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        callback=check_number,
        metavar="SHARE",
        min=0,
        max=0.9,
        help="Of two windows, with --tile (default: 0.25).",
    ),
]
Context = Annotated[
    str | None,
    typer.Option(
        metavar="picture|window",
        help="Of what the network's image pooling is the mean, with --tile (default: window).",
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(
        callback=check_number,
        max=16,
        help="Of the picture before the network sees it, with --tile (default: 1).",
    ),
]
Bands = Annotated[
    str | None,
    typer.Option(metavar="R,G,B", help="Channels of a TIFF that are red, green, blue: 4,3,2."),
]
Range = Annotated[
    str | None,
    typer.Option("--range", metavar="LOW,HIGH", help="Values of a TIFF that are black and white."),
]


@dataclass(frozen=True)
class Tiling:
    """How pictures are looked at in windows.

    Attributes:
        size: (height, width) of a window; None takes the network's frame.
        arguments: what :meth:`deeplab.Segmenter.tiles` takes.
    """

    size: tuple[int, int] | None
    arguments: dict[str, Any]


def read_tiling(
    *,
    tile: str | None,
    overlap: float | None = None,
    context: str | None = None,
    scale: float | None = None,
    bands: str | None = None,
    value_range: str | None = None,
    size: str | None = None,
) -> Tiling | None:
    """Return what the options say; None where nothing is to be looked at in windows.

    Raises:
        InputError: one of them cannot be read, or is given without ``--tile``.
    """
    from deeplab.tiles.context import check_context
    from deeplab.tiles.windows import check_overlap

    given = {
        "overlap": overlap,
        "context": context,
        "scale": scale,
        "bands": bands,
        "range": value_range,
    }
    if tile is None:
        for name, value in given.items():
            if value is not None:
                raise InputError(f"--{name}: is for pictures in windows; add --tile auto.")
        return None
    if tile != "auto" and size is not None:
        raise InputError("--tile, --size: both say how large a window is; give one of them.")
    arguments: dict[str, Any] = {}
    if overlap is not None:
        check_overlap(overlap)
        arguments["overlap"] = overlap
    if context is not None:
        check_context(context)
        arguments["context"] = context
    if scale is not None:
        arguments["scale"] = scale
    if bands is not None:
        arguments["bands"] = [int(number) for number in _numbers("--bands", bands, whole=True)]
    if value_range is not None:
        numbers = _numbers("--range", value_range)
        if len(numbers) != 2:
            raise InputError(f"--range: got '{value_range}', expected two numbers: 0,3000.")
        arguments["value_range"] = (numbers[0], numbers[1])
    return Tiling(None if tile == "auto" else parse_size("--tile", tile), arguments)


def find_large(photos: Iterable[Path], tiling: Tiling | None, *, memory: int) -> frozenset[Path]:
    """Return the pictures that are read by region, whose masks are written so."""
    if tiling is None:
        return frozenset()
    from deeplab.tiles.open import reads_by_region

    return frozenset(photo for photo in photos if reads_by_region(photo, memory=memory))


def _numbers(option: str, text: str, *, whole: bool = False) -> list[float]:
    try:
        return [int(part) if whole else float(part) for part in split_names(option, text)]
    except ValueError:
        kind = "whole numbers" if whole else "numbers"
        raise InputError(f"{option}: got '{text}', expected {kind} with commas.") from None
