"""Batches for training, the same ones however many workers make them.

Which pairs are in step ``s``, and how each is cropped, is a function of (seed, s) alone. So a run
that resumes at step ``s`` sees what it would have seen, and two ranks together see what one rank
with the joint batch sees.
"""

from __future__ import annotations

import functools
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from deeplab.data.mixing import Augmented
from deeplab.data.sample import Dataset, Sample
from deeplab.data.transforms import TrainTransform
from deeplab.errors import DataError, DeepLabError, InputError

Place: TypeAlias = tuple[int, int]  # (epoch, index)

_PREFETCHED_BATCHES = 4  # per worker; rides out a run of large photos
_NEWS_OF_A_DEATH = 5.0  # seconds that the system may take to tell of a worker's end


class Batch(NamedTuple):
    """Pictures of one size.

    Attributes:
        image: (B, 3, H, W) uint8 RGB, not normalised, channels last in memory; of other pictures
            (B, C, H, W) uint8 or float32.
        label: (B, H, W) uint8 class ids, 255 = ignored; (B, K, H, W) where classes
            overlap. Losses want int64: convert it on the device, so that bytes travel.
        ids: the names of the pairs.
    """

    image: torch.Tensor
    label: torch.Tensor
    ids: tuple[str, ...]


class Order:
    """Which pairs are in which step: every epoch is one permutation, epochs follow seamlessly.

    Args:
        length: pairs in the data set.
        batch_size: pairs in one step of one rank.
        seed: any non-negative number.
        rank: this process among those that share a step.
        world_size: how many share it.
    """

    def __init__(
        self, length: int, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if length < 1:
            raise DataError("data set: it holds no pairs.")
        if batch_size < 1:
            raise InputError(f"batch_size: got {batch_size}, expected at least 1.")
        if not 0 <= rank < world_size:
            raise InputError(f"rank: got {rank} of {world_size}, expected 0 to {world_size - 1}.")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self._rank, self._world_size = rank, world_size
        self._permutation = functools.lru_cache(maxsize=2)(self._permute)

    def step(self, step: int) -> list[Place]:
        """Return the (epoch, index) of every pair in one step of this rank."""
        first = (step * self._world_size + self._rank) * self.batch_size
        places = (divmod(place, self.length) for place in range(first, first + self.batch_size))
        return [(epoch, int(self._permutation(epoch)[rank])) for epoch, rank in places]

    def _permute(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.length)


class Loader:
    """An iterable of batches; errors of data workers arrive as themselves."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        with warnings.catch_warnings():  # more workers than cores: the recipe says so
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            batches = iter(self._loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (OSError, EOFError, RuntimeError) as error:
                # A worker that dies as it hands over a batch breaks the line before the system
                # says that it died. PyTorch's handler of that signal raises it in words, here
                # rather than somewhere in what follows.
                if self._loader.num_workers and "DataLoader worker" not in str(error):
                    time.sleep(_NEWS_OF_A_DEATH)
                    # No news of who died come where something else asked the system first.
                    dead = [w.pid for w in getattr(batches, "_workers", ()) if not w.is_alive()]
                    if dead:
                        raise RuntimeError(
                            f"DataLoader worker (pid(s) {', '.join(map(str, dead))}) exited "
                            "unexpectedly."
                        ) from error
                raise
            if isinstance(batch, DeepLabError):
                raise batch
            yield batch


def train_loader(
    dataset: Dataset,
    transform: TrainTransform | Augmented,
    *,
    batch_size: int,
    steps: int,
    seed: int,
    first_step: int = 0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """Return the batches of steps ``first_step`` to ``steps`` - 1.

    Args:
        dataset: what to read.
        transform: what to do to each pair; its generator is a function of (seed, epoch, index).
        batch_size: pairs in one step of one rank.
        steps: steps of the whole run.
        seed: any non-negative number.
        first_step: where to resume.
        workers: processes that read ahead; 0 reads in this one.
        rank: this process among those that share a step.
        world_size: how many share it.
        pin_memory: for copies to a GPU that do not wait.

    Raises:
        InputError, DataError: see :class:`Order`; iterating raises what reading a pair raises.
    """
    order = Order(len(dataset), batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
    return Loader(
        DataLoader(
            _Training(dataset, transform, seed),
            batch_sampler=_Steps(order, first_step, steps),
            collate_fn=_collate,
            num_workers=workers,
            prefetch_factor=_PREFETCHED_BATCHES if workers else None,
            pin_memory=pin_memory,
            worker_init_fn=_ignore_signals,
        )
    )


def _ignore_signals(worker: int) -> None:
    """Leave the end of a training to the main process: workers end when it does.

    Ctrl-C and ``docker stop`` reach the whole group of processes, and a training whose workers
    are dead cannot end its step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class _Steps:
    """The places of every step, as a batch sampler."""

    def __init__(self, order: Order, first: int, end: int) -> None:
        self._order, self._steps = order, range(first, end)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[Place]]:
        return map(self._order.step, self._steps)


class _Training(TorchDataset[Any]):
    def __init__(self, dataset: Dataset, transform: TrainTransform | Augmented, seed: int) -> None:
        self._dataset, self._transform, self._seed = dataset, transform, seed

    def __getitem__(self, place: Place) -> Sample | DeepLabError:
        epoch, index = place
        generator = np.random.default_rng([self._seed, epoch, index])
        try:
            sample = self._dataset[index]
            if isinstance(self._transform, Augmented):
                return self._transform(sample, generator, self._draw)
            return self._transform(sample, generator)
        except DeepLabError as error:
            return error

    def _draw(self, generator: np.random.Generator) -> Sample:
        return self._dataset[int(generator.integers(len(self._dataset)))]


def _collate(samples: Sequence[Sample | DeepLabError]) -> Batch | DeepLabError:
    """Stack samples; an error among them travels instead of the batch."""
    for sample in samples:
        if isinstance(sample, DeepLabError):
            return sample
    good = [sample for sample in samples if isinstance(sample, Sample)]
    image = torch.from_numpy(np.stack([sample.image for sample in good]))
    label = torch.from_numpy(np.stack([sample.label for sample in good]))
    if label.ndim == 4:
        label = label.permute(0, 3, 1, 2).contiguous()
    return Batch(image.permute(0, 3, 1, 2), label, tuple(sample.id for sample in good))
