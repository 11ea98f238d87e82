"""A teacher: a trained network whose opinion of a crop the student shall keep.

Fine-tuning on a data set that hardly shows some classes makes a network forget them. The labels
cannot say what it knew, but the network that it started from can: the student is also asked for
the teacher's probabilities, wherever the teacher is right. A teacher that knows more than the
student, because it is larger or takes several looks, may be heard everywhere.

Source of the loss: 1503.02531 section 2 (softened probabilities, gradients scaled by T²).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplab import weights
from deeplab.data.masks import IGNORE
from deeplab.errors import InputError
from deeplab.labels import LabelSet
from deeplab.models import DeepLab, build
from deeplab.training.losses import resize_label
from deeplab.training.settings import TeacherSettings
from deeplab.weights.release import labels_of


class Teacher(nn.Module):
    """A frozen network and how much it counts."""

    def __init__(self, network: DeepLab, settings: TeacherSettings) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.settings = settings

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation: a teacher does not learn."""
        return super().train(False)

    def forward(self, logits: Tensor, image: Tensor, label: Tensor, kept: Tensor) -> Tensor:
        """Return the weighted cost of disagreeing with the teacher.

        Each position of the student's grid costs the Kullback-Leibler divergence of the student's
        softened probabilities from the teacher's, if the teacher's first choice is the label;
        with ``settings.everywhere`` if there is a label. The sum is divided by the labelled pixels
        of the whole step, as the loss itself is, so that parts and processes add up.

        Args:
            logits: (B, K, h, w), the student's.
            image: (B, 3, H, W), what the student saw.
            label: (B, H, W) class ids or an ignored value.
            kept: scalar, labelled pixels of the whole step.

        Returns:
            Scalar float32.
        """
        height, width = logits.shape[-2:]
        with torch.no_grad():
            opinion = F.interpolate(
                self.network(image).float(),
                size=(height, width),
                mode="bilinear",
                align_corners=self.network.config.align_corners,
            )
            truth = resize_label(label, height, width)
            heard = truth != IGNORE if self.settings.everywhere else opinion.argmax(1) == truth
        heat = self.settings.temperature
        cost = F.kl_div(
            F.log_softmax(logits.float() / heat, 1),
            F.log_softmax(opinion / heat, 1),
            log_target=True,
            reduction="none",
        ).sum(1)
        pixels_per_position = label.shape[-2] * label.shape[-1] / (height * width)
        factor = self.settings.weight * heat**2 * pixels_per_position
        return (cost * heard).sum() * factor / kept.clamp(min=1)


def open_teacher(settings: TeacherSettings, labels: LabelSet) -> Teacher:
    """Open the teacher of a recipe; ``labels`` are the student's.

    Raises:
        InputError: the teacher knows other classes.
        WeightsError: the file cannot be opened.
    """
    config, state, _ = weights.load_with_report(settings.path)
    known = labels_of(Path(settings.path), config)
    if known.names != labels.names:
        raise InputError(
            f"teacher.path: {Path(settings.path).name} knows {len(known)} classes "
            f"({', '.join(known.names[:4])}, …), the data set has {len(labels)} "
            f"({', '.join(labels.names[:4])}, …). A teacher must know the same classes."
        )
    return Teacher(build(config, state), settings)
