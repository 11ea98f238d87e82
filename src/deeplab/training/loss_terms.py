"""The terms that a loss is made of, each as it was published, over parts of a step.

Shapes: N pictures, K classes, H × W pixels. ``logits`` are (N, K, H, W) float32. ``label`` is
either (N, H, W), class ids that exclude each other (probabilities are a softmax), or (N, K, H, W),
0 or 1 for every class by itself (a sigmoid). 255 is ignored in both.

A term returns this part's share: the shares of all parts, in all processes, add up to the loss of
the step. What is a mean over pixels is divided by the labelled pixels of the whole step. What is a
quotient of sums (Dice, Tversky, Lovász) is no mean over pixels, nor a mean of the parts' quotients:
its sums run over all pictures of the step, or it is taken of each picture by itself, which
``loss.over`` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplab.data.masks import IGNORE
from deeplab.training.loss_settings import LossSettings
from deeplab.training.processes import Processes


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a step: what a term has to know beside logits and label.

    Attributes:
        settings: the recipe's.
        class_weights: (K,) float, or None for 1.
        kept: scalar, labelled entries of ``label`` in the whole step; None where the parts are
            averaged, each with its own count.
        parts: of the step, over all processes.
        step: 0-based.
        processes: this one and the others; None is alone.
    """

    settings: LossSettings
    class_weights: Tensor | None = None
    kept: Tensor | None = None
    parts: int = 1
    step: int = 0
    processes: Processes | None = None

    def mean(self, losses: Tensor, label: Tensor) -> Tensor:
        """Return this part's share of a mean over the labelled entries.

        Args:
            losses: 0 where the label is ignored; (N, H, W), or (N, K, H, W), all classes of a
                pixel being entries.
            label: (N, H, W) or (N, K, H, W).
        """
        if self.kept is None:
            count, share = (label != IGNORE).sum(), self.parts
        else:
            count, share = self.kept, 1
        if losses.ndim > label.ndim:
            count = count * losses.shape[1]
        return losses.sum() / count.clamp(min=1) / share

    def weigh(self, losses: Tensor, counts: Tensor) -> Tensor:
        """Return the mean over the classes that count, weighted by class; (…, K) to (…).

        Args:
            losses: (…, K), of every class.
            counts: (…, K) bool, which of them count.
        """
        weights = counts.to(losses.dtype)
        if self.class_weights is not None:
            weights = weights * self.class_weights.to(weights)
        return (losses * weights).sum(-1) / weights.sum(-1).clamp(min=1e-12)

    def whole_sum(self, sums: Tensor) -> Tensor:
        """Return sums over all processes, with the gradient of this one's."""
        if self.processes is None or self.processes.count == 1:
            return sums
        own = sums.detach()
        return sums + (self.processes.sum(own) - own)

    def share_of(self, loss: Tensor) -> Tensor:
        """Return the share of a loss that every process has computed as a whole.

        Its value is one part of it, its gradient all of what this process adds.
        """
        count = 1 if self.processes is None else self.processes.count
        return loss if count == 1 else loss - loss.detach() * (1 - 1 / count)


Term = Callable[[Tensor, Tensor, Part], Tensor]
"""(logits, label, part) to a scalar."""


def _truth(label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return (N, K, H, W) float truth, 0 where it is ignored, and what is not ignored.

    The latter is (N, 1, H, W) bool for class ids, (N, K, H, W) where classes overlap.
    """
    known = label != IGNORE
    label = label.masked_fill(~known, 0).long()
    if label.ndim == 4:
        return label.float() * known, known
    truth = F.one_hot(label, classes).movedim(-1, 1).float()
    return truth * known[:, None], known[:, None]


def _probabilities(logits: Tensor, label: Tensor) -> Tensor:
    return logits.softmax(1) if label.ndim == 3 else logits.sigmoid()


def _per_class(weights: Tensor | None) -> Tensor | float:
    """Return the weights of the classes in the shape of logits."""
    return 1.0 if weights is None else weights[:, None, None]


# -- means over pixels ---------------------------------------------------------------------------


def cross_entropy(logits: Tensor, label: Tensor, part: Part) -> Tensor:
    """Softmax cross-entropy; weighted by class, smoothed, and mined where the settings say so.

    The sum of the weighted losses is divided by the number of labelled pixels, not by the sum of
    the weights. With ``top_k < 1`` only the hardest pixels count: k is that share of *all* pixels,
    ignored ones included, falling linearly from all of them over ``mining_steps``; the sum is
    divided by the number of non-zero losses among the k, and the parts are averaged.

    Source: research/deeplab utils/train_utils.py, add_softmax_cross_entropy_loss_for_each_scale.
    """
    settings = part.settings
    losses = F.cross_entropy(
        logits,
        label.long(),
        weight=part.class_weights,
        ignore_index=IGNORE,
        reduction="none",
        label_smoothing=settings.label_smoothing,
    )
    if settings.top_k == 1.0:
        return part.mean(losses, label)
    ratio = min(1.0, part.step / settings.mining_steps) if settings.mining_steps > 0 else 1.0
    k = int((ratio * settings.top_k + 1.0 - ratio) * losses.numel())
    hardest = losses.flatten().topk(max(k, 1), sorted=False).values
    return hardest.sum() / (hardest != 0).sum().clamp(min=1) / part.parts


def bce(logits: Tensor, label: Tensor, part: Part) -> Tensor:
    """Binary cross-entropy of K independent classes, the mean over labelled pixels and classes.

    Class ids are read as one class that is and K − 1 that are not. Smoothing by ε makes the truth
    ε / 2 and 1 − ε / 2.
    """
    truth, known = _truth(label, logits.shape[1])
    smoothing = part.settings.label_smoothing
    smooth = truth * (1 - smoothing) + smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
    return part.mean(losses * known * _per_class(part.class_weights), label)


def focal(logits: Tensor, label: Tensor, part: Part) -> Tensor:
    """Cross-entropy times (1 − p)^γ, p the probability of what is true: sure pixels count little.

    Source: 1708.02002 section 3.2; the class weights are its α.
    """
    gamma = part.settings.focal_gamma
    if label.ndim == 3:
        plain = F.cross_entropy(logits, label.long(), ignore_index=IGNORE, reduction="none")
        weighted = plain
        if part.class_weights is not None:
            clean = label.masked_fill(label == IGNORE, 0).long()
            weighted = plain * part.class_weights.to(plain)[clean]
        # 1 − p by way of expm1: where p is nearly 1, its difference to 1 has no digits left.
        return part.mean(weighted * (-torch.expm1(-plain)).clamp(min=1e-12) ** gamma, label)
    truth, known = _truth(label, logits.shape[1])
    plain = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    losses = plain * (-torch.expm1(-plain)).clamp(min=1e-12) ** gamma
    return part.mean(losses * known * _per_class(part.class_weights), label)


def boundary(logits: Tensor, label: Tensor, part: Part) -> Tensor:
    """Probability times the signed distance to the class's border, negative inside, in pixels.

    The mean over labelled pixels and classes. Classes that a picture does not show cost nothing,
    nor does one that covers all of it. Ignored pixels are neither inside nor outside. The pixels
    just inside of a border have distance 0, as in the authors' code. So the least loss is reached
    by wrong masks, too, and where the network is sure there is no gradient: it is made to stand
    beside a term over regions (equation 6).

    Source: 1812.07032 section 2 ("Boundary loss for highly unbalanced segmentation").
    """
    truth, known = _truth(label, logits.shape[1])
    known = known.expand_as(truth)
    with torch.no_grad():
        distance = torch.zeros_like(truth)
        shown = (truth.any((2, 3)) & (known & (truth == 0)).any(3).any(2)).nonzero().tolist()
        for picture, index in shown:
            inside = truth[picture, index] > 0
            outside = known[picture, index] & ~inside
            signed = distance_to(inside) - (distance_to(outside) - 1) * inside
            distance[picture, index] = signed
    losses = _probabilities(logits, label) * distance * known * _per_class(part.class_weights)
    return part.mean(losses, label)


_BLOCK = 1 << 24  # numbers at a time; 64 MB


def distance_to(places: Tensor) -> Tensor:
    """Return (H, W) float32, the Euclidean distance of each pixel to the nearest True of (H, W).

    Exact: the distance within the column first, then the least over the columns of its square and
    the square of the way there.
    """
    height, width = places.shape
    rows = torch.arange(height, device=places.device, dtype=torch.float32)[:, None]
    far = float(4 * (height + width))
    above = torch.where(places, rows, -far).cummax(0).values
    below = torch.where(places, rows, far + height).flip(0).cummin(0).values.flip(0)
    vertical = torch.minimum(rows - above, below - rows).square()
    columns = torch.arange(width, device=places.device, dtype=torch.float32)
    across = (columns[:, None] - columns[None, :]).square()  # to, from
    block = max(1, _BLOCK // (width * width))
    return torch.cat(
        [
            (vertical[top : top + block, None, :] + across).amin(-1).sqrt()
            for top in range(0, height, block)
        ]
    )


# -- quotients of sums ---------------------------------------------------------------------------


def dice(logits: Tensor, label: Tensor, part: Part) -> Tensor:
    """1 − 2 |P ∩ T| / (|P| + |T|), the mean over the classes that occur.

    Source: 1606.04797 section 3, with sums in place of squares.
    """
    return _overlap(logits, label, part, false_positives=0.5)


def tversky(logits: Tensor, label: Tensor, part: Part) -> Tensor:
    """1 − |P ∩ T| / (|P ∩ T| + α |P − T| + (1 − α) |T − P|), the mean over the classes that occur.

    Source: 1706.05721 section 2; α weighs what is taken for the class and is not.
    """
    return _overlap(logits, label, part, false_positives=part.settings.tversky_alpha)


def _overlap(logits: Tensor, label: Tensor, part: Part, *, false_positives: float) -> Tensor:
    truth, known = _truth(label, logits.shape[1])
    found = _probabilities(logits, label) * known
    # (3, N, K): both, found, true.
    sums = torch.stack([(found * truth).sum((2, 3)), found.sum((2, 3)), truth.sum((2, 3))])
    by_picture = part.settings.over == "picture"
    if not by_picture:
        sums = part.whole_sum(sums.sum(1))
    both, taken, true = sums
    wrong = false_positives * (taken - both) + (1 - false_positives) * (true - both)
    loss = part.weigh(1 - both / (both + wrong).clamp(min=1e-7), true > 0)
    if by_picture:
        return loss.sum() / (len(label) * part.parts)
    return part.share_of(loss)


def lovasz(logits: Tensor, label: Tensor, part: Part) -> Tensor:
    """The Lovász extension of 1 − IoU, the mean over the classes that occur.

    Classes that exclude each other are scored by their probabilities (Lovász-softmax); overlapping
    ones by their logits (Lovász hinge), and those that do not occur count, too.

    Source: 1705.08790 sections 3 and 4.
    """
    truth, known = _truth(label, logits.shape[1])
    if label.ndim == 3:
        errors = (truth - logits.softmax(1)).abs()
        counts = truth
    else:
        errors = F.relu(1 - logits * (2 * truth - 1))
        counts = known.float()
    # Ignored pixels come last and cost nothing.
    errors = errors.masked_fill(~known, -1.0)
    if part.settings.over == "picture":
        picked = [
            _lovasz_of(errors[n : n + 1], truth[n : n + 1], counts[n : n + 1], part, alone=True)
            for n in range(len(label))
        ]
        return torch.stack(picked).sum() / (len(label) * part.parts)
    return part.share_of(_lovasz_of(errors, truth, counts, part, alone=False))


def _lovasz_of(errors: Tensor, truth: Tensor, counts: Tensor, part: Part, *, alone: bool) -> Tensor:
    """Return the weighted mean over the classes that count, of all pictures together."""
    there = counts.sum((0, 2, 3))
    if not alone:
        there = part.whole_sum(there)
    present = there > 0
    losses = errors.sum((0, 2, 3)) * 0  # has a gradient, of 0, where no class is present
    for index in present.nonzero()[:, 0].tolist():
        own, true = errors[:, index].flatten(), truth[:, index].flatten()
        if not alone and part.processes is not None:
            own, true = part.processes.join(own), part.processes.join(true)
        ranked, order = own.sort(descending=True, stable=True)
        losses = losses.index_put(
            (torch.tensor(index, device=losses.device),),
            (F.relu(ranked) * _jaccard_gradient(true[order])).sum(),
        )
    return part.weigh(losses, present)


def _jaccard_gradient(true: Tensor) -> Tensor:
    """Return the gradient of the Lovász extension with regard to sorted errors. Algorithm 1."""
    total = true.sum()
    intersection = total - true.cumsum(0)
    union = total + (1 - true).cumsum(0)
    jaccard = 1 - intersection / union
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])


TERMS: dict[str, Term] = {
    "cross_entropy": cross_entropy,
    "bce": bce,
    "focal": focal,
    "boundary": boundary,
    "dice": dice,
    "tversky": tversky,
    "lovasz": lovasz,
}
