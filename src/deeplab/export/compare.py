"""Show a new file and torch the same photos, and count where they answer the same.

Both go the way of ``deeplab segment``: photo, frame, network, mask of the photo's size. A file that
holds its resize and argmax is compared on its frame.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deeplab.evaluation.metrics import ConfusionMatrix
from deeplab.export.certificate import Certificate, Round, Scores, find_faults
from deeplab.export.plan import Plan
from deeplab.photo.band_pictures import fill_frame, read_values
from deeplab.photo.bands import Values
from deeplab.photo.images import RESIZE_FILTER, Geometry, InputSpec, Photo
from deeplab.photo.overlapping import OverlappingSegmentation
from deeplab.photo.upsample import argmax_bilinear
from deeplab.runtimes import Network, litert
from deeplab.segmenter import Segmenter

if TYPE_CHECKING:
    from deeplab.data import Dataset
    from deeplab.labels import LabelSet
    from deeplab.photo.results import Segmentation
    from deeplab.segmenter import Runtime
    from deeplab.weights import Release

UInt8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

MOST_PHOTOS = 50
"""Of more, as many are taken, evenly spread."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two masks of one photo: the file's and torch's.

    Attributes:
        photo: its name.
        pixels: how many.
        equal: how many have the same class.
        foreground: how many are an object's in either mask.
        same_foreground: how many of those have the same class in both.
        logit_difference: the largest; None where the file gives class ids.
    """

    photo: str
    pixels: int
    equal: int
    foreground: int
    same_foreground: int
    logit_difference: float | None

    @property
    def equal_share(self) -> float:
        """Share of pixels with the same class."""
        return self.equal / self.pixels

    @property
    def foreground_iou(self) -> float | None:
        """Same-class foreground IoU; None where neither mask has an object."""
        return self.same_foreground / self.foreground if self.foreground else None


def certify(
    file: Path,
    *,
    release: Release,
    reference: Segmenter,
    plan: Plan,
    runtime: Runtime | None,
    int8_tensors: int,
    kept_float: Sequence[str],
    photos: Sequence[Path],
    dataset: Dataset | None,
    threads: int,
    allowed: bool,
) -> Certificate:
    """Run a new file and torch on the same photos, at two sizes, and compare.

    A file of one frame sees every photo as it is and at half its size; one that takes any frame
    sees two frames.

    Args:
        file: the new file, alone: all that is known of it is what it says itself.
        release: the pair it was made of.
        reference: that pair in torch, at the file's size and output stride.
        plan: as it was written.
        runtime: the engine; None leaves the comparison out.
        int8_tensors: for the record.
        kept_float: for the record.
        photos: of these :data:`MOST_PHOTOS` at most.
        dataset: pictures with labels, all of them.
        threads: per photo.
        allowed: faults do not matter.
    """
    rounds: list[Round] = []
    scores, times = None, _Times()
    if runtime is not None:
        for number, (name, scale, size) in enumerate(_sizes(plan)):
            other = size if number else None  # the first is the file's own
            candidate = Segmenter(file, runtime=runtime, threads=threads, size=other)
            if other:
                stride = plan.network.config.output_stride
                reference = Segmenter(
                    release.path, threads=threads, size=other, output_stride=stride
                )
            look = _Look(candidate, reference, _whole(file, plan, runtime, threads), times)
            found = [look(image, path) for image, path in _photos(photos, scale, plan.card.spec)]
            if dataset is not None and not number:
                truth, more = look.score(dataset)
                scores, found = truth, found + more
            rounds.append(_summarise(name, found))
    config = plan.network.config
    certificate = Certificate(
        file=file.name,
        precision=plan.precision,
        output=plan.output,
        size=plan.size,
        output_stride=config.output_stride,
        weights=release.path.name,
        bytes=_bytes(file),
        weights_bytes=release.path.stat().st_size,
        int8_tensors=int8_tensors,
        kept_float=tuple(kept_float),
        rounds=tuple(rounds),
        scores=scores,
        latency_ms=times.median("file"),
        torch_latency_ms=times.median("torch"),
        threads=threads,
        faults=(),
        allowed=False,
    )
    faults = tuple(find_faults(certificate))
    return dataclasses.replace(certificate, faults=faults, allowed=bool(faults) and allowed)


class _Times:
    """Milliseconds of the network alone."""

    def __init__(self) -> None:
        self._ms: dict[str, list[float]] = {"file": [], "torch": []}

    def add(self, who: str, ms: float) -> None:
        self._ms[who].append(ms)

    def median(self, who: str) -> float | None:
        return float(np.median(self._ms[who])) if self._ms[who] else None


class _Look:
    """Shows photos to both networks."""

    def __init__(
        self, candidate: Segmenter, reference: Segmenter, whole: Network | None, times: _Times
    ) -> None:
        self._candidate, self._reference = candidate, reference
        self._whole, self._times = whole, times

    def __call__(self, image: Path | Values, name: str) -> Comparison:
        """Compare one photo."""
        return self._compare(*self._answers(image), name)

    def score(self, dataset: Dataset) -> tuple[Scores, list[Comparison]]:
        """Compare the pictures of a data set, and both with their labels."""
        count = len(self._reference.labels)
        totals = ConfusionMatrix(count), ConfusionMatrix(count)
        found = []
        for index in range(len(dataset)):
            sample = dataset[index]
            answers = self._answers(sample.image)
            for total, result in zip(totals, answers, strict=True):
                total.merge(ConfusionMatrix.of(sample.label, result.mask, count))
            found.append(self._compare(*answers, sample.id))
        file, torch = (float(total.totals.mean_iou()) for total in totals)
        scores = Scores(data=dataset.split, pictures=len(dataset), torch_miou=torch, file_miou=file)
        return scores, found

    def _answers(self, image: Path | Values) -> tuple[Segmentation, Segmentation]:
        file, torch = self._candidate(image), self._reference(image)
        if self._whole is None:
            self._times.add("file", file.timings["network"])
        self._times.add("torch", torch.timings["network"])
        return file, torch

    def _compare(self, file: Segmentation, torch: Segmentation, name: str) -> Comparison:
        if self._whole is None:
            assert file.logits is not None
            assert torch.logits is not None
            difference = float(np.abs(file.logits - torch.logits).max())
            if isinstance(file, OverlappingSegmentation):
                assert isinstance(torch, OverlappingSegmentation)
                return _compare_overlapping(file, torch, name, difference)
            return _compare(file.mask, torch.mask, file.labels, name, difference)
        spec = self._reference.spec
        frame = fill_frame(torch.geometry, torch.photo, spec)
        assert torch.logits is not None
        expected = argmax_bilinear(
            torch.logits, spec.height, spec.width, align_corners=torch.align_corners
        )
        start = time.perf_counter()
        mask = self._whole(frame).astype(np.uint8)
        self._times.add("file", 1e3 * (time.perf_counter() - start))
        return _compare(mask, expected, file.labels, name, None)


def _compare(
    file: UInt8, torch: UInt8, labels: LabelSet, name: str, difference: float | None
) -> Comparison:
    same = file == torch
    foreground = np.ones_like(same)
    if labels.background is not None:
        foreground = (file != labels.background) | (torch != labels.background)
    return _count(same, foreground, name, difference)


def _compare_overlapping(
    file: OverlappingSegmentation, torch: OverlappingSegmentation, name: str, difference: float
) -> Comparison:
    """Compare the masks of all classes: pixels are equal where all of them are."""
    same = (file.masks == torch.masks).all(0)
    foreground = np.asarray(file.masks.any(0) | torch.masks.any(0))
    return _count(same, foreground, name, difference)


def _count(same: Mask, foreground: Mask, name: str, difference: float | None) -> Comparison:
    """Count pixels that are the same, all of them and those of the foreground."""
    return Comparison(
        photo=name,
        pixels=same.size,
        equal=int(same.sum()),
        foreground=int(foreground.sum()),
        same_foreground=int((same & foreground).sum()),
        logit_difference=difference,
    )


def _summarise(name: str, found: Sequence[Comparison]) -> Round:
    worst = sorted(found, key=lambda one: one.equal_share)[:3]
    differences = [one.logit_difference for one in found if one.logit_difference is not None]
    foreground = sum(one.foreground for one in found)
    same = sum(one.same_foreground for one in found)
    return Round(
        name=name,
        photos=len(found),
        max_logit_difference=max(differences, default=None),
        equal_pixels=sum(one.equal for one in found) / sum(one.pixels for one in found),
        worst_equal_pixels=worst[0].equal_share,
        foreground_iou=same / foreground if foreground else None,
        worst=tuple((one.photo, one.equal_share) for one in worst),
    )


def _sizes(plan: Plan) -> list[tuple[str, float, tuple[int, int] | None]]:
    """Return (name, scale of the photo, size of the frame) of both rounds."""
    height, width = plan.size
    if not plan.card.any_size:
        return [("photos", 1.0, None), ("photos at half size", 0.5, None)]
    stride = plan.network.config.output_stride
    smaller = (_half(height, stride), _half(width, stride))
    return [(f"{h}×{w}", 1.0, (h, w)) for h, w in ((height, width), smaller)]


def _half(side: int, stride: int) -> int:
    """Return about half a side, as a multiple of the stride plus 1."""
    return max(1, round((side - 1) / 2 / stride)) * stride + 1


def _photos(
    photos: Sequence[Path], scale: float, spec: InputSpec
) -> Iterator[tuple[Path | Values, str]]:
    step = max(1, math.ceil(len(photos) / MOST_PHOTOS))
    for path in photos[::step]:
        if scale == 1.0:
            yield path, path.name
            continue
        if spec.bands is not None:
            yield _shrink(read_values(path)[1], scale, spec), path.name
            continue
        image = Photo(path).decode()
        size = [max(1, round(side * scale)) for side in image.size]
        yield np.asarray(image.resize((size[0], size[1]), RESIZE_FILTER)), path.name


def _shrink(values: Values, scale: float, spec: InputSpec) -> Values:
    """Return a picture that is no photo at another size, in the same kind of numbers."""
    height, width = (max(1, round(side * scale)) for side in values.shape[:2])
    place = Geometry((height, width), (height, width), "stretch")
    small = place.place_values(values, spec)
    kind = values.dtype
    return small if kind == np.float32 else np.rint(small).astype(kind)


def _whole(file: Path, plan: Plan, runtime: Runtime, threads: int) -> Network | None:
    """Return the file with its own argmax, which the usual way to open it would leave out."""
    if plan.output == "logits":
        return None
    if runtime == "litert":
        return litert.open(file, threads=threads, whole=True)
    return Segmenter(file, runtime=runtime, threads=threads).network


def _bytes(file: Path) -> int:
    """Return the size of a file with all its parts."""
    parts = [part for part in file.parent.rglob("*") if part.is_file()]
    return sum(part.stat().st_size for part in parts)
