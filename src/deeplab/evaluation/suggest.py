"""Which photos to label next: those that are unlike each other, and of which the network is unsure.

Photos are taken one after the other: the first is the one of which the network is least sure, each
further one the one that is farthest from all that were taken before, as the network sees it. That
is the greedy k-center of Sener and Savarese (ICLR 2018). Uncertainty can weigh more, but what a
network is least sure of are crowded photos, alike and of few classes: where a classifier is fitted
to what is labelled, they taught less than photos by chance (``benchmarks/suggest.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deeplab.errors import ImageError, InputError
from deeplab.photo.results import Segmentation
from deeplab.segmenter import Segmenter

Float64 = npt.NDArray[np.float64]

COUNT = 20
"""Photos that are suggested where nobody says how many."""

_LEAST = 1e-9


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A photo to label.

    Attributes:
        photo: the file.
        uncertainty: mean entropy of its pixels, 0 (sure) to 1 (all classes alike).
        novelty: how far it is from the photos before it and from labelled ones, in mean distances
            between photos.
    """

    photo: Path
    uncertainty: float
    novelty: float


@dataclass(frozen=True, kw_only=True)
class Suggestions:
    """What to label next, in this order, and what could not be looked at.

    Attributes:
        chosen: the photos.
        looked_at: how many photos there were to choose from.
        failed: (photo, words) of those that cannot be read.
    """

    chosen: tuple[Suggestion, ...]
    looked_at: int
    failed: tuple[tuple[Path, str], ...]


def suggest(
    photos: Sequence[Path],
    segmenter: Segmenter,
    *,
    count: int = COUNT,
    labelled: Sequence[Path] = (),
    uncertainty: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> Suggestions:
    """Choose photos to label.

    Args:
        photos: to choose from.
        segmenter: with a model that says how sure it is.
        count: how many; all, in this order, where there are fewer.
        labelled: photos that are labelled already: others should be unlike them.
        uncertainty: how much it counts: distances are multiplied by its power of this.
        progress: called with (photos done, photos in all).

    Raises:
        InputError: the model gives class ids alone, or no photo can be read.
    """
    if segmenter.card.output == "label map":
        raise InputError(
            "model: gives class ids and does not say how sure it is; use one that gives logits or "
            "probabilities, such as 'voc'."
        )
    total = len(photos) + len(labelled)
    failed: list[tuple[Path, str]] = []
    seen: list[list[tuple[Path, float, Float64]]] = [[], []]
    done = 0
    for place, part in enumerate((photos, labelled)):
        for photo in part:
            try:
                seen[place].append((photo, *describe(segmenter(photo))))
            except ImageError as error:
                failed.append((photo, str(error)))
            done += 1
            if progress is not None:
                progress(done, total)
    if not seen[0]:
        raise InputError(f"photos: none of {len(photos)} can be read. The first: {failed[0][1]}")
    chosen = choose(
        np.array([unsure for _, unsure, _ in seen[0]]),
        np.array([features for _, _, features in seen[0]]),
        count=count,
        power=uncertainty,
        centres=np.array([features for _, _, features in seen[1]]),
    )
    return Suggestions(
        chosen=tuple(
            Suggestion(photo=seen[0][i][0], uncertainty=seen[0][i][1], novelty=far)
            for i, far in chosen
        ),
        looked_at=len(seen[0]),
        failed=tuple(failed),
    )


def describe(result: Segmentation) -> tuple[float, Float64]:
    """Return how unsure the network is of a photo, 0..1, and what it looks like to the network.

    That is the mean of its answers for each class, and how much they vary over the photo: (2 K,).
    """
    look = result.looks[0]
    cells = [  # the photo lies in the frame's upper left corner
        max(1, round(size * content / frame))
        for size, content, frame in zip(
            look.values.shape, result.geometry.content, result.geometry.frame, strict=False
        )
    ]
    values = look.values[: cells[0], : cells[1]].reshape(-1, look.values.shape[2])
    logits = np.log(np.maximum(values, 1e-6)) if look.softmaxed else values / look.temperature
    return describe_logits(logits.astype(np.float64))


def describe_logits(logits: Float64) -> tuple[float, Float64]:
    """Return the same of (N, K) logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    shares = np.exp(shifted)
    sums = shares.sum(axis=1, keepdims=True)
    shares /= sums
    entropy = (np.log(sums[:, 0]) - (shares * shifted).sum(axis=1)) / np.log(logits.shape[1])
    features = np.concatenate([logits.mean(axis=0), logits.std(axis=0)])
    return float(entropy.mean()), features


def choose(
    uncertainty: Float64,
    features: Float64,
    *,
    count: int,
    centres: Float64 | None = None,
    power: float = 0.0,
) -> list[tuple[int, float]]:
    """Return (index, novelty) of the photos to label, in order.

    Args:
        uncertainty: (N,) of each photo.
        features: (N, D) of each photo.
        count: how many, at most.
        centres: (M, D) of photos that are labelled already.
        power: of uncertainty, by which distances are multiplied.
    """
    known = centres if centres is not None and len(centres) else np.zeros((0, features.shape[1]))
    everything = np.concatenate([features, known])
    spread = everything.std(axis=0)
    everything = (everything - everything.mean(axis=0)) / np.maximum(spread, _LEAST)
    own, known = everything[: len(features)], everything[len(features) :]
    usual = float(np.sqrt(2 * own.shape[1]))  # root mean square distance of two photos
    distance = np.full(len(own), np.inf)
    for centre in known:
        distance = np.minimum(distance, np.linalg.norm(own - centre, axis=1) / usual)
    chosen: list[tuple[int, float]] = []
    left = np.ones(len(own), bool)
    weight = (uncertainty + _LEAST) ** power
    for _ in range(min(count, len(own))):
        reach = np.where(np.isinf(distance), 1.0, distance)
        value = np.where(left, weight * (reach + _LEAST), -1.0)
        equal = np.flatnonzero(value == value.max())
        best = int(equal[uncertainty[equal].argmax()])
        chosen.append((best, float(reach[best])))
        left[best] = False
        distance = np.minimum(distance, np.linalg.norm(own - own[best], axis=1) / usual)
    return chosen
