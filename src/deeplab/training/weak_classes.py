"""Weak classes preferred: biases for the mean IoU, after training for the cross-entropy.

A network that is unsure whether something is a chair says background, which is right most often.
The mean IoU counts every class alike, and asks it to say chair sooner: F, and with it IoU, is
largest where a class is chosen from half of that largest F on (Lipton et al., "Thresholding
classifiers to maximize F1 score", 1402.1892), which in odds is its IoU. So the logit of each class
gets a share of -log IoU: the whole would be right for the IoU that is reached, which is higher than
the one that is measured. The weights stay as they are, and so does the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from deeplab.data.sample import Dataset
from deeplab.errors import InputError
from deeplab.evaluation.protocol import Evaluation, TorchPredictor, evaluate
from deeplab.models import build
from deeplab.training.optimiser import classifier_layers
from deeplab.weights.release import open_release, save

WEAKEST = 0.05
"""A class is taken to have at least this IoU, so that none is found everywhere."""

SHARE = 0.4
"""Of -log IoU, what is added. More gains little, and shows more objects in two colours."""

_NOTE = "weak_classes"  # in the provenance of a pair


def prefer_weak_classes(
    pair: str | Path,
    dataset: Dataset,
    validation: Dataset,
    *,
    spare: Sequence[str] = (),
    share: float = SHARE,
    tell: Callable[[str], None] = print,
) -> None:
    """Add to the biases of a release pair what raises its mean IoU, and write the pair anew.

    A pair that tells of it in its provenance is left alone, so the step can be repeated.

    Args:
        pair: the pair's path, with or without suffix; it is replaced.
        dataset: pictures that show every class and were not learned from, fitted into the
            network's frame; on those that were, every class looks strong.
        validation: the pictures on which the new pair is scored.
        spare: names of classes that get nothing: those that training showed well, whose IoU on
            these few pictures would tell little.
        share: of -log IoU, 0 or more.
        tell: where sentences go.

    Raises:
        InputError: the data set has other classes or lacks some of them, or the network's logits
            have no biases.
        WeightsError: the pair cannot be opened.
    """
    release = open_release(pair)
    if _NOTE in release.provenance:
        tell("Weak classes: preferred already.")
        return
    network = build(release.config, release.state_dict()).eval()
    names = release.labels.names

    def score(pictures: Dataset) -> Evaluation:
        predictor = TorchPredictor(
            network=network,
            labels=release.labels,
            name=Path(pair).stem,
            bfloat16=True,
            frame=release.input_spec,
        )
        return evaluate(predictor, pictures)

    totals = score(dataset).confusion.totals
    lacking = [name for name, count in zip(names, totals.truth, strict=True) if not count]
    if lacking:
        raise InputError(
            f"weak classes: no picture shows {', '.join(lacking)}; give more pictures."
        )
    offsets = choose_offsets(totals.iou, share)
    offsets[release.labels.indices(spare)] = 0
    for layer in (layers := classifier_layers(network)):
        if layer.bias is None:
            raise InputError("weak classes: the logits of this network have no biases to raise.")
        with torch.no_grad():
            # The logits are the sum of these layers.
            layer.bias += torch.from_numpy(offsets).to(layer.bias) / len(layers)
    told = {name: round(float(offset), 4) for name, offset in zip(names, offsets, strict=True)}
    tell(f"Weak classes: preferred by {len(dataset)} pictures, {told}.")
    found = score(validation)
    tell(f"mIoU {found.miou:.4f}, pixel accuracy {found.accuracy:.4f} on '{validation.split}'.")
    iou = zip(names, found.confusion.totals.iou, strict=True)
    scores = {
        "miou": found.miou,
        "pixel_accuracy": found.accuracy,
        "iou": {name: None if np.isnan(value) else float(value) for name, value in iou},
        "protocol": found.protocol,
    }
    save(
        pair,
        release.config,
        network.state_dict(),
        labels=release.labels,
        input_spec=release.input_spec,
        provenance={
            **release.provenance,
            _NOTE: {"pictures": len(dataset), "share": share, "offsets": told},
        },
        licence=release.licence,
        scores={validation.split: scores},
    )


def choose_offsets(iou: npt.NDArray[np.float64], share: float = SHARE) -> npt.NDArray[np.float64]:
    """Return what to add to the logit of each class, (K,) float64: 0 for the best one.

    Args:
        iou: (K,) float64, 0..1, of each class as it is found now.
        share: of -log IoU, 0 or more.
    """
    offsets = -share * np.log(np.maximum(iou, WEAKEST))
    chosen: npt.NDArray[np.float64] = offsets - offsets.min()
    return chosen
