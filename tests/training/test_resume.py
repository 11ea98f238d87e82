"""A training that is ended, in whatever way, goes on as if nothing had been."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kills
import numpy as np
import pytest
import torch
from test_channels import write as write_channels
from tiny import run_tiny, shapes_settings, tiny_settings

from deeplab.cli import run as run_command
from deeplab.errors import DataError, InputError, TrainingError
from deeplab.training.checkpoint import LAST
from deeplab.training.experiment import run_experiment
from deeplab.training.loop import Callbacks, StepNews
from deeplab.training.settings import Settings
from deeplab.weights import open_release

QUIET: dict[str, Any] = {"tell": lambda text: None}


@pytest.mark.parametrize("workers", [0, 2])
def test_with_dropout_a_killed_training_ends_with_the_same_bits(
    shapes: Path, tmp_path: Path, workers: int
) -> None:
    settings = shapes_settings(
        shapes,
        model={"dropout": 0.1},
        data={"workers": workers, "check": False},
        run={"steps": 6, "save_every": 1},
    )
    step = int(np.random.default_rng().integers(2, 6))
    assert kills.differences(settings, tmp_path, step=step) == [], step


@pytest.mark.integration
def test_killed_in_every_way_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    seed = int(np.random.default_rng().integers(1000))
    hit = kills.hunt(tmp_path, 4, seed, (kills.Case(2, 1), kills.Case(0, 2)))
    assert sum(hit[kind] for kind in kills.KINDS) == 4


NAS: dict[str, Any] = {
    "model.backbone": "nas_hnasnet", "model.nas_channels": 1, "model.drop_path_keep_prob": 0.5,
    "model.depth_multiplier": 1.0, "run.batch_size": 2, "schedule.base": 0.01,
}  # fmt: skip
EXCHANGED: dict[str, Any] = {
    "loss.terms": {"lovasz": 1.0}, "optimiser.name": "lion", "schedule.base": 1e-3,
    "schedule.policy": "cosine", "augment.copy_paste": 0.5, "augment.mosaic": 0.5,
    "augment.rotate": 10.0,
}  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("what", ["exchanged", "nas", "channels"])
def test_whatever_is_trained_a_killed_process_ends_with_the_same_bits(
    what: str, tmp_path: Path
) -> None:
    """SIGKILL at a random moment of a run with other losses, optimisers, networks, pictures."""
    data = None
    if what == "exchanged":
        import albumentations

        pipeline = albumentations.Compose([albumentations.RandomBrightnessContrast(p=0.5)])
        albumentations.save(pipeline, tmp_path / "pipeline.json")
        more = EXCHANGED | {"augment.pipeline": str(tmp_path / "pipeline.json")}
    elif what == "nas":
        more = NAS
    else:
        data = write_channels(tmp_path / "data", 5)
        more = {"loss.terms": {"focal": 1.0, "dice": 1.0}, "loss.auxiliary": 0.4}
        more |= {"optimiser.name": "adamw", "schedule.base": 1e-3, "schedule.policy": "one_cycle"}
        more |= {"data.crop_size": [33, 33], "run.batch_size": 4, "data.check": False}
    steps = 3 if what == "nas" else 6
    case = kills.Case(2 if what == "exchanged" else 0, 1, more, steps=steps)
    seed = int(np.random.default_rng().integers(1000))
    hit = kills.hunt(tmp_path, 1, seed, (case,), data=data, kinds=("kill",))
    assert hit["kill"] == 1


def _papers(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_other_data_is_refused_before_anything_is_written(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_experiment(shapes_settings(shapes, run={"steps": 2}), out, **QUIET)
    before = _papers(out)

    moved = tmp_path / "elsewhere" / "moved"
    shutil.copytree(shapes, moved)
    run_experiment(shapes_settings(moved, run={"steps": 2}), out, **QUIET)  # the same, elsewhere

    for name in ("images", "masks"):
        (moved / name / "train" / "3.png").unlink()
    before = _papers(out)
    other = shapes_settings(moved, run={"steps": 3})
    with pytest.raises(InputError, match=r"other data: pictures to learn from was 12 .* is 11"):
        run_experiment(other, out, **QUIET)
    (shapes / "dataset.toml").write_text(
        'classes = ["background", "grey", "white", "black"]\n'
        '[splits]\ntrain = "train"\nval = "val"\n'
    )
    with pytest.raises(InputError, match=r"classes was background, grey, white, is .*black"):
        run_experiment(shapes_settings(shapes, data={"check": False}), out, **QUIET)
    (shapes / "dataset.toml").write_text(
        'classes = ["background", "grey", "white"]\n[splits]\ntrain = "train"\nval = "val"\n'
    )
    with pytest.raises(InputError, match=r"differs in schedule\.base"):
        run_experiment(shapes_settings(shapes, schedule={"base": 0.1}), out, **QUIET)
    assert _papers(out) == before


def test_harmless_changes_are_allowed_and_told(shapes: Path, tmp_path: Path) -> None:
    run_experiment(shapes_settings(shapes, run={"steps": 2}), tmp_path / "out", **QUIET)
    told: list[str] = []
    more = shapes_settings(
        shapes,
        model={"version": "v3", "backbone": "mobilenet_v2"},  # the defaults, spelled out
        run={"steps": 4, "validate_every": 1},
    )
    progress = run_experiment(more, tmp_path / "out", tell=told.append)
    assert progress.step == 4
    changed = "Changed since: run.steps (was 2, is 4), run.validate_every (was 2, is 1)."
    assert changed in told
    assert changed in (tmp_path / "out/log.txt").read_text("utf-8")
    with pytest.raises(InputError, match=r"run\.steps: got 3, but the training .* has done 4"):
        run_experiment(shapes_settings(shapes, run={"steps": 3}), tmp_path / "out", **QUIET)


def test_an_early_end_is_told_in_words(shapes: Path, tmp_path: Path) -> None:
    told: list[str] = []

    def interrupt(news: StepNews) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    settings = shapes_settings(shapes, run={"steps": 200})
    progress = run_experiment(
        settings, tmp_path / "out", tell=told.append, callbacks=Callbacks(step=interrupt)
    )
    assert progress.interrupted
    assert "Stopping: this step ends and is saved. Ctrl-C once more stops at once." in told
    assert "Saved after step 1; the same command goes on." in told
    assert told[-1] == "1 of 200 steps. Stopped: a signal asked for it."
    assert not any("best mIoU" in text for text in told)


def test_a_validation_that_was_given_up_is_made_up_for(shapes: Path, tmp_path: Path) -> None:
    settings = shapes_settings(shapes, run={"steps": 2})
    whole = run_experiment(settings, tmp_path / "whole", **QUIET)

    def interrupt(news: StepNews) -> None:
        if news.step == 2:  # the validation is due after this one
            os.kill(os.getpid(), signal.SIGTERM)

    run_experiment(settings, tmp_path / "out", callbacks=Callbacks(step=interrupt), **QUIET)
    assert not list((tmp_path / "out").glob("*.json"))
    resumed = run_experiment(settings, tmp_path / "out", **QUIET)
    assert vars(resumed) == vars(whole)
    assert (tmp_path / "out/tiny.json").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"junk", [1, 2], {"network": {}}, {"recipe": 3}],
    ids=["empty", "junk", "list", "part", "kinds"],
)
def test_an_odd_checkpoint_is_refused_in_words(content: Any, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / LAST).write_bytes(content)
    else:
        torch.save(content, tmp_path / LAST)
    with pytest.raises(InputError, match=r"last\.pt .*[Mm]ove it away") as caught:
        run_tiny(tmp_path, tiny_settings(run={"steps": 1}))
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_a_checkpoint_in_which_one_byte_changed_is_refused(tmp_path: Path) -> None:
    run_tiny(tmp_path, tiny_settings(run={"steps": 1}))
    path = tmp_path / LAST
    whole = path.read_bytes()
    bias = torch.load(path)["network"]["classifier.bias"]
    at = whole.index(bias.numpy().tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(InputError, match=r"last\.pt cannot be read .*[Mm]ove it away"):
        run_tiny(tmp_path, tiny_settings(run={"steps": 2}))


def test_the_average_of_another_network_is_refused(tmp_path: Path) -> None:
    settings = tiny_settings(run={"steps": 1}, optimiser={"ema_decay": 0.9})
    run_tiny(tmp_path, settings)
    whole = torch.load(tmp_path / LAST)
    name = "classifier.weight"
    for average in (
        {key: value for key, value in whole["average"].items() if key != name},
        {**whole["average"], name: torch.ones(())},
    ):
        torch.save({**whole, "average": average}, tmp_path / LAST)
        with pytest.raises(InputError, match="does not fit this network"):
            run_tiny(tmp_path, settings)


@pytest.mark.parametrize("momentum", ["gone", "text", "one number", "one axis more"])
def test_an_optimiser_that_forgot_something_is_refused(momentum: str, tmp_path: Path) -> None:
    run_tiny(tmp_path, tiny_settings(run={"steps": 1}))
    whole = torch.load(tmp_path / LAST)
    memory = whole["optimiser"]["state"][3]
    value = memory.pop("momentum_buffer")
    changed = {"text": "x", "one number": value.flatten()[:1], "one axis more": value[None]}
    if momentum in changed:
        memory["momentum_buffer"] = changed[momentum]
    torch.save(whole, tmp_path / LAST)
    with pytest.raises(InputError, match="does not fit this network"):
        run_tiny(tmp_path, tiny_settings(run={"steps": 2}))


def test_lost_weights_are_told_and_the_next_are_kept(shapes: Path, tmp_path: Path) -> None:
    first = shapes_settings(shapes, data={"check": False}, run={"steps": 2})
    run_experiment(first, tmp_path / "out", **QUIET)
    for what in ("missing", "changed", "other"):
        out = shutil.copytree(tmp_path / "out", tmp_path / what)
        pair = [out / "tiny.json", out / "tiny.safetensors"]
        if what == "missing":
            pair[0].unlink()
        elif what == "changed":
            pair[1].write_bytes(pair[1].read_bytes()[:-1] + b"!")
        else:
            content = json.loads(pair[0].read_text())
            content["provenance"]["recipe"]["run"]["seed"] = 9
            pair[0].write_text(json.dumps(content))
        told: list[str] = []
        progress = run_experiment(first, out, tell=told.append)  # nothing is left but to judge
        assert any(re.search(r"best mIoU .* at 2 are lost: .*tiny", text) for text in told), what
        assert open_release(out / "tiny").provenance["step"] == progress.best_step == 2
        found, before = (torch.load(one / LAST)["network"] for one in (out, tmp_path / "out"))
        assert all(torch.equal(found[name], before[name]) for name in before)
    told = []
    (tmp_path / "out" / LAST).unlink()
    run_experiment(first, tmp_path / "out", tell=told.append)
    assert any("begins anew, and will replace tiny.json" in text for text in told)


def test_checkpoints_mutilated_at_random_are_never_a_traceback(tmp_path: Path) -> None:
    run_tiny(tmp_path, tiny_settings(run={"steps": 1}))
    whole = torch.load(tmp_path / LAST)
    odd: list[Any] = [None, "x", {}, {"step": "many"}, torch.zeros(2)]
    refused = 0
    for part in whole:
        for value in odd:
            torch.save({**whole, part: value}, tmp_path / LAST)
            with contextlib.suppress(InputError):
                run_tiny(tmp_path, tiny_settings(run={"steps": 1}))
                refused -= 1
            refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    "odd",
    [{"best": "x"}, {"best": math.nan}, {"step": -1}, {"stale": 1.5}, {"judged": True}, {"new": 1}],
)
def test_progress_that_is_none_is_refused(odd: dict[str, Any], tmp_path: Path) -> None:
    run_tiny(tmp_path, tiny_settings(run={"steps": 1}))
    whole = torch.load(tmp_path / LAST)
    progress = {**whole["progress"], **odd}
    less = {name: value for name, value in progress.items() if name not in odd}
    for changed in (progress, less) if "new" not in odd else (progress,):
        torch.save({**whole, "progress": changed}, tmp_path / LAST)
        with pytest.raises(InputError, match="not from a training"):
            run_tiny(tmp_path, tiny_settings(run={"steps": 2}))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"step,loss\n1,lots\n", b"a,b\n1,2\n"])
def test_an_odd_history_is_put_aside(content: bytes, tmp_path: Path) -> None:
    run_tiny(tmp_path, tiny_settings(run={"steps": 1}))
    (tmp_path / "history.csv").write_bytes(content)
    told: list[str] = []
    run_tiny(tmp_path, tiny_settings(run={"steps": 2}), tell=told.append)
    with (tmp_path / "history.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2"]
    if content:
        assert (tmp_path / "history.damaged.csv").read_bytes() == content
        assert any("history.damaged.csv" in text for text in told)


def test_two_trainings_do_not_share_a_folder(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, pathlib; from deeplab.training.folder import RunFolder\n"
            "with RunFolder(pathlib.Path(sys.argv[1]), print):\n"
            "    print('mine', flush=True); sys.stdin.read()",
            str(tmp_path / "out"),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "mine\n"
    settings = shapes_settings(shapes, run={"steps": 1})
    with pytest.raises(InputError, match=rf"another training \(process {holder.pid}\) is at work"):
        run_experiment(settings, tmp_path / "out", **QUIET)
    holder.kill()  # the lock goes with its owner
    holder.communicate()
    run_experiment(settings, tmp_path / "out", **QUIET)


def test_terminated_with_its_workers_it_saves_and_ends_with_130(
    shapes: Path, tmp_path: Path
) -> None:
    """As ``timeout``, batch systems and ``docker stop`` do it: the whole group is told."""
    running = kills.Run(shapes, tmp_path / "out", kills.Case(2, 1))
    waited = kills.Waited(running.children)
    until = time.monotonic() + 120
    while not (tmp_path / "out" / LAST).exists():
        assert not waited.poll(0.01), (tmp_path / "out.0.log").read_text()
        assert time.monotonic() < until
    os.killpg(running.children[0], signal.SIGTERM)
    assert waited.poll(60)
    log = (tmp_path / "out.0.log").read_text()
    if set(waited.codes.values()) != {0}:  # it may just have ended
        assert set(waited.codes.values()) == {130}, log
        assert "the same command goes on" in log


def test_memory_that_runs_out_before_the_first_step_is_words(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_experiment(shapes_settings(shapes, run={"steps": 1}), tmp_path / "start", **QUIET)

    def full(*arguments: Any) -> int:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr("deeplab.training.experiment.restore_statistics", full)
    start = {"init": {"path": str(tmp_path / "start/tiny.json")}, "run": {"batch_norm": "train"}}
    with pytest.raises(TrainingError, match=r"memory: the device is full.*run\.accumulate"):
        run_experiment(shapes_settings(shapes, **start), tmp_path / "out", **QUIET)


def test_a_data_worker_that_dies_is_words(shapes: Path, tmp_path: Path) -> None:
    settings = shapes_settings(shapes, data={"workers": 1}, run={"steps": 500})

    def kill_worker(news: StepNews) -> None:
        for worker in multiprocessing.active_children():
            worker.kill()

    with pytest.raises(TrainingError, match=r"data\.workers: .*worker.*(killed|exited)"):
        run_experiment(settings, tmp_path / "out", callbacks=Callbacks(step=kill_worker), **QUIET)


def test_an_empty_split_stops_before_the_first_step(shapes: Path, tmp_path: Path) -> None:
    for name in ("images", "masks"):
        for path in (shapes / name / "val").iterdir():
            path.unlink()
    with pytest.raises(DataError, match="val"):
        run_experiment(shapes_settings(shapes), tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()


def test_the_start_is_judged_and_stays_a_candidate(shapes: Path, tmp_path: Path) -> None:
    run_experiment(shapes_settings(shapes, run={"steps": 2}), tmp_path / "first", **QUIET)
    start = {"init": {"path": str(tmp_path / "first/tiny.json")}, "schedule": {"base": 1e3}}
    told: list[str] = []
    with contextlib.suppress(TrainingError):  # at such a rate anything may happen
        run_experiment(shapes_settings(shapes, **start), tmp_path / "out", tell=told.append)
    assert [text for text in told if text.startswith("start: mIoU ")]
    released = json.loads((tmp_path / "out/tiny.json").read_text())
    assert released["provenance"]["step"] == 0
    told.clear()
    run_experiment(shapes_settings(shapes), tmp_path / "random", tell=told.append)
    assert not [text for text in told if text.startswith("start: mIoU ")]


def test_the_backbone_of_the_start_may_be_named_and_no_other(shapes: Path, tmp_path: Path) -> None:
    decoder = {"version": "v3+", "decoder_convs": 1, "decoder_channels": 8}
    run_experiment(
        shapes_settings(shapes, model=decoder, run={"steps": 1}), tmp_path / "first", **QUIET
    )
    values = shapes_settings(shapes, run={"steps": 1}).to_dict()
    values["init"] = {"path": str(tmp_path / "first/tiny.json")}
    told: list[str] = []
    named = Settings.from_dict({**values, "model": {"backbone": "mobilenet_v2"}})
    run_experiment(named, tmp_path / "named", tell=told.append)
    assert "started anew" not in "\n".join(told)
    for model in ({"backbone": "resnet_v1_50_beta"}, {"depth_multiplier": 1.0}):
        other = Settings.from_dict({**values, "model": model})
        with pytest.raises(InputError, match=rf"init\.path: .*{next(iter(model))}"):
            run_experiment(other, tmp_path / "other", **QUIET)
    assert not (tmp_path / "other").exists()


def test_nobody_waits_long_without_a_word(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor, a validation and the first step each say how far they are."""
    monkeypatch.setattr("deeplab.training.progress_line._SILENCE", 0.0)
    told: list[str] = []
    settings = shapes_settings(shapes, run={"steps": 3, "log_every": 100})
    run_experiment(settings, tmp_path / "out", tell=told.append)
    assert told[0].startswith("Data: opening ")
    assert "Data: 1 of 17 pictures looked at" in told
    assert "step 3: 1/5 pictures judged" in told
    assert any(text.startswith("step 1/3 ") for text in told)


def test_classes_weigh_by_name(shapes: Path, tmp_path: Path) -> None:
    told: list[str] = []
    settings = shapes_settings(shapes, loss={"class_weights": {"White": 2.5}}, run={"steps": 1})
    run_experiment(settings, tmp_path / "out", tell=told.append)
    assert "Class weights: background 1.00, grey 1.00, white 2.50." in told
    with pytest.raises(InputError, match=r"no class 'whyte'\. Did you mean 'white'"):
        run_experiment(
            shapes_settings(shapes, loss={"class_weights": {"whyte": 2}}), tmp_path / "no", **QUIET
        )


def test_the_command_takes_weights_by_name(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data", str(shapes), "--folder", str(tmp_path / "out"), "--steps", "1"]
    for setting in (
        "model.depth_multiplier=0.1", "model.head_channels=8", "run.device=cpu",
        "data.workers=0", "data.crop_size=[33, 49]", "run.batch_size=2",
        "loss.class_weights={white = 2.5}",
    ):  # fmt: skip
        words += ["-s", setting]
    assert run_command(words) == 0
    assert "white 2.50" in capsys.readouterr().err
