from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deeplab.errors import InputError
from deeplab.training.schedule import Schedule


@pytest.mark.reference
@pytest.mark.parametrize(
    "case",
    ["poly", "poly_slow_start", "poly_linear_burnin", "poly_decay_steps_end", "step", "cosine"],
)
def test_learning_rate_equals_the_original(reference: Path, case: str) -> None:
    folder = reference / "parity/tf_learning_rate"
    flags = json.loads((folder / "spec.json").read_text())["cases"][case]
    expected = np.load(folder / "outputs.npz")
    schedule = Schedule(
        policy=flags["learning_policy"],
        base=flags["base_learning_rate"],
        power=flags["learning_power"],
        decay_every=flags["learning_rate_decay_step"],
        decay_factor=flags["learning_rate_decay_factor"],
        end=flags.get("end_learning_rate", 0.0),
        decay_steps=int(flags.get("decay_steps", 0)),
        start_steps=flags["slow_start_step"],
        start=flags["slow_start_learning_rate"],
        start_ramp=flags.get("slow_start_burnin_type") == "linear",
    )
    got = [
        schedule.learning_rate(int(step), flags["training_number_of_steps"])
        for step in expected["steps"]
    ]
    # The original computes 1 - s/S in float32: near the end that leaves an absolute error.
    np.testing.assert_allclose(got, expected[case], rtol=2e-6, atol=2e-7 * schedule.base)


def test_unknown_policy_names_the_near_match() -> None:
    with pytest.raises(InputError, match=r"policy: got 'polly'.*Did you mean 'poly'"):
        Schedule(policy="polly")  # type: ignore[arg-type]


def test_last_step_is_still_positive() -> None:
    assert Schedule().learning_rate(99, 100) > 0
