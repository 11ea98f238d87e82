"""Frames that wait for one device, answered together.

A GPU takes little longer for eight frames than for one. So whoever comes while it works waits in
line, and the next run takes all that wait. Nobody waits for company: a lone frame runs at once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

from deeplab.errors import DeepLabError
from deeplab.runtimes.network import CardNetwork, Float32, Frame, Network

LARGEST_BATCH = 16


class BatchNetwork(Network, Protocol):
    """A network that answers several frames in one run."""

    def run_batch(self, frames: Sequence[Frame]) -> list[Float32]:
        """Return the answer to each frame; all have the same shape."""
        ...


def likes_batches(network: Network) -> TypeGuard[BatchNetwork]:
    """Return whether several frames at once are faster than one after the other.

    On the CPU they are not: single frames on each core are as fast, and need less memory.
    """
    return network.device != "cpu" and hasattr(network, "run_batch")


class GatheredNetwork(CardNetwork):
    """A network for many threads at once: what waits at the same time runs as one batch."""

    def __init__(self, network: BatchNetwork) -> None:
        super().__init__(network)
        self.device = network.device
        self._network = network
        self._largest = LARGEST_BATCH
        self._line: list[_Waiting] = []
        self._line_lock, self._device_lock = threading.Lock(), threading.Lock()

    def __call__(self, frame: Frame) -> Float32:
        """Run one frame, together with those of other threads that wait.

        Raises:
            DeepLabError: the device cannot run it even alone.
        """
        mine = _Waiting(frame)
        with self._line_lock:
            self._line.append(mine)
        while mine.answer is None and mine.error is None:
            with self._device_lock:
                if mine.answer is None and mine.error is None:
                    self._run_first()
        if mine.error is not None:
            raise mine.error
        assert mine.answer is not None
        return mine.answer

    def _run_first(self) -> None:
        """Answer the first in line, and those behind it whose frames have its shape."""
        with self._line_lock:
            shape = self._line[0].frame.shape
            group = [one for one in self._line if one.frame.shape == shape][: self._largest]
        try:
            answers = self._network.run_batch([one.frame for one in group])
        except DeepLabError as error:
            if len(group) > 1:  # most often the device's memory: they try again, fewer at once
                self._largest = len(group) // 2
                return
            group[0].error = error
        else:
            for one, answer in zip(group, answers, strict=True):
                one.answer = answer
        with self._line_lock:  # only now: an interrupted run leaves nobody without an answer
            self._line = [one for one in self._line if one.answer is None and one.error is None]


@dataclass(eq=False)
class _Waiting:
    frame: Frame
    answer: Float32 | None = None
    error: DeepLabError | None = None
