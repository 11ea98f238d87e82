"""What a client wants to have, and the bytes of it."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from typing import Any, Literal

from PIL import Image

from deeplab.errors import ImageError, ImageFormatError, ImageSizeError, InputError
from deeplab.photo.draw import MAX_JPEG_SIDE, keep_only
from deeplab.photo.images import Photo
from deeplab.photo.palette_png import encode_palette_png
from deeplab.photo.results import Segmentation
from deeplab.segmenter import Segmenter
from deeplab.serve.limits import Limits
from deeplab.serve.refusal import Refusal
from deeplab.serve.work import Job

Output = Literal["json", "mask", "overlay", "cutout"]

MEDIA_TYPES: dict[Output, tuple[str, ...]] = {
    "json": ("application/json",),
    "mask": ("image/png",),
    "overlay": ("image/jpeg", "image/png"),
    "cutout": ("image/png",),
}
"""Output -> the media types that it comes in, the usual one first."""

_JPEG_QUALITY = 92


@dataclasses.dataclass(frozen=True)
class Answer:
    """What goes back.

    Attributes:
        content: of ``media_type``.
        timings_ms: by stage.
    """

    content: bytes
    media_type: str
    timings_ms: dict[str, float]


def choose_output(output: Output | None, accept: str) -> tuple[Output, str]:
    """Return what to make, and its media type.

    Args:
        output: what was asked for; None lets ``accept`` decide: the first of "json", "mask" and
            "overlay" in the best type.
        accept: an ``Accept`` header; "" takes anything.

    Raises:
        Refusal: 406, there is no such type of it.
    """
    names: list[Output] = [output] if output else ["json", "mask", "overlay"]
    offers = [(name, kind) for name in names for kind in MEDIA_TYPES[name]]
    ranges = _ranges(accept)
    best = max(offers, key=lambda offer: _quality(offer[1], ranges))  # the first of equal ones
    if not _quality(best[1], ranges):
        kinds = list(dict.fromkeys(kind for _, kind in offers))
        raise Refusal(406, f"Accept: got '{accept}', there is only {' or '.join(kinds)}.")
    return best


def make_answer(
    data: bytes,
    segmenter: Segmenter,
    *,
    model: str,
    output: Output,
    media_type: str,
    accept: str,
    only: Sequence[str],
    limits: Limits,
    job: Job,
) -> Answer:
    """Segment the photo in ``data`` and draw what was asked for.

    An overlay with a side that no JPEG can have becomes a PNG, where ``accept`` lets it.

    Raises:
        Refusal: the photo is too large (413), in no known format (415), or damaged (422); there
            is no such class, or nothing to cut away (422); it would need a PNG (406).
        TimeoutError: there was no room for the photo in time.
    """
    try:
        photo = Photo(data, max_pixels=limits.max_pixels)  # its header only
        pixels = photo.height * photo.width
        del photo
        with job.holding(pixels):
            result = segmenter(data)
            if only:
                mask, labels = keep_only(result.mask, only, labels=result.labels)
                result = dataclasses.replace(result, mask=mask, labels=labels)
            if media_type == "image/jpeg" and max(result.mask.shape) > MAX_JPEG_SIDE:
                media_type = _png_instead(accept)
            content = _encode(result, model=model, output=output, media_type=media_type)
    except ImageSizeError:
        raise Refusal(
            413,
            f"the photo may have at most {limits.max_pixels / 1e6:g} megapixels, it has more. Send "
            "a smaller one.",
        ) from None
    except ImageFormatError as error:
        raise Refusal(415, _words(error)) from None
    except (ImageError, InputError) as error:
        raise Refusal(422, _words(error)) from None
    return Answer(content, media_type, result.timings)


def _png_instead(accept: str) -> str:
    if not _quality("image/png", _ranges(accept)):
        raise Refusal(
            406,
            f"the photo has a side over {MAX_JPEG_SIDE:,} pixels, which no JPEG can have. Accept "
            "image/png too.",
        )
    return "image/png"


def _encode(result: Segmentation, *, model: str, output: Output, media_type: str) -> bytes:
    if output == "json":
        return _encode_json(result, model)
    if output == "mask":
        return encode_palette_png(result.mask, result.labels.palette)
    if output == "cutout":
        return _encode_picture(result.cutout(), media_type)
    return _encode_picture(result.overlay(), media_type)


def _encode_json(result: Segmentation, model: str) -> bytes:
    content: dict[str, Any] = {"model": model, **result.to_dict()}
    del content["photo"]  # it has no name here
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _encode_picture(picture: Image.Image, media_type: str) -> bytes:
    encoded = io.BytesIO()
    if media_type == "image/jpeg":
        picture.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    else:
        picture.save(encoded, "PNG", compress_level=3)
    return encoded.getvalue()


def _words(error: Exception) -> str:
    return str(error).replace("the bytes: ", "photo: ", 1)


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
