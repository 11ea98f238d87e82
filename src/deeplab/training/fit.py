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
from deeplab.photo.images import Geometry, InputSpec
from deeplab.training.balance import read_label

MOST_PHOTOS = 160
"""More photos hardly change a few thousand numbers, and cost seconds."""

_FOLDS = 4  # groups of photos that are left out in turn
_CELLS = 24_000  # feature cells that are kept: neighbours say nearly the same
_CELLS_EACH = (100, 400)  # of a photo
_BALANCE = 0.5  # a class counts by its share of the pixels to the power of minus this
_SMALL = 1e-2  # strength of the belief that rows are small, per variance of a feature
_KNOWN = 1e-1  # strength of the belief that they are the start's
_ROUNDS = 40  # of the solver; more change no mask
_TRIAL_ROUNDS, _TRIAL_CELLS = 25, 2  # where photos are left out: of the solver, and every n-th cell
_TRUSTS = (0.25, 0.5, 0.75)  # shares of the second belief; a mixture is better than either alone

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
        start_rows: (K', D + 1) rows of the starting classifier, of whatever classes, their biases
            last; None where there was none for these features.
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
    seen = _Cells(shares, photos=len(chosen), seed=seed)
    for done, index in enumerate(chosen, 1):
        sample = dataset[index]
        geometry = Geometry(sample.label.shape[:2], (frame.height, frame.width), frame.fit)
        features = None if remembered is None else remembered.get(sample.id)
        if features is None:
            image = geometry.place(Image.fromarray(sample.image), frame.padding)
            batch = _as_batch(image).to(device, memory_format=torch.channels_last)
            features = look(network, batch)[0].float().cpu()
            if remembered is not None:
                remembered[sample.id] = features.half()
        features = features.float()
        cells = label_cells(sample.label, geometry, features.shape[1:])
        rows = features.flatten(1).T[torch.from_numpy(cells != IGNORE)]
        truth = torch.from_numpy(cells[cells != IGNORE].astype(np.int64))
        if len(truth):
            seen.add(done - 1, rows, truth)
        if watch is not None:
            watch(done, len(chosen))
    known_ids = [labels.index(name) for name in known]
    found = _solve(network.classifier, seen, known=known_ids, start_rows=start_rows)
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
    """Return (h · w,) uint8, the class under the middle of every feature cell; 255 outside."""
    height, width = geometry.content
    places = [
        np.rint(np.linspace(0, frame - 1, cells)).astype(int)
        for frame, cells in zip(geometry.frame, grid, strict=True)
    ]
    cells = np.full((int(grid[0]), int(grid[1])), IGNORE, np.uint8)
    rows = nearest_indices(label.shape[0], height)
    columns = nearest_indices(label.shape[1], width)
    inside = [place[place < size] for place, size in zip(places, (height, width), strict=True)]
    cells[: len(inside[0]), : len(inside[1])] = label[rows[inside[0]]][:, columns[inside[1]]]
    return cells.ravel()


def _as_batch(image: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def _choose_photos(count: int, seed: int) -> list[int]:
    """Return which photos are looked at, in the order of the list."""
    if count <= MOST_PHOTOS:
        return list(range(count))
    drawn = np.random.default_rng(seed).choice(count, MOST_PHOTOS, replace=False)
    return sorted(int(index) for index in drawn)


def _class_shares(dataset: Dataset, chosen: Sequence[int], classes: int) -> Float64:
    """Return (K,) float64, each class's share of the labelled pixels, photos counting alike."""
    shares = np.zeros(classes)
    for index in chosen:
        label = read_label(dataset, index)
        counts = np.bincount(label.ravel(), minlength=classes)[:classes]
        shares += counts / max(1, counts.sum())
    shares /= max(shares.sum(), 1e-12)
    return shares


# -- what is kept of the photos -----------------------------------------------------------------


class _Cells:
    """Some cells of each photo: features (with a 1 behind them), truth, and how much each counts.

    Photos count alike, whatever part of them is labelled, and rare classes more than their pixels.
    A fold is a run of the list: frames of one film lie side by side there, and one of them would
    judge what was fitted to the next.
    """

    def __init__(self, shares: Float64, *, photos: int, seed: int) -> None:
        self.classes, self.photos = len(shares), photos
        self.folds = min(_FOLDS, photos)
        weights = np.zeros(len(shares))
        weights[shares > 0] = shares[shares > 0] ** -_BALANCE
        self._weights = torch.from_numpy(weights).float()
        self._generator = torch.Generator().manual_seed(seed)
        self._each = int(np.clip(_CELLS // photos, *_CELLS_EACH))
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, photo: int, rows: Tensor, truth: Tensor) -> None:
        """Keep some of one photo's cells: rows (n, D) float32, truth (n,) int64.

        Small things get more than their share of the cells, and each of these counts less.
        """
        counts = torch.bincount(truth, minlength=self.classes).float()
        quota = (self._each * counts.sqrt() / counts.sqrt().sum()).ceil()
        order = torch.randperm(len(truth), generator=self._generator)
        kept = torch.cat(
            [order[truth[order] == index][: int(quota[index])] for index in counts.nonzero()[:, 0]]
        )
        truth_kept = truth[kept]
        plain = counts / torch.minimum(counts, quota).clamp(min=1) / len(truth)
        rows = torch.cat([rows[kept], torch.ones(len(kept), 1)], 1)
        fold = torch.full((len(kept),), photo * self.folds // self.photos)
        self._parts.append((rows, truth_kept, plain[truth_kept], fold))

    def all(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return rows (n, D + 1), and of each cell truth, share of the pixels, weight and fold."""
        rows, truth, share, fold = (torch.cat(part) for part in zip(*self._parts, strict=True))
        weight = share * self._weights[truth]
        return rows, truth, share / share.sum(), weight / weight.sum(), fold


# -- the solution --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Solution:
    kept: tuple[int, ...]
    trust: float
    miou: float


def _solve(
    classifier: torch.nn.Module, seen: _Cells, *, known: Sequence[int], start_rows: Tensor | None
) -> _Solution:
    """Choose, write the rows into the classifier, and say what was chosen."""
    assert isinstance(classifier.weight, Tensor)
    assert isinstance(classifier.bias, Tensor)
    rows, truth, share, weight, fold = seen.all()
    own = torch.cat([classifier.weight.flatten(1), classifier.bias[:, None]], 1).T.cpu()
    beliefs = [(torch.zeros_like(own), _SMALL)]
    if start_rows is not None and start_rows.shape[1] == len(own):
        likened = _liken(rows, truth, share, start_rows.detach().cpu().float(), seen.classes)
        likened[:, list(known)] = own[:, list(known)]
        beliefs.append((likened, _KNOWN))

    def solve(used: Tensor, rounds: int) -> list[Tensor]:
        part = rows[used], truth[used], weight[used]
        return [_regress(*part, prior, strength=each, rounds=rounds) for prior, each in beliefs]

    whole = solve(torch.arange(len(truth)), _ROUNDS)
    folds = sorted(set(fold.tolist()))
    if len(folds) < 2:  # nothing can be left out
        _write(classifier, (whole[0] + whole[-1]) / 2)
        return _Solution(kept=(), trust=(len(beliefs) - 1) / 2, miou=float("nan"))
    left_out = torch.zeros(len(beliefs), len(truth), seen.classes)
    for one in folds:
        others = (fold != one).nonzero()[::_TRIAL_CELLS, 0]
        for index, solution in enumerate(solve(others, _TRIAL_ROUNDS)):
            left_out[index, fold == one] = rows[fold == one] @ solution
    trusts = _TRUSTS if len(beliefs) > 1 else (0.0,)
    logits = [left_out[0].lerp(left_out[-1], trust) for trust in trusts]
    scores = [_miou(one, truth, share) for one in logits]
    best = _choose(scores)
    scale = _calibrate(logits[best], truth, share)
    fitted = scale * whole[0].lerp(whole[-1], trusts[best])
    miou = scores[best]
    kept: tuple[int, ...] = ()
    if known:
        shift, kept_logits = _join(own, rows, scale * logits[best], truth, share, known)
        kept_miou = _miou(kept_logits, truth, share)
        if kept_miou >= miou:
            fitted[-1] += shift
            fitted[:, list(known)] = own[:, list(known)]
            miou, kept = kept_miou, tuple(sorted(known))
    _write(classifier, fitted)
    return _Solution(kept=kept, trust=trusts[best], miou=miou)


def _liken(rows: Tensor, truth: Tensor, share: Tensor, start: Tensor, classes: int) -> Tensor:
    """Return (D + 1, K): for each class, the row of what the start calls its pixels.

    That is the one of the start's classes whose pixels have the largest IoU with the class's own.
    """
    said = (rows @ start.T).argmax(1)
    pairs = torch.zeros(classes * len(start)).index_add_(0, truth * len(start) + said, share)
    both = pairs.reshape(classes, len(start))
    either = both.sum(1, keepdim=True) + both.sum(0, keepdim=True) - both
    alike: Tensor = start[(both / either.clamp(min=1e-12)).argmax(1)].T.clone()
    return alike


def _regress(
    rows: Tensor, truth: Tensor, weight: Tensor, prior: Tensor, *, strength: float, rounds: int
) -> Tensor:
    """Return the (D + 1, K) float32 rows that make the truth likeliest, but for a penalty.

    The penalty is ``strength`` times the squared distance from the slopes of ``prior``, where one
    is the mean deviation of a feature; biases are free. The problem is convex.
    """
    weight = weight / weight.sum()
    mean = weight @ rows[:, :-1]
    spread = (weight @ (rows[:, :-1] - mean).square()).mean().clamp(min=1e-12).sqrt()
    features = (rows[:, :-1] - mean) / spread
    believed = prior[:-1] * spread
    slopes = believed.clone(memory_format=torch.contiguous_format).requires_grad_()
    bias = (prior[-1] + mean @ prior[:-1]).requires_grad_()
    search = torch.optim.LBFGS(
        [slopes, bias], max_iter=rounds, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        costs = F.cross_entropy(features @ slopes + bias, truth, reduction="none")
        value = weight @ costs + strength * (slopes - believed).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        search.step(loss)  # type: ignore[no-untyped-call]
    found = slopes.detach() / spread
    return torch.cat([found, (bias.detach() - mean @ found)[None]])


def _miou(logits: Tensor, truth: Tensor, share: Tensor) -> float:
    """Return the mean IoU over cells, each counting for the pixels that it stands for."""
    classes = logits.shape[1]
    pairs = torch.zeros(classes**2).index_add_(0, truth * classes + logits.argmax(1), share)
    both = pairs.reshape(classes, classes)
    truths, union = both.sum(1), both.sum(0) + both.sum(1) - both.diagonal()
    return float((both.diagonal() / union)[truths > 0].mean())


def _choose(scores: Sequence[float]) -> int:
    """Return the best of neighbouring mixtures; one alone may be luck, so neighbours count too."""
    padded = np.pad(np.asarray(scores), 1, mode="edge")
    return int((padded[:-2] + 2 * padded[1:-1] + padded[2:]).argmax())


def _calibrate(logits: Tensor, truth: Tensor, share: Tensor) -> float:
    """Return the factor that makes answers the likeliest logits of the truth (temperature)."""
    factors = np.geomspace(0.1, 10.0, 40)
    losses = [
        float(share @ F.cross_entropy(logits * float(factor), truth, reduction="none"))
        for factor in factors
    ]
    return float(factors[int(np.argmin(losses))])


def _join(
    own: Tensor,
    rows: Tensor,
    fitted: Tensor,
    truth: Tensor,
    share: Tensor,
    known: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Set the start's logits of known classes beside fitted ones of the others.

    Returns:
        (K,) what the fitted classes' biases must be shifted by to meet the others, and the logits.
    """
    logits = fitted.clone()
    logits[:, list(known)] = rows @ own[:, list(known)]
    others = torch.ones(logits.shape[1])
    others[list(known)] = 0
    shift = torch.zeros(logits.shape[1])
    if not others.any():
        return shift, logits
    with torch.enable_grad():
        free = torch.zeros(logits.shape[1], requires_grad=True)
        search = torch.optim.LBFGS([free], max_iter=30, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            search.zero_grad()
            costs = F.cross_entropy(logits + free * others, truth, reduction="none")
            value = share @ costs + 1e-3 * (free**2).mean()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        search.step(loss)  # type: ignore[no-untyped-call]
    shift = free.detach() * others
    return shift, logits + shift


def _write(classifier: torch.nn.Module, rows: Tensor) -> None:
    """Put (D + 1, K) rows into a 1×1 convolution."""
    assert isinstance(classifier.weight, Tensor)
    assert isinstance(classifier.bias, Tensor)
    classifier.weight.copy_(rows[:-1].T[:, :, None, None])
    classifier.bias.copy_(rows[-1])
