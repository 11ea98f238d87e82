"""Own classes in seconds: the classifier's rows by ridge regression, before the first step.

A trained network already turns a photo into features that tell things apart. So it looks once over
the training photos, and the rows of the new classes are the solution of one linear system in those
features. Everything is chosen by photos that were left out of the sums: how strong the ridge is,
how much rare classes count, whether rows that the start knows by name stay, and the scale that
turns the rows' answers into logits.

The ridge does not pull towards nothing alike from everywhere: along the directions that the rows of
the starting classifier span, which told some classes apart, it pulls less. "moggy" costs little
where "cat" is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from deeplab.data.masks import IGNORE, read_mask
from deeplab.data.sample import Dataset
from deeplab.data.transforms import nearest_indices
from deeplab.evaluation.metrics import ConfusionMatrix
from deeplab.models import DeepLab
from deeplab.photo.images import Geometry, InputSpec

MOST_PHOTOS = 160
"""More photos hardly change a few thousand numbers, and cost seconds."""

_FOLDS = 8  # groups of photos that are left out in turn
_CELLS = 40_000  # feature cells kept to judge by; all others are only summed
_BALANCES = (0.0, 0.25, 0.5)  # a class counts by its share of the pixels to the power of minus this
_RIDGES = tuple(float(ridge) for ridge in np.geomspace(3e-3, 10.0, 9))
_KNOWN = 10.0  # how much further than elsewhere rows may go where the start's rows point

_EACH_BALANCE = range(len(_BALANCES))

Watch = Callable[[int, int], None]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What the fit found.

    Attributes:
        photos: looked at.
        seconds: that all of it took.
        ridge: chosen strength, relative to the mean variance of a feature.
        balance: chosen exponent of the class shares.
        fitted: names of the classes whose rows were fitted.
        kept: names of those whose rows stayed the start's.
        absent: names of the fitted ones that no photo shows: they are never predicted.
        left_out_miou: mean IoU over cells of photos that were left out; NaN where there were none.
    """

    photos: int
    seconds: float
    ridge: float
    balance: float
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
) -> FitReport:
    """Compute the classifier of ``network`` from the training photos, in place.

    Args:
        network: with trained features; see :func:`can_fit`.
        dataset: photos and labels of the network's classes.
        frame: into which photos are fitted, as the released network will see them.
        known: names of the classes whose present rows are the start's, and may stay.
        start_rows: (K', D) or (K', D, 1, 1) rows of the starting classifier, of whatever classes.
        device: where to compute features; None is the CPU.
        seed: chooses the photos where there are more than ``MOST_PHOTOS``.
        watch: called with (photos done, of how many) after each.

    Raises:
        DataError, ImageError: a pair cannot be read.
    """
    assert can_fit(network)
    assert network.classifier is not None
    assert len(dataset) > 0
    begun = time.perf_counter()
    device = device or torch.device("cpu")
    training = network.training
    network.to(device).eval()
    labels, classes = dataset.labels, network.config.num_classes
    chosen = _choose_photos(len(dataset), seed)
    shares = _class_shares(dataset, chosen, classes)
    seen = _Sums(shares, network.classifier.in_channels, photos=len(chosen), seed=seed)
    for done, index in enumerate(chosen, 1):
        sample = dataset[index]
        geometry = Geometry(sample.label.shape[:2], (frame.height, frame.width), frame.fit)
        image = geometry.place(Image.fromarray(sample.image), frame.padding)
        features = look(network, _as_batch(image).to(device))[0].float().cpu()
        cells = label_cells(sample.label, geometry, features.shape[1:])
        rows = features.flatten(1).T[torch.from_numpy(cells != IGNORE)]
        truth = torch.from_numpy(cells[cells != IGNORE].astype(np.int64))
        if len(truth):
            seen.add(done - 1, rows, truth)
        if watch is not None:
            watch(done, len(chosen))
    known_ids = [labels.index(name) for name in known]
    found = _solve(network.classifier, seen, known=known_ids, start_rows=start_rows)
    network.train(training)
    fitted = [index for index in range(classes) if index not in found.kept]
    return FitReport(
        photos=len(chosen),
        seconds=time.perf_counter() - begun,
        ridge=found.ridge,
        balance=found.balance,
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
        if dataset.masks:  # spares reading the photo
            label = read_mask(dataset.masks[index], dataset.encoding)
        else:
            label = dataset[index].label
        counts = np.bincount(label.ravel(), minlength=classes)[:classes]
        shares += counts / max(1, counts.sum())
    shares /= max(shares.sum(), 1e-12)
    return shares


# -- the sums ------------------------------------------------------------------------------------


class _Sums:
    """What the solution needs of all cells: sums of products, by fold; and some cells to judge by.

    All other features are forgotten once they are summed. Photos count alike, whatever part of them
    is labelled. A fold is a run of the list: frames of one film lie side by side there, and one of
    them would judge what was fitted to the next.

    Attributes:
        gram: (F, B, D + 1, D + 1) float64, features (and 1) times features, for each balance.
        moment: (F, B, D + 1, K) float64, features (and 1) times one-hot labels.
    """

    def __init__(self, shares: Float64, channels: int, *, photos: int, seed: int) -> None:
        self.photos, self.folds = photos, min(_FOLDS, photos)
        present = shares > 0
        weights = np.zeros((len(_BALANCES), len(shares)))
        for row, balance in enumerate(_BALANCES):
            weights[row, present] = shares[present] ** -balance
            weights[row] /= (weights[row] * shares).sum()
        self._weights = torch.from_numpy(weights).float()
        size = (self.folds, len(_BALANCES), channels + 1)
        self.gram = torch.zeros((*size, channels + 1), dtype=torch.float64)
        self.moment = torch.zeros((*size, len(shares)), dtype=torch.float64)
        self.cells: list[list[Tensor]] = [[] for _ in range(self.folds)]
        self.truth: list[list[Tensor]] = [[] for _ in range(self.folds)]
        self._generator = torch.Generator().manual_seed(seed)
        self._kept_each = max(1, _CELLS // photos)

    def add(self, photo: int, rows: Tensor, truth: Tensor) -> None:
        """Sum one photo's cells: rows (n, D) float32, truth (n,) int64."""
        fold = photo * self.folds // self.photos
        rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
        target = F.one_hot(truth, self._weights.shape[1]).float()
        for index, weights in enumerate(self._weights):
            weighted = rows * (weights[truth] / len(truth))[:, None]
            self.gram[fold, index] += weighted.T @ rows
            self.moment[fold, index] += weighted.T @ target
        some = torch.randperm(len(rows), generator=self._generator)[: self._kept_each]
        self.cells[fold].append(rows[some])
        self.truth[fold].append(truth[some])


# -- the solution --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Solution:
    kept: tuple[int, ...]
    ridge: float
    balance: float
    miou: float


def _solve(
    classifier: torch.nn.Module, sums: _Sums, *, known: Sequence[int], start_rows: Tensor | None
) -> _Solution:
    """Choose, write the rows into the classifier, and say what was chosen."""
    assert isinstance(classifier.weight, Tensor)
    assert isinstance(classifier.bias, Tensor)
    reach = _reach(sums.gram.shape[-1] - 1, start_rows)
    whole = [_Ridge(sums.gram[:, b].sum(0), sums.moment[:, b].sum(0), reach) for b in _EACH_BALANCE]
    used = [fold for fold in range(sums.folds) if sums.cells[fold]]
    if len(used) < 2:  # nothing can be left out
        rows = whole[1].rows(_RIDGES[4])
        # With one photo nobody can say how sure the rows should be; surer than one-hot they are.
        _write(classifier, 5 * rows)
        return _Solution(kept=(), ridge=_RIDGES[4], balance=_BALANCES[1], miou=float("nan"))

    answers: list[Tensor] = []  # (ridges · balances, n, K) of every fold's kept cells
    for fold in used:
        cells = torch.cat(sums.cells[fold])
        parts = []
        for b in _EACH_BALANCE:
            gram = sums.gram[:, b].sum(0) - sums.gram[fold, b]
            moment = sums.moment[:, b].sum(0) - sums.moment[fold, b]
            ridge = _Ridge(gram, moment, reach)
            parts += [cells @ ridge.rows(strength) for strength in _RIDGES]
        answers.append(torch.stack(parts))
    truth = torch.cat([truth for fold in used for truth in sums.truth[fold]])
    logits = torch.cat(answers, 1)
    scores = np.array([_miou(one, truth) for one in logits]).reshape(len(_BALANCES), -1)
    best = np.unravel_index(int(_smooth(scores).argmax()), scores.shape)
    balance, strength = int(best[0]), int(best[1])
    left_out = logits[balance * len(_RIDGES) + strength]
    scale = _calibrate(left_out, truth)
    rows = scale * whole[balance].rows(_RIDGES[strength])
    miou = float(scores[balance, strength])
    kept: tuple[int, ...] = ()
    if known:
        own = torch.cat([classifier.weight.flatten(1), classifier.bias[:, None]], 1).T.cpu()
        cells = torch.cat([cells for fold in used for cells in sums.cells[fold]])
        shift, own_logits = _join(own, cells, scale * left_out, truth, known)
        kept_miou = _miou(own_logits, truth)
        if kept_miou >= miou:
            rows[-1] += shift
            rows[:, list(known)] = own[:, list(known)]
            miou, kept = kept_miou, tuple(sorted(known))
    _write(classifier, rows)
    return _Solution(kept=kept, ridge=_RIDGES[strength], balance=_BALANCES[balance], miou=miou)


def _reach(channels: int, start_rows: Tensor | None) -> Tensor:
    """Return the (D, D) float64 root L of L Lᵀ = 1 + c · the start's rows' spread.

    In features Lᵀx the same ridge for all reaches further along those rows.
    """
    spread = torch.eye(channels, dtype=torch.float64)
    if start_rows is not None and start_rows.flatten(1).shape[1] == channels:
        rows = start_rows.detach().cpu().double().flatten(1)
        rows = rows - rows.mean(0)
        product = rows.T @ rows
        largest = torch.linalg.eigvalsh(product)[-1]
        if largest > 0:
            spread += _KNOWN / largest * product
    root: Tensor = torch.linalg.cholesky(spread)
    return root


class _Ridge:
    """The solutions of one weighted least squares problem for every strength, by one diagonal form.

    The bias has no ridge: features and labels are centred first.
    """

    def __init__(self, gram: Tensor, moment: Tensor, reach: Tensor) -> None:
        total = gram[-1, -1].clamp(min=1e-12)
        self._mean, self._share = gram[-1, :-1] / total, moment[-1] / total
        covariance = gram[:-1, :-1] / total - torch.outer(self._mean, self._mean)
        self._variance = covariance.diagonal().mean().clamp(min=1e-12)
        values, self._vectors = torch.linalg.eigh(reach.T @ covariance @ reach)
        self._values, self._reach = values.clamp(min=0), reach
        moment = moment[:-1] / total - torch.outer(self._mean, self._share)
        self._moment = self._vectors.T @ (reach.T @ moment)

    def rows(self, strength: float) -> Tensor:
        """Return (D + 1, K) float32, the bias last."""
        slopes = self._moment / (self._values + strength * self._variance)[:, None]
        weight = self._reach @ (self._vectors @ slopes)
        bias = self._share - self._mean @ weight
        return torch.cat([weight, bias[None]]).float()


def _miou(logits: Tensor, truth: Tensor) -> float:
    counts = ConfusionMatrix.of(truth.numpy(), logits.argmax(1).numpy(), logits.shape[1])
    return float(counts.totals.mean_iou())


def _smooth(scores: Float64) -> Float64:
    """Average each score with those of the neighbouring strengths: one alone may be luck."""
    padded = np.pad(scores, ((0, 0), (1, 1)), mode="edge")
    smoothed: Float64 = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    return smoothed


def _calibrate(logits: Tensor, truth: Tensor) -> float:
    """Return the factor that makes answers the likeliest logits of the truth (temperature)."""
    factors = np.geomspace(0.5, 100.0, 40)
    losses = [float(F.cross_entropy(logits * float(factor), truth)) for factor in factors]
    return float(factors[int(np.argmin(losses))])


def _join(
    own: Tensor, cells: Tensor, fitted: Tensor, truth: Tensor, known: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Set the start's logits of known classes beside fitted ones of the others.

    Returns:
        (K,) what the fitted classes' biases must be shifted by to meet the others, and the logits.
    """
    logits = fitted.clone()
    logits[:, list(known)] = cells @ own[:, list(known)]
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
            value = F.cross_entropy(logits + free * others, truth) + 1e-3 * (free**2).mean()
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
