"""What a network of overlapping classes saw in one photo: a mask per class.

A pixel may be of several classes, or of none. A class is where its logit, interpolated as for any
mask, is at least the logit of its threshold.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.errors import InputError
from deeplab.files import replacing
from deeplab.labels import LabelSet
from deeplab.photo import draw
from deeplab.photo.confidence import Scores
from deeplab.photo.draw import LegendEntry
from deeplab.photo.images import keep_profile, read_background
from deeplab.photo.results import Runs, Segmentation
from deeplab.photo.upsample import interpolate

Bools = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

NONE = 255
"""In :attr:`OverlappingSegmentation.mask`: of no class."""

_VALUES = 1 << 21  # at a time


def to_logits(thresholds: Sequence[float]) -> Float32:
    """Return the logits from which on classes are there: (K,) float32."""
    share = np.asarray(thresholds, np.float64)
    logits: Float32 = np.log(share / (1 - share)).astype(np.float32)
    return logits


def logit_rows(looks: Sequence[Scores], height: int, width: int) -> Any:
    """Yield ``(rows, logits)`` from top to bottom: (number of rows, width, K) float32.

    Of several looks, the logits of their mean probabilities.
    """
    band = max(1, _VALUES // (width * looks[0].values.shape[2]))
    for start in range(0, height, band):
        rows = slice(start, min(start + band, height))
        parts = []
        for look in looks:
            values = interpolate(
                look.values,
                height,
                width,
                align_corners=look.align_corners,
                region=look.region,
                rows=rows,
            )
            parts.append(values[:, ::-1] if look.mirrored else values)
        if len(parts) == 1:
            yield rows, parts[0]
            continue
        share = sum(sigmoid(part) for part in parts) / np.float32(len(parts))
        share = np.clip(share, 1e-7, 1 - 1e-7)
        yield rows, np.log(share / (1 - share))


def sigmoid(logits: Float32) -> Float32:
    """Return the probabilities of logits, without overflow."""
    shares: Float32 = np.float32(0.5) * (1 + np.tanh(logits * np.float32(0.5)))
    return shares


def find_masks(
    looks: Sequence[Scores],
    thresholds: Sequence[float],
    height: int,
    width: int,
    *,
    only: Sequence[int] | None = None,
) -> tuple[Bools, UInt8]:
    """Return the masks of all classes, and the topmost class of every pixel.

    Args:
        looks: the network's answer.
        thresholds: of each class.
        height: of the photo.
        width: of the photo.
        only: ids of classes that are looked for; the others are nowhere. None is all.

    Returns:
        (K, height, width) bool; and (height, width) uint8: of the classes at a pixel the one that
        is furthest above its threshold, in logits, or ``NONE``.
    """
    least = to_logits(thresholds)
    if only is not None:
        least[[index for index in range(len(least)) if index not in only]] = np.inf
    masks = np.empty((len(least), height, width), np.bool_)
    topmost = np.empty((height, width), np.uint8)
    for rows, logits in logit_rows(looks, height, width):
        above = logits - least
        masks[:, rows] = (logits >= least).transpose(2, 0, 1)
        topmost[rows] = np.where(masks[:, rows].any(0), above.argmax(2), NONE)
    return masks, topmost


def encode_stack(masks: Bools | UInt8) -> bytes:
    """Return masks (K, H, W), 0, 1 or 255, as a TIFF: a page per class, in the order of the ids."""
    pages = [Image.fromarray(mask.astype(np.uint8)) for mask in masks]
    encoded = io.BytesIO()
    pages[0].save(
        encoded,
        format="TIFF",
        save_all=True,
        append_images=pages[1:],
        compression="tiff_adobe_deflate",
    )
    return encoded.getvalue()


@dataclass(frozen=True, eq=False, kw_only=True)
class OverlappingSegmentation(Segmentation):
    """The result for one photo where classes overlap.

    Attributes:
        masks: (K, H, W) bool, where each class is; ``masks[labels.index("cat")]``.
        thresholds: how probable each class had to be, 0..1.
        mask: (H, W) uint8, the topmost class alone: of those at a pixel the one furthest above its
            threshold; 255 where there is none. It does not hold what lies under it.
    """

    masks: Bools
    thresholds: tuple[float, ...]

    def mask_of(self, name: str) -> Bools:
        """Return where one class is: (H, W) bool.

        Raises:
            InputError: no class has that name.
        """
        found: Bools = self.masks[self.labels.index(name)]
        return found

    def keep(self, only: Iterable[str]) -> OverlappingSegmentation:
        """Return the result in which the other classes are nowhere, on top of nothing.

        Raises:
            InputError: no class has such a name.
        """
        ids = self.labels.indices(only)
        masks, topmost = find_masks(self.looks, self.thresholds, *self.mask.shape, only=ids)
        return dataclasses.replace(self, masks=masks, mask=topmost)

    def planes(self) -> Iterator[tuple[int, UInt8]]:
        """Yield each class that is present, and (H, W) uint8: its id, ``NONE`` elsewhere."""
        for index, mask in enumerate(self.masks):
            if mask.any():
                yield index, np.where(mask, np.uint8(index), np.uint8(NONE))

    @cached_property
    def shares(self) -> dict[str, float]:
        """The classes that are present and the share of the picture each covers, largest first.

        They overlap, so they do not add up to 1.
        """
        counts = self.masks.sum((1, 2), dtype=np.int64)
        present = sorted(
            (i for i in range(len(counts)) if counts[i]), key=lambda i: (-counts[i], i)
        )
        return {self.labels.names[i]: float(counts[i] / self.mask.size) for i in present}

    def probabilities(self, names: Iterable[str] | None = None) -> dict[str, Float32]:
        """Return the sigmoid of classes' logits; of those that are present when left out.

        Raises:
            InputError: no class has such a name.
        """
        ids = self.labels.indices(self._present if names is None else names)
        height, width = self.mask.shape
        planes = np.empty((len(ids), height, width), np.float32)
        for rows, logits in logit_rows(self.looks, height, width):
            planes[:, rows] = sigmoid(logits[:, :, ids]).transpose(2, 0, 1)
        return {self.labels.names[i]: plane for i, plane in zip(ids, planes, strict=True)}

    # --- what has one class per pixel -------------------------------------------------------------

    @property
    def confidence(self) -> Float32:
        """Is refused: no class wins where classes overlap."""
        self._refuse("confidence")

    @property
    def entropy(self) -> Float32:
        """Is refused, as :attr:`confidence`."""
        self._refuse("entropy")

    def with_unknown(self, below: float) -> NoReturn:
        """Is refused: what is of no class is of none."""
        self._refuse("unknown")

    def kept_probability(self, only: Iterable[str] | None = None) -> None:
        """Return None: edges are as the masks have them."""
        return

    def save_mask(self, path: str | PathLike[str]) -> NoReturn:
        """Is refused: a PNG holds one class per pixel; :meth:`save_masks` writes all."""
        self._refuse("save_mask", " save_masks writes all of them.")

    def to_fiftyone(self) -> NoReturn:
        """Is refused: its masks have one class per pixel."""
        self._refuse("to_fiftyone")

    def cutout(
        self, only: Iterable[str] | None = None, *, soft_edge: float | None = None
    ) -> Image.Image:
        """Return what is of any of the classes, see :func:`deeplab.photo.draw.cutout`."""
        mask, labels = self._together(only)
        photo = self.photo.decode()
        return keep_profile(photo, draw.cutout(photo, mask, labels=labels, soft_edge=soft_edge))

    def blur_background(
        self, only: Iterable[str] | None = None, *, radius: float | None = None
    ) -> Image.Image:
        """Return what is of any of the classes before a blurred ground."""
        mask, labels = self._together(only)
        photo = self.photo.decode()
        return keep_profile(photo, draw.blur_background(photo, mask, labels=labels, radius=radius))

    def replace_background(self, background: Any, only: Iterable[str] | None = None) -> Image.Image:
        """Return what is of any of the classes before another ground."""
        mask, labels = self._together(only)
        photo = self.photo.decode()
        behind = read_background(background, photo)
        return keep_profile(
            photo, draw.replace_background(photo, mask, background=behind, labels=labels)
        )

    def _together(self, only: Iterable[str] | None) -> tuple[UInt8, LabelSet]:
        """Return several classes as one: (H, W) uint8, 1 inside, and what that means."""
        only = [only] if isinstance(only, str) else only
        chosen = self.masks if only is None else self.masks[self.labels.indices(only)]
        together: UInt8 = np.asarray(chosen.any(0), np.uint8)
        return together, LabelSet(("background", "object"))

    def _refuse(self, what: str, cure: str = "") -> NoReturn:
        raise InputError(
            f"{what}: has one class per pixel, but the classes of this model overlap.{cure} "
            "Use masks, mask_of(name), probability(name)."
        )

    # --- pictures, tables and files ---------------------------------------------------------------

    @property
    def legend(self) -> list[LegendEntry]:
        """The classes that are present, with the share that each covers, overlapped or not."""
        entries = draw.legend_entries(
            np.arange(len(self.labels), dtype=np.uint8)[None], self.labels
        )
        colours = {entry.name: entry.colour for entry in entries}
        return [
            LegendEntry(name, colours[name], share)
            for name, share in self.shares.items()
            if name in colours
        ]

    def overlay(self, *, alpha: float = 0.5, legend: bool = True) -> Image.Image:
        """Return the photo under its topmost classes; the legend tells all that are present."""
        photo = self.photo.decode()
        drawn = draw.overlay(
            photo,
            self.mask,
            labels=self.labels,
            alpha=alpha,
            legend=self.legend if legend else False,
        )
        return keep_profile(photo, drawn)

    def contour(self, *, width: int | None = None) -> Image.Image:
        """Return the photo with the outlines of every class."""
        photo = picture = self.photo.decode()
        for _, plane in self.planes():
            picture = draw.contour(picture, plane, labels=self.labels, width=width)
        return keep_profile(photo, picture)

    def to_pipeline(self) -> list[dict[str, Any]]:
        """Return ``{"score": None, "label": name, "mask": a PIL image}`` for each class present."""
        return [
            {
                "score": None,
                "label": name,
                "mask": Image.fromarray(self._plane(name) * np.uint8(255)),
            }
            for name in self._present
        ]

    def to_pandas(self) -> Any:
        """Return a pandas ``DataFrame``: photo, id, class, pixels and share, a row per class."""
        frame = super().to_pandas().iloc[:0]
        for name, share in self.shares.items():
            pixels = int(self.mask_of(name).sum())
            frame.loc[len(frame)] = [self.name, self.labels.index(name), name, pixels, share]
        return frame

    def to_supervision(self) -> NoReturn:
        """Is refused, so far."""
        self._refuse("to_supervision")

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": repr(self), "image/png": self._repr_png_()}

    def save_masks(self, path: str | PathLike[str]) -> None:
        """Write all masks as one TIFF: a page per class, in the order of the ids; 0 and 1.

        Data sets of overlapping classes are read of such files.

        Raises:
            OutputError: the file cannot be written.
        """
        with replacing(path) as temporary:
            temporary.write_bytes(self.encode_masks())

    def encode_masks(self) -> bytes:
        """Return the file that :meth:`save_masks` writes."""
        return encode_stack(self.masks)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the photo as plain numbers and strings, ready for JSON.

        As :meth:`Segmentation.to_dict`; ``overlap`` is true, and each class has its ``threshold``.
        """
        height, width = self.mask.shape
        classes = []
        for name, share in self.shares.items():
            index = self.labels.index(name)
            classes.append(
                {
                    "id": index,
                    "name": name,
                    "colour": list(self.labels.colour_of(index)),
                    "share": share,
                    "threshold": self.thresholds[index],
                    "segmentation": {
                        "size": [height, width],
                        "counts": Runs(self._plane(name)).counts(1),
                    },
                }
            )
        return {
            "photo": self.name,
            "height": height,
            "width": width,
            "overlap": True,
            "classes": classes,
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.timings.items()},
        }

    def _plane(self, name: str) -> UInt8:
        return self.mask_of(name).astype(np.uint8)
