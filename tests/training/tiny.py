"""A training small enough for a test; also a program: ``python tiny.py FOLDER`` (see tests)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deeplab.data.loader import Batch
from deeplab.models import DeepLab, DeepLabConfig, build
from deeplab.training.loop import Score, train
from deeplab.training.normalisation import choose_batch_norm
from deeplab.training.processes import Processes, join_processes
from deeplab.training.settings import Settings
from deeplab.training.state import Progress

ALONE = Processes(0, 1, torch.device("cpu"))


def tiny_settings(**tables: dict[str, Any]) -> Settings:
    model = {"depth_multiplier": 0.1, "head_channels": 8, "output_stride": 8}
    run = {"steps": 6, "batch_size": 4, "log_every": 1, "save_every": 1, "device": "cpu"}
    run |= {"validate_every": 3}
    values = {"name": "tiny", "schedule": {"base": 0.05}, **tables}
    values["model"] = {**model, **tables.get("model", {})}
    values["run"] = {**run, **tables.get("run", {})}
    return Settings.from_dict(values)


def tiny_network(settings: Settings, classes: int = 3) -> DeepLab:
    torch.manual_seed(settings.run.seed)
    config = DeepLabConfig.from_dict({**settings.model, "num_classes": classes})
    return build(config)


def tiny_batches(
    settings: Settings, processes: Processes = ALONE, classes: int = 3
) -> Callable[[int], Iterator[Batch]]:
    share = settings.run.batch_size // processes.count

    def batches(step: int) -> Iterator[Batch]:
        while True:
            random = np.random.default_rng((settings.run.seed, step))
            label = random.integers(0, classes, (settings.run.batch_size, 2, 1), dtype=np.uint8)
            label = label.repeat(17, 1).repeat(33, 2)[:, :33]
            image = (label[:, None] * 100).repeat(3, 1).astype(np.uint8)
            label = np.where(random.random(label.shape) < 0.2, 255, label).astype(np.uint8)
            mine = slice(processes.rank * share, (processes.rank + 1) * share)
            ids = tuple(f"picture {index}" for index in range(share))
            yield Batch(torch.from_numpy(image[mine]), torch.from_numpy(label[mine]), ids)
            step += 1

    return batches


def no_score(network: DeepLab, step: int) -> Score:
    return Score(miou=step / 100, accuracy=0.5)


def no_release(network: DeepLab, progress: Progress) -> None:
    return None


def run_tiny(
    folder: Path, settings: Settings, processes: Processes = ALONE, **options: Any
) -> tuple[DeepLab, Progress]:
    folder.mkdir(parents=True, exist_ok=True)
    network = tiny_network(settings)
    choose_batch_norm(network, settings.run, processes, pretrained=False)
    options = {
        "batches": tiny_batches(settings, processes),
        "validate": no_score,
        "release": no_release,
        "tell": lambda text: None,
        **options,
    }
    progress = train(network, settings, folder=folder, processes=processes, **options)
    return network, progress


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1])
    parts = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    tables = {
        "killed": {"optimiser": {"ema_decay": 0.9}, "run": {"steps": 12}},
        "ranks": {
            "schedule": {"base": 0.01},
            "model": {"dropout": 0.0},
            "run": {"batch_norm": "frozen", "accumulate": parts, "steps": 4},
        },
    }[sys.argv[2]]
    with join_processes("cpu") as processes:
        trained, _ = run_tiny(where, tiny_settings(**tables), processes)
        if processes.first:
            torch.save(trained.state_dict(), where / "final.pt")
