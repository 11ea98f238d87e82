"""What a mask is good for: overlay with a legend, contours, cut-out, a new or blurred background.

Every function takes the photo (a PIL image or an (H, W, 3) uint8 RGB array), a mask
(H, W) uint8 of class ids, and gives a new PIL image of the same size; the photo is left alone.
The heavy work is done by Pillow's own blending, so 12 megapixels take tens of milliseconds.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from deeplab.errors import InputError
from deeplab.labels import Colour, LabelSet
from deeplab.photo.display import display_palette
from deeplab.photo.edges import soft_cutout

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Picture: TypeAlias = "Image.Image | UInt8"

_SMALLEST_FONT = 9
"""Pixels; below this, letters cannot be told apart and the legend is cut short instead."""

_PANEL = (16, 16, 16, 200)
"""RGBA behind the legend: dark and nearly opaque, so that white text is readable on anything."""

MAX_JPEG_SIDE = 65_500
"""Pixels; the format, as libjpeg writes it, has no more."""


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend: a label that is present, its colour and its share of the picture."""

    name: str
    colour: Colour
    share: float


def legend_entries(mask: UInt8, labels: LabelSet) -> list[LegendEntry]:
    """Return the labels that are present in ``mask`` and drawn, the largest share first.

    The background is not listed, and neither are ids without a name (an ignore index).

    Raises:
        InputError: the mask is not (H, W) uint8.
    """
    return entries_of(Image.fromarray(_checked_mask(mask)).histogram(), mask.size, labels)


def entries_of(counts: Sequence[int], total: int, labels: LabelSet) -> list[LegendEntry]:
    """Return the same of a mask of which the pixels of each id, and all of them, are counted."""
    order = sorted((i for i in _drawn_ids(labels) if counts[i]), key=lambda i: (-counts[i], i))
    colours = display_palette(labels)
    entries = []
    for index in order:
        red, green, blue = (int(value) for value in colours[index])
        name, share = labels.name_of(index), counts[index] / total
        entries.append(LegendEntry(name, (red, green, blue), share))
    return entries


def overlay(
    image: Picture,
    mask: UInt8,
    *,
    labels: LabelSet,
    alpha: float = 0.5,
    legend: bool | Sequence[LegendEntry] = True,
) -> Image.Image:
    """Return the photo with every class tinted in its colour and a legend of those present.

    The colours are those of :mod:`deeplab.photo.display`: the label set's, but none nearly black or
    grey.

    Pixels of the background, and of ids without a name, keep their bytes; only the legend's panel
    may cover them.

    Args:
        image: the photo: PIL image or (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 class ids.
        labels: names, colours, and which class is the background.
        alpha: how much of the class colour is mixed in, 0..1.
        legend: draw the labels that are present, with a colour swatch and the share each covers;
            or these entries.

    Raises:
        InputError: sizes differ, or ``alpha`` is outside 0..1.
    """
    picture = _checked_picture(image, mask)
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha: got {alpha}, expected 0 (photo only) to 1 (colour only).")
    _tint(picture, mask, labels, _select(mask, _drawn_ids(labels), round(alpha * 255)))
    if legend:
        entries = legend_entries(mask, labels) if isinstance(legend, bool) else legend
        _draw_legend(picture, entries)
    return picture


def contour(
    image: Picture, mask: UInt8, *, labels: LabelSet, width: int | None = None
) -> Image.Image:
    """Return the photo with the outline of every object, drawn on its inside in its colour.

    Args:
        image: the photo: PIL image or (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 class ids.
        labels: colours, and which class is the background.
        width: of the line, in pixels; None takes 1/200 of the picture's shorter side, at least 2.

    Raises:
        InputError: sizes differ, or ``width`` is below 1.
    """
    picture = _checked_picture(image, mask)
    if width is None:
        width = max(2, round(min(mask.shape) / 200))
    if width < 1:
        raise InputError(f"width: got {width} pixels, expected at least 1.")
    line = _near_boundary(mask, width) * np.asarray(_select(mask, _drawn_ids(labels), 255))
    _tint(picture, mask, labels, Image.fromarray(line))
    return picture


def cutout(
    image: Picture,
    mask: UInt8,
    *,
    labels: LabelSet,
    only: Iterable[str] | None = None,
    soft_edge: float | None = None,
    probability: Float32 | None = None,
) -> Image.Image:
    """Return the objects alone: an RGBA picture, transparent (and empty) everywhere else.

    Args:
        image: the photo: PIL image or (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 class ids.
        labels: the names of the class ids, and which is the background.
        only: the names of the classes to keep; None keeps all but the background.
        soft_edge: None refines the edge along the photo's own and takes the ground's colours out
            of it, see :mod:`deeplab.photo.edges`; a number lets the mask's edge fade over so many
            pixels, and 0 gives an alpha of 0 or 255 only.
        probability: of what is kept, see :func:`deeplab.photo.edges.soft_cutout`.

    Raises:
        InputError: sizes differ, no class of that name, ``soft_edge`` below 0, or ``only`` is
            missing where the labels have no background.
    """
    picture = _checked_picture(image, mask)
    cut = _cut(picture, _select(mask, kept_ids(labels, only), 255), soft_edge, probability)
    alpha = cut.getchannel("A")
    empty = Image.new("RGB", picture.size)
    # Nothing of what was cut away may stay readable under the transparency.
    clean = Image.composite(cut.convert("RGB"), empty, alpha.point([0] + [255] * 255))
    clean.putalpha(alpha)
    return clean


def blur_background(
    image: Picture,
    mask: UInt8,
    *,
    labels: LabelSet,
    only: Iterable[str] | None = None,
    radius: float | None = None,
    soft_edge: float | None = None,
    probability: Float32 | None = None,
) -> Image.Image:
    """Return the photo with everything but the objects out of focus (the portrait effect).

    The objects' colours do not bleed into the blur: only background pixels are averaged.

    Args:
        image: the photo: PIL image or (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 class ids.
        labels: the names of the class ids, and which is the background.
        only: the names of the classes to keep sharp; None keeps all but the background.
        radius: of the blur (its standard deviation), in pixels; None takes 1/40 of the shorter
            side.
        soft_edge: see :func:`cutout`.
        probability: see :func:`cutout`.

    Raises:
        InputError: as :func:`cutout`, or ``radius`` below 0.
    """
    picture = _checked_picture(image, mask)
    radius = min(mask.shape) / 40 if radius is None else radius
    if radius < 0:
        raise InputError(f"radius: got {radius} pixels, expected 0 or more.")
    sharp = _select(mask, kept_ids(labels, only), 255)
    cut = _cut(picture, sharp, soft_edge, probability)
    alpha = cut.getchannel("A")
    outside = _blur_outside(picture, ImageChops.lighter(sharp, alpha), radius)
    return Image.composite(cut.convert("RGB"), outside, alpha)


def replace_background(
    image: Picture,
    mask: UInt8,
    *,
    background: Picture | Colour,
    labels: LabelSet,
    only: Iterable[str] | None = None,
    soft_edge: float | None = None,
    probability: Float32 | None = None,
) -> Image.Image:
    """Return the objects in front of another picture, or of one colour.

    Args:
        image: the photo: PIL image or (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 class ids.
        background: a picture, scaled and cropped about its centre to fill the photo's size; or
            (red, green, blue), 0..255.
        labels: the names of the class ids, and which is the background.
        only: the names of the classes to keep; None keeps all but the background.
        soft_edge: see :func:`cutout`.
        probability: see :func:`cutout`.

    Raises:
        InputError: as :func:`cutout`.
    """
    picture = _checked_picture(image, mask)
    behind = (
        Image.new("RGB", picture.size, background)
        if isinstance(background, tuple)
        else ImageOps.fit(_as_rgb(background), picture.size, Image.Resampling.BICUBIC)
    )
    cut = _cut(picture, _select(mask, kept_ids(labels, only), 255), soft_edge, probability)
    return Image.composite(cut.convert("RGB"), behind, cut.getchannel("A"))


def keep_only(mask: UInt8, names: Iterable[str], *, labels: LabelSet) -> tuple[UInt8, LabelSet]:
    """Return a mask in which every class but the named ones is background, and its labels.

    Labels without a background (streets) get one more class for it, "everything else".

    Raises:
        InputError: the mask is not (H, W) uint8, or no class has that name.
    """
    background = labels.background
    kept = labels.indices(names)
    if background is None:
        background = len(labels)
        labels = LabelSet(
            (*labels.names, "everything else"),
            (*labels.colours, (0, 0, 0)),
            background=background,
            ignore_index=labels.ignore_index,
            unknown=labels.unknown,
        )
    table = [background] * 256
    for index in kept if labels.unknown is None else [*kept, labels.unknown]:
        table[index] = index
    return np.asarray(Image.fromarray(_checked_mask(mask)).point(table)), labels


# --- masks ------------------------------------------------------------------------------------


def _drawn_ids(labels: LabelSet) -> list[int]:
    ids = [i for i in range(len(labels)) if i != labels.background]
    return ids if labels.unknown is None else [*ids, labels.unknown]


def _select(mask: UInt8, ids: list[int], value: int) -> Image.Image:
    """Return an L image: ``value`` where the mask is one of ``ids``, 0 elsewhere."""
    table = [0] * 256
    for index in ids:
        table[index] = value
    return Image.fromarray(mask).point(table)


def _tint(picture: Image.Image, mask: UInt8, labels: LabelSet, strength: Image.Image) -> None:
    """Mix the class colours into ``picture``, in place, ``strength`` / 255 of them per pixel."""
    box = strength.getbbox()
    if box is None:
        return
    left, top, right, bottom = box
    coloured = Image.fromarray(np.ascontiguousarray(mask[top:bottom, left:right]))
    coloured.putpalette(display_palette(labels).tobytes())
    picture.paste(coloured.convert("RGB"), (left, top), strength.crop(box))


def _near_boundary(mask: UInt8, width: int) -> UInt8:
    """1 within ``width`` pixels (along rows and columns) of a pixel of another class, else 0."""
    near = np.zeros(mask.shape, dtype=np.uint8)
    differs = (mask[1:] != mask[:-1]).view(np.uint8)
    near[1:] |= differs
    near[:-1] |= differs
    differs = (mask[:, 1:] != mask[:, :-1]).view(np.uint8)
    near[:, 1:] |= differs
    near[:, :-1] |= differs
    # A square of any size is grown by shifts that double, one axis at a time.
    for axis in (0, 1):
        reach = 0
        while reach < width - 1:
            step = min(reach + 1, width - 1 - reach)
            narrow = np.moveaxis(near, axis, 0)
            near = near.copy()
            wide = np.moveaxis(near, axis, 0)
            wide[step:] |= narrow[:-step]
            wide[:-step] |= narrow[step:]
            reach += step
    return near


def kept_ids(labels: LabelSet, only: Iterable[str] | None) -> list[int]:
    """Return the ids of the named classes, or of all but the background.

    Raises:
        InputError: no class has that name, or there is no background and none are named.
    """
    if only is not None:
        return labels.indices(only)
    if labels.background is None:
        raise InputError(
            "only: these labels have no background, so say which classes to keep, "
            f"for example only=['{labels.names[-1]}']. They are: {', '.join(labels.names)}."
        )
    return [i for i in range(len(labels)) if i != labels.background]


def _cut(
    picture: Image.Image,
    inside: Image.Image,
    soft_edge: float | None,
    probability: Float32 | None,
) -> Image.Image:
    """Return the photo with what is inside as its alpha, soft at the edge."""
    if soft_edge is None:
        return Image.fromarray(
            soft_cutout(np.asarray(picture), np.asarray(inside), probability=probability)
        )
    if soft_edge < 0:
        raise InputError(f"soft_edge: got {soft_edge} pixels, expected 0 or more.")
    alpha = inside.filter(ImageFilter.GaussianBlur(soft_edge / 2)) if soft_edge else inside
    return Image.merge("RGBA", (*picture.split(), alpha))


def _blur_outside(picture: Image.Image, inside: Image.Image, radius: float) -> Image.Image:
    """Return ``picture`` blurred, where pixels under ``inside`` count for nothing."""
    # A blurred picture has no detail that a smaller one could not hold.
    shrink = max(1, int(radius / 4))
    blur = ImageFilter.GaussianBlur(radius / shrink)
    outside = ImageOps.invert(inside)
    masked = Image.composite(picture, Image.new("RGB", picture.size), outside)
    colour = np.asarray(masked.reduce(shrink).filter(blur), dtype=np.float32)
    weight = np.asarray(outside.reduce(shrink).filter(blur), dtype=np.float32)[..., None]
    # Deep inside an object there is nothing to average; what is put there is never shown.
    mixed = np.where(weight >= 1, colour * 255 / np.maximum(weight, 1), colour)
    small = Image.fromarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))
    return small.resize(picture.size, Image.Resampling.BILINEAR)


# --- the legend -------------------------------------------------------------------------------


def _draw_legend(picture: Image.Image, entries: Sequence[LegendEntry]) -> None:
    """Draw the legend into the bottom left corner, in place; less of it where room is short."""
    if not entries:
        return
    lines = [(_share(e.share), LegendEntry(_plain(e.name), e.colour, e.share)) for e in entries]
    size = max(_SMALLEST_FONT, min(64, round(min(picture.size) / 26)))
    while size > _SMALLEST_FONT and not _fits(_panel_size(lines, size, 0), picture.size):
        size -= 1
    shown = len(lines)
    while shown and not _fits(_panel_size(lines[:shown], size, len(lines) - shown), picture.size):
        shown -= 1
    if not shown:
        return
    _paste_panel(picture, lines[:shown], size, len(lines) - shown)


def _share(share: float) -> str:
    return f"{share * 100:.1f} %" if share >= 0.001 else "< 0.1 %"


def _plain(name: str) -> str:
    """Return a name without accents: Pillow's own font, which is always there, has none."""
    letters = unicodedata.normalize("NFKD", name.replace("ß", "ss").replace("\n", " "))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _fits(panel: tuple[int, int], picture: tuple[int, int]) -> bool:
    # More would hide the photo. What does not fit is counted in the last line.
    return panel[0] <= 0.6 * picture[0] and panel[1] <= 0.9 * picture[1]


def _more(left_out: int) -> str:
    return f"+ {left_out} more"


def _panel_size(lines: list[tuple[str, LegendEntry]], size: int, left_out: int) -> tuple[int, int]:
    """Return the panel's (width, height) at a font size."""
    font = ImageFont.load_default(size)
    names = [font.getlength(entry.name) for _, entry in lines]
    shares = [font.getlength(share) for share, _ in lines]
    width = max(names, default=0) + max(shares, default=0) + 3.4 * size
    if left_out:
        width = max(width, font.getlength(_more(left_out)) + 1.4 * size)
    return round(width), round((len(lines) + bool(left_out)) * 1.45 * size + 0.9 * size)


def _paste_panel(
    picture: Image.Image, lines: list[tuple[str, LegendEntry]], size: int, left_out: int
) -> None:
    font = ImageFont.load_default(size)
    width, height = _panel_size(lines, size, left_out)
    margin = min(round(0.6 * size), picture.width - width, picture.height - height)
    left, top = margin, picture.height - height - margin
    # Only the corner under the panel is touched, so a large photo costs no more than a small one.
    corner = picture.crop((left, top, left + width, top + height)).convert("RGBA")
    panel = Image.new("RGBA", corner.size)
    draw = ImageDraw.Draw(panel)
    draw.rounded_rectangle((0, 0, width - 1, height - 1), radius=0.5 * size, fill=_PANEL)
    for row, (share, entry) in enumerate(lines):
        middle = round(0.45 * size + (row + 0.5) * 1.45 * size)
        swatch = (0.7 * size, middle - 0.45 * size, 1.6 * size, middle + 0.45 * size)
        # The white rim tells dark swatches from the panel.
        draw.rectangle(swatch, fill=entry.colour, outline="white", width=max(1, size // 16))
        draw.text((2.0 * size, middle), entry.name, "white", font, anchor="lm")
        draw.text((width - 0.7 * size, middle), share, "white", font, anchor="rm")
    if left_out:
        middle = round(0.45 * size + (len(lines) + 0.5) * 1.45 * size)
        draw.text((0.7 * size, middle), _more(left_out), "white", font, anchor="lm")
    picture.paste(Image.alpha_composite(corner, panel).convert("RGB"), (left, top))


# --- arguments --------------------------------------------------------------------------------


def _as_rgb(image: Picture) -> Image.Image:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                f"image: got {image.dtype} of shape {image.shape}, expected (H, W, 3) uint8 RGB."
            )
        return Image.fromarray(image)
    return image.convert("RGB")


def _checked_mask(mask: UInt8) -> UInt8:
    if mask.dtype != np.uint8 or mask.ndim != 2 or not mask.size:
        raise InputError(
            f"mask: got {mask.dtype} of shape {mask.shape}, expected (H, W) uint8 class ids."
        )
    return mask


def _checked_picture(image: Picture, mask: UInt8) -> Image.Image:
    """Return the photo as a new RGB image, after checking that the mask fits it."""
    _checked_mask(mask)
    # Both conversions copy: the caller's picture is never drawn on.
    picture = _as_rgb(image)
    if picture is image:
        picture = picture.copy()
    if (picture.height, picture.width) != mask.shape:
        raise InputError(
            f"mask: got {mask.shape[0]}×{mask.shape[1]} for a photo of "
            f"{picture.height}×{picture.width}; both must have the same height and width."
        )
    return picture
