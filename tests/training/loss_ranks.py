"""Two processes, half of a step each: their losses and gradients add up to the whole step's.

Every process is one of ``WORLD_SIZE``; the first compares and exits with 1 where they do not.
"""

from __future__ import annotations

import sys

import torch

from deeplab.training.loss_settings import NAMES, LossSettings
from deeplab.training.loss_terms import Part
from deeplab.training.losses import segmentation_loss
from deeplab.training.processes import join_processes

torch.set_num_threads(1)
settings = LossSettings(terms=dict.fromkeys(NAMES, 1.0))
random = torch.Generator().manual_seed(0)
logits = torch.randn(4, 3, 9, 9, generator=random)
label = torch.randint(0, 3, (4, 9, 9), generator=random, dtype=torch.uint8)
label[torch.rand(label.shape, generator=random) < 0.2] = 255
label[:2][label[:2] == 2] = 0  # one class is in the second half alone
with join_processes("cpu") as processes:
    half = slice(processes.rank * 2, processes.rank * 2 + 2)
    mine = logits.clone().requires_grad_()
    kept = processes.sum((label[half] != 255).sum())
    part = Part(settings=settings, kept=kept, parts=processes.count, processes=processes)
    loss = segmentation_loss(mine[half], label[half], part=part)
    loss.backward()
    assert mine.grad is not None
    total, gradient = processes.sum(loss.detach()), processes.sum(mine.grad)
    whole = logits.clone().requires_grad_()
    expected = segmentation_loss(whole, label, part=Part(settings=settings))
    expected.backward()
    assert whole.grad is not None
    same = torch.allclose(total, expected, rtol=1e-5)
    same &= torch.allclose(gradient, whole.grad, rtol=1e-4, atol=1e-7)
    print(f"{total.item():.7f} {expected.item():.7f}")
sys.exit(0 if same else 1)
