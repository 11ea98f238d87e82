"""Many trainings of one recipe: a small search, seeds, folds; and how sure the numbers are.

Every training is a folder like any other, so the same command goes on where it was interrupted, and
does not repeat what is done.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import hashlib
import io
import itertools
import json
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from deeplab.errors import InputError
from deeplab.files import parse_toml, read_text, replacing, to_toml
from deeplab.training.experiment import run_experiment
from deeplab.training.limits import Limits, check_numbers
from deeplab.training.loop import NOBODY, Callbacks
from deeplab.training.preset import merge
from deeplab.training.run import Run
from deeplab.training.settings import Settings, apply_overrides, read_recipe, write_toml
from deeplab.training.tables import build

RESULT = "result.json"
_MOST_RUNS = 10_000
# Student's t, 97.5 %, by degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
      2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
      2.052, 2.048, 2.045, 2.042)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is tried.

    Attributes:
        grid: dotted settings with their values; all combinations are tried.
        seeds: of each of them.
        folds: of the pictures to learn from, each of them judged in turn; 0 judges by ``data.val``.
    """

    grid: dict[str, Any] = field(default_factory=dict)
    seeds: Annotated[tuple[int, ...], Limits(0, 2**63 - 1)] = ()
    folds: Annotated[int, Limits(0, 1000)] = 0

    def __post_init__(self) -> None:
        check_numbers(self, "sweep.")
        if self.folds == 1:
            raise InputError("sweep.folds: got 1, expected 2 or more, or 0.")
        for name, values in self.grid.items():
            if not isinstance(values, list | tuple) or not values:
                raise InputError(f"sweep.grid.{name}: got {values!r}, expected a list of values.")
        if len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"sweep.seeds: {list(self.seeds)} names one twice.")
        count = math.prod(len(v) for v in self.grid.values())
        if count * max(len(self.seeds), 1) * max(self.folds, 1) > _MOST_RUNS:
            raise InputError(f"sweep: more than {_MOST_RUNS} trainings.")

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield the overrides of every combination."""
        for values in itertools.product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))

    def repeats(self) -> list[dict[str, Any]]:
        """Return the overrides of every training of one combination."""
        seeds = [{"run.seed": seed} for seed in self.seeds] or [{}]
        folds = [{"data.folds": self.folds, "data.fold": n} for n in range(self.folds)] or [{}]
        return [{**seed, **fold} for seed in seeds for fold in folds]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was found of one combination.

    Attributes:
        point: its settings.
        scores: the best mIoU of each of its trainings.
    """

    point: Mapping[str, Any]
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the scores."""
        return statistics.fmean(self.scores)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean over seeds and folds (Student's t); None of one training."""
        count = len(self.scores)
        if count < 2:
            return None
        t = _T[count - 2] if count - 2 < len(_T) else 1.96
        half = t * statistics.stdev(self.scores) / math.sqrt(count)
        return self.mean - half, self.mean + half

    def __str__(self) -> str:
        span = self.interval
        runs = f"{len(self.scores)} trainings" if len(self.scores) > 1 else "1 training"
        within = f" ({span[0]:.4f} to {span[1]:.4f})" if span else ""
        return f"{in_words(self.point) or 'as it is'}: mIoU {self.mean:.4f}{within}, {runs}"


def read_sweep(path: Path) -> Sweep:
    """Read a sweep: ``seeds``, ``folds`` and a table ``[grid]`` in TOML.

    Raises:
        InputError: there is no such file, or it says something else.
    """
    if not path.is_file():
        raise InputError(f"sweep: there is no file {path}.")
    try:
        tables = parse_toml(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"sweep: {path} is not TOML: {error}.") from error
    grid = tables.get("grid", {})
    if isinstance(grid, Mapping):  # schedule.base without quotes is a table in a table
        tables["grid"] = dict(_flatten(grid))
    return build(Sweep, tables, "sweep.")


def run_sweep(
    base: Settings,
    sweep: Sweep,
    folder: Path,
    *,
    tell: Callable[[str], None] = print,
    callbacks: Callbacks = NOBODY,
) -> list[Row]:
    """Train all of it in folders below ``folder``, and return the rows, the best first.

    ``folder/sweep.csv`` holds what was found so far.

    Raises:
        InputError: a combination is not possible; all are looked at before the first training.
        KeyboardInterrupt: a signal ended it; the same call goes on.
    """
    plan = [
        [_settings(base, {**point, **repeat}) for repeat in sweep.repeats()]
        for point in sweep.points()
    ]
    points, total = list(sweep.points()), sum(map(len, plan))
    rows: list[Row] = []
    number = 0
    for point, trainings in zip(points, plan, strict=True):
        scores = []
        for repeat, settings in zip(sweep.repeats(), trainings, strict=True):
            number += 1
            words = in_words({**point, **repeat}) or "as it is"
            place = folder / _slug(words)
            score = _found(place, settings)
            if score is None:
                tell(f"Sweep: training {number} of {total}: {words}")
                if run_experiment(settings, place, tell=tell, callbacks=callbacks).interrupted:
                    raise KeyboardInterrupt
                score = _keep(place, settings)
            scores.append(score)
        rows.append(Row(point=point, scores=tuple(scores)))
        _write(folder / "sweep.csv", rows)
    return sorted(rows, key=lambda row: row.mean, reverse=True)


def begin_sweep(folder: Path, choose: Callable[[], Settings], given: Mapping[str, Any]) -> Settings:
    """Return the settings that all trainings share: chosen once, and then those of then.

    Raises:
        InputError: the folder holds a sweep of which something is ``given`` otherwise.
    """
    path = folder / "recipe.toml"
    if path.is_file():
        try:
            before = read_recipe(path)
        except InputError as error:
            raise InputError(
                f"sweep: {path} cannot be read, so what its trainings share is not known ({error}) "
                "Take another --folder."
            ) from error
        now = merge(before.to_dict(), copy.deepcopy(dict(given)))
        if str(now["init"]["path"]).lower() == "none":
            now["init"]["path"] = ""
        if Settings.from_dict(now) != before:
            raise InputError(
                f"sweep: {folder} holds a sweep of another recipe; take another --folder."
            )
        return before
    settings = choose()
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(write_toml(settings), encoding="utf-8")
    return settings


def in_words(values: Mapping[str, Any]) -> str:
    """Return ``schedule.base=0.01, run.seed=3``."""
    return ", ".join(f"{name}={to_toml(value)}" for name, value in values.items())


def _flatten(table: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{where}{name}.")
        else:
            yield f"{where}{name}", value


def _settings(base: Settings, overrides: Mapping[str, Any]) -> Settings:
    return Settings.from_dict(apply_overrides(base.to_dict(), overrides))


def _slug(words: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.=-]+", "_", words).strip("_.")
    digest = hashlib.sha256(words.encode()).hexdigest()[:8]
    return plain if len(plain) <= 80 and plain == words else f"{plain[:70]}-{digest}"


def _found(place: Path, settings: Settings) -> float | None:
    """Return the score of a training that is done, with these very settings.

    A damaged file is as none: the checkpoint beside it knows whether anything is left to do.
    """
    path = place / RESULT
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
        score = float(found["miou"])
        if not 0 <= score <= 1 or not isinstance(found["settings"], dict):
            return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if found["settings"] != json.loads(json.dumps(dataclasses.asdict(settings))):
        raise InputError(
            f"sweep: {place} holds a training with other settings; take another --folder."
        )
    return score


def _keep(place: Path, settings: Settings) -> float:
    run = Run.open(place)
    score = float(run.scores["miou"])
    content = {"miou": score, "step": run.step, "settings": dataclasses.asdict(settings)}
    with replacing(place / RESULT) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return score


def _write(path: Path, rows: Sequence[Row]) -> None:
    table = io.StringIO()
    names = list(rows[0].point)
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*names, "trainings", "miou", "low", "high", "scores"])
    for row in rows:
        low, high = (f"{end:.6f}" for end in row.interval) if row.interval else ("", "")
        values = [to_toml(row.point[name]) for name in names]
        scores = " ".join(f"{score:.6f}" for score in row.scores)
        writer.writerow([*values, len(row.scores), f"{row.mean:.6f}", low, high, scores])
    with replacing(path) as partial:
        partial.write_text(table.getvalue(), encoding="utf-8")
