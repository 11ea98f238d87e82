"""What a network saw in one photo: the mask, the labels, the probabilities; save and draw."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.errors import InputError
from deeplab.files import replacing
from deeplab.labels import Colour, LabelSet
from deeplab.photo import draw
from deeplab.photo.images import Geometry, Photo
from deeplab.photo.palette_png import encode_palette_png
from deeplab.photo.upsample import softmax_rows

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

_SHOWN = 800  # pixels of a notebook's picture


@dataclass(frozen=True, eq=False, kw_only=True)
class Segmentation:
    """The result for one photo.

    Attributes:
        mask: (H, W) uint8 class ids, at the photo's own size.
        labels: names and colours of the class ids.
        photo: the photo, decoded again at full size when something is drawn on it.
        geometry: where the photo lay in the network's frame.
        logits: (h, w, K) float32, the network's low-resolution answer for the whole frame; None
            for networks that give a label map only.
        align_corners: how ``logits`` lie on the frame.
        softmaxed: ``logits`` are probabilities already; the network ends in a softmax or sigmoid.
        timings: milliseconds spent in "decode" (with the resize), "network" and "mask".
    """

    mask: UInt8
    labels: LabelSet
    photo: Photo
    geometry: Geometry
    logits: Float32 | None
    align_corners: bool
    timings: dict[str, float]
    softmaxed: bool = False

    @property
    def name(self) -> str:
        """The photo's path, or what it was made from."""
        return self.photo.name

    @cached_property
    def shares(self) -> dict[str, float]:
        """The classes that are present and the share of the picture each covers, largest first."""
        # Pillow counts bytes in place; numpy.bincount would first make them eight times as large.
        counts = Image.fromarray(self.mask).histogram()
        present = sorted((i for i in range(256) if counts[i]), key=lambda i: (-counts[i], i))
        return {self.labels.names[i]: counts[i] / self.mask.size for i in present}

    # --- probabilities ------------------------------------------------------------------------

    def probability(self, name: str) -> Float32:
        """Return the softmax probability of one class: (H, W) float32, 0..1.

        The logits are interpolated exactly as for the mask, then put through the softmax, so the
        class with the largest probability is the mask's.

        Raises:
            InputError: no class has that name, or the network gives a label map only.
        """
        return self.probabilities([name])[self.labels.names[self.labels.index(name)]]

    def probabilities(self, names: Iterable[str] | None = None) -> dict[str, Float32]:
        """Return several classes' probabilities at once; those that are present when left out.

        Raises:
            InputError: as :meth:`probability`.
        """
        if self.logits is None:
            raise InputError(
                "probability: this model gives a label map, no probabilities. Use a model that "
                "gives logits, such as 'voc'."
            )
        ids = self.labels.indices(self.shares if names is None else names)
        height, width = self.mask.shape
        planes = np.empty((len(ids), height, width), np.float32)
        for rows, values in softmax_rows(
            self.logits,
            height,
            width,
            align_corners=self.align_corners,
            region=self.geometry.region,
            softmaxed=self.softmaxed,
        ):
            for plane, index in zip(planes, ids, strict=True):
                plane[rows] = values[:, :, index]
        return {self.labels.names[i]: plane for i, plane in zip(ids, planes, strict=True)}

    # --- pictures -----------------------------------------------------------------------------

    def overlay(self, *, alpha: float = 0.5, legend: bool = True) -> Image.Image:
        """Return the photo under its mask, see :func:`deeplab.photo.draw.overlay`."""
        return draw.overlay(
            self.photo.decode(), self.mask, labels=self.labels, alpha=alpha, legend=legend
        )

    def contour(self, *, width: int | None = None) -> Image.Image:
        """Return the photo with outlines, see :func:`deeplab.photo.draw.contour`."""
        return draw.contour(self.photo.decode(), self.mask, labels=self.labels, width=width)

    def cutout(self, only: Iterable[str] | None = None, *, soft_edge: float = 0.0) -> Image.Image:
        """Return the objects on a transparent ground, see :func:`deeplab.photo.draw.cutout`."""
        return draw.cutout(
            self.photo.decode(), self.mask, labels=self.labels, only=only, soft_edge=soft_edge
        )

    def blur_background(
        self, only: Iterable[str] | None = None, *, radius: float | None = None
    ) -> Image.Image:
        """Return the objects before a blurred ground, see ``draw.blur_background``."""
        return draw.blur_background(
            self.photo.decode(), self.mask, labels=self.labels, only=only, radius=radius
        )

    def replace_background(
        self,
        background: Image.Image | UInt8 | Colour,
        only: Iterable[str] | None = None,
    ) -> Image.Image:
        """Return the objects before another ground, see ``draw.replace_background``."""
        return draw.replace_background(
            self.photo.decode(), self.mask, background=background, labels=self.labels, only=only
        )

    def _repr_png_(self) -> bytes:
        """Return the overlay for a notebook, at most 800 pixels wide or high."""
        picture = self.overlay()
        picture.thumbnail((_SHOWN, _SHOWN))
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        return buffer.getvalue()

    # --- files --------------------------------------------------------------------------------

    def save_mask(self, path: str | PathLike[str]) -> None:
        """Write the mask as a palette PNG: pixel value = class id, colours = the label set's.

        Raises:
            OutputError: the file cannot be written.
        """
        with replacing(path) as temporary:
            temporary.write_bytes(encode_palette_png(self.mask, self.labels.palette))

    def save_probabilities(
        self, path: str | PathLike[str], names: Iterable[str] | None = None
    ) -> None:
        """Write a ``.npz`` with one (H, W) float16 array per class; those present when left out.

        Raises:
            InputError: as :meth:`probability`.
            OutputError: the file cannot be written.
        """
        planes = self.probabilities(names)
        halves: dict[str, Any] = {name: plane.astype(np.float16) for name, plane in planes.items()}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **halves)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the photo as plain numbers and strings, ready for JSON.

        Each class that is present has its ``id``, ``name``, ``colour``, ``share`` and its pixels
        as run lengths the way COCO stores them uncompressed: column by column, beginning with the
        length of the run outside.
        """
        height, width = self.mask.shape
        runs = _Runs(self.mask)
        classes = []
        for name, share in self.shares.items():
            index = self.labels.names.index(name)
            classes.append(
                {
                    "id": index,
                    "name": name,
                    "colour": list(self.labels.colours[index]),
                    "share": share,
                    "segmentation": {"size": [height, width], "counts": runs.counts(index)},
                }
            )
        return {
            "photo": self.name,
            "height": height,
            "width": width,
            "classes": classes,
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.timings.items()},
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """Return :meth:`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)


class _Runs:
    """The runs of equal ids in a mask, column by column."""

    def __init__(self, mask: UInt8) -> None:
        flat = np.ascontiguousarray(mask.T).ravel()
        self.starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
        self.ends = np.append(self.starts[1:], flat.size)
        self.ids = flat[self.starts]

    def counts(self, index: int) -> list[int]:
        """Return the alternating lengths outside and inside one class."""
        inside = self.ids == index
        edges = np.column_stack((self.starts[inside], self.ends[inside])).ravel()
        lengths = np.diff(edges, prepend=0, append=self.ends[-1])
        return [int(n) for n in (lengths if lengths[-1] else lengths[:-1])]
