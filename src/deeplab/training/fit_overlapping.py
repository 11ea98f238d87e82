"""The solution where classes overlap: logistic regression of each by itself, under two beliefs.

What is solved, and why so, is said in :mod:`deeplab.training.fit`. A class is likened to a
difference here: of the row of what an exclusive start calls its pixels, and of the row of what it
calls the others most.

Shapes: n cells, D features, K classes, S classes of the start.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deeplab.data.masks import IGNORE
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

_SMALL, _KNOWN = 3e-3, 3e-2  # of the two beliefs: a logit is the difference of two rows there
_SCALES = 10.0  # logits are made at most so much surer, or less sure


class OverlappingCells:
    """Some cells of each photo: features (with a 1 behind them), truth, and how much each counts.

    As :class:`deeplab.training.fit_exclusive.Cells`, with a yes, a no, or nothing of every class.
    """

    def __init__(self, shares: Float64, *, photos: int, seed: int) -> None:
        self.classes, self.photos = len(shares), photos
        self.folds = min(FOLDS, photos)
        sides = np.stack([1 - shares, shares])
        levels = np.where(sides > 0, np.maximum(sides, 1e-6) ** -BALANCE, 0.0)
        self._levels = torch.from_numpy(levels).float()
        self._generator = torch.Generator().manual_seed(seed)
        self._each = int(np.clip(CELLS // photos, *CELLS_EACH))
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, photo: int, rows: Tensor, truth: Tensor) -> None:
        """Keep some of one photo's cells: rows (n, D) float32, truth (n, K) uint8, 0, 1 or 255.

        What is rare on it, be it a class or a meeting of several, gets more than its share of the
        cells, and each of these counts less.
        """
        kinds, counts = truth.unique(  # type: ignore[no-untyped-call]
            dim=0, return_inverse=True, return_counts=True
        )[1:]
        quota = (self._each * counts.sqrt() / counts.sqrt().sum()).ceil()
        order = torch.randperm(len(truth), generator=self._generator)
        kept = torch.cat(
            [order[kinds[order] == kind][: int(quota[kind])] for kind in range(len(counts))]
        )
        share = (counts / torch.minimum(counts, quota) / len(truth))[kinds[kept]]
        rows = torch.cat([rows[kept], torch.ones(len(kept), 1)], 1)
        fold = torch.full((len(kept),), photo * self.folds // self.photos)
        self._parts.append((rows, truth[kept], share, fold))

    def all(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return rows (n, D + 1), truth (n, K) float 0 or 1, share and weight (n, K), fold (n,).

        Shares and weights of each class add up to 1; they are 0 where nothing is known.
        """
        rows, truth, each, fold = (torch.cat(part) for part in zip(*self._parts, strict=True))
        known = truth != IGNORE
        yes = (truth == 1).float()
        share = each[:, None] * known
        weight = share * torch.where(yes > 0, self._levels[1], self._levels[0])
        return rows, yes, _to_one(share), _to_one(weight), fold


def solve_overlapping(
    classifier: torch.nn.Module,
    seen: OverlappingCells,
    *,
    known: Sequence[int],
    start_rows: Tensor | None,
) -> Solution:
    """Choose, write the rows into the classifier, and say what was chosen.

    Args:
        classifier: the 1×1 convolution.
        seen: the cells.
        known: classes whose present rows are the answers of a start whose classes overlap.
        start_rows: (S, D + 1) of a start whose classes exclude each other, or None.
    """
    rows, truth, share, weight, fold = seen.all()
    own = read_rows(classifier)
    beliefs = [(torch.zeros_like(own), _SMALL)]
    if start_rows is not None and start_rows.shape[1] == len(own):
        beliefs.append((_liken(rows, truth, share, start_rows.detach().cpu().float()), _KNOWN))

    def solve(used: Tensor, rounds: int) -> list[Tensor]:
        part = rows[used], truth[used], weight[used]
        return [regress_each(*part, prior, strength=each, rounds=rounds) for prior, each in beliefs]

    answers = solve_in_turn(solve, rows, fold)
    if answers.left_out is None:
        return answers.write_mean(classifier)
    mixtures = answers.mixtures()
    best = choose_mixture([float(best_ious(one, truth, share).nanmean()) for one in mixtures])
    trust = answers.trusts[best]
    scale, offset = _calibrate(mixtures[best], truth, share)
    fitted = scale * answers.mix(trust)
    fitted[-1] += offset
    ious = best_ious(mixtures[best], truth, share)
    before = best_ious(rows @ own, truth, share)
    kept = tuple(index for index in sorted(known) if before[index] >= ious[index])
    for index in kept:
        fitted[:, index], ious[index] = own[:, index], before[index]
    write_rows(classifier, fitted)
    return Solution(kept=kept, trust=trust, miou=float(ious.nanmean()))


def regress_each(
    rows: Tensor, truth: Tensor, weight: Tensor, prior: Tensor, *, strength: float, rounds: int
) -> Tensor:
    """Return the (D + 1, K) float32 rows that make the truth of each class likeliest.

    But for a penalty, which is that of :func:`deeplab.training.fit_beliefs.fit_rows`; the problems
    of the classes are independent, and solved together.

    Args:
        rows: (n, D + 1), a 1 at the end.
        truth: (n, K) 0 or 1.
        weight: (n, K), 0 where nothing is known.
        prior: (D + 1, K) rows that are believed in.
        strength: of that belief.
        rounds: of the solver.
    """
    weight = _to_one(weight)
    mean = weight.mean(1) @ rows[:, :-1] / weight.mean(1).sum().clamp(min=1e-12)
    spread = (weight.mean(1) @ (rows[:, :-1] - mean).square()).mean().clamp(min=1e-12).sqrt()

    def costs(logits: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, truth, weight, reduction="sum")

    return fit_rows(costs, rows, prior, mean=mean, spread=spread, strength=strength, rounds=rounds)


def best_ious(logits: Tensor, truth: Tensor, share: Tensor) -> Tensor:
    """Return (K,) the IoU of each class at its best threshold; NaN where nothing is of it.

    Args:
        logits: (n, K).
        truth: (n, K) 0 or 1.
        share: (n, K), a cell counts for the pixels that it stands for.
    """
    ordered, order = logits.sort(dim=0, descending=True, stable=True)
    yes = (truth * share).gather(0, order).double()
    no = ((1 - truth) * share).gather(0, order).double()
    total = yes.sum(0)
    ious = yes.cumsum(0) / (total + no.cumsum(0))
    # A threshold lies between two different logits.
    ends = torch.cat([ordered[1:] < ordered[:-1], torch.ones(1, logits.shape[1], dtype=torch.bool)])
    best = torch.where(ends, ious, 0.0).amax(0)
    return torch.where(total > 0, best, torch.nan).float()


def _to_one(weight: Tensor) -> Tensor:
    """Return weights (n, K) that add up to 1 for every class of which something is known."""
    return weight / weight.sum(0).clamp(min=1e-12)


def _liken(rows: Tensor, truth: Tensor, share: Tensor, start: Tensor) -> Tensor:
    """Return (D + 1, K): the row of what the start calls each class, less that of the others.

    The first is the one of the start's classes whose pixels have the largest IoU with the class's
    own, the second what it calls most of the pixels that are not of it.
    """
    said = F.one_hot((rows @ start.T).argmax(1), len(start)).float()
    both, rest = (truth * share).T @ said, ((1 - truth) * share).T @ said
    either = (truth * share).sum(0)[:, None] + rest
    name = (both / either.clamp(min=1e-12)).argmax(1)
    rest[torch.arange(len(name)), name] = -1.0
    return (start[name] - start[rest.argmax(1)]).T.clone()


def _calibrate(logits: Tensor, truth: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Return (K,) factors and offsets that make answers the likeliest logits of the truth.

    Source: Platt, Probabilistic outputs for support vector machines, 1999. A class of which only
    one answer is known keeps its logits.
    """
    total = (truth * share).sum(0)
    open_ = ((total > 0) & (total < share.sum(0) * (1 - 1e-6))).float()
    size = logits.abs().mean(0).clamp(min=1e-6)  # so that a step means as much for each class
    log_scale = torch.zeros(logits.shape[1], requires_grad=True)
    offset = torch.zeros(logits.shape[1], requires_grad=True)

    def value() -> Tensor:
        shifted = (log_scale * open_).exp() * logits + offset * open_ * size
        costs = F.binary_cross_entropy_with_logits(shifted, truth, share, reduction="sum")
        return costs + 1e-3 * (log_scale.square() + offset.square()).sum()

    minimise(value, [log_scale, offset], rounds=40)
    scale = (log_scale.detach() * open_).exp().clamp(1 / _SCALES, _SCALES)
    return scale, offset.detach() * open_ * size
