"""What both solutions of :mod:`deeplab.training.fit` share: two beliefs, and who chooses.

Shapes: n cells, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FOLDS = 4  # groups of photos that are left out in turn
CELLS = 24_000  # feature cells that are kept: neighbours say nearly the same
CELLS_EACH = (100, 400)  # of a photo
BALANCE = 0.5  # a class counts by its share of the pixels to the power of minus this
TRUSTS = (0.25, 0.5, 0.75)  # shares of the second belief; a mixture is better than either alone
_ROUNDS = 40  # of the solver; more change no mask
_TRIAL_ROUNDS, _TRIAL_CELLS = 25, 2  # where photos are left out: of the solver, and every n-th cell

Float64 = npt.NDArray[np.float64]


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


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The solution under one belief or two, and what it says of photos that were left out.

    Attributes:
        whole: (D + 1, K) of each belief, from all cells.
        left_out: (beliefs, n, K) logits of cells, each from the photos of other folds; None where
            there is one fold, so that nothing can be left out.
    """

    whole: list[Tensor]
    left_out: Tensor | None

    @property
    def trusts(self) -> tuple[float, ...]:
        """The shares of the second belief among which is chosen."""
        return TRUSTS if len(self.whole) > 1 else (0.0,)

    def mixtures(self) -> list[Tensor]:
        """Return the (n, K) logits of cells that were left out, for each of the shares."""
        assert self.left_out is not None
        return [self.left_out[0].lerp(self.left_out[-1], trust) for trust in self.trusts]

    def mix(self, trust: float) -> Tensor:
        """Return the (D + 1, K) rows of a share of the second belief."""
        return self.whole[0].lerp(self.whole[-1], trust)

    def write_mean(self, classifier: torch.nn.Module) -> Solution:
        """Write what is between the beliefs, where nothing tells which is better."""
        write_rows(classifier, (self.whole[0] + self.whole[-1]) / 2)
        return Solution(kept=(), trust=(len(self.whole) - 1) / 2, miou=float("nan"))


def solve_in_turn(
    solve: Callable[[Tensor, int], list[Tensor]], rows: Tensor, fold: Tensor
) -> Answers:
    """Solve with all photos, and with those of all folds but one, in turn.

    Args:
        solve: returns the (D + 1, K) rows of each belief, of the cells with these indices, after
            at most so many rounds.
        rows: (n, D + 1), a 1 at the end.
        fold: (n,) of each cell.
    """
    whole = solve(torch.arange(len(rows)), _ROUNDS)
    folds = sorted(set(fold.tolist()))
    if len(folds) < 2:
        return Answers(whole=whole, left_out=None)
    left_out = torch.zeros(len(whole), len(rows), whole[0].shape[1])
    for one in folds:
        others = (fold != one).nonzero()[::_TRIAL_CELLS, 0]
        for index, solution in enumerate(solve(others, _TRIAL_ROUNDS)):
            left_out[index, fold == one] = rows[fold == one] @ solution
    return Answers(whole=whole, left_out=left_out)


def choose_mixture(scores: Sequence[float]) -> int:
    """Return the best of neighbouring mixtures; one alone may be luck, so neighbours count too."""
    padded = np.pad(np.asarray(scores), 1, mode="edge")
    return int((padded[:-2] + 2 * padded[1:-1] + padded[2:]).argmax())


def fit_rows(
    costs: Callable[[Tensor], Tensor],
    rows: Tensor,
    prior: Tensor,
    *,
    mean: Tensor,
    spread: Tensor,
    strength: float,
    rounds: int,
) -> Tensor:
    """Return the (D + 1, K) float32 rows whose logits cost least, but for a penalty.

    The penalty is ``strength`` times the squared distance from the slopes of ``prior``, where one
    is the mean deviation of a feature; biases are free.

    Args:
        costs: of (n, K) logits; convex.
        rows: (n, D + 1), a 1 at the end.
        prior: (D + 1, K) rows that are believed in.
        mean: (D,) of the features.
        spread: () their mean deviation.
        strength: of that belief.
        rounds: of the solver.
    """
    features = (rows[:, :-1] - mean) / spread
    believed = prior[:-1] * spread
    slopes = believed.clone(memory_format=torch.contiguous_format).requires_grad_()
    bias = (prior[-1] + mean @ prior[:-1]).requires_grad_()

    def value() -> Tensor:
        return costs(features @ slopes + bias) + strength * (slopes - believed).square().sum()

    minimise(value, [slopes, bias], rounds=rounds, tolerance=1e-7)
    found = slopes.detach() / spread
    return torch.cat([found, (bias.detach() - mean @ found)[None]])


def minimise(
    value: Callable[[], Tensor], free: list[Tensor], *, rounds: int, tolerance: float = 1e-9
) -> None:
    """Change tensors that require gradients until a smooth value of them is least."""
    search = torch.optim.LBFGS(
        free, max_iter=rounds, tolerance_change=tolerance, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        search.zero_grad()
        found = value()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    with torch.enable_grad():
        search.step(closure)  # type: ignore[no-untyped-call]


def write_rows(classifier: torch.nn.Module, rows: Tensor) -> None:
    """Put (D + 1, K) rows into a 1×1 convolution."""
    assert isinstance(classifier.weight, Tensor)
    assert isinstance(classifier.bias, Tensor)
    classifier.weight.copy_(rows[:-1].T[:, :, None, None])
    classifier.bias.copy_(rows[-1])


def read_rows(classifier: torch.nn.Module) -> Tensor:
    """Return the (D + 1, K) rows of a 1×1 convolution."""
    assert isinstance(classifier.weight, Tensor)
    assert isinstance(classifier.bias, Tensor)
    return torch.cat([classifier.weight.flatten(1), classifier.bias[:, None]], 1).T.cpu()
