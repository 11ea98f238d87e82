"""Pictures of an evaluation: photo beside truth and prediction, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from deeplab.evaluation.metrics import ConfusionMatrix
from deeplab.labels import LabelSet

UInt8 = npt.NDArray[np.uint8]

_BLEND = 0.65
_CELL, _MARGIN = 44, 130


def draw_comparison(
    rows: Sequence[tuple[UInt8, UInt8, UInt8]], labels: LabelSet, *, width: int = 320
) -> Image.Image:
    """Draw one row per picture: photo, truth, prediction, and where they differ (red).

    Args:
        rows: (photo (H, W, 3) uint8 RGB, truth (H, W), prediction (H, W)) each.
        labels: names, colours and ignored id.
        width: of one panel, pixels.
    """
    strips = []
    for photo, truth, mask in rows:
        ignored = truth == labels.ignore_index
        wrong = (truth != mask) & ~ignored
        panels = [photo, _paint(photo, truth, labels), _paint(photo, mask, labels)]
        grey = photo.mean(2, keepdims=True).repeat(3, 2) * 0.6
        grey[wrong] = (230, 40, 40)
        panels.append(grey.astype(np.uint8))
        panels[1][ignored] = photo[ignored] // 3
        height = round(width * photo.shape[0] / photo.shape[1])
        small = [np.asarray(Image.fromarray(p).resize((width, height))) for p in panels]
        strips.append(np.concatenate(small, axis=1))
    return Image.fromarray(np.concatenate(strips, axis=0))


def _paint(photo: UInt8, mask: UInt8, labels: LabelSet) -> UInt8:
    painted = photo * (1 - _BLEND) + labels.palette[mask] * _BLEND
    return painted.astype(np.uint8)


def draw_confusion(confusion: ConfusionMatrix, labels: LabelSet) -> Image.Image:
    """Draw the matrix, each row (true class) as shares of its pixels in per cent."""
    count, names = len(labels), labels.names
    side = count * _CELL
    picture = Image.new("RGB", (_MARGIN + side + 10, _MARGIN + side + 10), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(12)
    rows = confusion.counts.sum(1)
    for i in range(count):
        y = _MARGIN + i * _CELL
        draw.text((_MARGIN - 8, y + _CELL / 2), names[i][:18], "black", font, anchor="rm")
        _write_upright(picture, names[i][:18], _MARGIN + i * _CELL + _CELL // 2, font)
        for j in range(count):
            x = _MARGIN + j * _CELL
            box = (x, y, x + _CELL - 1, y + _CELL - 1)
            if rows[i] == 0:
                draw.rectangle(box, "#eeeeee")
                continue
            share = confusion.counts[i, j] / rows[i]
            fade = round(255 * (1 - share))
            draw.rectangle(box, (fade, fade, 255) if i == j else (255, fade, fade))
            if share >= 0.005:
                ink = "white" if share > 0.5 else "black"
                centre = (x + _CELL / 2, y + _CELL / 2)
                draw.text(centre, f"{100 * share:.0f}", ink, font, anchor="mm")
    return picture


def _write_upright(
    picture: Image.Image, text: str, x: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    label = Image.new("RGB", (_MARGIN - 10, 16), "white")
    ImageDraw.Draw(label).text((2, 8), text, "black", font, anchor="lm")
    picture.paste(label.transpose(Image.Transpose.ROTATE_90), (x - 8, 8))
