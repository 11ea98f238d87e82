"""Batch norm in training: statistics need pictures, so few pictures freeze them."""

from __future__ import annotations

import torch
from torch import nn

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
