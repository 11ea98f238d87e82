"""Own classes in seconds: the classifier's rows are computed at once, before the first step.

A trained network already turns a photo into features that tell things apart. So it looks once over
the training photos, and the rows of the new classes are those under which the labels of these
features are likeliest: logistic regression, a convex problem with one solution, for which the
network itself need not be run again.

Few photos leave much open, and a penalty says what is believed where they are silent. It is solved
under two beliefs: that rows are small; and that each class is what the start already calls it, if
under another name ("moggy" costs little where "cat" is known). Answers between the two are straight
lines between their rows, and photos that were left out choose among them, judge whether rows that
the start knows by name stay as they are, and scale the answers to logits that are as sure as they
are right.

Classes that overlap are solved each by itself, see :mod:`deeplab.training.fit_overlapping`; those
that exclude each other together, see :mod:`deeplab.training.fit_exclusive`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from deeplab.data.masks import IGNORE
from deeplab.data.sample import Dataset
from deeplab.data.transforms import nearest_indices
from deeplab.models import DeepLab
from deeplab.photo.bands import Values
from deeplab.photo.images import Geometry, InputSpec
from deeplab.training.balance import read_label
from deeplab.training.fit_exclusive import Cells, solve_exclusive
from deeplab.training.fit_overlapping import OverlappingCells, solve_overlapping

MOST_PHOTOS = 160
"""More photos hardly change a few thousand numbers, and cost seconds."""

Watch = Callable[[int, int], None]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What the fit found.

    Attributes:
        photos: looked at.
        seconds: that all of it took.
        trust: share of the belief that the start knows the classes under other names, 0..1.
        fitted: names of the classes whose rows were fitted.
        kept: names of those whose rows stayed the start's.
        absent: names of the fitted ones that no photo shows: they are never predicted.
        left_out_miou: mean IoU over cells of photos that were left out; NaN where there were none.
    """

    photos: int
    seconds: float
    trust: float
    fitted: tuple[str, ...]
    kept: tuple[str, ...]
    absent: tuple[str, ...]
    left_out_miou: float

    def __str__(self) -> str:
        looked = f"Fit: {self.photos} photos looked at in {self.seconds:.1f} s"
        if not self.fitted:
            what = "the rows of the start judge best and stay"
        else:
            what = f"the rows of {_list(self.fitted)} computed"
            what += f", those of {_list(self.kept)} kept" if self.kept else ""
        text = f"{looked}; {what}."
        if self.left_out_miou == self.left_out_miou:
            text += f" On photos left out in turn: mIoU {self.left_out_miou:.3f} (coarsely)."
        if self.absent:
            text += f" No photo shows {_list(self.absent)}: never predicted until trained."
        return text


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def can_fit(network: DeepLab) -> bool:
    """Whether the last layer is one 1×1 convolution whose answers are linear in its features."""
    last = network.classifier
    return last is not None and last.kernel_size == (1, 1) and not network.config.image_pyramid


@torch.no_grad()
def fit_classifier(
    network: DeepLab,
    dataset: Dataset,
    *,
    frame: InputSpec,
    known: Sequence[str] = (),
    start_rows: Tensor | None = None,
    device: torch.device | None = None,
    seed: int = 0,
    watch: Watch | None = None,
    remembered: MutableMapping[str, Tensor] | None = None,
) -> FitReport:
    """Compute the classifier of ``network`` from the training photos, in place.

    Args:
        network: with trained features; see :func:`can_fit`.
        dataset: photos and labels of the network's classes.
        frame: into which photos are fitted, as the released network will see them.
        known: names of the classes whose present rows are the start's, and may stay.
        start_rows: (K', D + 1) rows of the starting classifier, of whatever classes that exclude
            each other, their biases last; None where there was none for these features.
        device: where to compute features; None is the CPU.
        seed: chooses the photos where there are more than ``MOST_PHOTOS``, and the cells.
        watch: called with (photos done, of how many) after each.
        remembered: the features of photos, by their ids, that an earlier call for the same weights
            and frame has computed; those of this one are added.

    Raises:
        DataError, ImageError: a pair cannot be read.
    """
    assert can_fit(network)
    assert network.classifier is not None
    assert len(dataset) > 0
    begun = time.perf_counter()
    device = device or torch.device("cpu")
    training = network.training
    # A quarter less time on a CPU.
    network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    labels, classes = dataset.labels, network.config.num_classes
    chosen = _choose_photos(len(dataset), seed)
    shares = _class_shares(dataset, chosen, classes)
    kind: type[Cells | OverlappingCells] = OverlappingCells if labels.overlap else Cells
    seen = kind(shares, photos=len(chosen), seed=seed)
    for done, index in enumerate(chosen, 1):
        sample = dataset[index]
        geometry = Geometry(sample.label.shape[:2], (frame.height, frame.width), frame.fit)
        features = None if remembered is None else remembered.get(sample.id)
        if features is None:
            batch = _as_batch(sample.image, geometry, frame)
            batch = batch.to(device, memory_format=torch.channels_last)
            features = look(network, batch)[0].float().cpu()
            if remembered is not None:
                remembered[sample.id] = features.half()
        features = features.float()
        cells = label_cells(sample.label, geometry, features.shape[1:])
        labelled = (cells != IGNORE) if cells.ndim == 1 else (cells != IGNORE).any(1)
        if labelled.any():
            rows = features.flatten(1).T[torch.from_numpy(labelled)]
            seen.add(done - 1, rows, torch.from_numpy(cells[labelled]))
        if watch is not None:
            watch(done, len(chosen))
    known_ids = [labels.index(name) for name in known]
    if isinstance(seen, OverlappingCells):
        found = solve_overlapping(network.classifier, seen, known=known_ids, start_rows=start_rows)
    else:
        found = solve_exclusive(network.classifier, seen, known=known_ids, start_rows=start_rows)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.train(training)
    fitted = [index for index in range(classes) if index not in found.kept]
    return FitReport(
        photos=len(chosen),
        seconds=time.perf_counter() - begun,
        trust=found.trust,
        fitted=tuple(labels.names[index] for index in fitted),
        kept=tuple(labels.names[index] for index in found.kept),
        absent=tuple(labels.names[index] for index in fitted if not shares[index]),
        left_out_miou=found.miou,
    )


def look(network: DeepLab, image: Tensor) -> Tensor:
    """Return the features (B, D, h, w) before the classifier.

    A network that looks twice averages the logits of both looks. They are linear in the features,
    so those are averaged here: what is fitted to them is right for the average.
    """
    assert network.classifier is not None
    caught: list[Tensor] = []
    hook = network.classifier.register_forward_pre_hook(
        lambda module, inputs: caught.append(inputs[0])
    )
    try:
        network(image)
    finally:
        hook.remove()
    if len(caught) == 1:
        return caught[0]
    plain, mirrored = caught
    corners = network.config.align_corners
    size = plain.shape[2:]
    back = F.interpolate(mirrored.flip(3), size, mode="bilinear", align_corners=corners)
    return (plain + back) / 2


def label_cells(
    label: npt.NDArray[np.uint8], geometry: Geometry, grid: Sequence[int]
) -> npt.NDArray[np.uint8]:
    """Return the truth under the middle of every feature cell; 255 outside.

    Args:
        label: (H, W) uint8, or (H, W, K) where classes overlap.
        geometry: how it lies in the frame.
        grid: rows and columns of cells, (h, w).

    Returns:
        (h · w,) or (h · w, K) uint8.
    """
    height, width = geometry.content
    places = [
        np.rint(np.linspace(0, frame - 1, cells)).astype(int)
        for frame, cells in zip(geometry.frame, grid, strict=True)
    ]
    cells = np.full((int(grid[0]), int(grid[1]), *label.shape[2:]), IGNORE, np.uint8)
    rows = nearest_indices(label.shape[0], height)
    columns = nearest_indices(label.shape[1], width)
    inside = [place[place < size] for place, size in zip(places, (height, width), strict=True)]
    cells[: len(inside[0]), : len(inside[1])] = label[rows[inside[0]]][:, columns[inside[1]]]
    return cells.reshape(-1, *label.shape[2:])


def _as_batch(image: Values, geometry: Geometry, frame: InputSpec) -> Tensor:
    """Return a picture as the network sees it: (1, C, H, W)."""
    placed: Values
    if frame.bands is None:
        placed = geometry.place(Image.fromarray(image), frame.padding)
    else:
        placed = geometry.place_values(image, frame)
    if placed.dtype != np.uint8:
        placed = placed.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(placed.transpose(2, 0, 1)))[None]


def _choose_photos(count: int, seed: int) -> list[int]:
    """Return which photos are looked at, in the order of the list."""
    if count <= MOST_PHOTOS:
        return list(range(count))
    drawn = np.random.default_rng(seed).choice(count, MOST_PHOTOS, replace=False)
    return sorted(int(index) for index in drawn)


def _class_shares(dataset: Dataset, chosen: Sequence[int], classes: int) -> Float64:
    """Return (K,) float64, each class's share of the labelled pixels, photos counting alike."""
    shares = np.zeros(classes)
    known = np.zeros(classes)
    for index in chosen:
        label = read_label(dataset, index)
        if label.ndim == 3:
            labelled = (label != IGNORE).sum((0, 1))
            shares += (label == 1).sum((0, 1)) / np.maximum(1, labelled)
            known += labelled > 0
        else:
            counts = np.bincount(label.ravel(), minlength=classes)[:classes]
            shares += counts / max(1, counts.sum())
    if dataset.labels.overlap:
        return shares / np.maximum(1, known)
    shares /= max(shares.sum(), 1e-12)
    return shares
