"""Batch norm in training: statistics need pictures, so few pictures freeze them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from deeplab.models.deeplab import DeepLab
from deeplab.models.layers import BatchNorm2d
from deeplab.models.timm_encoder import BatchNormAct
from deeplab.training.processes import Processes
from deeplab.training.settings import RunSettings

FEWEST_PICTURES = 12
"""Below this, the original's documentation advises to leave batch norm alone.

Source: research/deeplab train.py, flag fine_tune_batch_norm ("batch size larger than 12").
"""

_FEWEST_SPANS = 5  # 1/e⁵: less than one percent is left of what an average began with
_LARGEST_MOMENTUM = 0.1  # an average over fewer than ten steps is no average


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
    few = run.batch_norm == "auto" and pictures < FEWEST_PICTURES
    if few and pretrained:
        model.freeze_batch_norm()
        return (
            f"Batch norm: frozen, because {pictures} pictures per statistic are fewer than "
            f"{FEWEST_PICTURES}. A larger batch would train it."
        )
    shorter = shorten_averages(model, run, pretrained=pretrained)
    if few:
        return (
            f"Batch norm: trained although {pictures} pictures per statistic are few, because "
            f"random weights have no statistics to freeze.{shorter} Better start from weights "
            "(init.path)."
        )
    if together:
        synchronise(model)
        return (
            f"Batch norm: trained, synchronised over {processes.count} GPUs ({pictures} pictures)."
            f"{shorter}"
        )
    return f"Batch norm: trained on {pictures} pictures per statistic.{shorter}"


def shorten_averages(model: DeepLab, run: RunSettings, *, pretrained: bool) -> str:
    """Let running statistics arrive before they are used, and return what to add to the sentence.

    The original's averages reach back 3333 steps. Random weights that are judged after a hundred
    would be judged by statistics that are still mean 0 and variance 1: the loss falls, and every
    pixel is predicted as one class. So averages reach back a tenth of the steps until the first
    validation (of all steps, with weights that bring their statistics), where theirs would not
    get through this five times.
    """
    first = run.steps if pretrained else min(run.validation_interval or run.steps, run.steps)
    shorter = 0
    least = min(_LARGEST_MOMENTUM, 2 * _FEWEST_SPANS / max(first, 1))
    for module in model.modules():
        if not isinstance(module, BatchNorm2d):
            continue
        assert module.momentum is not None
        if module.momentum < least and module.momentum * first < _FEWEST_SPANS:
            shorter += 1
            module.momentum = least
    return f" Averages follow within {max(first // 10, 10)} steps." if shorter else ""


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


@torch.no_grad()
def restore_statistics(network: DeepLab, pictures: Iterable[Tensor], device: torch.device) -> int:
    """Give norms that were folded into their convolution true statistics; return their number.

    Exported files hold no batch norm; imported from one, a norm has mean 0 and a bias instead.
    Trained like that it would divide by statistics that its scale never knew. So the mean m and
    deviation d of what reaches it are measured, and scale and bias are multiplied and shifted to
    suit: the network computes what it computed before.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, BatchNorm2d | nn.SyncBatchNorm) and _is_folded(module)
    ]
    if not norms:
        return 0
    seen: dict[int, list[Tensor]] = {id(norm): [] for norm in norms}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1).double()
        seen[id(module)].append(torch.stack([values.mean(1), values.square().mean(1)]))

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    network.to(device).eval()
    for image in pictures:
        network(image.to(device))
    for hook in hooks:
        hook.remove()
    for norm in norms:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, square = torch.stack(seen[id(norm)]).mean(0)
        variance = (square - mean.square()).clamp(min=0)
        slope = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        norm.bias.copy_(norm.bias + slope * mean)  # the old mean is 0
        norm.weight.copy_(slope * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    return len(norms)


def _is_folded(norm: BatchNorm2d | nn.SyncBatchNorm) -> bool:
    """Whether the statistics are mean 0 and one variance for all channels."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    spread = norm.running_var.max() - norm.running_var.min()
    return not bool(norm.running_mean.any()) and float(spread) < 1e-6


def _activate(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return module.act(output)  # type: ignore[no-any-return,operator]


def synchronise(model: DeepLab) -> None:
    """Replace every batch norm by one that shares its statistics over the processes."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, BatchNorm2d):
                continue
            shared = nn.SyncBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            shared.weight, shared.bias = child.weight, child.bias
            shared.running_mean, shared.running_var = child.running_mean, child.running_var
            # The count exists for the class's sake only and stays out of files. It lies where the
            # rest lies: NCCL knows no memory but the GPU's.
            count = torch.zeros((), dtype=torch.long, device=child.weight.device)
            shared.register_buffer("num_batches_tracked", count, persistent=False)
            if isinstance(child, BatchNormAct):
                shared.act = child.act
                shared.register_forward_hook(_activate)
            setattr(parent, name, shared)
