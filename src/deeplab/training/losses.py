"""The training loss of every DeepLab: a weighted sum of terms, over the scales of a network.

Source: research/deeplab utils/train_utils.py, add_softmax_cross_entropy_loss_for_each_scale.
Shapes: N batch, K classes, h × w the network's grid, H × W the crop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplab.errors import InputError
from deeplab.models.pieces import find_piece
from deeplab.training.loss_settings import LossSettings
from deeplab.training.loss_terms import TERMS, Part, Term


def segmentation_loss(
    logits: Tensor | Sequence[Tensor],
    label: Tensor,
    *,
    part: Part | None = None,
    align_corners: bool = True,
    terms: Mapping[str, Term] | None = None,
    **settings: Any,
) -> Tensor:
    """Return the loss of a part of a step, summed over scales where there are several.

    It is this part's share: those of all parts, in all processes, add up to the loss of the step. A
    batch without any labelled pixel costs 0 and has gradient 0.

    Args:
        logits: (N, K, h, w) float, or one such tensor per scale (v2: every scale and their
            maximum).
        label: (N, H, W) integer class ids; or (N, K, H, W), 0 or 1 for every class, where classes
            overlap. 255 is ignored.
        part: its settings, and what it has to know of the whole step; None is a batch by itself.
        align_corners: the resize convention of the network.
        terms: what ``part.settings.terms`` names; None knows ``loss_terms.TERMS``.
        settings: of a batch by itself, fields of ``LossSettings``: ``top_k=0.25``.

    Returns:
        Scalar float32.

    Raises:
        InputError: no logits at all, a term for classes that exclude each other on others, or
            settings beside a part, which has its own.
    """
    if part is None:
        part = Part(settings=LossSettings(**settings))
    elif settings:
        raise InputError(f"part: has settings of its own; leave out {', '.join(settings)}.")
    chosen, terms = part.settings, TERMS if terms is None else terms
    every = [logits] if isinstance(logits, Tensor) else list(logits)
    if not every:
        raise InputError("logits: got no tensor at all, expected one per scale.")
    overlap = label.ndim == 4
    weights = chosen.terms or {"bce" if overlap else "cross_entropy": 1.0}
    if overlap and "cross_entropy" in weights:
        raise InputError(
            "loss.terms.cross_entropy: expects classes that exclude each other, but these overlap; "
            "take bce."
        )
    total = torch.zeros((), device=label.device)
    with torch.autocast(label.device.type, enabled=False):
        for one in every:
            x, target = one.float(), label
            if chosen.upsample_logits and x.shape[-2:] != label.shape[-2:]:
                x = F.interpolate(
                    x, size=label.shape[-2:], mode="bilinear", align_corners=align_corners
                )
            elif not chosen.upsample_logits:
                target = resize_label(label, x.shape[-2], x.shape[-1])
            for name, weight in weights.items():
                total = total + weight * terms[name](x, target, part)
    return total


def find_terms(settings: LossSettings) -> dict[str, Term]:
    """Return what the names of a recipe's terms mean.

    Raises:
        InputError: a name that is none.
    """
    names = settings.terms or ("cross_entropy", "bce")
    return {name: TERMS[name] if name in TERMS else _own(name) for name in names}


def _own(name: str) -> Term:
    loss = find_piece(name, "loss.terms")
    loss = loss() if isinstance(loss, type) else loss

    def term(logits: Tensor, label: Tensor, part: Part) -> Tensor:
        value: Tensor = loss(logits, label)
        if not isinstance(value, Tensor) or value.ndim:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"loss.terms: {name} returned {got}, expected a tensor of one number.")
        return value / part.parts

    return term


def resize_label(label: Tensor, height: int, width: int) -> Tensor:
    """Resize (…, H, W) labels by nearest with aligned corners, as the original does.

    Half-way positions round up, like TensorFlow's ``resize_nearest_neighbor``.
    """
    rows = _aligned_indices(label.shape[-2], height, label.device)
    columns = _aligned_indices(label.shape[-1], width, label.device)
    return label[..., rows[:, None], columns[None, :]]


def _aligned_indices(source: int, target: int, device: torch.device) -> Tensor:
    # Integer arithmetic: floor(i * (source - 1) / (target - 1) + 1/2) without rounding error.
    if target == 1:
        return torch.zeros(1, dtype=torch.long, device=device)
    index = torch.arange(target, device=device)
    return (2 * index * (source - 1) + (target - 1)) // (2 * (target - 1))
