"""Images a second: this package's training step against a plain loop as the tutorials write it.

    python benchmarks/training.py
    python benchmarks/training.py --data CamVid --crop 321x433 --bfloat16

Both train the same network on the same pairs, batch, crop and number of workers. The plain loop
reads and augments with Pillow, normalises on the CPU to float32 NCHW, upsamples the logits, and
asks for the loss at every step. Without ``--data``, pictures are drawn. The contenders run in turn,
so that a busy machine slows all.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from deeplab.benchmark.interleave import interleave
from deeplab.benchmark.machine import machine
from deeplab.data import FileDataset, open_dataset
from deeplab.data.loader import Batch, train_loader
from deeplab.data.memory import MemoryDataset
from deeplab.data.transforms import TrainTransform
from deeplab.models import DeepLabConfig, build
from deeplab.training.guard import LossGuard, check_labels
from deeplab.training.optimiser import build_optimiser, set_learning_rate
from deeplab.training.processes import Processes
from deeplab.training.settings import Settings
from deeplab.training.step import backward, make_step
from loader import Tutorial

CLASSES = 6
RATE = 0.007


def draw_dataset(folder: Path, *, pairs: int = 32, height: int = 480, width: int = 640) -> None:
    """Write photos of blurred noise, and masks of a few large regions."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index in range(pairs):
        grid = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        photo = grid.resize((width, height), Image.Resampling.BICUBIC)
        photo.save(folder / f"images/{index}.jpg", quality=90)
        label = Image.fromarray(random.integers(0, CLASSES, (6, 8), dtype=np.uint8))
        label.resize((width, height), Image.Resampling.NEAREST).save(folder / f"masks/{index}.png")
    (folder / "labels.txt").write_text("".join(f"class {index}\n" for index in range(CLASSES)))


def plain_step(
    dataset: FileDataset, options: argparse.Namespace, device: torch.device
) -> Callable[[], None]:
    """Return one step of the plain loop."""
    # The pictures are normalised already, so the network must not do it again.
    network = build(config(dataset, options, pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1.0, 1.0, 1.0)))
    network.to(device).train()
    criterion = nn.CrossEntropyLoss(ignore_index=255)
    optimiser = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9, weight_decay=4e-5)
    loader = DataLoader(
        Tutorial(dataset, options.crop),
        batch_size=options.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers,
    )

    def endless() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from loader

    stream, running = endless(), 0.0
    class_of_value = torch.from_numpy(dataset.encoding.value_table).long()
    class_of_value[255] = 255  # what pads

    def step() -> None:
        nonlocal running
        image, label = next(stream)
        label = class_of_value[label]
        image, label = image.to(device), label.to(device)
        optimiser.zero_grad()
        logits = nn.functional.interpolate(
            network(image), size=label.shape[1:], mode="bilinear", align_corners=False
        )
        loss = criterion(logits, label)
        loss.backward()
        optimiser.step()
        running += loss.item()

    return step


class OurStep:
    """One step of ``deeplab.training``, made of the parts that its loop is made of."""

    def __init__(
        self,
        dataset: FileDataset,
        options: argparse.Namespace,
        device: torch.device,
        *,
        precision: str,
        memory: bool,
    ) -> None:
        self.settings = Settings.from_dict(
            {"name": "benchmark", "run": {"batch_size": options.batch_size, "precision": precision}}
        )
        self.processes = Processes(0, 1, device)
        self.network = build(config(dataset, options)).to(device).train()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = make_step(self.network, self.settings, None, self.processes)
        self.optimiser = build_optimiser(self.network, self.settings.optimiser)
        self.guard = LossGuard(Path(tempfile.gettempdir()), self.network)
        self.step = 0
        self.stream: Iterator[Batch] = iter(
            train_loader(
                MemoryDataset(dataset, max_bytes=4 << 30) if memory else dataset,
                TrainTransform(crop_size=options.crop),
                batch_size=options.batch_size,
                steps=10**9,
                seed=0,
                workers=options.workers,
                pin_memory=device.type == "cuda",
            )
        )

    def __call__(self) -> float:
        """Run a step and return the seconds it waited for its batch."""
        set_learning_rate(self.optimiser, RATE)
        start = time.perf_counter()
        batch = next(self.stream)
        waited = time.perf_counter() - start
        check_labels(batch, self.network.config.num_classes, 255)
        loss = backward(self.loss, batch, self.step, self.settings, self.processes)
        self.guard.watch(self.step, loss, batch, RATE)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return waited

    def waiting_share(self, steps: int) -> float:
        """Return the share of time in which the GPU has nothing to do but wait for a batch.

        The GPU is empty when each batch is asked for, which makes this an upper bound.
        """
        start, waited = time.perf_counter(), 0.0
        for _ in range(steps):
            waited += self()
            torch.cuda.synchronize()
        return waited / (time.perf_counter() - start)


def config(
    dataset: FileDataset, options: argparse.Namespace, **fields: tuple[float, float, float]
) -> DeepLabConfig:
    """Return the network that all contenders train."""
    return DeepLabConfig(
        version="v3+" if options.architecture == "v3plus" else options.architecture,
        backbone=options.backbone,
        num_classes=len(dataset.labels),
        **fields,
    )


def size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH."""
    height, width = map(int, text.split("x"))
    return height, width


def main() -> None:
    """Time all contenders and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of a data set (default: drawn)")
    parser.add_argument("--split", default="train")
    parser.add_argument("--architecture", default="v3plus")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--crop", type=size, default=(257, 257), help="HEIGHTxWIDTH")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=2, help="per round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bfloat16", action="store_true", help="also time ours with bfloat16")
    parser.add_argument("--memory", action="store_true", help="also time ours from memory")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        if options.data is None:
            draw_dataset(Path(folder))
        compare(open_dataset(options.data or Path(folder), split=options.split), options, device)


def compare(dataset: FileDataset, options: argparse.Namespace, device: torch.device) -> None:
    """Time the contenders on one data set."""
    ours = {"ours": OurStep(dataset, options, device, precision="float32", memory=False)}
    if options.bfloat16:
        ours["ours, bfloat16"] = OurStep(
            dataset, options, device, precision="bfloat16", memory=False
        )
    if options.memory:
        ours["ours, in memory"] = OurStep(
            dataset, options, device, precision="float32", memory=True
        )

    def some(step: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(options.steps):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return run

    contenders = {"plain loop": some(plain_step(dataset, options, device))}
    contenders |= {name: some(step) for name, step in ours.items()}
    times = interleave(contenders, rounds=options.rounds)
    height, width = options.crop
    where = torch.cuda.get_device_name() if device.type == "cuda" else machine()
    print(
        f"{where}; torch {torch.__version__}, {options.threads} threads, "
        f"{options.workers} workers, load {os.getloadavg()[0]:.1f}\n"
        f"{options.architecture} {options.backbone}, "
        f"{options.data.name if options.data else 'drawn pictures'}, crop {height}×{width}, "
        f"batch {options.batch_size}\n"
    )
    print("| | images/s | |\n|---|--:|--:|")
    for name, milliseconds in times.items():
        speed = options.steps * options.batch_size / milliseconds * 1e3
        print(f"| {name} | {speed:.2f} | {times['plain loop'] / milliseconds:.2f}× |")
    if device.type == "cuda":
        for name, step in ours.items():
            share = step.waiting_share(options.steps * options.rounds)
            print(f"\n{name}: the GPU waits for data at most {100 * share:.1f} % of the time.")


if __name__ == "__main__":
    main()
