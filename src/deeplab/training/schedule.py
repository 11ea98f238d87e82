"""The learning rate of every step, as a pure function: nothing to save, nothing to resume."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from deeplab.errors import InputError, near_matches
from deeplab.training.limits import Limits


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate runs from the first step to the last.

    Attributes:
        policy: ``poly`` is base · (1 − s/S)^power, ``step`` multiplies by ``decay_factor`` every
            ``decay_every`` steps, ``cosine`` is half a cosine.
        base: learning rate at the end of the start phase.
        power: exponent of ``poly``.
        decay_every: interval of ``step``, in steps.
        decay_factor: factor of ``step``.
        end: learning rate at which ``poly`` arrives.
        decay_steps: steps in which ``poly`` arrives there; 0 means all that are left.
        start_steps: length of the start phase, in steps.
        start: learning rate of the start phase.
        start_ramp: rise linearly from ``start`` to ``base`` (warm-up) instead of staying at
            ``start`` (the original's slow start).

    Source: research/deeplab utils/train_utils.py, get_model_learning_rate.
    """

    policy: Literal["poly", "step", "cosine"] = "poly"
    base: Annotated[float, Limits(0.0, 1e15)] = 0.007
    power: Annotated[float, Limits(0.0, 100.0)] = 0.9
    decay_every: Annotated[int, Limits(1, 1e9)] = 2000
    decay_factor: Annotated[float, Limits(0.0, 1.0)] = 0.1
    end: Annotated[float, Limits(0.0, 1e15)] = 0.0
    decay_steps: Annotated[int, Limits(0, 1e9)] = 0
    start_steps: Annotated[int, Limits(0, 1e9)] = 0
    start: Annotated[float, Limits(0.0, 1e15)] = 1e-4
    start_ramp: bool = False

    def __post_init__(self) -> None:
        policies = ("poly", "step", "cosine")
        if self.policy not in policies:
            raise InputError(
                f"schedule.policy: got '{self.policy}', expected one of {', '.join(policies)}."
                f"{near_matches(self.policy, policies)}"
            )
        if not self.base > 0:
            raise InputError(f"schedule.base: got {self.base}, expected a rate above 0.")

    def learning_rate(self, step: int, total_steps: int) -> float:
        """Return the learning rate of 0-based ``step`` in a training of ``total_steps``."""
        if step < self.start_steps:
            rise = (self.base - self.start) * step / self.start_steps if self.start_ramp else 0.0
            return self.start + rise
        done = step - self.start_steps
        steps = max(total_steps - self.start_steps, 1)
        if self.policy == "step":
            return float(self.base * self.decay_factor ** (done // self.decay_every))
        if self.policy == "cosine":
            return self.base * 0.5 * (1 + math.cos(math.pi * min(done / steps, 1.0)))
        left = 1 - min(done / (self.decay_steps or steps), 1.0)
        return float((self.base - self.end) * left**self.power + self.end)
