"""One process or many: what ``torchrun`` started, and the few things they say to each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from deeplab.errors import DeepLabError, InputError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """Where this process stands among those that train together.

    Attributes:
        rank: 0-based number of this process.
        count: how many there are.
        device: where this one computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the files and speaks to the person."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, on each of them."""
        if self.count > 1:
            value = value.to(self.device, copy=True)
            dist.all_reduce(value)
        return value

    def join(self, value: Tensor) -> Tensor:
        """Return what all processes have, one after the other, with the gradient of this one's.

        Args:
            value: (n, …), n being the same on each of them.
        """
        if self.count == 1:
            return value
        every = [torch.empty_like(value) for _ in range(self.count)]
        dist.all_gather(every, value.detach().contiguous())
        every[self.rank] = value
        return torch.cat(every)

    def together(self, work: Callable[[], Result]) -> Result:
        """Return the result of some work; where it failed on one process, all of them fail.

        Raises:
            DeepLabError: what the work raised here, or in words what it raised on another process.
        """
        result, error = None, None
        try:
            result = work()
        except DeepLabError as caught:
            error = caught
        # Not every error can travel; its words can.
        words = [one for one in self.gather(error and str(error)) if one is not None]
        if words:
            raise error or InputError(words[0])
        return cast("Result", result)

    def share_buffers(self, network: nn.Module) -> None:
        """Give all processes the batch norm statistics of the first."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any process."""
        return bool(self.sum(torch.tensor(int(flag))).item())

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in order of rank, on each of them."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values


@contextmanager
def join_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, or stay alone where it did not.

    Args:
        device: ``auto`` takes a GPU where there is one, else the CPU.

    Raises:
        InputError: ``cuda`` is asked for and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise InputError("run.device: got 'cuda', but torch sees no GPU; use 'auto' or 'cpu'.")
    on_gpu = has_gpu and device != "cpu"
    count = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    if count == 1:
        yield Processes(0, 1, place)
        return
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Processes(rank, count, place)
    finally:
        dist.destroy_process_group()
