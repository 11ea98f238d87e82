"""Many trainings: combinations, resumed, with intervals; folds; published scores; trackers."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import shapes_settings

import deeplab.training.sweep as room
from deeplab.cli import run as run_command
from deeplab.data import open_dataset
from deeplab.errors import InputError
from deeplab.training.folds import split_fold
from deeplab.training.reproduce import Comparison, Published, check_published, reproduce
from deeplab.training.settings import Settings, write_toml
from deeplab.training.state import SIGNALLED, Progress
from deeplab.training.sweep import Row, Sweep, begin_sweep, read_sweep, run_sweep
from deeplab.training.tables import build
from deeplab.training.trackers import check_trackers, open_trackers

QUIET: dict[str, Any] = {"tell": lambda text: None}


class _Trainings:
    """Trainings that cost nothing: their score is made of their settings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.stop_at = -1
        monkeypatch.setattr(room, "run_experiment", self.run)
        monkeypatch.setattr(room, "_keep", self.keep)

    def run(self, settings: Settings, folder: Path, **options: Any) -> Progress:
        if len(self.done) == self.stop_at:
            return Progress(stopped=SIGNALLED)
        self.done.append(folder.name)
        return Progress(step=1)

    def keep(self, place: Path, settings: Settings) -> float:
        place.mkdir(parents=True)
        score = settings.schedule.base + settings.run.seed / 100
        content = {"miou": score, "settings": json.loads(json.dumps(settings.to_dict()))}
        (place / "result.json").write_text(json.dumps(content))
        return score


def test_a_sweep_trains_every_combination_once_and_goes_on(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = _Trainings(monkeypatch)
    path = tmp_path / "sweep.toml"
    path.write_text('seeds = [0, 1, 2]\n[grid]\nschedule.base = [0.1, 0.2]\n"run.steps" = [1, 2]\n')
    sweep, base = read_sweep(path), shapes_settings(shapes)
    trainings.stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        run_sweep(base, sweep, tmp_path / "out", **QUIET)
    assert len(trainings.done) == 5
    trainings.stop_at = -1
    rows = run_sweep(base, sweep, tmp_path / "out", **QUIET)
    assert len(trainings.done) == len(set(trainings.done)) == 12
    assert len(rows) == 4
    assert rows[0].point["schedule.base"] == 0.2
    assert rows[0].scores == pytest.approx((0.2, 0.21, 0.22))
    # Student's t with two degrees of freedom: 4.303 · 0.01 / √3.
    assert rows[0].interval == pytest.approx((0.21 - 0.024843, 0.21 + 0.024843), abs=1e-5)
    with (tmp_path / "out/sweep.csv").open() as file:
        table = list(csv.DictReader(file))
    assert {row["run.steps"] for row in table} == {"1", "2"}
    assert run_sweep(base, sweep, tmp_path / "out", **QUIET) == rows
    assert len(trainings.done) == 12
    other = shapes_settings(shapes, schedule={"power": 0.5})
    with pytest.raises(InputError, match=r"holds a training with other settings"):
        run_sweep(other, sweep, tmp_path / "out", **QUIET)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"miou": "x"}', b'{"miou": 7}'])
def test_a_damaged_result_is_made_anew(
    content: bytes, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = _Trainings(monkeypatch)
    base, sweep = shapes_settings(shapes), Sweep(seeds=(0, 1))
    rows = run_sweep(base, sweep, tmp_path, **QUIET)
    done = trainings.done.copy()
    (tmp_path / done[0] / "result.json").write_bytes(content)
    monkeypatch.setattr(room, "_keep", lambda place, settings: rows[0].scores[0])
    assert run_sweep(base, sweep, tmp_path, **QUIET) == rows
    assert trainings.done == [*done, done[0]]


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe\x00", b"[rum]\nsteps = 3\n"])
def test_a_damaged_recipe_of_a_sweep_is_words(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_bytes(content)
    with pytest.raises(InputError, match=r"recipe\.toml cannot be read.* --folder") as caught:
        begin_sweep(tmp_path, Settings, {})
    assert "\n" not in str(caught.value)


def test_an_impossible_combination_stops_before_the_first_training(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = _Trainings(monkeypatch)
    sweep = Sweep(grid={"loss.terms": [{"dice": 1.0}, {"dise": 1.0}]})
    with pytest.raises(InputError, match=r"loss\.terms\.dise"):
        run_sweep(shapes_settings(shapes), sweep, tmp_path / "out", **QUIET)
    assert not trainings.done
    assert not (tmp_path / "out").exists()


def test_what_all_share_is_chosen_once(shapes: Path, tmp_path: Path) -> None:
    settings = shapes_settings(shapes)
    assert begin_sweep(tmp_path, lambda: settings, {}) == settings
    assert begin_sweep(tmp_path, lambda: 1 / 0, {"name": "tiny"}) == settings  # type: ignore[arg-type,return-value]
    with pytest.raises(InputError, match=r"a sweep of another recipe"):
        begin_sweep(tmp_path, lambda: settings, {"run": {"batch_size": 2}})


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"grid": {"run.steps": 3}}, r"sweep\.grid\.run\.steps: got 3, expected a list"),
        ({"seeds": [1, 1]}, r"sweep\.seeds: \[1, 1\] names one twice"),
        ({"folds": 1}, r"sweep\.folds: got 1"),
        ({"sed": [1]}, r"sweep\.sed: unknown setting\. Did you mean 'seeds'"),
        ({"seeds": list(range(200)), "folds": 100}, r"more than 10000 trainings"),
    ],
)
def test_a_sweep_that_says_something_else_is_words(tables: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(Sweep, tables, "sweep.")


def test_every_picture_is_judged_in_one_fold(shapes: Path) -> None:
    dataset = open_dataset(shapes, split="train")
    judged: list[str] = []
    for fold in range(5):
        learned, held = split_fold(dataset, fold=fold, folds=5)
        assert not set(learned.ids) & set(held.ids)
        assert len(learned) + len(held) == len(dataset)
        assert held[0].id == held.ids[0]
        judged += held.ids
    assert sorted(judged) == sorted(dataset.ids)
    with pytest.raises(InputError, match=r"data\.folds: got 13 for 12 pictures"):
        split_fold(dataset, fold=0, folds=13)
    with pytest.raises(InputError, match=r"data\.fold: got 5 of 5"):
        shapes_settings(shapes, data={"folds": 5, "fold": 5})


@pytest.mark.integration
def test_a_recipe_is_trained_and_held_against_what_was_published(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = {"miou": 0.999, "source": "a paper, table 1", "pictures": 7}
    settings = shapes_settings(shapes, published=published, run={"steps": 1})
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(write_toml(settings))
    words = ["reproduce", str(recipe), "--folder", str(tmp_path / "out")]
    assert run_command(words) == 0
    told = capsys.readouterr().out
    assert "published   0.9990" in told
    assert "7 pictures; a paper, table 1" in told
    assert "here " in told
    assert "5 pictures" in told
    assert "above the interval" in told
    assert "not the same pictures" in told
    found = json.loads((tmp_path / "out/reproduced.json").read_text())
    assert found["here"]["pictures"] == 5
    with pytest.raises(InputError, match=r"published\.miou: tiny names no published score"):
        reproduce(shapes_settings(shapes), tmp_path / "no", **QUIET)
    with pytest.raises(InputError, match="published"):
        check_published(shapes_settings(shapes))


def test_the_verdict_is_that_of_the_interval() -> None:
    given = Published(miou=0.5)
    inside = Comparison(published=given, miou=0.51, low=0.49, high=0.53, pictures=9)
    below = Comparison(published=given, miou=0.61, low=0.59, high=0.63, pictures=9)
    assert "inside" in inside.verdict
    assert "below" in below.verdict
    assert str(Row(point={}, scores=(0.5,))) == "as it is: mIoU 0.5000, 1 training"


def test_a_tracker_that_is_not_installed_is_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"run\.track: wandb .*pip install 'deeplab\[wandb\]'"):
        check_trackers(("wandb",))


@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_the_numbers_of_a_training_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("needs deeplab[mlflow]")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for step in (1, 2):  # opened again, as after a kill
        (tracker,) = open_trackers(
            ("mlflow",), tmp_path, name="tiny", settings={"run": {"steps": 2}, "name": "tiny"}
        )
        tracker.add(step, {"loss": 1.0 / step, "iou.a:b": 0.5})
        tracker.close()
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("deeplab")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.params["run.steps"] == "2"
    history = client.get_metric_history(found.info.run_id, "loss")
    assert sorted((one.step, one.value) for one in history) == [(1, 1.0), (2, 0.5)]


def _records(raw: bytes) -> Iterator[bytes]:
    """Yield what a file of W&B holds: LevelDB's log, blocks of 32 KiB, behind 7 bytes."""
    place, record = 7, b""
    while place + 7 <= len(raw):
        if (rest := 32768 - place % 32768) < 7:
            place += rest
            continue
        size, kind = struct.unpack_from("<HB", raw, place + 4)
        record += raw[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_the_numbers_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("wandb") is None:
        pytest.skip("needs deeplab[wandb]")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    for step in (1, 2):  # opened again, as after a kill
        (tracker,) = open_trackers(
            ("wandb",), tmp_path, name="tiny", settings={"name": "tiny", "run": {"steps": 2}}
        )
        assert os.environ["WANDB_ERROR_REPORTING"] == "false"  # nothing leaves the machine
        tracker.add(step, {"loss": 1.0 / step, "iou.a:b": 0.5})
        tracker.close()
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # its process writes the rest
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    runs, losses = set(), []
    for file in files:
        for content in _records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(content)
            if record.HasField("run"):
                runs.add((record.run.run_id, record.run.project, record.run.display_name))
            items = {item.key or ".".join(item.nested_key): item for item in record.history.item}
            if items:
                assert items["iou.a:b"].value_json == "0.5"
                losses.append((items["step"].value_json, items["loss"].value_json))
    assert sorted(losses) == [("1", "1"), ("2", "0.5")]
    ((_, project, name),) = runs  # one run, whatever was interrupted
    assert (project, name) == ("deeplab", "tiny")
