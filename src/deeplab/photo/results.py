"""What a network saw in one photo: the mask, the labels, the probabilities; save and draw."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.errors import InputError, OutputError
from deeplab.files import replacing
from deeplab.labels import UNKNOWN, Colour, LabelSet
from deeplab.photo import confidence, draw, tables
from deeplab.photo.confidence_picture import draw_confidence
from deeplab.photo.edges import working_size
from deeplab.photo.images import Geometry, Photo, Source, keep_profile, read_background
from deeplab.photo.palette_png import encode_palette_png

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
        temperature: the logits are divided by it before they become probabilities; it is the
            model's own, see ``deeplab evaluate --calibration``. No mask depends on it.
        more_looks: what the network answered on further looks (other scales, mirrored);
            probabilities are the mean of all. Empty where it looked once.
    """

    mask: UInt8
    labels: LabelSet
    photo: Photo
    geometry: Geometry
    logits: Float32 | None
    align_corners: bool
    timings: dict[str, float]
    softmaxed: bool = False
    temperature: float = 1.0
    more_looks: tuple[confidence.Scores, ...] = ()

    @property
    def name(self) -> str:
        """The photo's path, or what it was made from."""
        return self.photo.name

    @cached_property
    def shares(self) -> dict[str, float]:
        """The classes that are present and the share of the picture each covers, largest first.

        Pixels without data (of a map's border), which have no class, are in none of them.
        """
        # Pillow counts bytes in place; numpy.bincount would first make them eight times as large.
        counts = Image.fromarray(self.mask).histogram()
        ids = [*range(len(self.labels))]
        if self.labels.unknown is not None:
            ids.append(self.labels.unknown)
        present = sorted((i for i in ids if counts[i]), key=lambda i: (-counts[i], i))
        return {self.labels.name_of(i): counts[i] / self.mask.size for i in present}

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
        ids = self.labels.indices(self._present if names is None else names)
        height, width = self.mask.shape
        planes = np.empty((len(ids), height, width), np.float32)
        for rows, values in confidence.probability_rows(self.looks, height, width):
            for plane, index in zip(planes, ids, strict=True):
                plane[rows] = values[:, :, index]
        return {self.labels.names[i]: plane for i, plane in zip(ids, planes, strict=True)}

    @property
    def looks(self) -> tuple[confidence.Scores, ...]:
        """What the network answered, one entry per look, and where the photo lies in it.

        Raises:
            InputError: the network gives a label map only.
        """
        if self.logits is None:
            raise InputError(
                "probability, confidence, unknown: this model gives a label map, no probabilities. "
                "Use a model that gives logits, such as 'voc'."
            )
        first = confidence.Scores(
            values=self.logits,
            align_corners=self.align_corners,
            region=self.geometry.region,
            softmaxed=self.softmaxed,
            temperature=self.temperature,
        )
        return (first, *self.more_looks)

    @cached_property
    def confidence(self) -> Float32:
        """How probable the winner is at every pixel: (H, W) float32, 1 / K to 1.

        Raises:
            InputError: the network gives a label map only.
        """
        return confidence.confidence(self.looks, *self.mask.shape)

    @cached_property
    def entropy(self) -> Float32:
        """How undecided the network is: (H, W) float32, 0 to log2 K bits.

        Raises:
            InputError: the network gives a label map only.
        """
        return confidence.entropy(self.looks, *self.mask.shape)

    def with_unknown(self, below: float) -> Segmentation:
        """Return this result with id 255, "unknown", where the winner is less probable than that.

        All other pixels keep their class.

        Args:
            below: 0..1; 0.5 marks where the network gives its class less than a half.

        Raises:
            InputError: ``below`` is no probability, the network gives a label map only, or its
                classes leave no id.
        """
        if not 0 < below <= 1:
            raise InputError(f"unknown: got {below}, expected a probability above 0, at most 1.")
        mask = np.where(self.confidence < below, np.uint8(UNKNOWN), self.mask)
        result = dataclasses.replace(self, mask=mask, labels=self.labels.with_unknown())
        result.__dict__["confidence"] = self.confidence
        return result

    def kept_probability(self, only: Iterable[str] | None = None) -> Float32 | None:
        """Return what :func:`deeplab.photo.edges.soft_cutout` may know of cut-out classes.

        None where the network gives a label map only, or where the labels have no background and
        none are named.
        """
        if self.logits is None or (only is None and self.labels.background is None):
            return None
        named = draw.kept_ids(self.labels, only)
        kept = [index for index in named if index < self.logits.shape[2]]
        return confidence.kept_probability(self.looks, kept, *working_size(*self.mask.shape))

    @property
    def _present(self) -> list[str]:
        """The classes that are present; no unknown pixels."""
        names = {*self.labels.names}
        return [name for name in self.shares if name in names]

    # --- pictures -----------------------------------------------------------------------------

    def overlay(self, *, alpha: float = 0.5, legend: bool = True) -> Image.Image:
        """Return the photo under its mask, see :func:`deeplab.photo.draw.overlay`."""
        photo = self.photo.decode()
        drawn = draw.overlay(photo, self.mask, labels=self.labels, alpha=alpha, legend=legend)
        return keep_profile(photo, drawn)

    def contour(self, *, width: int | None = None) -> Image.Image:
        """Return the photo with outlines, see :func:`deeplab.photo.draw.contour`."""
        photo = self.photo.decode()
        return keep_profile(photo, draw.contour(photo, self.mask, labels=self.labels, width=width))

    def cutout(
        self, only: Iterable[str] | None = None, *, soft_edge: float | None = None
    ) -> Image.Image:
        """Return the objects on a transparent ground, see :func:`deeplab.photo.draw.cutout`."""
        only = only if only is None else self.labels.spell(only)
        photo = self.photo.decode()
        drawn = draw.cutout(
            photo,
            self.mask,
            labels=self.labels,
            only=only,
            soft_edge=soft_edge,
            probability=self.kept_probability(only) if soft_edge is None else None,
        )
        return keep_profile(photo, drawn)

    def blur_background(
        self, only: Iterable[str] | None = None, *, radius: float | None = None
    ) -> Image.Image:
        """Return the objects before a blurred ground, see ``draw.blur_background``."""
        only = only if only is None else self.labels.spell(only)
        photo = self.photo.decode()
        drawn = draw.blur_background(
            photo,
            self.mask,
            labels=self.labels,
            only=only,
            radius=radius,
            probability=self.kept_probability(only),
        )
        return keep_profile(photo, drawn)

    def replace_background(
        self,
        background: Source | Colour,
        only: Iterable[str] | None = None,
    ) -> Image.Image:
        """Return the objects before another ground, see ``draw.replace_background``.

        Args:
            background: a picture as :class:`~deeplab.Segmenter` takes it, by its path or in
                memory, which fills the photo's size; or a colour (red, green, blue).
            only: the names of the classes to keep; None keeps all but the background.

        Raises:
            ImageError: the picture cannot be read.
            InputError: it is no picture and no colour, or no class has such a name.
        """
        only = only if only is None else self.labels.spell(only)
        photo = self.photo.decode()
        behind = read_background(background, photo)
        drawn = draw.replace_background(
            photo,
            self.mask,
            background=behind,
            labels=self.labels,
            only=only,
            probability=self.kept_probability(only),
        )
        return keep_profile(photo, drawn)

    def confidence_picture(self) -> Image.Image:
        """Return the confidence as a picture with its scale, see ``draw_confidence``."""
        return draw_confidence(self.confidence)

    def _repr_png_(self) -> bytes:
        """Return the overlay for a notebook, at most 800 pixels wide or high."""
        picture = self.overlay()
        picture.thumbnail((_SHOWN, _SHOWN))
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        return buffer.getvalue()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return what a notebook shows: the overlay with its legend, and the classes' shares."""
        png = self._repr_png_()
        return {
            "text/plain": repr(self),
            "text/html": tables.draw_page(png, self.mask, self.labels),
            "image/png": png,
        }

    def __repr__(self) -> str:
        height, width = self.mask.shape
        seen = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.shares.items())
        return f"<Segmentation {width}×{height}: {seen}>"

    # --- other packages' shapes ---------------------------------------------------------------

    def to_pipeline(self) -> list[dict[str, Any]]:
        """Return what transformers' "image-segmentation" pipeline gives for a semantic network.

        A list with, for every class that is present, ``{"score": None, "label": name, "mask":
        a PIL image of 0 and 255}``.
        """
        return tables.list_planes(self.mask, self.labels)

    def to_pandas(self) -> Any:
        """Return a pandas ``DataFrame``: photo, id, class, pixels and share, a row per class.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return tables.make_frame(self.mask, self.labels, self.name)

    def to_supervision(self) -> Any:
        """Return ``supervision.Detections``: a mask and box per class, without the background.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        return tables.make_detections(self.mask, self.labels)

    def to_fiftyone(self) -> Any:
        """Return a ``fiftyone.Segmentation`` with the mask of class ids.

        A data set shows their names where ``mask_targets`` is ``dict(enumerate(labels.names))``.

        Raises:
            InputError: fiftyone is not installed.
        """
        return tables.make_fiftyone(self.mask)

    # --- files --------------------------------------------------------------------------------

    def save_mask(self, path: str | PathLike[str]) -> None:
        """Write the mask as a palette PNG: pixel value = class id, colours = the label set's.

        Raises:
            OutputError: the file cannot be written, or its name is that of another format.
        """
        suffix = PurePath(path).suffix
        if suffix.lower() not in (".png", ""):
            raise OutputError(
                f"output: got {path}; a mask is a PNG, which keeps every class id, and programs "
                f"expect something else in a file that ends in {suffix}. Name it .png."
            )
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
        runs = Runs(self.mask)
        classes = []
        ids = {name: index for index, name in enumerate(self.labels.names)}
        if self.labels.unknown is not None:
            ids[self.labels.name_of(self.labels.unknown)] = self.labels.unknown
        for name, share in self.shares.items():
            index = ids[name]
            classes.append(
                {
                    "id": index,
                    "name": name,
                    "colour": list(self.labels.colour_of(index)),
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


class Runs:
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
