"""A training small enough for a test; also a program: ``python tiny.py FOLDER`` (see tests)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from deeplab.data.loader import Batch
from deeplab.models import DeepLab, DeepLabConfig, build
from deeplab.training.checkpoint import check_checkpoint, load_checkpoint
from deeplab.training.loop import Score, Surroundings, train
from deeplab.training.normalisation import choose_batch_norm
from deeplab.training.processes import Processes, join_processes
from deeplab.training.settings import Settings
from deeplab.training.state import Progress
from deeplab.training.teacher import Teacher

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


class TinyJudge:
    """Scores by the number of steps, unless told otherwise; notes what is released."""

    def __init__(self, score: Callable[[int], float] = lambda step: step / 100) -> None:
        self.score, self.released = score, list[int]()

    def validate(
        self, network: DeepLab, step: int, watch: Callable[[int, int], bool]
    ) -> Score | None:
        return None if watch(1, 2) else Score(miou=self.score(step), accuracy=0.5)

    def release(self, network: DeepLab, progress: Progress) -> None:
        self.released.append(progress.step)


def run_tiny(
    folder: Path,
    settings: Settings,
    processes: Processes = ALONE,
    batches: Callable[[int], Iterator[Batch]] | None = None,
    teacher: Teacher | None = None,
    **around: Any,
) -> tuple[DeepLab, Progress]:
    folder.mkdir(parents=True, exist_ok=True)
    network = tiny_network(settings)
    choose_batch_norm(network, settings.run, processes, pretrained=False)
    papers = {
        "recipe": settings.to_dict(),
        "config": network.config.to_dict(),
        "identity": {"classes": ["a", "b", "c"]},
        "origin": "random",
    }
    around = {
        "judge": TinyJudge(),
        "tell": lambda text: None,
        "papers": papers,
        "saved": load_checkpoint(folder),
        **around,
    }
    if around["saved"] is not None:
        check_checkpoint(around["saved"], settings, papers["identity"], folder)
    progress = train(
        network,
        settings,
        batches=batches or tiny_batches(settings, processes),
        teacher=teacher,
        around=Surroundings(folder=folder, processes=processes, **around),
    )
    return network, progress


def make_shapes(folder: Path) -> Path:
    """A clean data set of noisy squares on noise: 12 to learn from, 5 to judge by."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 5)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            label = np.zeros((48, 64), np.uint8)
            top, left = random.integers(0, 24, 2)
            label[top : top + 24, left : left + 32] = 1 + index % 2
            image = random.integers(0, 60, (48, 64, 3)) + 90 * label[..., None]
            name = f"{split}/{index}.png"
            Image.fromarray(image.astype(np.uint8)).save(folder / "images" / name)
            Image.fromarray(label).save(folder / "masks" / name)
    (folder / "dataset.toml").write_text(
        'classes = ["background", "grey", "white"]\n[splits]\ntrain = "train"\nval = "val"\n'
    )
    return folder


def shapes_settings(folder: Path, **tables: dict[str, Any]) -> Settings:
    data = {"path": str(folder), "crop_size": [33, 49], "workers": 0}
    run = {"steps": 4, "validate_every": 2, **tables.pop("run", {})}
    return tiny_settings(data=data | tables.pop("data", {}), run=run, **tables)


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
