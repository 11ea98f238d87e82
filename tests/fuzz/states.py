"""Folders of trainings with something wrong in them: the same training goes on, or is refused.

Any file is cut off, changed, taken away or another run's; in the checkpoint, tensors and numbers
are changed, too, and it is written anew. What goes on must end with the bits of the run that
nothing happened to, or say that its best weights are lost.
"""

from __future__ import annotations

import random as rng
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from deeplab.errors import DeepLabError
from deeplab.training.checkpoint import LAST
from deeplab.training.experiment import run_experiment
from deeplab.training.settings import Settings

sys.path.append(str(Path(__file__).parents[1] / "training"))
from tiny import make_shapes, shapes_settings

from weights import ODD, mutate


@cache
def _data() -> Path:
    return make_shapes(Path(tempfile.mkdtemp()) / "data")


def _settings(steps: int, *, seed: int = 0) -> Settings:
    run = {"steps": steps, "save_every": 1, "validate_every": 2, "seed": seed, "batch_size": 2}
    return shapes_settings(
        _data(), data={"check": False}, run=run, optimiser={"ema_decay": 0.9},
        schedule={"base": 0.02},
    )  # fmt: skip


@cache
def _runs() -> dict[str, Path]:
    """Return the folders of a run at half its way, of the whole, and of another seed's half."""
    place = Path(tempfile.mkdtemp())
    for name, seed in (("half", 0), ("other", 1)):
        run_experiment(_settings(2, seed=seed), place / name, tell=str)
    shutil.copytree(place / "half", place / "whole")
    run_experiment(_settings(3), place / "whole", tell=str)
    return {name: place / name for name in ("half", "other", "whole")}


def _change_state(random: rng.Random, path: Path) -> None:
    """Change one thing in a checkpoint, and write it with right checksums, as a program would."""
    state: Any = torch.load(path)
    part = random.choice(("network", "average", "optimiser", "progress", "config"))
    table = state[part]
    if part == "optimiser":
        table = table["state"][random.choice(list(table["state"]))]
    key = random.choice(list(table))
    value = table[key]
    kind = random.randrange(4)
    if kind == 0:
        del table[key]
    elif kind == 1:
        table[f"{key}_old"] = table.pop(key)
    elif isinstance(value, torch.Tensor):
        table[key] = random.choice((value.flatten()[:1], value[:0], value[None], None, "x"))
    else:
        table[key] = random.choice(ODD[:20])
    torch.save(state, path)


def run_one(random: rng.Random, folder: Path) -> str:
    """Go on with one changed folder."""
    torch.set_num_threads(1)
    runs = _runs()
    place = shutil.copytree(runs["half"], folder / "run")
    files = sorted(path for path in place.rglob("*") if path.is_file() and path.name != ".lock")
    victim = random.choice([place / LAST, *files])
    kind = random.choice(("bytes", "bytes", "gone", "swapped", "state"))
    if kind == "state":
        victim = place / LAST
        _change_state(random, victim)
    elif kind == "gone":
        victim.unlink()
    elif kind == "swapped":
        theirs = runs["other"] / victim.relative_to(place)
        if theirs.is_file():
            shutil.copy(theirs, victim)
    else:
        victim.write_bytes(mutate(random, victim.read_bytes() or b"?"))
    told: list[str] = []
    try:
        run_experiment(_settings(3), place, tell=told.append)
    except DeepLabError as error:
        words = str(error)
        if "\n" in words or "last.pt" not in words:
            raise AssertionError(f"several lines, or without last.pt: {words}") from error
        return "refused"
    if kind == "gone" and victim.name == LAST:
        assert any("begins anew" in text for text in told), told
        return "begun anew"
    found, wanted = torch.load(place / LAST), torch.load(runs["whole"] / LAST)
    for part in ("network", "average"):
        assert found[part].keys() == wanted[part].keys(), part
        for name, value in wanted[part].items():
            assert torch.equal(found[part][name], value), f"{kind} {victim.name}: {part} {name}"
    lost = any("are lost" in text for text in told)
    assert lost or found["progress"] == wanted["progress"], (kind, victim, found["progress"])
    return "gone on, best lost" if lost else "gone on"
