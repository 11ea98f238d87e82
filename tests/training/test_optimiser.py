"""Optimisers, schedules and rates against torch's and the published programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_network, tiny_settings

from deeplab.errors import InputError
from deeplab.training.lion import Lion
from deeplab.training.optimiser import build_optimiser
from deeplab.training.schedule import Schedule


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (
            Schedule(policy="one_cycle", base=0.3, rise=0.3),
            lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.3, total_steps=40),
        ),
        (
            Schedule(policy="multi_step", base=0.3, milestones=(5, 20), decay_factor=0.2),
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [5, 20], gamma=0.2),
        ),
        (
            Schedule(policy="cosine", base=0.3, end=0.01),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40, eta_min=0.01),
        ),
    ],
    ids=["one_cycle", "multi_step", "cosine"],
)
def test_a_schedule_is_torchs(schedule: Schedule, make: Any) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = make(optimiser)
    for step in range(40):
        rate = schedule.learning_rate(step, 40)
        assert rate == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9), step
        optimiser.step()
        if step < 39:
            theirs.step()


def test_lion_is_the_published_program() -> None:
    random = np.random.default_rng(0)
    weight, momentum = random.normal(size=5).astype(np.float32), np.zeros(5, np.float32)
    parameter = torch.from_numpy(weight.copy()).requires_grad_()
    lion = Lion([parameter], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    for _ in range(6):
        gradient = random.normal(size=5).astype(np.float32)
        update = np.sign(momentum * 0.9 + gradient * 0.1)
        momentum = momentum * np.float32(0.99) + gradient * np.float32(0.01)
        weight = weight - 0.1 * (update + 0.5 * weight)
        parameter.grad = torch.from_numpy(gradient)
        lion.step()
    np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW), ("lion", Lion)]
)
def test_an_optimiser_by_name(name: str, kind: type) -> None:
    settings = tiny_settings(optimiser={"name": name}, schedule={"base": 1e-3})
    assert type(build_optimiser(tiny_network(settings), settings.optimiser)) is kind


def test_layers_and_named_parts_learn_at_their_rates() -> None:
    settings = tiny_settings(
        optimiser={"layer_decay": 0.5, "rates": {"classifier": 3.0}, "bias_multiplier": 1.0}
    )
    network = tiny_network(settings)
    rates = {
        id(parameter): group["multiplier"]
        for group in build_optimiser(network, settings.optimiser).param_groups
        for parameter in group["params"]
    }
    named = {name: rates[id(value)] for name, value in network.named_parameters()}
    early = [rate for name, rate in named.items() if name.startswith("backbone.")]
    assert early == sorted(early)
    assert early[-1] == 0.5
    assert early[0] == 0.5 ** len(set(early))
    assert len(set(early)) > 10
    assert named["classifier.weight"] == 3.0
    assert {rate for name, rate in named.items() if name.startswith("head.")} == {1.0}
    wrong = tiny_settings(optimiser={"rates": {"clasifier": 3.0}})
    with pytest.raises(InputError, match=r"no part 'clasifier'\. Did you mean 'classifier'"):
        build_optimiser(network, wrong.optimiser)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"optimiser": {"name": "adamv"}}, r"optimiser\.name: got 'adamv'.*mean 'adamw'"),
        (
            {"optimiser": {"name": "adamw", "momentum": 0.8}, "schedule": {"base": 1e-4}},
            r"optimiser\.momentum: is sgd's",
        ),
        ({"optimiser": {"betas": [0.9, 0.99]}}, r"optimiser\.betas: .* for sgd"),
        ({"optimiser": {"name": "lion"}, "schedule": {}}, r"schedule\.base: .*lion wants .* 3e-5"),
        ({"schedule": {"policy": "multi_step"}}, r"schedule\.milestones: got \[\]"),
        ({"schedule": {"milestones": [3]}}, r"schedule\.milestones: got \[3\] for 'poly'"),
        ({"schedule": {"policy": "multi_step", "milestones": [5, 3]}}, r"that ascend"),
        ({"schedule": {"policy": "one_cycle", "start_steps": 3}}, r"leave start_steps"),
    ],
)
def test_what_does_not_fit_is_refused(tables: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiny_settings(**tables)
