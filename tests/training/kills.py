"""Kill trainings at random moments until they are done, and compare the bits at the end.

    python tests/training/kills.py [KILLS [SEED]]

Every training is killed (SIGKILL), terminated (SIGTERM to it or to its group of processes) or
interrupted (Ctrl-C: SIGINT to the group) at a random moment, and started again, until it ends by
itself. Weights, optimiser, scores and the release pair must be those of a training that nobody
disturbed.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import json
import mmap
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from tiny import make_shapes

import deeplab.training.loop as loop
from deeplab.cli import run
from deeplab.files import to_toml
from deeplab.training.checkpoint import LAST
from deeplab.training.experiment import run_experiment
from deeplab.training.loop import Callbacks, StepNews
from deeplab.training.settings import Settings

for slow in ("deeplab.training.experiment", "torch.utils.tensorboard"):  # once, before any fork
    with contextlib.suppress(ImportError):
        importlib.import_module(slow)

KINDS = ("kill", "terminate", "terminate group", "Ctrl-C")


class Case(NamedTuple):
    """A way of training: data workers, processes, and other settings than the usual ones."""

    workers: int
    processes: int
    settings: Mapping[str, Any] = MappingProxyType({})
    steps: int = 15


CASES = (Case(0, 1), Case(2, 1), Case(0, 2), Case(2, 2))


class Run:
    """A training in child processes, which say in one shared byte what they are at."""

    def __init__(self, data: Path, folder: Path, case: Case) -> None:
        self.moment = mmap.mmap(-1, 1)
        port = str(20_000 + os.getpid() % 20_000 + int.from_bytes(os.urandom(1), "big"))
        self.children: list[int] = []
        for rank in range(case.processes):
            child = os.fork()
            if not child:
                os.setpgid(0, self.children[0] if self.children else 0)
                os.environ.update(
                    RANK=str(rank), WORLD_SIZE=str(case.processes), LOCAL_RANK=str(rank),
                    MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
                )  # fmt: skip
                self._work(data, folder, case, rank)
            self.children.append(child)
            with contextlib.suppress(OSError):
                os.setpgid(child, self.children[0])

    def _work(self, data: Path, folder: Path, case: Case, rank: int) -> None:
        log = os.open(f"{folder}.{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1)
        if rank == 0:
            self._watch(loop._Loop, "run", b"r")
            self._watch(loop._Loop, "_judge_and_save", b"v")
            self._watch(loop, "save_checkpoint", b"s")
        settings = {
            "model.depth_multiplier": 0.1, "model.head_channels": 8, "model.dropout": 0.1,
            "data.crop_size": [33, 49], "data.workers": case.workers, "run.device": "cpu",
            "run.batch_size": 8, "run.validate_every": 5, "run.save_every": 1,
            "schedule.base": 0.05, "optimiser.ema_decay": 0.9, "optimiser.start_share": 0.1,
        } | dict(case.settings)  # fmt: skip
        words = ["train", "--data", str(data), "--folder", str(folder)]
        words += ["--steps", str(case.steps)]
        for name, value in settings.items():
            words += ["-s", f"{name}={to_toml(value)}"]
        code = 99
        try:
            code = run(words)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    @property
    def in_loop(self) -> bool:
        """Whether the first process takes steps."""
        return self.moment[:1] != b"\0"

    def _watch(self, owner: Any, name: str, mark: bytes) -> None:
        inner = getattr(owner, name)

        def outer(*arguments: Any) -> Any:
            before, self.moment[:1] = self.moment[:1], mark
            result = inner(*arguments)
            self.moment[:1] = before
            return result

        setattr(owner, name, outer)

    def end(self, kind: str) -> None:
        """Send the signal."""
        first = self.children[0]
        with contextlib.suppress(ProcessLookupError):
            if kind == "kill":
                os.kill(self.children[-1], signal.SIGKILL)
            elif kind == "terminate":
                for child in self.children:
                    os.kill(child, signal.SIGTERM)
            elif kind == "terminate group":
                os.killpg(first, signal.SIGTERM)
            else:
                os.killpg(first, signal.SIGINT)


class Waited:
    """Children whose ends are collected as they come."""

    def __init__(self, children: list[int]) -> None:
        self.children, self.codes = children, dict[int, int]()

    def poll(self, seconds: float) -> bool:
        """Wait, and return whether all have ended."""
        until = time.monotonic() + seconds
        while True:
            for child in self.children:
                if child not in self.codes:
                    pid, status = os.waitpid(child, os.WNOHANG)
                    if pid:
                        self.codes[child] = os.waitstatus_to_exitcode(status)
            if len(self.codes) == len(self.children):
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.003)


def result(folder: Path) -> dict[str, Any]:
    """Return everything that must be the same at the end."""
    last = torch.load(folder / LAST, weights_only=True)
    pair = next(folder.glob("*.safetensors"))
    told = json.loads(pair.with_suffix(".json").read_text())
    rows = (folder / "history.csv").read_text().splitlines()
    columns = rows[0].split(",")
    timed = [columns.index(name) for name in ("images_per_second", "seconds")]
    return {
        "weights": last["network"], "optimiser": last["optimiser"], "average": last["average"],
        "start": last["start"], "progress": last["progress"], "released": pair.read_bytes(),
        "scores": told["scores"], "step": told["provenance"]["step"],
        "history": [
            [cell for index, cell in enumerate(row.split(",")) if index not in timed]
            for row in rows
        ],
    }  # fmt: skip


def same(one: Any, two: Any) -> bool:
    """Compare to the bit, whatever it is."""
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


class Killed(BaseException):
    """What a kill does, without the process."""


def differences(plan: Settings, folder: Path, *, step: int) -> list[str]:
    """Train once undisturbed, and once killed after a step and resumed; return what differs.

    The runs stay, as ``whole`` and ``killed``.
    """

    def kill(news: StepNews) -> None:
        if news.step == step:
            raise Killed

    def train(name: str, **settings: Any) -> None:
        run_experiment(plan, folder / name, tell=lambda text: None, **settings)

    train("whole")
    try:
        train("killed", callbacks=Callbacks(step=kill))
    except Killed:
        train("killed")
    else:
        raise AssertionError(f"the training ended before step {step}")
    whole, killed = (result(folder / name) for name in ("whole", "killed"))
    return [what for what in whole if not same(whole[what], killed[what])]


def hunt(
    where: Path,
    kills: int,
    seed: int,
    cases: tuple[Case, ...] = CASES,
    *,
    data: Path | None = None,
    kinds: tuple[str, ...] = KINDS,
) -> collections.Counter[str]:
    """Kill that many times, over all cases, and return how often what was hit.

    Args:
        where: an empty folder.
        kills: how often, over all cases.
        seed: of what is chosen at random.
        cases: how is trained.
        data: a data set; None makes one.
        kinds: of signals.

    Raises:
        AssertionError: a training ended with other bits, hung, or broke.
    """
    random = np.random.default_rng(seed)
    torch.set_num_threads(1)
    data = data or make_shapes(where / "shapes")
    hit: collections.Counter[str] = collections.Counter()
    share = -(-kills // len(cases))
    for number, case in enumerate(cases):
        name = f"workers {case.workers}, processes {case.processes}"
        whole = where / f"whole{number}"
        started = time.monotonic()
        first = Run(data, whole, case)
        waited = Waited(first.children)
        while not first.in_loop and not waited.poll(0.003):
            pass
        before = time.monotonic() - started
        assert waited.poll(600), f"{name}: hangs"
        assert set(waited.codes.values()) == {0}, _log(whole)
        within, wanted = time.monotonic() - started - before, result(whole)
        deaths, part = 0, 0
        while deaths < share:
            folder = where / f"killed{number}_{part}"
            part += 1
            while True:
                running = Run(data, folder, case)
                waited = Waited(running.children)
                kind = str(random.choice(kinds))
                ended = deaths >= share
                if not ended and random.random() < 0.2:
                    ended = waited.poll(float(random.uniform(0, before)))
                elif not ended:
                    while not running.in_loop and not (ended := waited.poll(0.003)):
                        pass
                    ended = ended or waited.poll(float(random.uniform(0, 0.7 * within)))
                if not ended:
                    moment = {b"v": "a validation", b"s": "a save", b"r": "a step"}.get(
                        running.moment[:1], "start or end"
                    )
                    running.end(kind)
                    deaths += 1
                    hit[kind] += 1
                    hit[f"during {moment}"] += 1
                    hit[name] += 1
                    if kind == "kill" and case.processes > 1 and not waited.poll(1):
                        for child in running.children:  # as torchrun does
                            with contextlib.suppress(ProcessLookupError):
                                os.kill(child, signal.SIGKILL)
                    kind_of_end = kind
                else:
                    kind_of_end = ""
                assert waited.poll(120), f"{name}: hangs after {kind}"
                codes = set(waited.codes.values())
                if codes == {0}:
                    break
                if kind_of_end != "kill":
                    # Before and after the loop there is nothing to save.
                    expected = {130} if running.in_loop else {130, -signal.SIGTERM}
                    assert codes <= expected | {0}, f"{name}: {kind}: {codes}\n{_log(folder)}"
            for what, value in result(folder).items():
                assert same(value, wanted[what]), f"{name}: other {what}"
            hit["trainings compared"] += 1
            shutil.rmtree(folder)
    return hit


def _log(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.parent.glob(f"{folder.name}.*.log"))


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as temporary:
        for what, count in hunt(
            Path(temporary), numbers[0] if numbers else 50, numbers[1] if numbers[1:] else 0
        ).items():
            print(f"{count:5} {what}")
