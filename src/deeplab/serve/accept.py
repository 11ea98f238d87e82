"""Which of the types that there are an ``Accept`` header takes."""

from __future__ import annotations

from deeplab.photo.draw import MAX_JPEG_SIDE
from deeplab.serve.refusal import Refusal
from deeplab.serve.wishes import Output

MEDIA_TYPES: dict[Output, tuple[str, ...]] = {
    "json": ("application/json",),
    "mask": ("image/png",),
    "overlay": ("image/jpeg", "image/png"),
    "cutout": ("image/png",),
    "contour": ("image/jpeg", "image/png"),
    "blur": ("image/jpeg", "image/png"),
    "replace": ("image/jpeg", "image/png"),
    "confidence": ("image/png",),
    "boxes": ("application/json",),
    "polygons": ("application/json",),
}
"""Output -> the media types that it comes in, the usual one first."""

ZIP = "application/zip"
TIFF = "image/tiff"

_OVERLAPPING: dict[Output, tuple[str, ...]] = {"mask": (TIFF,)}
"""What is otherwise where classes overlap: a page per class, which no PNG has."""

_ONE_CLASS: tuple[Output, ...] = ("confidence",)
"""Outputs that have one class per pixel."""


def media_types(output: Output, *, overlap: bool) -> tuple[str, ...]:
    """Return the media types that an output comes in, the usual one first.

    Raises:
        Refusal: 422, it has one class per pixel, but the classes overlap.
    """
    if overlap and output in _ONE_CLASS:
        raise Refusal(
            422,
            f"output: {output} is of one class per pixel, but the classes of this model overlap.",
        )
    return _OVERLAPPING.get(output, MEDIA_TYPES[output]) if overlap else MEDIA_TYPES[output]


_OFFERED: tuple[Output, ...] = ("json", "mask", "overlay")
"""What there is where no output is named."""


def choose_output(
    output: Output | None, accept: str, *, overlap: bool = False
) -> tuple[Output, str]:
    """Return what to make, and its media type.

    Args:
        output: what was asked for; None lets ``accept`` decide: the first of "json", "mask" and
            "overlay" in the best type.
        accept: an ``Accept`` header; "" takes anything.
        overlap: the classes do.

    Raises:
        Refusal: 406, there is no such type of it; 422, as :func:`media_types`.
    """
    names = [output] if output else _OFFERED
    offers = [(name, kind) for name in names for kind in media_types(name, overlap=overlap)]
    ranges = _ranges(accept)
    best = max(offers, key=lambda offer: _quality(offer[1], ranges))  # the first of equal ones
    if not _quality(best[1], ranges):
        kinds = list(dict.fromkeys(kind for _, kind in offers))
        raise Refusal(406, f"Accept: got '{accept}', there is only {' or '.join(kinds)}.")
    return best


def choose_output_of_several(
    output: Output | None, accept: str, *, overlap: bool = False
) -> tuple[Output, str]:
    """Return what to make of several photos, and the media type of each in it.

    JSON comes as one document, pictures come in a zip file.

    Raises:
        Refusal: 406; 422, as :func:`media_types`.
    """
    output = output or "json"
    kinds = media_types(output, overlap=overlap)
    media_type = kinds[0]
    whole = media_type if media_type == "application/json" else ZIP
    ranges = _ranges(accept)
    if not _quality(whole, ranges):
        raise Refusal(406, f"Accept: got '{accept}', {output} of several photos is {whole}.")
    qualities = {kind: _quality(kind, ranges) for kind in kinds}
    return output, max(qualities, key=lambda kind: qualities[kind])


def fit_for(shape: tuple[int, ...], media_type: str, accept: str) -> str:
    """Return the media type for a picture of a size: what no JPEG can have becomes a PNG.

    Raises:
        Refusal: 406, ``accept`` does not let it.
    """
    if media_type != "image/jpeg" or max(shape) <= MAX_JPEG_SIDE:
        return media_type
    ranges = _ranges(accept)
    if not _quality("image/png", ranges) and not _quality(ZIP, ranges):
        raise Refusal(
            406,
            f"the photo has a side over {MAX_JPEG_SIDE:,} pixels, which no JPEG can have. Accept "
            "image/png too.",
        )
    return "image/png"


def _ranges(accept: str) -> list[tuple[str, float]]:
    """Return (type, quality) for what is in an Accept header."""
    found = []
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if kind:
            found.append((kind, quality))
    return found or [("*/*", 1.0)]


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """Return how much a media type is wanted: what names it most exactly counts."""
    group = media_type.split("/")[0]
    for wanted in (media_type, f"{group}/*", "*/*"):
        qualities = [quality for kind, quality in ranges if kind == wanted]
        if qualities:
            return max(qualities)
    return 0.0
