"""Batch norm in training: statistics need pictures, so few pictures freeze them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from deeplab.models.deeplab import DeepLab
from deeplab.models.layers import BatchNorm2d
from deeplab.training.processes import Processes
from deeplab.training.settings import RunSettings

FEWEST_PICTURES = 12
"""Below this, the original's documentation advises to leave batch norm alone.

Source: research/deeplab train.py, flag fine_tune_batch_norm ("batch size larger than 12").
"""


def choose_batch_norm(
    model: DeepLab, run: RunSettings, processes: Processes, *, pretrained: bool
) -> str:
    """Freeze, train or synchronise the batch norms, and return the sentence that says so.

    Synchronised batch norm exists on GPUs only. Random weights have no statistics worth
    freezing: then they are trained even on few pictures, and the sentence warns.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return "Batch norm: this network has none."
    together = processes.count > 1 and processes.device.type == "cuda"
    part = run.batch_size // (processes.count * run.accumulate)
    pictures = part * (processes.count if together else 1)
    if run.batch_norm == "frozen":
        model.freeze_batch_norm()
        return "Batch norm: frozen, as the recipe says."
    if run.batch_norm == "auto" and pictures < FEWEST_PICTURES:
        if pretrained:
            model.freeze_batch_norm()
            return (
                f"Batch norm: frozen, because {pictures} pictures per statistic are fewer than "
                f"{FEWEST_PICTURES}. A larger batch would train it."
            )
        return (
            f"Batch norm: trained although {pictures} pictures per statistic are few, because "
            "random weights have no statistics to freeze. Start from weights (init.path)."
        )
    if together:
        synchronise(model)
        return (
            f"Batch norm: trained, synchronised over {processes.count} GPUs ({pictures} pictures)."
        )
    return f"Batch norm: trained on {pictures} pictures per statistic."


@torch.no_grad()
def measure_statistics(
    network: DeepLab, names: Collection[str], pictures: Iterable[Tensor], device: torch.device
) -> int:
    """Give new batch norms the statistics of some pictures, and return how many norms there were.

    A batch norm without training has mean 0 and variance 1, which is true of nothing: frozen like
    that, a new head would get values of any size. Each norm averages over the pictures, behind
    norms that already normalise by the batch at hand; nothing else changes.

    Args:
        network: as built.
        names: tensors that did not come from a file, as in the state dict.
        pictures: (B, 3, H, W) each.
        device: where to compute.
    """
    norms = [
        module
        for name, module in network.named_modules()
        if isinstance(module, BatchNorm2d) and f"{name}.running_mean" in names
    ]
    if not norms:
        return 0
    network.to(device).eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
    for index, image in enumerate(pictures):
        for norm in norms:
            norm.momentum = 1 / (index + 1)
        network(image.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return len(norms)


def synchronise(model: DeepLab) -> None:
    """Replace every batch norm by one that shares its statistics over the processes."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, BatchNorm2d):
                continue
            shared = nn.SyncBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            shared.weight, shared.bias = child.weight, child.bias
            shared.running_mean, shared.running_var = child.running_mean, child.running_var
            # The count exists for the class's sake only and stays out of files.
            shared.register_buffer(
                "num_batches_tracked", torch.zeros((), dtype=torch.long), persistent=False
            )
            setattr(parent, name, shared)
