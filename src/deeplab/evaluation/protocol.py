"""How a network is measured: what it is shown, how its answers become a mask, what is counted.

A predictor turns a photo into a mask of the photo's own size: ``TorchPredictor`` for networks in
training and release pairs, ``FilePredictor`` for exported files, by the very way of ``segment``.
``evaluate`` counts; its results merge exactly, picture by picture, over any number of processes.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.data.sample import Dataset
from deeplab.errors import DataError, InputError
from deeplab.evaluation.metrics import (
    ClassTotals,
    ConfusionMatrix,
    bootstrap_interval,
    boundary_band,
    stack,
)
from deeplab.evaluation.objects import ObjectCounts
from deeplab.labels import LabelSet, open_labels
from deeplab.photo.bands import Values
from deeplab.photo.confidence import Scores
from deeplab.photo.images import Geometry, InputSpec
from deeplab.photo.upsample import Region, argmax_bilinear
from deeplab.runtimes import FILE_SUFFIXES, find_engines
from deeplab.runtimes.cut import CutTorch
from deeplab.tiles import Tiles
from deeplab.tiles.context import Context, Halves
from deeplab.tiles.pictures import ArrayPicture
from deeplab.tiles.windows import OVERLAP
from deeplab.weights.release import find_pair

if TYPE_CHECKING:
    import torch

    from deeplab.models import DeepLab
    from deeplab.segmenter import Runtime, Segmenter
    from deeplab.weights.release import Release

UInt8 = npt.NDArray[np.uint8]

_LOOKED_AT_ONCE = "scales, flip, tile: overlapping classes are looked at once."

_USUAL_TILE = 513
"""Pixels per side, where weights do not say what they were trained on."""


class Predictor(Protocol):
    """A photo in, a mask of its size out."""

    labels: LabelSet

    def __call__(self, photo: Values) -> UInt8:
        """Return (H, W) uint8 class ids of an (H, W, 3) uint8 RGB photo, or of what it takes."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the protocol: everything that influences the score, as JSON knows it."""
        ...


class FilePredictor:
    """An exported file, run as ``deeplab segment`` runs it: letterbox, network, exact mask.

    Args:
        segmenter: of the file; it may look several times at each photo.
        name: for the report.
        windows: look at photos in windows, as :meth:`deeplab.Segmenter.tiles` does with these
            arguments; None shows them whole.
        scales: of the segmenter's looks, for the report.
        flip: the same.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        name: str,
        *,
        windows: Mapping[str, Any] | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> None:
        self.segmenter, self._name, self._windows = segmenter, name, windows
        self._scales, self._flip = scales, flip
        self.labels, self.thresholds = segmenter.labels, segmenter.card.thresholds

    def __call__(self, photo: Values) -> UInt8:
        """Return the mask of a photo."""
        if self._windows is None:
            return self.segmenter(photo).mask
        return self.segmenter.tiles(photo, **self._windows).segmentation().mask

    def look(self, photo: Values) -> Scores:
        """Return the logits of one look, and where the photo lies in them.

        Raises:
            InputError: several looks, or windows, were asked for.
        """
        if self._windows is not None or len(self.segmenter.looks) > 1:
            raise InputError(_LOOKED_AT_ONCE)
        return self.segmenter(photo).looks[0]

    def describe(self) -> dict[str, Any]:
        """Return the protocol."""
        spec = self.segmenter.spec
        seen = f"{spec.fit} to {spec.height}×{spec.width}"
        windows = self._windows
        if windows is not None:
            shared, context = windows.get("overlap", OVERLAP), windows.get("context")
            seen = describe_windows((spec.height, spec.width), shared, context)
        return {
            "model": self._name,
            "input": seen,
            "scales": [windows.get("scale", 1.0)] if windows else list(self._scales),
            "flip": self._flip,
        }


@dataclass(kw_only=True)
class TorchPredictor:
    """A torch network on whole photos, as the original evaluates.

    The photo keeps its own size; it is padded at the bottom and right with the mean pixel to a
    multiple of the output stride plus 1. One scale: the argmax of the upsampled logits. Several
    scales or flip: the mean of the softmax at the photo's size.

    Attributes:
        network: in evaluation mode, on its device.
        labels: of its classes.
        name: for the report.
        scales: of the photo.
        flip: also look at the mirrored photo.
        output_stride: None takes the network's.
        tile: side of square windows for photos that do not fit into memory; None shows them
            whole. The windows' answers are blended, see :mod:`deeplab.tiles`: the logits, or with
            several looks their probabilities.
        overlap: the share of a window that its neighbours look at too.
        context: of what the network's image pooling is the mean, see :mod:`deeplab.tiles.context`.
        bfloat16: compute convolutions in half the bits.
        frame: fit each photo into this frame instead, as an exported file does; one look.
        thresholds: of overlapping classes.

    Source: research/deeplab eval.py; model.py, predict_labels_multi_scale.
    """

    network: DeepLab
    labels: LabelSet
    name: str
    scales: Sequence[float] = (1.0,)
    flip: bool = False
    output_stride: int | None = None
    tile: int | None = None
    overlap: float = OVERLAP
    context: Context = "window"
    bfloat16: bool = False
    frame: InputSpec | None = None
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.frame is not None and (tuple(self.scales) != (1.0,) or self.flip or self.tile):
            raise InputError("scales, flip, tile: a fixed frame is looked at once.")
        if self.context == "picture" and (tuple(self.scales) != (1.0,) or self.flip):
            raise InputError("context: with scales or flip every look has a mean of its own.")
        if self.tile is not None and self.tile < 65:
            raise InputError(f"tile: got {self.tile}, expected 65 pixels or more (or none).")

    def __call__(self, photo: Values) -> UInt8:
        """Return the mask of a photo, or of a picture of other channels."""
        import torch

        geometry = None
        size = photo.shape[0], photo.shape[1]
        if self.frame is not None:
            geometry = Geometry(size, (self.frame.height, self.frame.width), self.frame.fit)
            if self.frame.bands is None:
                photo = geometry.place(Image.fromarray(photo), self.frame.padding)
            else:
                photo = geometry.place_values(photo, self.frame)
        if photo.dtype != np.uint8:
            photo = photo.astype(np.float32)
        place = next(self.network.parameters()).device
        image = torch.from_numpy(np.ascontiguousarray(photo.transpose(2, 0, 1)))[None].to(place)
        with (
            torch.inference_mode(),
            torch.autocast(place.type, torch.bfloat16, enabled=self.bfloat16),
        ):
            if geometry is not None:
                logits = self._logits(image)
                corners = self.network.config.align_corners
                return argmax_bilinear(logits, *size, align_corners=corners, region=geometry.region)
            if self.tile is not None and max(photo.shape[:2]) > self.tile:
                return self._in_windows(photo, self.tile)
            if tuple(self.scales) == (1.0,) and not self.flip:
                return self._one_look(image)
            return _argmax(self._probabilities(image))

    def look(self, photo: Values) -> Scores:
        """Return the logits of one look, and where the photo lies in them.

        Raises:
            InputError: several looks, or windows, were asked for.
        """
        import torch

        from deeplab.models.inference import pad_to_stride

        if tuple(self.scales) != (1.0,) or self.flip or self.tile:
            raise InputError(_LOOKED_AT_ONCE)
        height, width = photo.shape[:2]
        region = Region(height, width, top=0, left=0, bottom=height, right=width)
        if self.frame is not None:
            place = Geometry((height, width), (self.frame.height, self.frame.width), self.frame.fit)
            region = place.region
            if self.frame.bands is None:
                photo = place.place(Image.fromarray(photo), self.frame.padding)
            else:
                photo = place.place_values(photo, self.frame)
        if photo.dtype != np.uint8:
            photo = photo.astype(np.float32)
        device = next(self.network.parameters()).device
        image = torch.from_numpy(np.ascontiguousarray(photo.transpose(2, 0, 1)))[None].to(device)
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16),
        ):
            if self.frame is None:
                image = pad_to_stride(self.network, image, self.output_stride)
                rows, columns = image.shape[2:]
                region = Region(rows, columns, top=0, left=0, bottom=height, right=width)
            logits = self._logits(image)
        return Scores(values=logits, align_corners=self.network.config.align_corners, region=region)

    def describe(self) -> dict[str, Any]:
        """Return the protocol."""
        seen = "the photo's own size, padded"
        if self.tile:
            seen = describe_windows((self.tile, self.tile), self.overlap, self.context)
        if self.frame is not None:
            seen = f"{self.frame.fit} to {self.frame.height}×{self.frame.width}"
        return {
            "model": self.name,
            "input": seen,
            "scales": list(self.scales),
            "flip": self.flip,
            "output_stride": self.output_stride or self.network.config.output_stride,
            "precision": "bfloat16" if self.bfloat16 else "float32",
        }

    def _one_look(self, image: torch.Tensor) -> UInt8:
        from deeplab.models.inference import pad_to_stride

        height, width = image.shape[2:]
        padded = pad_to_stride(self.network, image, self.output_stride)
        mask = argmax_bilinear(
            self._logits(padded),
            *padded.shape[2:],
            align_corners=self.network.config.align_corners,
        )
        return mask[:height, :width]

    def _logits(self, image: torch.Tensor) -> npt.NDArray[np.float32]:
        logits = self.network(image, self.output_stride)[0].float().permute(1, 2, 0)
        return np.ascontiguousarray(logits.cpu().numpy())

    def _probabilities(self, image: torch.Tensor) -> torch.Tensor:
        from deeplab.models.inference import predict

        return predict(
            self.network,
            image,
            scales=self.scales,
            flip=self.flip,
            output_stride=self.output_stride,
            pad=True,
        )

    def _in_windows(self, photo: UInt8, tile: int) -> UInt8:
        """Return the mask of windows whose answers are blended."""
        import torch

        place = next(self.network.parameters()).device
        one_look = tuple(self.scales) == (1.0,) and not self.flip

        def run(frame: UInt8) -> npt.NDArray[np.float32]:
            image = torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))[None].to(place)
            with (  # what is switched on for one thread is not for another
                torch.inference_mode(),
                torch.autocast(place.type, torch.bfloat16, enabled=self.bfloat16),
            ):
                if one_look:
                    return self._logits(image)
                answer = self._probabilities(image)[0].permute(1, 2, 0)
                return np.ascontiguousarray(answer.float().cpu().numpy())

        if one_look and self.network.config.align_corners:  # points lie on pixels at such sizes
            stride = self.output_stride or self.network.config.output_stride
            tile = (tile - 1) // stride * stride + 1
        mean = self.network.pixel_mean
        assert isinstance(mean, torch.Tensor)
        red, green, blue = (float(value) for value in mean.flatten())
        spec = InputSpec(height=tile, width=tile, mean=(red, green, blue))
        nothing = np.zeros((tile, tile, 3), np.uint8)
        height, width, _ = run(nothing).shape
        halves = None
        if self.context == "picture":
            cut = CutTorch(run, self.network, self.name)
            maps = tuple((one.shape[0], one.shape[1]) for one in cut.features(nothing))
            halves = Halves(cut.features, cut.judge, maps)
        tiles = Tiles(
            ArrayPicture(photo),
            labels=self.labels,
            spec=spec,
            grid=(height, width),
            align_corners=self.network.config.align_corners and one_look,
            run=run,
            workers=1,
            overlap=self.overlap,
            halves=halves,
        )
        mask = np.empty(photo.shape[:2], np.uint8)
        for top, left, part in tiles:
            mask[top : top + part.shape[0], left : left + part.shape[1]] = part
        return mask


def describe_windows(size: tuple[int, int], overlap: float, context: Context | None = None) -> str:
    """Return how photos are looked at, for a protocol."""
    whole = ", pooling of the whole picture" if context == "picture" else ""
    return f"windows of {size[0]}×{size[1]}, {overlap:.0%} shared, blended{whole}"


def _argmax(probabilities: torch.Tensor) -> UInt8:
    mask: UInt8 = probabilities[0].argmax(0).cpu().numpy().astype(np.uint8)
    return mask


def open_predictor(
    model: str | Path,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    output_stride: int | None = None,
    tile: int | Literal["auto"] | None = None,
    overlap: float = OVERLAP,
    context: Context = "window",
    device: torch.device | None = None,
    file_device: str | None = None,
    runtime: Runtime | None = None,
    labels: LabelSet | str | None = None,
    **told: Any,
) -> Predictor:
    """Open whatever can be measured: a release pair, foreign weights, an exported file, a name.

    Args:
        model: a release pair or checkpoint runs in torch; an exported file (``.tflite``,
            ``.onnx``, …) or the name of a model runs as ``deeplab segment`` runs it.
        scales: of the photo, see ``TorchPredictor``; of an exported file, of its frame, where it
            takes any size.
        flip: also look at mirrored photos.
        output_stride: torch only.
        tile: look at photos in windows: as large as the network's frame ("auto"), or with this
            side, where it takes any size.
        overlap: the share of a window that its neighbours look at too.
        context: of what the network's image pooling is the mean, see :mod:`deeplab.tiles.context`.
        device: torch only; None is the CPU.
        file_device: exported files only, what :class:`~deeplab.segmenter.Segmenter` takes.
        runtime: exported files only; None takes the usual one of that kind of file.
        labels: the classes, where the model does not say; None takes its own.
        **told: what else :class:`~deeplab.segmenter.Segmenter` takes: normalisation, fit, size,
            output_name. With these a release pair runs as ``deeplab segment`` runs it, too.

    Raises:
        InputError: stride, or scales, that an exported file does not take.
        ModelError: the model cannot be opened.
    """
    path = Path(model)
    told = {name: value for name, value in told.items() if value is not None}
    is_exported = path.suffix in FILE_SUFFIXES and find_engines(path) != ("torch",)
    if is_exported or told or not (path.exists() or path.with_suffix(".json").exists()):
        if output_stride or (tile is not None and (len(scales) > 1 or flip)):
            raise InputError(
                "output_stride, tile: an exported file has its own stride, and in windows it is "
                "looked at once; evaluate the release pair it was exported from."
            )
        from deeplab.segmenter import Segmenter

        windows = (
            None if tile is None else {"scale": scales[0], "overlap": overlap, "context": context}
        )
        if isinstance(tile, int):
            told["size"] = (tile, tile)
        looks: dict[str, Any] = {} if windows else {"scales": scales, "flip": flip}
        told |= {"runtime": runtime, "labels": labels, "device": file_device}
        opened = Segmenter(find_pair(model) or model, **looks, **told)
        return FilePredictor(opened, path.name, windows=windows, **looks)
    if file_device not in (None, "auto", "cpu", "gpu", "cuda"):
        raise InputError(
            f"device: got '{file_device}'; a network in torch is judged on cpu or cuda."
        )
    from deeplab import weights
    from deeplab.models import build
    from deeplab.weights.release import is_release, labels_of, open_release

    several = tuple(scales) != (1.0,) or flip
    framed = None if tile else _open_framed(path, several=several)
    if framed is not None and several:
        return _open_looks(path, scales, flip=flip, output_stride=output_stride, labels=labels)
    config, state = weights.load(path)
    named = labels_of(path, config) if labels is None else open_labels(labels)
    network = build(config)
    network.load_state_dict(state)
    if tile == "auto":
        tile = open_release(path).input_spec.height if is_release(path) else _USUAL_TILE
    return TorchPredictor(
        network=network.to(device).eval(),
        labels=named,
        name=path.name,
        scales=scales,
        flip=flip,
        output_stride=output_stride,
        tile=tile,
        overlap=overlap,
        context=context,
        frame=framed.input_spec if framed else None,
        thresholds=_read_thresholds(path, tile) if is_release(path) else (),
    )


def _open_framed(path: Path, *, several: bool) -> Release | None:
    """Return a pair that is judged in its frame; None of others, and where it cannot be there.

    With several looks a network for photos can: at their own size it would be another network.
    """
    from deeplab.weights.release import is_release, open_release

    if not is_release(path) or not _is_judged_in_frame((release := open_release(path)).provenance):
        return None
    if several and (release.input_spec.bands is not None or release.labels.overlap):
        return None
    return release


def _open_looks(
    path: Path,
    scales: Sequence[float],
    *,
    flip: bool,
    output_stride: int | None,
    labels: LabelSet | str | None,
) -> FilePredictor:
    """Return a pair that was trained in a frame, with several looks at what fits into it."""
    from deeplab.segmenter import Segmenter

    if output_stride is not None:
        raise InputError(
            "output_stride: this network was trained on photos fitted into a frame, and is looked "
            "at there; with several looks it keeps its stride. Leave out --output-stride, or "
            "--scales and --flip."
        )
    opened = Segmenter(find_pair(path) or path, scales=scales, flip=flip, labels=labels)
    return FilePredictor(opened, path.name, scales=scales, flip=flip)


def _read_thresholds(path: Path, tile: int | str | None) -> tuple[float, ...]:
    """Return a pair's thresholds; refuse windows of what is no photo."""
    from deeplab.weights.release import open_release

    release = open_release(path)
    if release.input_spec.bands is not None and tile:
        raise InputError("tile: windows are for photos; this network takes other pictures.")
    return release.thresholds


def _is_judged_in_frame(provenance: Mapping[str, Any]) -> bool:
    """Whether a pair's weights were chosen by photos fitted into its frame, as it is used."""
    recipe = provenance.get("recipe")
    run = recipe.get("run") if isinstance(recipe, Mapping) else None
    return isinstance(run, Mapping) and run.get("validate_frame") is True


@dataclass(kw_only=True)
class Evaluation:
    """What was counted on (a part of) a data set.

    Attributes:
        labels: the classes.
        confusion: over all pixels.
        bands: over the pixels near a border, by band width in pixels.
        objects: connected objects of the truth, and those that were given two classes.
        pictures: per picture, by index in the data set: its name and its totals. Of clips, the
            clip's: its frames are no more independent than the pixels of a picture.
        protocol: what influences the scores.
        seconds: time spent predicting, summed over processes.
        shared: ids of the classes that network and data set share, where they have not the same;
            only these can be scored. None where they have.
    """

    labels: LabelSet
    confusion: ConfusionMatrix
    bands: dict[int, ConfusionMatrix]
    objects: ObjectCounts
    pictures: dict[int, tuple[str, ClassTotals]]
    protocol: dict[str, Any]
    seconds: float = 0.0
    shared: tuple[int, ...] | None = None

    def add(self, index: int, name: str, label: UInt8, mask: UInt8) -> None:
        """Count a picture, or one more frame of what has the same index.

        Args:
            index: what it is, or belongs to, see ``pictures``.
            name: of that.
            label: (H, W) uint8 truth.
            mask: (H, W) uint8 prediction, in the ids of ``labels``.

        Raises:
            InputError: their sizes differ.
            DataError: the truth holds what is no class.
        """
        classes, ignore = len(self.labels), self.labels.ignore_index
        one = ConfusionMatrix.of(label, mask, classes, ignore_index=ignore)
        self.confusion.merge(one)
        background = self.labels.background
        self.objects.merge(ObjectCounts.of(label, mask, background=background, ignore_index=ignore))
        before = self.pictures.get(index)
        self.pictures[index] = (name, one.totals if before is None else before[1] + one.totals)
        for width, band in self.bands.items():
            near = boundary_band(label, width)
            band.merge(ConfusionMatrix.of(label[near], mask[near], classes, ignore_index=ignore))

    def merge(self, other: Evaluation) -> Evaluation:
        """Add the counts of another part of the same data set to these, and return these."""
        self.confusion.merge(other.confusion)
        for width, band in other.bands.items():
            self.bands[width].merge(band)
        self.objects.merge(other.objects)
        self.pictures |= other.pictures
        self.seconds += other.seconds
        return self

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur, of those that network and data set share."""
        return float(self.confusion.totals.mean_iou(self.shared))

    @property
    def accuracy(self) -> float:
        """Share of the labelled pixels with the right class."""
        return float(self.confusion.totals.pixel_accuracy)

    def interval(self, classes: Sequence[int] | None = None) -> tuple[float, float]:
        """Return the 95 % bootstrap interval of the mIoU over pictures; NaN of one alone."""
        if len(self.pictures) < 2:
            return math.nan, math.nan
        classes = self.shared if classes is None else classes
        totals = stack([self.pictures[index][1] for index in sorted(self.pictures)])
        return bootstrap_interval(totals, classes=classes)

    def worst(self, count: int) -> list[tuple[int, str, float]]:
        """Return (index, name, mIoU) of the pictures with the lowest own mIoU."""
        scored = [
            (index, name, float(totals.mean_iou()))
            for index, (name, totals) in sorted(self.pictures.items())
            if totals.truth.sum() > 0
        ]
        return sorted(scored, key=lambda one: one[2])[:count]


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    *,
    trimap: Sequence[int] = (),
    indices: Iterable[int] | None = None,
    each: Callable[[int, str, UInt8], None] | None = None,
) -> Evaluation:
    """Predict every picture (or some of them) and count.

    Args:
        predictor: what is measured.
        dataset: with truth.
        trimap: widths, in pixels, of bands around label borders to score by themselves.
        indices: the pictures, where several processes share them; merge their results. None is
            all of them.
        each: called with (index, name, mask) after each picture, to show progress or save masks.

    Where the two have not the same classes, those with one name are scored. What the network calls
    a class that the data set lacks counts as the data's background, and where it has none, as a
    class more, "none of these": wrong in any case.

    Raises:
        InputError: predictor and data set share no class.
        DataError: the data set is empty.
    """
    if predictor.labels.overlap or dataset.labels.overlap:
        raise InputError(
            "labels: overlapping classes are scored by `deeplab evaluate` alone, "
            "deeplab.evaluation.overlap.evaluate_overlapping."
        )
    if len(dataset) == 0:
        raise DataError(f"data: the split '{dataset.split}' is empty; nothing to evaluate.")
    protocol = {**predictor.describe(), "split": dataset.split, "pictures": len(dataset)}
    translate, result = begin(predictor.labels, dataset.labels, protocol=protocol, trimap=trimap)
    for index in range(len(dataset)) if indices is None else indices:
        sample = dataset[index]
        start = time.perf_counter()
        mask = translate[predictor(sample.image)]
        result.seconds += time.perf_counter() - start
        result.add(index, sample.id, sample.label, mask)
        if each is not None:
            each(index, sample.id, mask)
    return result


def begin(
    source: LabelSet, target: LabelSet, *, protocol: Mapping[str, Any], trimap: Sequence[int] = ()
) -> tuple[UInt8, Evaluation]:
    """Return how masks are translated, and an evaluation without a picture.

    Args:
        source: the network's classes.
        target: the data set's.
        protocol: what influences the scores, the classes apart.
        trimap: widths, in pixels, of bands around label borders to score by themselves.

    Returns:
        A table, (256,) uint8, from the network's class ids to those that are scored; and where
        pictures are added.

    Raises:
        InputError: the two share no class.
    """
    translate, labels, shared = share_labels(source, target)
    classes = len(labels)
    return translate, Evaluation(
        labels=labels,
        shared=shared,
        confusion=ConfusionMatrix(classes),
        bands={width: ConfusionMatrix(classes) for width in trimap},
        objects=ObjectCounts(),
        pictures={},
        protocol={
            **protocol,
            "size of truth": "the photo's own",
            "ignored label": target.ignore_index,
            "classes": list(target.names),
            "scored classes": [labels.names[i] for i in shared or range(len(target))],
        },
    )


def match_labels(source: LabelSet, target: LabelSet) -> UInt8:
    """Return a table, (256,) uint8, from a network's class ids to a data set's, by name.

    Raises:
        InputError: they have not the same classes.
    """
    if len(source) != len(target):
        raise InputError(
            f"labels: the network knows {len(source)} classes, the data set has {len(target)}; "
            "they must be the same to be compared."
        )
    table, _, shared = share_labels(source, target)
    if shared is not None:
        missing = [name for name in source.names if _find(name, target) is None]
        raise InputError(
            f"labels: the network's class '{missing[0]}' is none of the data set's "
            f"({', '.join(target.names)})."
        )
    return table


def share_labels(
    source: LabelSet, target: LabelSet
) -> tuple[UInt8, LabelSet, tuple[int, ...] | None]:
    """Return how a network's classes are scored on a data set's, by name.

    Returns:
        A table, (256,) uint8, from the network's class ids to those of the scored label set; that
        set, the data's and perhaps "none of these"; and the ids that both share, None where they
        have the same classes.

    Raises:
        InputError: they share no class, or nothing but the background.
    """
    places = [_find(name, target) for name in source.names]
    shared = tuple(sorted(place for place in places if place is not None))
    if len(shared) == len(source) == len(target):
        return _table(places, 0), target, None
    if not set(shared) - {target.background}:
        raise InputError(
            f"labels: the network and the data set share no class but the background. It knows "
            f"{', '.join(source.names)}; the data set has {', '.join(target.names)}."
        )
    if None not in places:
        return _table(places, 0), target, shared
    if target.background is not None and target.background in shared:
        return _table(places, target.background), target, shared
    names = (*target.names, OTHER)
    labels = dataclasses.replace(target, names=names, colours=(*target.colours, (128, 128, 128)))
    return _table(places, len(target)), labels, shared


OTHER = "none of these"
"""What a network's classes are that the data set does not have, nor a background."""


def _find(name: str, labels: LabelSet) -> int | None:
    try:
        return labels.index(name)
    except InputError:
        return None


def _table(places: Sequence[int | None], other: int) -> UInt8:
    table = np.full(256, other, np.uint8)
    table[: len(places)] = [other if place is None else place for place in places]
    return table
