"""The terms of the loss against their published definitions, pixel by pixel in plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deeplab.errors import InputError
from deeplab.training.loss_settings import NAMES, LossSettings
from deeplab.training.loss_terms import TERMS, Part, distance_to
from deeplab.training.losses import segmentation_loss

WEIGHTS = (1.0, 2.5, 0.5)
ADDITIVE = ("cross_entropy", "bce", "focal", "boundary")


def _case(*, overlap: bool = False, pictures: int = 2) -> tuple[Tensor, Tensor]:
    """Logits of three classes, and labels that hold ignored pixels and leave a class out."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(pictures, 3, 5, 4, generator=random, dtype=torch.float32)
    shape = (pictures, 3, 5, 4) if overlap else (pictures, 5, 4)
    label = torch.randint(0, 2 if overlap else 3, shape, generator=random, dtype=torch.uint8)
    label[torch.rand(shape, generator=random) < 0.2] = 255
    label[0][label[0] == 2] = 0
    return logits.requires_grad_(), label


def _loss(name: str, logits: Tensor, label: Tensor, **options: Any) -> Tensor:
    part = {key: options.pop(key) for key in ("kept", "parts", "class_weights") if key in options}
    settings = LossSettings(terms={name: 1.0}, **options)
    return segmentation_loss(logits, label, part=Part(settings=settings, **part))


def _entries(
    logits: Tensor, label: Tensor
) -> Iterator[tuple[int, int, list[tuple[int, int, int, float, float]]]]:
    """Yield (picture, class, [(row, column, truth, probability, logit)]) of what is labelled."""
    overlap = label.ndim == 4
    probability = logits.sigmoid() if overlap else logits.softmax(1)
    for n in range(len(label)):
        for k in range(logits.shape[1]):
            found = []
            for y in range(logits.shape[2]):
                for x in range(logits.shape[3]):
                    value = int(label[n, k, y, x] if overlap else label[n, y, x])
                    if value != 255:
                        truth = value if overlap else int(value == k)
                        p, z = probability[n, k, y, x].item(), logits[n, k, y, x].item()
                        found.append((y, x, truth, p, z))
            yield n, k, found


def _mean(values: list[float], weights: list[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def _overlap(logits: Tensor, label: Tensor, alpha: float, over: str) -> float:
    sums: dict[tuple[int, int], list[float]] = {}
    for n, k, entries in _entries(logits, label):
        place = sums.setdefault((n if over == "picture" else 0, k), [0.0, 0.0, 0.0, 0.0])
        for _, _, truth, p, _ in entries:
            for i, part in enumerate((p * truth, p * (1 - truth), (1 - p) * truth, truth)):
                place[i] += part
    losses = []
    for n in sorted({n for n, _ in sums}):
        pairs = [
            (1 - both / (both + alpha * false + (1 - alpha) * missed), WEIGHTS[k])
            for (m, k), (both, false, missed, true) in sums.items()
            if m == n and true
        ]
        losses.append(_mean(*map(list, zip(*pairs, strict=True))))
    return sum(losses) / len(losses)


def _lovasz(logits: Tensor, label: Tensor, over: str) -> float:
    """The extension by its definition: errors times what 1 − IoU gains as pixels are added."""
    groups: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for n, k, entries in _entries(logits, label):
        place = groups.setdefault((n if over == "picture" else 0, k), [])
        for _, _, truth, p, z in entries:
            hinge = max(0.0, 1 - z * (2 * truth - 1))
            place.append((hinge if label.ndim == 4 else abs(truth - p), truth))
    losses = []
    for n in sorted({n for n, _ in groups}):
        values, weights = [], []
        for (m, k), pixels in groups.items():
            total = sum(truth for _, truth in pixels)
            if m != n or (label.ndim == 3 and not total):
                continue
            value, before, wrong, missed = 0.0, 0.0, 0, 0
            for error, truth in sorted(pixels, reverse=True):
                missed, wrong = missed + truth, wrong + 1 - truth
                jaccard = 1 - (total - missed) / (total + wrong)
                value, before = value + error * (jaccard - before), jaccard
            values.append(value)
            weights.append(WEIGHTS[k])
        losses.append(_mean(values, weights))
    return sum(losses) / len(losses)


def _by_definition(name: str, logits: Tensor, label: Tensor, over: str) -> float:
    if name in ("dice", "tversky"):
        return _overlap(logits, label, 0.5 if name == "dice" else 0.3, over)
    if name == "lovasz":
        return _lovasz(logits, label, over)
    total, count = 0.0, 0
    for _, k, entries in _entries(logits, label):
        inside = [(y, x) for y, x, truth, _, _ in entries if truth]
        outside = [(y, x) for y, x, truth, _, _ in entries if not truth]
        for y, x, truth, p, z in entries:
            count += 1
            p = 1 / (1 + math.exp(-z)) if name == "bce" else p
            right = p if truth else 1 - p
            if name == "bce":
                total -= WEIGHTS[k] * math.log(right)
            elif name == "boundary" and inside and outside:
                nearest = min(math.dist((y, x), other) for other in (outside if truth else inside))
                total += WEIGHTS[k] * p * (1 - nearest if truth else nearest)
            elif name == "cross_entropy" or (name == "focal" and label.ndim == 3):
                hard = 1.0 if name == "cross_entropy" else (1 - p) ** 2
                total -= truth * WEIGHTS[k] * hard * math.log(p)
            elif name == "focal":
                total -= WEIGHTS[k] * (1 - right) ** 2 * math.log(right)
    pixels = name == "cross_entropy" or (name == "focal" and label.ndim == 3)
    return total / (count / 3 if pixels else count)


@pytest.mark.parametrize("overlap", [False, True], ids=["classes", "overlapping"])
@pytest.mark.parametrize("name", NAMES)
def test_a_term_is_its_definition_with_class_weights_and_ignored_pixels(
    name: str, overlap: bool
) -> None:
    logits, label = _case(overlap=overlap)
    if overlap and name == "cross_entropy":
        with pytest.raises(InputError, match=r"cross_entropy: .*overlap; take bce"):
            _loss(name, logits, label)
        return
    weights = torch.tensor(WEIGHTS)
    for over in ("step", "picture") if name not in ADDITIVE else ("step",):
        loss = _loss(name, logits, label, class_weights=weights, over=over)
        assert loss.item() == pytest.approx(_by_definition(name, logits, label, over), rel=1e-5)


@pytest.mark.parametrize("overlap", [False, True], ids=["classes", "overlapping"])
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_small_differences(name: str, overlap: bool) -> None:
    if overlap and name == "cross_entropy":
        return
    logits, label = _case(overlap=overlap, pictures=1)
    _loss(name, logits, label).backward()
    assert logits.grad is not None
    for place in ((0, 0, 0, 0), (0, 1, 2, 1), (0, 1, 4, 3)):
        ends = []
        for step in (2e-3, -2e-3):
            moved = logits.detach().clone()
            moved[place] += step
            ends.append(_loss(name, moved, label).item())
        assert logits.grad[place].item() == pytest.approx((ends[0] - ends[1]) / 4e-3, abs=5e-4)


@pytest.mark.parametrize("overlap", [False, True], ids=["classes", "overlapping"])
@pytest.mark.parametrize("name", NAMES)
def test_ignored_pixels_have_no_gradient_and_a_batch_of_them_costs_nothing(
    name: str, overlap: bool
) -> None:
    if overlap and name == "cross_entropy":
        return
    logits, label = _case(overlap=overlap)
    _loss(name, logits, label).backward()
    assert logits.grad is not None
    ignored = (label == 255) if overlap else (label == 255)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any()
    assert torch.isfinite(logits.grad).all()
    logits.grad = None
    loss = _loss(name, logits, torch.full_like(label, 255))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_step_add_up_to_the_step(name: str) -> None:
    logits, label = _case(pictures=4)
    over = {} if name in ADDITIVE else {"over": "picture"}
    whole = _loss(name, logits, label, **over)
    kept = (label != 255).sum()
    pieces = [
        _loss(name, logits[part], label[part], kept=kept, parts=2, **over)
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(sum(pieces), whole)


def test_terms_are_summed_with_their_weights_and_smoothed() -> None:
    logits, label = _case()
    parts = {"cross_entropy": 1.0, "dice": 0.5, "boundary": 0.01}
    one_by_one = sum(weight * _loss(name, logits, label) for name, weight in parts.items())
    together = segmentation_loss(logits, label, part=Part(settings=LossSettings(terms=parts)))
    torch.testing.assert_close(together, one_by_one)
    smooth = LossSettings(label_smoothing=0.3)
    expected = torch.nn.functional.cross_entropy(
        logits, label.long(), ignore_index=255, label_smoothing=0.3
    )
    got = segmentation_loss(logits, label, part=Part(settings=smooth))
    torch.testing.assert_close(got, expected)


def test_a_sure_right_answer_costs_nothing_and_its_gradient_is_a_number() -> None:
    label = torch.tensor([[[0, 1], [2, 255]]], dtype=torch.uint8)
    for name in set(NAMES) - {"boundary"}:
        logits = torch.full((1, 3, 2, 2), -200.0)
        for y, x in ((0, 0), (0, 1), (1, 0)):
            logits[0, int(label[0, y, x]), y, x] = 200.0
        logits.requires_grad_()
        loss = _loss(name, logits, label)
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-6), name
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all(), name


def test_distances_are_those_of_all_pairs() -> None:
    random = np.random.default_rng(0)
    for shape in ((7, 9), (1, 6), (5, 1)):
        places = random.random(shape) < 0.2
        places[0, 0] = True
        points = np.argwhere(places)
        grid = np.stack(np.mgrid[: shape[0], : shape[1]], -1).reshape(-1, 1, 2)
        expected = np.sqrt(((grid - points) ** 2).sum(-1)).min(1).reshape(shape)
        np.testing.assert_allclose(distance_to(torch.from_numpy(places)), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"terms": {"dise": 1.0}}, r"loss\.terms\.dise: .*Did you mean 'dice'"),
        ({"terms": {"dice": 0.0}}, r"loss\.terms: all weights are 0"),
        ({"terms": {"dice": 1.0}, "top_k": 0.5}, r"loss\.top_k: got 0\.5, but none of the terms"),
        ({"terms": {"dice": 1.0}, "label_smoothing": 0.1}, r"loss\.label_smoothing: "),
        ({"focal_gamma": 3.0}, r"loss\.focal_gamma: got 3\.0"),
        ({"tversky_alpha": 0.5}, r"loss\.tversky_alpha: "),
        ({"over": "picture"}, r"loss\.over: "),
        ({"auxiliary": 0.4, "every_scale": True}, r"loss\.auxiliary: "),
    ],
)
def test_what_no_term_reads_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LossSettings(**options)


def test_every_name_has_its_term() -> None:
    assert tuple(TERMS) == NAMES
