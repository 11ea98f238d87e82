"""Batches a second: this package's loader against a loader as the tutorials write it.

    python benchmarks/loader.py --data CamVid --crop 369x481 --workers 2

Both read the same pairs, scale by one of 0.5, 0.75, …, 2, crop, mirror, and stack. The tutorial's
does it with Pillow, makes float32 and normalises on the CPU; ours stays uint8. "in memory" is ours
with the decoded pairs kept. The contenders run in turn, so that a busy machine slows all.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from deeplab.benchmark.interleave import interleave
from deeplab.benchmark.machine import machine
from deeplab.data import FileDataset, open_dataset
from deeplab.data.loader import train_loader
from deeplab.data.memory import MemoryDataset
from deeplab.data.transforms import TrainTransform

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


class Tutorial(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Photo and mask through Pillow to float32 NCHW and int64, as in most training scripts."""

    def __init__(self, dataset: FileDataset, crop: tuple[int, int]) -> None:
        self.dataset, self.crop = dataset, crop

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = Image.open(self.dataset.images[index]).convert("RGB")
        mask = Image.open(self.dataset.masks[index])
        scale = random.choice([0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0])
        size = (int(image.width * scale), int(image.height * scale))
        image = image.resize(size, Image.Resampling.BILINEAR)
        mask = mask.resize(size, Image.Resampling.NEAREST)
        height, width = self.crop
        right, below = max(0, width - size[0]), max(0, height - size[1])
        image = ImageOps.expand(image, (0, 0, right, below), fill=(124, 116, 104))
        mask = ImageOps.expand(mask, (0, 0, right, below), fill=255)
        x = random.randint(0, image.width - width)
        y = random.randint(0, image.height - height)
        image = image.crop((x, y, x + width, y + height))
        mask = mask.crop((x, y, x + width, y + height))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = (np.asarray(image, np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), torch.from_numpy(
            np.array(mask, np.int64)
        )


def endless(loader: DataLoader[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[object]:
    """Batches without end."""
    while True:
        yield from loader


def main() -> None:
    """Time all contenders and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of a data set")
    parser.add_argument("--split", default="train")
    parser.add_argument("--crop", default="513x513", help="HEIGHTxWIDTH")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batches", type=int, default=4, help="per round")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    height, width = map(int, options.crop.split("x"))
    torch.set_num_threads(1)
    dataset = open_dataset(options.data, split=options.split)
    memory = MemoryDataset(dataset, max_bytes=4 << 30)
    transform = TrainTransform(crop_size=(height, width))
    streams: dict[str, Iterator[object]] = {
        "tutorial": endless(
            DataLoader(
                Tutorial(dataset, (height, width)),
                batch_size=options.batch_size,
                shuffle=True,
                drop_last=True,
                num_workers=options.workers,
            )
        )
    }
    for name, source in (("ours", dataset), ("ours, in memory", memory)):
        loader = train_loader(
            source,
            transform,
            batch_size=options.batch_size,
            steps=10**9,
            seed=0,
            workers=options.workers,
        )
        streams[name] = iter(loader)

    def take(stream: Iterator[object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(options.batches):
                next(stream)

        return run

    times = interleave({n: take(s) for n, s in streams.items()}, rounds=options.rounds)
    print(f"{machine()}; torch {torch.__version__}; {options.workers} workers")
    print(f"{options.data.name}, crop {height}×{width}, batch {options.batch_size}")
    images = options.batches * options.batch_size
    for name, milliseconds in times.items():
        speed = images / milliseconds * 1e3
        print(f"{name:16} {speed:7.1f} images/s   {times['tutorial'] / milliseconds:.2f}×")


if __name__ == "__main__":
    main()
