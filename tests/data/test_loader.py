"""Batches do not depend on who makes them, nor on where a run began."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab.data import FileDataset, loader, open_dataset
from deeplab.data.loader import Batch, Loader, Order, train_loader
from deeplab.data.memory import MemoryDataset
from deeplab.data.transforms import TrainTransform
from deeplab.errors import DataError, InputError

TRANSFORM = TrainTransform(crop_size=(17, 25))


@pytest.fixture
def dataset(tmp_path: Path) -> FileDataset:
    draw = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(7):
        size = (20 + index, 30)
        photo = draw.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(photo).save(tmp_path / "images" / f"{index}.png")
        mask = draw.integers(0, 3, size, dtype=np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    return open_dataset(tmp_path, split="all")


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.image, b.image) and torch.equal(a.label, b.label) and a.ids == b.ids
        for a, b in zip(first, second, strict=True)
    )


def train(dataset: FileDataset | MemoryDataset, **options: int) -> Loader:
    settings = {"batch_size": 2, "steps": 9, "seed": 3, **options}
    return train_loader(dataset, TRANSFORM, **settings)


def test_batches_are_what_the_trainer_wants(dataset: FileDataset) -> None:
    batch = next(iter(train(dataset)))
    assert batch.image.shape == (2, 3, 17, 25)
    assert batch.image.dtype == torch.uint8
    assert batch.image.is_contiguous(memory_format=torch.channels_last)
    assert batch.label.shape == (2, 17, 25)
    assert batch.label.dtype == torch.uint8
    assert len(batch.ids) == 2


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a single core
def test_workers_and_memory_change_nothing(dataset: FileDataset) -> None:
    alone = list(train(dataset))
    assert len(alone) == 9
    assert equal(alone, list(train(dataset, workers=2)))
    for max_bytes in (0, 9000, 10**6):
        memory = MemoryDataset(dataset, max_bytes=max_bytes)
        assert memory.bytes <= max_bytes
        assert equal(alone, list(train(memory)))
    assert memory.kept == len(memory) == 7
    assert not equal(alone, list(train(dataset, seed=4)))


def test_a_resumed_run_sees_what_it_would_have_seen(dataset: FileDataset) -> None:
    assert equal(list(train(dataset))[5:], list(train(dataset, first_step=5)))


def test_ranks_together_are_one_joint_batch(dataset: FileDataset) -> None:
    joint = list(train(dataset, batch_size=4))
    ranks = [list(train(dataset, rank=rank, world_size=2)) for rank in range(2)]
    for whole, first, second in zip(joint, *ranks, strict=True):
        assert torch.equal(whole.image, torch.cat([first.image, second.image]))
        assert whole.ids == first.ids + second.ids


def test_every_epoch_is_one_permutation() -> None:
    order = Order(7, batch_size=3, seed=0)
    places = [place for step in range(14) for place in order.step(step)]
    for epoch in range(6):
        mine = [index for number, index in places if number == epoch]
        assert sorted(mine) == list(range(7))
    first, second = ([i for e, i in places if e == epoch] for epoch in (0, 1))
    assert first != second


def test_crops_differ_between_epochs(dataset: FileDataset) -> None:
    batches = list(train(dataset, batch_size=7, steps=2))
    first, second = (dict(zip(b.ids, b.image, strict=True)) for b in batches)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_errors_of_workers_arrive_as_themselves(dataset: FileDataset) -> None:
    dataset.masks[4].write_bytes(b"no mask")
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"4\.png: the mask cannot be read"):
            list(train(dataset, workers=workers))


def test_a_line_that_breaks_waits_for_the_news_of_a_death() -> None:
    class Broken:
        num_workers = 1

        def __iter__(self) -> Iterator[Batch]:
            raise ConnectionResetError("reset by peer")
            yield

    def died(number: int, frame: object) -> None:
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    before = signal.signal(signal.SIGALRM, died)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(RuntimeError, match="pid 1"):
            list(Loader(cast("Any", Broken())))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_death_of_which_no_news_comes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead:
        pid = 7

        def is_alive(self) -> bool:
            return False

    class Batches:
        _workers = (Dead(),)

        def __next__(self) -> Batch:
            raise ConnectionResetError("reset by peer")

    class Broken:
        num_workers = 1

        def __iter__(self) -> Any:
            return Batches()

    monkeypatch.setattr(loader, "_NEWS_OF_A_DEATH", 0.0)
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid\(s\) 7\) exited"):
        list(Loader(cast("Any", Broken())))


def test_wrong_settings_are_refused(dataset: FileDataset) -> None:
    with pytest.raises(DataError, match="no pairs"):
        Order(0, batch_size=1, seed=0)
    with pytest.raises(InputError, match="batch_size: got 0"):
        train(dataset, batch_size=0)
    with pytest.raises(InputError, match="rank: got 2 of 2"):
        train(dataset, rank=2, world_size=2)
