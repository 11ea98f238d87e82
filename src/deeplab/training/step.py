"""What one step computes: network, loss and teacher as one, and the gradient of a batch."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from deeplab.data.loader import Batch
from deeplab.data.masks import IGNORE
from deeplab.models.deeplab import DeepLab
from deeplab.training.guard import failures_in_words
from deeplab.training.losses import segmentation_loss
from deeplab.training.processes import Processes
from deeplab.training.settings import LossSettings, RunSettings, Settings
from deeplab.training.teacher import Teacher


class StepLoss(nn.Module):
    """Network and loss in one module, so that DDP and the compiler see a step as a whole."""

    def __init__(
        self,
        network: DeepLab,
        loss: LossSettings,
        class_weights: Tensor | None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.network, self.loss, self.teacher = network, loss, teacher
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, image: Tensor, label: Tensor, kept: Tensor, step: int) -> Tensor:
        """Return the loss of a part of a step, float32."""
        logits: Tensor | list[Tensor]
        if self.loss.every_scale and self.network.config.image_pyramid:
            scales = self.network.every_scale(image)
            fused = torch.stack(scales).amax(0)
            logits = [*scales, fused]
        else:
            logits = fused = self.network(image)
        weights = self.class_weights
        loss = segmentation_loss(
            logits,
            label,
            ignore_index=IGNORE,
            class_weights=weights if isinstance(weights, Tensor) else None,
            top_k=self.loss.top_k,
            mining_steps=self.loss.mining_steps,
            step=step,
            upsample_logits=self.loss.upsample_logits,
            align_corners=self.network.config.align_corners,
            kept=kept,
        )
        if self.teacher is None:
            return loss
        cost: Tensor = self.teacher(fused, image, label, kept)
        return loss + cost


def make_step(
    network: DeepLab,
    settings: Settings,
    class_weights: Tensor | None,
    processes: Processes,
    teacher: Teacher | None = None,
) -> nn.Module:
    """Wrap network, loss and teacher for the device, the compiler and the other processes."""
    step_loss: nn.Module = StepLoss(network, settings.loss, class_weights, teacher)
    step_loss.to(processes.device).to(memory_format=memory_format(settings.run))  # type: ignore[call-overload]
    if settings.run.compile:
        step_loss.compile()
    if processes.count > 1:
        places = [processes.device.index] if processes.device.type == "cuda" else None
        # Statistics are shared where they are needed, not at every step; torch renamed the switch.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        switch = next(s for s in ("forward_sync_buffers", "broadcast_buffers") if s in known)
        options: dict[str, Any] = {"device_ids": places, switch: False}
        step_loss = DistributedDataParallel(step_loss, **options)
    return step_loss


def backward(
    step_loss: nn.Module,
    batch: Batch,
    step: int,
    settings: Settings,
    processes: Processes,
) -> Tensor:
    """Add the gradient of one step's loss, part by part, and return that loss (detached).

    Every part is divided by the number of labelled pixels of the *whole* step, over all parts
    and processes; so cutting a batch in parts, or sharing it, changes nothing. Mining, and losses
    at the logits' size, count each part by itself; there the parts are averaged.
    """
    run, device = settings.run, processes.device
    whole = settings.loss.top_k == 1.0 and settings.loss.upsample_logits
    stride = settings.loss.label_stride
    label = batch.label[:, ::stride, ::stride]
    kept = processes.sum((label != IGNORE).sum()).to(device)
    # DDP averages the gradients of the processes; sums must be undone by their count.
    scale = processes.count if whole else 1 / run.accumulate
    total = torch.zeros((), device=device)
    images, labels = batch.image.chunk(run.accumulate), label.chunk(run.accumulate)
    with failures_in_words():
        for part, (x, y) in enumerate(zip(images, labels, strict=True)):
            x = x.to(device, non_blocking=True).contiguous(memory_format=memory_format(run))
            y = y.to(device, non_blocking=True)
            alone = processes.count > 1 and part < len(images) - 1
            with (
                step_loss.no_sync() if alone else contextlib.nullcontext(),  # type: ignore[operator]
                torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bfloat16"),
            ):
                loss = step_loss(x, y, kept, step)
                (loss * scale).backward()
            total += loss.detach() * (scale / processes.count if whole else scale)
    shared = processes.sum(total)
    return shared if whole else shared / processes.count


def memory_format(run: RunSettings) -> torch.memory_format:
    """Return the order of images and weights in memory."""
    return torch.channels_last if run.channels_last else torch.contiguous_format
