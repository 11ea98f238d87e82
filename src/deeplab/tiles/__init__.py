"""Pictures larger than memory: windows that overlap, one mask without seams.

:class:`Tiles` is what :meth:`deeplab.Segmenter.tiles` gives. :mod:`~deeplab.tiles.windows` says
where the windows lie, :mod:`~deeplab.tiles.context` tells each what the whole picture is like,
:mod:`~deeplab.tiles.blend` makes one mask of their answers, :mod:`~deeplab.tiles.pictures` and
:mod:`~deeplab.tiles.raster` read by region, and :mod:`~deeplab.tiles.mask_file` writes.
"""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image

from deeplab.errors import ImageSizeError, InputError
from deeplab.files import replacing
from deeplab.labels import LabelSet
from deeplab.photo import draw
from deeplab.photo.draw import LegendEntry, entries_of
from deeplab.photo.images import Geometry, InputSpec, Photo
from deeplab.photo.memory import in_words
from deeplab.photo.results import Segmentation
from deeplab.photo.upsample import argmax_bilinear
from deeplab.tiles.blend import Blend, Float32, MaskPart, Run, UInt8
from deeplab.tiles.context import Context, Halves, average, find_unit
from deeplab.tiles.pictures import Picture, Seen, thumbnail
from deeplab.tiles.windows import OVERLAP, Windows, check_overlap

_STRIP = 16_384
"""Pixels of a picture's width that are worked on together at most, so that a wider one needs no
more memory; four hundredths of the windows are looked at twice for it."""

_LEAST_STRIP, _STRIP_STEP = 1024, 512
"""Pixels; the files that are written have blocks of 512."""

_BESIDE = 150_000_000
"""Bytes that reading, writing and resizing take at most, whatever the picture."""

_MOST_SCALE = 16

_MARGIN = 0.45
"""With the picture's context: of the points that two windows share, those at a window's edge that
it leaves to the other. Neighbours agree but for what they see at their edges, so that the change
from one to the other may be short; see benchmarks/tiles.py."""

_PREVIEW = 2048
"""Pixels of the longer side of what is drawn of a picture that fits no screen."""

Progress = Callable[[int, int], None]
"""Called with the windows that are done, and all of them."""


@dataclass(frozen=True)
class TiledGeometry(Geometry):
    """Where a photo lies in the frame that all its windows make together.

    Attributes:
        seen: (height, width) of the photo as the network sees it, in the frame's top left corner.
    """

    seen: tuple[int, int] = (0, 0)

    @property
    def content(self) -> tuple[int, int]:
        """(height, width) of the part of the frame that the photo fills."""
        return self.seen


@dataclass(frozen=True)
class Counted:
    """What a mask holds that was written and let go.

    Attributes:
        size: (height, width).
        labels: names and colours of the class ids.
        counts: how many pixels have each class id, 256 numbers.
        nodata: how many pixels of the picture hold nothing; they are in no count.
    """

    size: tuple[int, int]
    labels: LabelSet
    counts: tuple[int, ...]
    nodata: int

    @property
    def shares(self) -> dict[str, float]:
        """The classes that are present and the share of the picture each covers, largest first."""
        order = sorted((i for i in range(256) if self.counts[i]), key=lambda i: -self.counts[i])
        return {self.labels.names[i]: self.counts[i] / self._total for i in order}

    @property
    def entries(self) -> list[LegendEntry]:
        """The classes that are drawn, as a legend has them."""
        return entries_of(self.counts, self._total, self.labels)

    @property
    def _total(self) -> int:
        return max(1, sum(self.counts))

    def to_dict(self, name: str | PathLike[str]) -> dict[str, Any]:
        """Return all of it as JSON knows it, as of any photo but for the pixels themselves."""
        names = self.labels.names
        classes = [
            {"id": i, "name": name, "colour": list(self.labels.colours[i]), "share": share}
            for name, share in self.shares.items()
            for i in (names.index(name),)
        ]
        height, width = self.size
        return {
            "photo": str(name),
            "height": height,
            "width": width,
            "nodata": self.nodata / (height * width),
            "classes": classes,
        }


class Tiles:
    """A picture on which a network is to be run in windows; nothing is run before it is asked for.

    Iterating gives the mask in parts, :class:`~deeplab.tiles.blend.MaskPart` each: (h, w) uint8
    class ids at the picture's own size, ``top`` and ``left`` of its corner. The parts cover the
    picture, each pixel once. Pixels that hold nothing are 255, the labels' ``ignore_index``.

    Attributes:
        picture: what is read.
        labels: the classes.
        size: (height, width) of the picture, and of the mask.
        seen_size: (height, width) of the picture as the network sees it.
        context: whether the network's image pooling is of the "picture" or of each "window".
    """

    def __init__(
        self,
        picture: Picture,
        *,
        labels: LabelSet,
        spec: InputSpec,
        grid: tuple[int, int],
        align_corners: bool,
        softmaxed: bool = False,
        temperature: float = 1.0,
        run: Run,
        workers: int,
        scale: float = 1.0,
        overlap: float = OVERLAP,
        memory: int | None = None,
        halves: Halves | None = None,
    ) -> None:
        check_overlap(overlap)
        if not (math.isfinite(scale) and 0 < scale <= _MOST_SCALE):
            raise InputError(
                f"scale: got {scale}, expected a number above 0, {_MOST_SCALE} at most."
            )
        if picture.has_nodata and len(labels) > labels.ignore_index:
            raise InputError(
                f"labels: {picture.name} has pixels that hold nothing, and with {len(labels)} "
                "classes no value is left for them."
            )
        self.picture, self.labels, self.size = picture, labels, picture.size
        self.seen_size = (
            max(1, round(scale * self.size[0])),
            max(1, round(scale * self.size[1])),
        )
        self._spec, self._run, self._workers = spec, run, workers
        self._align_corners, self._softmaxed = align_corners, softmaxed
        self._temperature = temperature
        self._grid = grid
        self._halves = halves
        self._rows, self._columns = self._place(overlap)
        if self._rows.starts == self._columns.starts == (0,):  # the window sees it all
            self._halves = None
        self.context: Context = "picture" if self._halves else "window"
        self._averages: tuple[Float32, ...] | None = None
        self._strip = self._choose_strip(memory)

    @property
    def memory(self) -> int:
        """About how many bytes are taken while parts are made, networks apart."""
        return self._needs(self._strip)

    @property
    def overlap(self) -> tuple[int, int]:
        """How many pixels two windows share at least, down and across, as the network sees them."""
        down, across = self._rows, self._columns
        return round(down.shared * down.step), round(across.shared * across.step)

    @property
    def windows(self) -> int:
        """How many times the network will be run."""
        x = self._columns.place(self.size[1])
        across = 0
        for left in range(0, self.size[1], self._strip):
            near, _ = x.part(left, min(self.size[1], left + self._strip))
            across += len(self._columns.touching(near))
        return across * len(self._rows.starts) + self._windows_before

    def __iter__(self) -> Iterator[MaskPart]:
        """Give the mask in parts, strip by strip and in each from top to bottom."""
        return self.parts()

    def parts(self, *, progress: Progress | None = None) -> Iterator[MaskPart]:
        """Give the mask in parts as iterating does, and tell of the progress.

        Raises:
            ImageError: a part of the picture is damaged.
            ModelError: the network's answer is broken.
        """
        blend = self._prepare(progress, self.windows)
        for part in blend.masks(self.size, self._strip):
            if self.picture.has_nodata:
                height, width = part.mask.shape
                bottom, right = part.top + height, part.left + width
                empty = ~self.picture.valid(part.top, part.left, bottom, right)
                part.mask[empty] = self.labels.ignore_index
            yield part

    def segmentation(self, *, progress: Progress | None = None) -> Segmentation:
        """Return the whole result at once, as of any photo; for pictures that fit into memory.

        Raises:
            ImageError: a part of the picture is damaged.
            ModelError: the network's answer is broken.
        """
        start = time.perf_counter()
        total = len(self._rows.starts) * len(self._columns.starts) + self._windows_before
        grid = self._prepare(progress, total).grid()
        answered = time.perf_counter()
        frame = self._rows.whole_frame, self._columns.whole_frame
        geometry = TiledGeometry(self.size, frame, seen=self.seen_size)
        mask = argmax_bilinear(
            grid, *self.size, align_corners=self._align_corners, region=geometry.region
        )
        if self.picture.has_nodata:
            mask[~self.picture.valid(0, 0, *self.size)] = self.labels.ignore_index
        end = time.perf_counter()
        photo = getattr(self.picture, "photo", None)
        return Segmentation(
            mask=mask,
            labels=self.labels,
            photo=photo or Photo(self.picture.read(0, 0, *self.size), name=self.picture.name),
            geometry=geometry,
            logits=grid,
            align_corners=self._align_corners,
            softmaxed=self._softmaxed,
            temperature=self._temperature,
            timings={"network": 1e3 * (answered - start), "mask": 1e3 * (end - answered)},
        )

    def save(
        self,
        *,
        mask: str | PathLike[str] | None = None,
        overlay: str | PathLike[str] | None = None,
        only: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> Counted:
        """Run the network, write files, each whole or not at all, and count the classes.

        Args:
            mask: where to write the mask as a tiled, compressed palette TIFF, a GeoTIFF where the
                picture says where it lies.
            overlay: where to write an overlay as JPEG, 2048 pixels on its longer side at most.
            only: the classes to keep; every other becomes background.
            progress: called with the windows that are done, and all of them.

        Raises:
            ImageError: a part of the picture is damaged.
            OutputError: a file cannot be written; the disk is full, say.
            InputError: no class has one of the names.
            MissingExtraError: rasterio is not installed, for the mask.
        """
        ignored = self.labels.ignore_index
        nodata = ignored if self.picture.has_nodata else None
        labels = self.labels
        if only:
            _, labels = draw.keep_only(np.zeros((1, 1), np.uint8), only, labels=labels)
        counts, small = np.zeros(256, np.int64), _Small(self.size)
        with contextlib.ExitStack() as stack:
            write = None
            if mask is not None:
                write = stack.enter_context(self._open_mask(mask, labels, nodata))
            for part in self.parts(progress=progress):
                if only:
                    kept, _ = draw.keep_only(part.mask, only, labels=self.labels)
                    if nodata is not None:
                        kept = np.where(part.mask == nodata, part.mask, kept)
                    part = part._replace(mask=kept)
                counts += Image.fromarray(part.mask).histogram()
                small.take(part)
                if write is not None:
                    write(part)
        empty = 0
        if nodata is not None:
            empty, counts[nodata] = int(counts[nodata]), 0
        found = Counted(self.size, labels, tuple(counts.tolist()), empty)
        if overlay is not None:
            photo = thumbnail(self.picture.smaller(small.size), small.size)
            drawn = draw.overlay(photo, small.mask, labels=labels, legend=found.entries)
            encoded = io.BytesIO()
            drawn.save(encoded, "JPEG", quality=92)
            with replacing(overlay) as partial:
                partial.write_bytes(encoded.getbuffer())
        return found

    @contextlib.contextmanager
    def _open_mask(
        self, path: str | PathLike[str], labels: LabelSet, nodata: int | None
    ) -> Iterator[Callable[[MaskPart], None]]:
        from deeplab.tiles.mask_file import open_mask

        profile: Mapping[str, Any] = getattr(self.picture, "profile", {})
        with (
            replacing(path) as partial,
            open_mask(
                partial, self.size, name=str(path), labels=labels, nodata=nodata, profile=profile
            ) as file,
        ):
            yield file.write

    def _place(self, overlap: float) -> tuple[Windows, Windows]:
        """Return the windows from top to bottom, and those from left to right."""
        spec, halves, found = self._spec, self._halves, []
        for axis, frame in enumerate((spec.height, spec.width)):
            size, points = self.seen_size[axis], self._grid[axis]
            windows = Windows(size, frame, points, self._align_corners, overlap)
            if halves is not None:
                unit = find_unit(
                    points,
                    [one[axis] for one in halves.maps],
                    align_corners=self._align_corners,
                    most=points - windows.shared,
                )
                windows = replace(windows, unit=unit, margin=_MARGIN)
            found.append(windows)
        return found[0], found[1]

    @property
    def _windows_before(self) -> int:
        """How many windows are looked at before the first answer, for the averages."""
        if self._halves is None or self._averages is not None:
            return 0
        return len(self._rows.starts) * len(self._columns.starts)

    def _prepare(self, progress: Progress | None, total: int) -> Blend:
        """Return the network on all windows; where it needs the picture's averages, take them."""
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        run, halves = self._run, self._halves
        if halves is not None:
            if self._averages is None:
                seen = self._strip * self.seen_size[1] / self.size[1]
                group = max(1, int(seen / self._spec.width))
                self._averages = average(self._blend(halves.features, advance), halves, group=group)
            run = partial(_judge, halves, self._averages)
        return self._blend(run, advance)

    def _blend(self, run: Callable[[UInt8], Any], advance: Callable[[], None]) -> Blend:
        return Blend(
            rows=self._rows,
            columns=self._columns,
            num_classes=len(self.labels),
            seen=Seen(self.picture.smaller(self.seen_size), self.seen_size, self._spec.padding),
            padding=self._spec.padding,
            run=_once_for_nothing(run, self._spec),
            workers=self._workers,
            advance=advance,
        )

    def _choose_strip(self, memory: int | None) -> int:
        """Return how wide the strips are that fit into the memory, a multiple of 512 pixels."""
        strip = _STRIP
        if self.picture.from_top and self.size[1] > _STRIP:  # each strip would read it all again
            strip = -(-self.size[1] // _STRIP_STEP) * _STRIP_STEP
        while memory is not None and strip > _LEAST_STRIP and self._needs(strip) > memory:
            strip = max(_LEAST_STRIP, strip // 2 // _STRIP_STEP * _STRIP_STEP)
        if memory is not None and self._needs(strip) > memory:
            raise ImageSizeError(
                f"{self.picture.name}: there are {in_words(memory)} of memory for it; windows of "
                f"{self._spec.height}×{self._spec.width} pixels and {len(self.labels)} classes "
                f"need {in_words(self._needs(strip))}."
            )
        return strip

    def _needs(self, strip: int) -> int:
        """Return about how many bytes the work on strips of this width takes, networks apart."""
        seen = min(strip, self.size[1]) * self.seen_size[1] / self.size[1] + 2 * self._spec.width
        band = 2 * 3 * seen * self._spec.height
        grid = 4 * 4 * len(self.labels) * self._rows.points * (seen / self._columns.step)
        return int(band + grid + 4 * 512 * min(strip, self.size[1])) + _BESIDE


class _Small:
    """Every n-th pixel of a mask, for a picture of it."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._every = max(1, -(-max(size) // _PREVIEW))
        self.size = -(-size[0] // self._every), -(-size[1] // self._every)
        self.mask = np.zeros(self.size, np.uint8)

    def take(self, part: MaskPart) -> None:
        """Look at a part of the mask."""
        every = self._every
        row, column = -part.top % every, -part.left % every
        picked = part.mask[row::every, column::every]
        if picked.size:
            y, x = (part.top + row) // every, (part.left + column) // every
            self.mask[y : y + picked.shape[0], x : x + picked.shape[1]] = picked


def _judge(halves: Halves, averages: tuple[Float32, ...], frame: UInt8) -> Float32:
    return halves.judge(frame, averages)


def _once_for_nothing(run: Callable[[UInt8], Any], spec: InputSpec) -> Callable[[UInt8], Any]:
    """Run frames without anything in them, of which maps are full, once for all."""
    nothing = np.empty((spec.height, spec.width, 3), np.uint8)
    nothing[:] = spec.padding
    known: list[Any] = []

    def answer(frame: UInt8) -> Any:
        if not np.array_equal(frame[:: spec.height - 1 or 1], nothing[:: spec.height - 1 or 1]):
            return run(frame)
        if not np.array_equal(frame, nothing):
            return run(frame)
        if not known:
            known.append(run(frame))
        return known[0]

    return answer
