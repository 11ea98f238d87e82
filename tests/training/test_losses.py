from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deeplab.errors import InputError
from deeplab.training.loss_settings import LossSettings
from deeplab.training.loss_terms import Part
from deeplab.training.losses import resize_label, segmentation_loss

CASES = [
    "plain", "downsampled_labels", "class_weights", "scalar_weight_0.5", "top_k_0.25",
    "top_k_0.9_many_zero", "top_k_0.25_class_weights", "top_k_0.25_mining_step100_global_step30",
    "top_k_0.25_mining_step100_global_step500", "all_ignored", "all_ignored_top_k",
    "two_scales_sum", "two_scales_top_k_sum",
]  # fmt: skip


def _nchw(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy()).requires_grad_()


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_the_original(reference: Path, case: str) -> None:
    folder = reference / "parity/tf_loss"
    spec = json.loads((folder / "spec.json").read_text())
    assert set(CASES) == set(spec["cases"])
    arrays, expected = np.load(folder / "outputs.npz"), spec["cases"][case]
    flags: dict[str, Any] = expected["kwargs"]
    logits = [_nchw(arrays["logits"])]
    if case.startswith("two_scales"):
        logits.append(_nchw(arrays["logits2"]))
    label = torch.from_numpy(arrays["labels"])
    if case.startswith("all_ignored"):
        label = torch.full_like(label, 255)
    weight = flags.get("loss_weight")
    if isinstance(weight, float):
        weight = [weight] * 5
    source = logits[0]
    loss = segmentation_loss(
        logits,
        label,
        part=Part(
            settings=LossSettings(
                top_k=flags.get("top_k_percent_pixels", 1.0),
                mining_steps=flags.get("hard_example_mining_step", 0),
                upsample_logits=flags.get("upsample_logits", True),
            ),
            class_weights=None if weight is None else torch.tensor(weight),
            step=int(case.rsplit("step", 1)[1]) if "global_step" in case else 0,
        ),
    )
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=2e-6)
    assert source.grad is not None
    got = source.grad.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(got, arrays[f"grad_{case}"], atol=2e-7, rtol=2e-5)


@pytest.mark.parametrize("top_k", [1.0, 0.3])
def test_crop_of_ignored_pixels_costs_nothing(top_k: float) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    part = Part(settings=LossSettings(top_k=top_k))
    loss = segmentation_loss(logits, torch.full((2, 13, 13), 255), part=part)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_parts_with_the_common_count_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 5, 6, 6, generator=generator)
    label = torch.randint(0, 5, (4, 21, 21), generator=generator, dtype=torch.uint8)
    label[0] = 255
    kept = (label != 255).sum()
    parts = [
        segmentation_loss(
            logits[some], label[some], part=Part(settings=LossSettings(), kept=kept, parts=2)
        )
        for some in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(parts), segmentation_loss(logits, label))


def test_label_resize_keeps_the_corners() -> None:
    label = torch.arange(33 * 41).reshape(1, 33, 41)
    small = resize_label(label, 9, 11)
    assert small[0, 0, 0] == 0
    assert small[0, -1, -1] == label[0, -1, -1]
    assert torch.equal(resize_label(label, 33, 41), label)
    assert resize_label(label, 1, 1).shape == (1, 1, 1)


def test_settings_of_a_batch_by_itself_may_be_named() -> None:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 3, 5, 5, generator=generator)
    label = torch.randint(0, 3, (2, 9, 9), generator=generator)
    part = Part(settings=LossSettings(top_k=0.25))
    assert segmentation_loss(logits, label, top_k=0.25) == segmentation_loss(
        logits, label, part=part
    )
    with pytest.raises(InputError, match="part: has settings of its own; leave out top_k"):
        segmentation_loss(logits, label, part=part, top_k=0.5)
