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
from deeplab.training.auxiliary import watch_auxiliary
from deeplab.training.guard import failures_in_words
from deeplab.training.loss_terms import Part
from deeplab.training.losses import find_terms, segmentation_loss
from deeplab.training.one_logit import as_one
from deeplab.training.processes import Processes
from deeplab.training.settings import RunSettings, Settings
from deeplab.training.teacher import Teacher


class StepLoss(nn.Module):
    """Network and loss in one module, so that DDP and the compiler see a step as a whole."""

    def __init__(
        self,
        network: DeepLab,
        settings: Settings,
        class_weights: Tensor | None,
        processes: Processes,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.network, self.loss, self.teacher = network, settings.loss, teacher
        self.processes, self.parts = processes, processes.count * settings.run.accumulate
        self.terms = find_terms(settings.loss)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, image: Tensor, label: Tensor, kept: Tensor, step: int) -> Tensor:
        """Return this part's share of the loss of a step, float32."""
        if self.loss.auxiliary:
            with watch_auxiliary(self.network) as second:
                logits = fused = self.network(image)
        elif self.loss.every_scale and self.network.config.image_pyramid:
            scales, second = self.network.every_scale(image), []
            fused = torch.stack(scales).amax(0)
            logits = [*scales, fused]
        else:
            logits, second = self.network(image), []
            fused = logits
        weights = self.class_weights
        part = Part(
            settings=self.loss,
            class_weights=weights if isinstance(weights, Tensor) else None,
            # At the logits' size other pixels are labelled, and how many is known of a part alone.
            kept=kept if self.loss.upsample_logits else None,
            parts=self.parts,
            step=step,
            processes=self.processes,
        )
        corners = self.network.config.align_corners

        if self.loss.one_logit:
            label = label[:, None]
            logits = as_one(logits) if isinstance(logits, Tensor) else [as_one(x) for x in logits]
            second = [as_one(x) for x in second]

        def score(found: Tensor | list[Tensor]) -> Tensor:
            return segmentation_loss(
                found, label, part=part, align_corners=corners, terms=self.terms
            )

        loss = score(logits)
        for more in second:
            loss = loss + self.loss.auxiliary * score(more)
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
    step_loss: nn.Module = StepLoss(network, settings, class_weights, processes, teacher)
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

    Every part knows the number of labelled pixels of the *whole* step, over all parts and
    processes, and returns its share: so cutting a batch in parts, or sharing it, changes nothing.
    Mining, losses at the logits' size, and functions of the reader's own count each part by itself;
    there the parts are averaged.
    """
    run, device = settings.run, processes.device
    stride = settings.loss.label_stride
    label = batch.label[..., ::stride, ::stride]
    kept = processes.sum((label != IGNORE).sum()).to(device)
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
                # DDP averages the gradients of the processes, which here add up.
                (loss * processes.count).backward()
            total += loss.detach()
    return processes.sum(total)


def memory_format(run: RunSettings) -> torch.memory_format:
    """Return the order of images and weights in memory."""
    return torch.channels_last if run.channels_last else torch.contiguous_format
