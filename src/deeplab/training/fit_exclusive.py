"""The solution where classes exclude each other: multinomial regression under two beliefs.

What is solved, and why so, is said in :mod:`deeplab.training.fit`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deeplab.training.fit_beliefs import (
    BALANCE,
    CELLS,
    CELLS_EACH,
    FOLDS,
    Float64,
    Solution,
    choose_mixture,
    fit_rows,
    minimise,
    read_rows,
    solve_in_turn,
    write_rows,
)

_SMALL, _KNOWN = 1e-2, 1e-1  # strength of the two beliefs, per variance of a feature


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


def solve_exclusive(
    classifier: torch.nn.Module, seen: Cells, *, known: Sequence[int], start_rows: Tensor | None
) -> Solution:
    """Choose, write the rows into the classifier, and say what was chosen."""
    rows, truth, share, weight, fold = seen.all()
    own = read_rows(classifier)
    beliefs = [(torch.zeros_like(own), _SMALL)]
    if start_rows is not None and start_rows.shape[1] == len(own):
        likened = _liken(rows, truth, share, start_rows.detach().cpu().float(), seen.classes)
        likened[:, list(known)] = own[:, list(known)]
        beliefs.append((likened, _KNOWN))

    def solve(used: Tensor, rounds: int) -> list[Tensor]:
        part = rows[used], truth[used], weight[used]
        return [regress(*part, prior, strength=each, rounds=rounds) for prior, each in beliefs]

    answers = solve_in_turn(solve, rows, fold)
    if answers.left_out is None:
        return answers.write_mean(classifier)
    logits = answers.mixtures()
    scores = [_miou(one, truth, share) for one in logits]
    best = choose_mixture(scores)
    trust = answers.trusts[best]
    scale = _calibrate(logits[best], truth, share)
    fitted = scale * answers.mix(trust)
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
    return Solution(kept=kept, trust=trust, miou=miou)


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

    The penalty is that of :func:`deeplab.training.fit_beliefs.fit_rows`. The problem is convex.
    """
    weight = weight / weight.sum()
    mean = weight @ rows[:, :-1]
    spread = (weight @ (rows[:, :-1] - mean).square()).mean().clamp(min=1e-12).sqrt()

    def costs(logits: Tensor) -> Tensor:
        return weight @ F.cross_entropy(logits, truth, reduction="none")

    return fit_rows(costs, rows, prior, mean=mean, spread=spread, strength=strength, rounds=rounds)


def _miou(logits: Tensor, truth: Tensor, share: Tensor) -> float:
    """Return the mean IoU over cells, each counting for the pixels that it stands for."""
    classes = logits.shape[1]
    pairs = torch.zeros(classes**2).index_add_(0, truth * classes + logits.argmax(1), share)
    both = pairs.reshape(classes, classes)
    truths, union = both.sum(1), both.sum(0) + both.sum(1) - both.diagonal()
    return float((both.diagonal() / union)[truths > 0].mean())


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
    free = torch.zeros(logits.shape[1], requires_grad=True)

    def value() -> Tensor:
        costs = F.cross_entropy(logits + free * others, truth, reduction="none")
        return share @ costs + 1e-3 * (free**2).mean()

    minimise(value, [free], rounds=30)
    shift = free.detach() * others
    return shift, logits + shift
