"""The bytes of what a client wants to have."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from deeplab.labels import Colour
from deeplab.photo.draw import keep_only
from deeplab.photo.images import Photo
from deeplab.photo.outlines import FoundObject, find_objects
from deeplab.photo.overlapping import OverlappingSegmentation
from deeplab.photo.palette_png import encode_palette_png
from deeplab.photo.results import Segmentation
from deeplab.serve.accept import TIFF, ZIP, fit_for
from deeplab.serve.refusal import Refusal, describe_problem
from deeplab.serve.wishes import Output, Wishes

_JPEG_QUALITY = 92
_ENDINGS = {"image/jpeg": ".jpg", "image/png": ".png", TIFF: ".tif"}
_WHITE: Colour = (255, 255, 255)

_PIXELS_TAKEN: dict[Output, int] = {"boxes": 2, "polygons": 2}
"""How many times the usual memory of a pixel an output takes; once where it is not listed."""


_READ_ONLY: tuple[Output, ...] = ("cutout", "blur", "replace")
"""Outputs that are told which classes to keep: their edges come from those classes' probability."""


@dataclasses.dataclass(frozen=True)
class Order:
    """What to make of each photo.

    Attributes:
        model: its name.
        output: what.
        media_type: of each.
        accept: the header, which may let a JPEG become a PNG.
        wishes: the rest.
        background: for "replace": the file of a picture, or None for the colour of ``wishes``.
        background_pixels: of it.
    """

    model: str
    output: Output
    media_type: str
    accept: str
    wishes: Wishes
    background: bytes | None = None
    background_pixels: int = 0

    def room_for(self, pixels: int) -> int:
        """Return how many pixels' memory a photo takes."""
        return pixels * _PIXELS_TAKEN.get(self.output, 1) + self.background_pixels


@dataclasses.dataclass(frozen=True)
class Part:
    """The answer to one photo.

    Attributes:
        name: of the photo, as its sender calls it.
        content: of ``media_type``.
        refusal: why there is none.
    """

    name: str | None
    content: bytes
    media_type: str
    refusal: Refusal | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """What goes back: ``content`` of ``media_type``; 207 where a part of it is refused."""

    content: bytes
    media_type: str
    status: int = 200


def make_part(result: Segmentation, name: str | None, order: Order) -> Part:
    """Draw or write down what was asked for.

    Raises:
        Refusal: 406, it would need a PNG, which the client does not take.
        InputError: there is nothing to cut away, or the outlines are too ragged.
    """
    if order.output not in _READ_ONLY:
        result = keep(result, order.wishes.only)
    if order.media_type == "application/json":
        return Part(name, _encode_json(result, order), order.media_type)
    media_type = fit_for(result.mask.shape, order.media_type, order.accept)
    if isinstance(result, OverlappingSegmentation) and order.output == "mask":
        return Part(name, result.encode_masks(), order.media_type)
    if order.output == "mask":
        return Part(name, encode_palette_png(result.mask, result.labels.palette), media_type)
    return Part(name, _encode_picture(_draw(result, order), media_type), media_type)


def join(parts: Sequence[Part], *, model: str, several: bool) -> Answer:
    """Return the answer to a request: the one part, or all in one document or zip file.

    Raises:
        Refusal: of the first part, where all are refused.
    """
    refusals = [part.refusal for part in parts if part.refusal]
    if len(refusals) == len(parts):
        raise refusals[0]
    status = 207 if refusals else 200
    if not several:
        (part,) = parts
        if part.media_type == "application/json":
            content = b'{"model":' + _dump(model) + b"," + part.content[1:]
            return Answer(content, part.media_type)
        return Answer(part.content, part.media_type)
    if parts[0].media_type == "application/json":
        photos = b",".join(b'{"photo":' + _dump(p.name) + b"," + p.content[1:] for p in parts)
        content = b'{"model":' + _dump(model) + b',"photos":[' + photos + b"]}"
        return Answer(content, parts[0].media_type, status)
    return Answer(_zip(parts), ZIP, status)


def make_refused(refusal: Refusal, name: str | None, order: Order) -> Part:
    """Return what stands for one photo of several that cannot be read."""
    problem = describe_problem(refusal.status, refusal.words)
    return Part(name, _dump({"error": problem}), order.media_type, refusal)


def keep(result: Segmentation, only: Sequence[str]) -> Segmentation:
    """Return a result in which every class but these is background; all where none is named.

    Raises:
        InputError: there is no such class.
    """
    if not only:
        return result
    if isinstance(result, OverlappingSegmentation):
        return result.keep(only)
    mask, labels = keep_only(result.mask, only, labels=result.labels)
    return dataclasses.replace(result, mask=mask, labels=labels)


def _draw(result: Segmentation, order: Order) -> Image.Image:
    wishes, only = order.wishes, order.wishes.only or None
    if order.output == "overlay":
        return result.overlay()
    if order.output == "contour":
        return result.contour()
    if order.output == "cutout":
        return result.cutout(only)
    if order.output == "blur":
        return result.blur_background(only, radius=wishes.radius)
    if order.output == "confidence":
        return Image.fromarray(np.rint(result.confidence * 255).astype(np.uint8))
    assert order.output == "replace"
    if order.background is not None:
        picture = Photo(order.background, name="background").decode()
        return result.replace_background(picture, only)
    return result.replace_background(wishes.background or _WHITE, only)


def _encode_json(result: Segmentation, order: Order) -> bytes:
    if order.output == "json":
        found: dict[str, Any] = result.to_dict()
        del found["photo"]  # it has no name here
        return _dump(found)
    height, width = result.mask.shape
    objects = []
    has_rings = order.output == "polygons"
    for one in _find_objects(result, order.wishes.min_area, outlines=has_rings):
        entry = {
            "id": one.class_id,
            "name": result.labels.names[one.class_id],
            "colour": result.labels.colours[one.class_id],
            "area": one.area,
            "box": one.box,
        }
        objects.append({**entry, "polygons": one.rings} if has_rings else entry)
    timings = {stage: round(ms, 3) for stage, ms in result.timings.items()}
    return _dump({"height": height, "width": width, "objects": objects, "timings_ms": timings})


def _find_objects(result: Segmentation, min_area: int, *, outlines: bool) -> Iterator[FoundObject]:
    """Yield the objects; where classes overlap those of one class after the other."""
    planes = [result.mask]
    if isinstance(result, OverlappingSegmentation):
        planes = [plane for _, plane in result.planes()]
    for plane in planes:
        yield from find_objects(plane, labels=result.labels, min_area=min_area, outlines=outlines)


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _encode_picture(picture: Image.Image, media_type: str) -> bytes:
    encoded = io.BytesIO()
    if media_type == "image/jpeg":
        profile = picture.info.get("icc_profile")
        picture.save(encoded, "JPEG", quality=_JPEG_QUALITY, icc_profile=profile)
    else:
        picture.save(encoded, "PNG", compress_level=3)
    return encoded.getvalue()


def _zip(parts: Sequence[Part]) -> bytes:
    """Return a zip file with a picture per photo, called like it; equal names get a number.

    Photos that cannot be read are told in ``refused.json``.
    """
    packed = io.BytesIO()
    used: set[str] = set()
    refused: list[dict[str, Any]] = []
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for number, part in enumerate(parts, 1):
            if part.refusal:
                words = describe_problem(part.refusal.status, part.refusal.words)
                refused.append({"number": number, "photo": part.name, "error": words})
                continue
            stem = PurePath(part.name or f"photo-{number}").stem
            ending = _ENDINGS[part.media_type]
            name = stem + ending
            if name.lower() in used:
                name = f"{stem}-{number}{ending}"
            used.add(name.lower())
            # A fixed date: the same photos give the same bytes.
            archive.writestr(zipfile.ZipInfo(name), part.content)
        if refused:
            archive.writestr(zipfile.ZipInfo("refused.json"), _dump({"photos": refused}))
    return packed.getvalue()
