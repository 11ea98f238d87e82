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
            ``decay_every`` steps, ``multi_step`` after each of ``milestones``, ``cosine`` is half a
            cosine, ``one_cycle`` half a cosine up from base / 25, and one down to a ten thousandth
            of that (1708.07120; torch's OneCycleLR).
        base: learning rate at the end of the start phase.
        power: exponent of ``poly``.
        decay_every: interval of ``step``, in steps.
        decay_factor: factor of ``step`` and ``multi_step``.
        milestones: steps of ``multi_step``, ascending.
        rise: share of the steps, 0..1, in which ``one_cycle`` rises.
        end: learning rate at which ``poly`` and ``cosine`` arrive.
        decay_steps: steps in which ``poly`` arrives there; 0 means all that are left.
        start_steps: length of the start phase, in steps.
        start: learning rate of the start phase.
        start_ramp: rise linearly from ``start`` to ``base`` (warm-up) instead of staying at
            ``start`` (the original's slow start).

    Source: research/deeplab utils/train_utils.py, get_model_learning_rate.
    """

    policy: Literal["poly", "step", "multi_step", "cosine", "one_cycle"] = "poly"
    base: Annotated[float, Limits(0.0, 1e15)] = 0.007
    power: Annotated[float, Limits(0.0, 100.0)] = 0.9
    decay_every: Annotated[int, Limits(1, 1e9)] = 2000
    decay_factor: Annotated[float, Limits(0.0, 1.0)] = 0.1
    milestones: Annotated[tuple[int, ...], Limits(1, 1e9)] = ()
    rise: Annotated[float, Limits(0.0, 1.0)] = 0.3
    end: Annotated[float, Limits(0.0, 1e15)] = 0.0
    decay_steps: Annotated[int, Limits(0, 1e9)] = 0
    start_steps: Annotated[int, Limits(0, 1e9)] = 0
    start: Annotated[float, Limits(0.0, 1e15)] = 1e-4
    start_ramp: bool = False

    def __post_init__(self) -> None:
        policies = ("poly", "step", "multi_step", "cosine", "one_cycle")
        if self.policy not in policies:
            raise InputError(
                f"schedule.policy: got '{self.policy}', expected one of {', '.join(policies)}."
                f"{near_matches(self.policy, policies)}"
            )
        if not self.base > 0:
            raise InputError(f"schedule.base: got {self.base}, expected a rate above 0.")
        if bool(self.milestones) != (self.policy == "multi_step"):
            raise InputError(
                f"schedule.milestones: got {list(self.milestones)} for '{self.policy}'; multi_step "
                "needs some, the others none."
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise InputError(
                f"schedule.milestones: got {list(self.milestones)}, expected steps that ascend."
            )
        if self.policy == "one_cycle" and (self.start_steps or self.end):
            raise InputError(
                "schedule.one_cycle: rises and ends by itself; leave start_steps and end out."
            )

    def learning_rate(self, step: int, total_steps: int) -> float:
        """Return the learning rate of 0-based ``step`` in a training of ``total_steps``."""
        if step < self.start_steps:
            rise = (self.base - self.start) * step / self.start_steps if self.start_ramp else 0.0
            return self.start + rise
        done = step - self.start_steps
        steps = max(total_steps - self.start_steps, 1)
        if self.policy == "step":
            return float(self.base * self.decay_factor ** (done // self.decay_every))
        if self.policy == "multi_step":
            return float(self.base * self.decay_factor ** sum(step >= at for at in self.milestones))
        if self.policy == "cosine":
            return self._cosine(self.base, self.end, done / steps)
        if self.policy == "one_cycle":
            low, top = self.base / 25, self.rise * total_steps - 1
            if done <= top:
                return self._cosine(low, self.base, done / max(top, 1))
            return self._cosine(self.base, low / 1e4, (done - top) / max(steps - 1 - top, 1))
        left = 1 - min(done / (self.decay_steps or steps), 1.0)
        return float((self.base - self.end) * left**self.power + self.end)

    @staticmethod
    def _cosine(first: float, last: float, share: float) -> float:
        return (first - last) * 0.5 * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0))) + last
