"""The solution where classes exclude each other: multinomial regression under two beliefs.

What is solved, and why so, is said in :mod:`deeplab.training.fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

FOLDS = 4  # groups of photos that are left out in turn
CELLS = 24_000  # feature cells that are kept: neighbours say nearly the same
CELLS_EACH = (100, 400)  # of a photo
BALANCE = 0.5  # a class counts by its share of the pixels to the power of minus this
SMALL = 1e-2  # strength of the belief that rows are small, per variance of a feature
KNOWN = 1e-1  # strength of the belief that they are the start's
ROUNDS = 40  # of the solver; more change no mask
TRIAL_ROUNDS, TRIAL_CELLS = 25, 2  # where photos are left out: of the solver, and every n-th cell
TRUSTS = (0.25, 0.5, 0.75)  # shares of the second belief; a mixture is better than either alone

Float64 = npt.NDArray[np.float64]


# -- what is kept of the photos -----------------------------------------------------------------


class Cells:
    """Some cells of each photo: features (with a 1 behind them), truth, and how much each counts.

    Photos count alike, whatever part of them is labelled, and rare classes more than their pixels.
    A fold is a run of the list: frames of one film lie side by side there, and one of them would
    judge what was fitted to the next.
    """

    def __init__(self, shares: Float64, *, photos: int, seed: int) -> None:
        self.classes, self.photos = len(shares), photos
        self.folds = min(FOLDS, photos)
        weights = np.zeros(len(shares))
        weights[shares > 0] = shares[shares > 0] ** -BALANCE
        self._weights = torch.from_numpy(weights).float()
        self._generator = torch.Generator().manual_seed(seed)
        self._each = int(np.clip(CELLS // photos, *CELLS_EACH))
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, photo: int, rows: Tensor, truth: Tensor) -> None:
        """Keep some of one photo's cells: rows (n, D) float32, truth (n,) integers.

        Small things get more than their share of the cells, and each of these counts less.
        """
        truth = truth.long()
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
class Solution:
    """What was chosen.

    Attributes:
        kept: classes whose rows stayed as they were.
        trust: share of the second belief, 0..1.
        miou: over cells of photos that were left out; NaN where there were none.
    """

    kept: tuple[int, ...]
    trust: float
    miou: float


def solve_exclusive(
    classifier: torch.nn.Module, seen: Cells, *, known: Sequence[int], start_rows: Tensor | None
) -> Solution:
    """Choose, write the rows into the classifier, and say what was chosen."""
    assert isinstance(classifier.weight, Tensor)
    assert isinstance(classifier.bias, Tensor)
    rows, truth, share, weight, fold = seen.all()
    own = torch.cat([classifier.weight.flatten(1), classifier.bias[:, None]], 1).T.cpu()
    beliefs = [(torch.zeros_like(own), SMALL)]
    if start_rows is not None and start_rows.shape[1] == len(own):
        likened = _liken(rows, truth, share, start_rows.detach().cpu().float(), seen.classes)
        likened[:, list(known)] = own[:, list(known)]
        beliefs.append((likened, KNOWN))

    def solve(used: Tensor, rounds: int) -> list[Tensor]:
        part = rows[used], truth[used], weight[used]
        return [regress(*part, prior, strength=each, rounds=rounds) for prior, each in beliefs]

    whole = solve(torch.arange(len(truth)), ROUNDS)
    folds = sorted(set(fold.tolist()))
    if len(folds) < 2:  # nothing can be left out
        write_rows(classifier, (whole[0] + whole[-1]) / 2)
        return Solution(kept=(), trust=(len(beliefs) - 1) / 2, miou=float("nan"))
    left_out = torch.zeros(len(beliefs), len(truth), seen.classes)
    for one in folds:
        others = (fold != one).nonzero()[::TRIAL_CELLS, 0]
        for index, solution in enumerate(solve(others, TRIAL_ROUNDS)):
            left_out[index, fold == one] = rows[fold == one] @ solution
    trusts = TRUSTS if len(beliefs) > 1 else (0.0,)
    logits = [left_out[0].lerp(left_out[-1], trust) for trust in trusts]
    scores = [_miou(one, truth, share) for one in logits]
    best = choose_mixture(scores)
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
    write_rows(classifier, fitted)
    return Solution(kept=kept, trust=trusts[best], miou=miou)


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


def regress(
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


def choose_mixture(scores: Sequence[float]) -> int:
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


def write_rows(classifier: torch.nn.Module, rows: Tensor) -> None:
    """Put (D + 1, K) rows into a 1×1 convolution."""
    assert isinstance(classifier.weight, Tensor)
    assert isinstance(classifier.bias, Tensor)
    classifier.weight.copy_(rows[:-1].T[:, :, None, None])
    classifier.bias.copy_(rows[-1])
