"""What a training changes from step to step, and what a checkpoint therefore holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deeplab.errors import InputError
from deeplab.models.deeplab import DeepLab
from deeplab.training.optimiser import (
    MovingAverage,
    build_optimiser,
    check_memory,
    set_learning_rate,
)
from deeplab.training.settings import Settings
from deeplab.training.step import memory_format

Weights = dict[str, Tensor]

SIGNALLED = "a signal asked for it"


@dataclass(kw_only=True)
class Progress:
    """How far a training is; all of it is in the checkpoint.

    Attributes:
        step: steps done.
        judged: steps done at the last validation, None before the first.
        best: the best mIoU so far, None before the first validation.
        best_step: steps done then.
        stale: validations since.
        stopped: why it ended before the last step, or empty.
    """

    step: int = 0
    judged: int | None = None
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    stopped: str = ""

    @property
    def best_in_words(self) -> str:
        """What is best so far; empty before the first validation."""
        return "" if self.best is None else f"best mIoU {self.best:.4f} at {self.best_step}"

    @property
    def interrupted(self) -> bool:
        """Whether somebody ended it, and its weights are half done."""
        return self.stopped == SIGNALLED


class TrainingState:
    """Weights, optimiser, average and progress.

    Attributes:
        network: what learns.
        optimiser: of the network's parameters.
        average: of the weights over the steps, or None.
        progress: how far it is.
    """

    def __init__(self, network: DeepLab, settings: Settings, device: torch.device) -> None:
        """Move the network to its device and prepare it for the first step."""
        network.to(device).to(memory_format=memory_format(settings.run)).train()  # type: ignore[call-overload]
        network.freeze(settings.optimiser.frozen)
        self.network, self.settings = network, settings
        self.optimiser = build_optimiser(network, settings.optimiser)
        self.average: MovingAverage | None = None
        if settings.optimiser.ema_decay:
            self.average = MovingAverage(network, settings.optimiser.ema_decay)
        self.progress = Progress()
        self._start: Weights | None = None
        if settings.optimiser.start_share:
            self._start = {name: value.clone() for name, value in network.state_dict().items()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from what :meth:`to_dict` returned.

        Raises:
            InputError: it does not fit this network and optimiser.
        """
        try:
            self.network.load_state_dict(saved["network"])
            self.optimiser.load_state_dict(saved["optimiser"])
            check_memory(self.optimiser)
            if self.average is not None:
                self.average.load(saved["average"])
            self.progress = Progress(**saved["progress"])
            if self._start is not None:
                self._start = {name: saved["start"][str(name)] for name in self._start}
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                "checkpoint: last.pt does not fit this network; it is damaged, or from another "
                "version. Move it away to start anew."
            ) from error
        self.progress.stopped = ""

    def to_dict(self) -> dict[str, Any]:
        """Return all that :meth:`restore` needs, as values that a checkpoint holds."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": None if self.average is None else self.average.state,
            "progress": vars(self.progress),
            "start": self._start,
        }

    def apply_gradient(self, rate: float) -> None:
        """Take a step of ``rate`` down the gradient that has been summed up; count it."""
        set_learning_rate(self.optimiser, rate)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.network, self.progress.step)
        self.progress.step += 1

    def learned(self) -> Weights:
        """Return the weights that are judged: averaged, and blended with the first."""
        weights = dict(self.network.state_dict()) if self.average is None else self.average.state
        if self._start is None:
            return weights
        return blend(weights, self._start, self.settings.optimiser.start_share)

    @contextlib.contextmanager
    def judged(self) -> Iterator[DeepLab]:
        """Lend the network with the learned weights, in evaluation mode."""
        current = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.learned())
        self.network.eval()
        try:
            with torch.no_grad():
                yield self.network
        finally:
            self.network.load_state_dict(current)
            self.network.train()


def blend(state: Mapping[str, Tensor], other: Mapping[str, Tensor], share: float) -> Weights:
    """Return weights between two states of one network; ``share`` is the other's, 0..1."""
    return {
        name: value.lerp(other[name].to(value), share) if value.is_floating_point() else value
        for name, value in state.items()
    }
