"""The training loss of every DeepLab: cross-entropy per pixel, weighted, mined, over scales.

Source: research/deeplab utils/train_utils.py, add_softmax_cross_entropy_loss_for_each_scale.
Shapes: B batch, K classes, h × w the network's grid, H × W the crop.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplab.errors import InputError


def segmentation_loss(
    logits: Tensor | Sequence[Tensor],
    label: Tensor,
    *,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    top_k: float = 1.0,
    mining_steps: int = 0,
    step: int = 0,
    upsample_logits: bool = True,
    align_corners: bool = True,
    kept: Tensor | None = None,
) -> Tensor:
    """Return the loss of a batch, summed over scales where there are several.

    The sum of the weighted cross-entropies is divided by the number of pixels that are not
    ignored, not by the sum of the weights. A batch without any such pixel costs 0 and has
    gradient 0.

    With ``top_k < 1`` only the hardest pixels count: k is that share of *all* pixels, ignored
    ones included, falling linearly from all of them over ``mining_steps``; the sum is divided by
    the number of non-zero losses among the k.

    Args:
        logits: (B, K, h, w) float, or one such tensor per scale (v2: every scale and their
            maximum).
        label: (B, H, W) integer class ids or ``ignore_index``.
        ignore_index: the label that costs nothing.
        class_weights: (K,) float, or None for 1.
        top_k: share of the pixels that counts, in (0, 1].
        mining_steps: steps over which mining sets in; 0 mines from the start.
        step: the current step, 0-based.
        upsample_logits: bring logits to the label's size (v3, v3+); False brings the label to
            the logits' size by nearest (v1, v2).
        align_corners: the resize convention of the network.
        kept: scalar, pixels not ignored in the whole optimiser step, for a batch that is shared
            between processes or accumulated in parts; None counts this batch. Not used when
            mining, which as in the original ranks the pixels of each part by itself.

    Returns:
        Scalar float32.
    """
    if not 0.0 < top_k <= 1.0:
        raise InputError(f"top_k: got {top_k}, expected a share of the pixels in (0, 1].")
    total: Tensor | None = None
    for one in [logits] if isinstance(logits, Tensor) else logits:
        target, count = label, kept
        if upsample_logits and one.shape[-2:] != label.shape[-2:]:
            one = F.interpolate(
                one, size=label.shape[-2:], mode="bilinear", align_corners=align_corners
            )
        elif not upsample_logits:
            target, count = resize_label(label, one.shape[-2], one.shape[-1]), None
        target = target.long()
        losses = F.cross_entropy(
            one.float(),
            target,
            weight=class_weights,
            ignore_index=ignore_index,
            reduction="none",
        )
        if top_k < 1.0:
            loss = _hardest_mean(losses.flatten(), top_k, mining_steps, step)
        else:
            if count is None:
                count = (target != ignore_index).sum()
            loss = losses.sum() / count.clamp(min=1)
        total = loss if total is None else total + loss
    if total is None:
        raise InputError("logits: got no tensor at all, expected one per scale.")
    return total


def _hardest_mean(losses: Tensor, top_k: float, mining_steps: int, step: int) -> Tensor:
    ratio = min(1.0, step / mining_steps) if mining_steps > 0 else 1.0
    k = int((ratio * top_k + 1.0 - ratio) * losses.numel())
    hardest = losses.topk(max(k, 1), sorted=False).values
    return hardest.sum() / (hardest != 0).sum().clamp(min=1)


def resize_label(label: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, H, W) labels by nearest with aligned corners, as the original does.

    Half-way positions round up, like TensorFlow's ``resize_nearest_neighbor``.
    """
    rows = _aligned_indices(label.shape[-2], height, label.device)
    columns = _aligned_indices(label.shape[-1], width, label.device)
    return label[:, rows[:, None], columns[None, :]]


def _aligned_indices(source: int, target: int, device: torch.device) -> Tensor:
    # Integer arithmetic: floor(i * (source - 1) / (target - 1) + 1/2) without rounding error.
    if target == 1:
        return torch.zeros(1, dtype=torch.long, device=device)
    index = torch.arange(target, device=device)
    return (2 * index * (source - 1) + (target - 1)) // (2 * (target - 1))
