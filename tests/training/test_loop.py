from __future__ import annotations

import copy
import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ALONE, TinyJudge, run_tiny, tiny_batches, tiny_network, tiny_settings

from deeplab.errors import DataError, InputError, TrainingError
from deeplab.evaluation.metrics import ConfusionMatrix
from deeplab.labels import CITYSCAPES, VOC, LabelSet
from deeplab.models import DeepLab
from deeplab.models.layers import resize
from deeplab.training.checkpoint import LAST, load_checkpoint
from deeplab.training.guard import collapse_warning, memory_advice
from deeplab.training.initialise import take_over
from deeplab.training.optimiser import build_optimiser
from deeplab.training.state import Progress
from deeplab.training.step import backward, make_step

TINY = Path(__file__).with_name("tiny.py")


def _program(*arguments: str, ranks: int = 1) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    return [sys.executable, *(torchrun if ranks > 1 else []), str(TINY), *arguments]


def _equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_loss_falls_and_history_tells_it(tmp_path: Path) -> None:
    settings = tiny_settings(run={"steps": 60, "batch_size": 8}, schedule={"base": 0.1})
    _, progress = run_tiny(tmp_path, settings)
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert progress.step == 60
    assert [int(row["step"]) for row in rows] == list(range(1, 61))
    first, last = ([float(row["loss"]) for row in part] for part in (rows[:10], rows[-10:]))
    assert sum(last) < 0.7 * sum(first)
    assert rows[59]["miou"] == "0.6"
    plot = (tmp_path / "history.svg").read_text()
    assert "loss: first" in plot
    assert "mIoU: 0.600 (best 0.600 at 60)" in plot


def test_tensorboard_shows_the_history_and_forgets_what_resuming_drops(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run_tiny(tmp_path, tiny_settings(run={"steps": 3, "save_every": 2}))
    saved = torch.load(tmp_path / "last.pt")
    saved["progress"]["step"] = 2  # as if it had been killed after the third step
    torch.save(saved, tmp_path / "last.pt")
    run_tiny(tmp_path, tiny_settings(run={"steps": 3, "save_every": 2}))
    board = reader.EventAccumulator(str(tmp_path))
    board.Reload()
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    points = [(event.step, event.value) for event in board.Scalars("loss")]
    assert [step for step, _ in points] == [1, 2, 3]
    assert points == [(step, pytest.approx(loss, rel=1e-4)) for step, loss in rows]


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    settings = tiny_settings(optimiser={"ema_decay": 0.9})
    whole, _ = run_tiny(tmp_path / "whole", settings)

    def terminate(step: int) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return step / 100

    told: list[str] = []
    _, stopped = run_tiny(
        tmp_path / "parts", settings, judge=TinyJudge(terminate), tell=told.append
    )
    assert (stopped.step, stopped.stopped) == (4, "a signal asked for it")
    assert told[-1] == "Saved after step 4; the same command goes on."
    resumed, progress = run_tiny(tmp_path / "parts", settings)
    assert progress.step == 6
    assert _equal(whole.state_dict(), resumed.state_dict())


@pytest.mark.integration
def test_killed_at_any_step_it_resumes_to_the_same_bits(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(_program(str(whole), "killed"), check=True, env=environment)
    deaths = 0
    random = np.random.default_rng(0)
    while not (killed / "final.pt").exists():
        process = subprocess.Popen(_program(str(killed), "killed"), env=environment)
        seen = _modified(killed / LAST)
        while deaths < 3 and process.poll() is None:
            time.sleep(0.002)
            if _modified(killed / LAST) != seen:  # past the imports: now kill at any moment
                time.sleep(float(random.uniform(0, 0.15)))
                process.kill()
                deaths += 1
                break
        assert process.wait() in (0, -signal.SIGKILL)
    assert deaths == 3
    assert _equal(torch.load(whole / "final.pt"), torch.load(killed / "final.pt"))


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.integration
def test_two_processes_equal_one_with_the_joint_batch(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finals = []
    for ranks, parts in ((1, "1"), (2, "1"), (2, "2")):
        folder = tmp_path / f"{ranks}_{parts}"
        command = _program(str(folder), "ranks", parts, ranks=ranks)
        subprocess.run(command, check=True, env=environment, capture_output=True)
        finals.append(torch.load(folder / "final.pt"))
    for other in finals[1:]:
        for name, value in finals[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-5)


def test_cutting_a_step_in_parts_changes_nothing(tmp_path: Path) -> None:
    frozen = {"batch_norm": "frozen", "steps": 3}
    still = {"model": {"dropout": 0.0}, "schedule": {"base": 0.01}}
    whole, _ = run_tiny(tmp_path / "1", tiny_settings(run=frozen, **still))
    parts, _ = run_tiny(tmp_path / "2", tiny_settings(run=frozen | {"accumulate": 4}, **still))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-5, atol=1e-5)


def test_a_label_stride_compares_every_nth_pixel() -> None:
    settings = tiny_settings(data={"crop_size": [33, 33]}, loss={"label_stride": 4})
    batch = next(tiny_batches(settings)(0))
    sparse = batch._replace(label=torch.full_like(batch.label, 255))
    sparse.label[:, ::4, ::4] = batch.label[:, ::4, ::4]
    losses = []
    for given, chosen in ((batch, settings), (sparse, tiny_settings())):
        step = make_step(tiny_network(chosen), chosen, None, ALONE)
        losses.append(backward(step, given, 0, chosen, ALONE))
    torch.testing.assert_close(*losses)


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    run_tiny(tmp_path, tiny_settings(run={"steps": 1}))
    with pytest.raises(InputError, match=r"differs in schedule\.base \(was 0\.05, is 0\.1\)"):
        run_tiny(tmp_path, tiny_settings(run={"steps": 1}, schedule={"base": 0.1}))


def test_nan_stops_with_the_culprit_and_a_clean_checkpoint(tmp_path: Path) -> None:
    settings = tiny_settings(run={"save_every": 1, "validate_every": 0})

    def poisoned(step: int) -> Any:
        for index, batch in enumerate(tiny_batches(settings)(step)):
            if index == 2:
                batch = batch._replace(image=torch.full(batch.image.shape, float("nan")))
            yield batch

    with pytest.raises(TrainingError, match=r"nan at step 2\. The batch itself holds NaN"):
        run_tiny(tmp_path, settings, batches=poisoned)
    assert np.load(tmp_path / "culprit_step2.npz")["label"].shape == (4, 33, 33)
    saved = load_checkpoint(tmp_path)
    assert saved is not None
    assert saved["progress"]["step"] == 2
    assert all(torch.isfinite(value).all() for value in saved["network"].values())


def test_a_learning_rate_too_high_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"learning rate .* too high"):
        run_tiny(tmp_path, tiny_settings(schedule={"base": 1e12}, run={"steps": 40}))


def test_a_label_that_is_no_class_is_named(tmp_path: Path) -> None:
    settings = tiny_settings()
    with pytest.raises(DataError, match=r"ids \[3\], expected 0 to 2 or 255"):
        run_tiny(tmp_path, settings, batches=tiny_batches(settings, classes=4))


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    judge = TinyJudge(lambda step: 0.5 if step == 3 else 0.1)
    settings = tiny_settings(run={"steps": 20, "validate_every": 1, "patience": 2})
    _, progress = run_tiny(tmp_path, settings, judge=judge)
    assert (progress.step, progress.best_step, judge.released) == (5, 3, [1, 3])
    assert "no better mIoU than 0.5000" in progress.stopped


def test_weight_decay_and_multipliers_reach_what_the_original_reaches() -> None:
    settings = tiny_settings(optimiser={"head_multiplier": 10, "weight_decay": 0.5})
    network = tiny_network(settings)
    groups = build_optimiser(network, settings.optimiser).param_groups
    kinds = {
        id(parameter): (group["multiplier"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    named = dict(network.named_parameters())
    assert len(kinds) == len(named)
    assert network.classifier is not None
    assert kinds[id(network.classifier.weight)] == (10, 0.5)
    assert kinds[id(network.classifier.bias)] == (20, 0)
    for name, parameter in named.items():
        multiplier, decay = kinds[id(parameter)]
        assert multiplier >= (1 if name.startswith("backbone.") else 10)
        assert bool(decay) == (parameter.ndim == 4 and "depthwise" not in name)


def test_shared_classes_keep_their_rows_and_all_is_listed() -> None:
    settings = tiny_settings()
    source, target = tiny_network(settings, 21), tiny_network(settings, 3)
    labels = LabelSet(("cat", "gnu", "background"))
    report = take_over(target, source.state_dict(), labels=labels, source_labels=VOC)
    assert report.classes == ("cat", "background")
    assert source.classifier is not None
    assert target.classifier is not None
    for name, row in (("cat", 0), ("background", 2)):
        there = source.classifier.weight[VOC.index(name)]
        assert torch.equal(target.classifier.weight[row], there)
    assert report.rebuilt == ("classifier.weight", "classifier.bias")
    assert "1 started anew: classifier." in str(report).replace("2 started", "1 started")


def test_a_classifier_of_other_features_is_not_taken_over_in_part() -> None:
    settings = tiny_settings()
    source, target = tiny_network(settings, 19), tiny_network(settings, 19)
    state = source.state_dict()
    state["classifier.weight"] = state["classifier.weight"][:, :-1]
    torch.nn.init.ones_(state["classifier.bias"])
    report = take_over(target, state, labels=CITYSCAPES, source_labels=CITYSCAPES)
    assert not report.classes
    assert report.rebuilt == ("classifier.weight", "classifier.bias")
    assert target.classifier is not None
    assert not target.classifier.bias.any()  # type: ignore[union-attr]


def test_a_classifier_of_the_same_names_is_kept_whole_and_can_be_refused() -> None:
    settings = tiny_settings()
    source, target = tiny_network(settings, 19), tiny_network(settings, 19)
    state = source.state_dict()
    whole = take_over(target, state, labels=CITYSCAPES, source_labels=CITYSCAPES)
    assert not whole.rebuilt
    anew = take_over(target, state, labels=CITYSCAPES, source_labels=CITYSCAPES, classifier=False)
    assert anew.rebuilt == ("classifier.weight", "classifier.bias")


@pytest.mark.parametrize("order", ["encoder_first", "low_level_first"])
@pytest.mark.parametrize("strides", [[4], [8, 4]])
def test_a_new_decoder_starts_as_if_it_were_not_there(order: str, strides: list[int]) -> None:
    plain = {"output_stride": 16, "head_channels": 8}
    decoder = {
        "version": "v3+",
        "decoder_output_stride": strides,
        "decoder_channels": 8,
        "decoder_order": order,
    }
    source = tiny_network(tiny_settings(model=plain), 21).eval()
    target = tiny_network(tiny_settings(model=plain | decoder), 21)
    report = take_over(target, source.state_dict(), labels=VOC, source_labels=VOC)
    assert report.classes == VOC.names
    assert all(".low_level." in name for name in report.rebuilt)
    image = torch.randint(0, 256, (2, 3, 65, 97), dtype=torch.uint8)
    with torch.no_grad():
        found = target.eval()(image)
        expected = resize(source(image), found.shape[2:], align_corners=True)
    torch.testing.assert_close(found, expected)

    # The low-level features count nothing yet, but they can be learned.
    target(image).square().mean().backward()
    weight = target.decoder[0].convs[0].pointwise.conv.weight  # type: ignore[union-attr, index]
    low = slice(8, None) if order == "encoder_first" else slice(0, -8)
    assert not weight[:, low].any()
    assert weight.grad[:, low].any()


def test_classes_are_not_laid_on_the_features_of_a_decoder_of_another_width() -> None:
    source = tiny_network(tiny_settings(), 21)
    wider = tiny_settings(
        model={"version": "v3+", "decoder_output_stride": [4], "decoder_channels": 16}
    )
    report = take_over(tiny_network(wider, 21), source.state_dict(), labels=VOC, source_labels=VOC)
    assert not report.classes
    assert {"classifier.weight", "classifier.bias"} < set(report.rebuilt)


def test_what_is_released_lies_between_start_and_end(tmp_path: Path) -> None:
    start = tiny_network(tiny_settings()).state_dict()
    end, _ = run_tiny(tmp_path / "end", tiny_settings())
    settings = tiny_settings(optimiser={"start_share": 0.25})
    released: list[DeepLab] = []

    class Keeps(TinyJudge):
        def release(self, network: DeepLab, progress: Progress) -> None:
            released.append(copy.deepcopy(network))

    found, _ = run_tiny(tmp_path / "between", settings, judge=Keeps())
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, 0.75 * end.state_dict()[name] + 0.25 * start[name])
    assert _equal(released[-1].state_dict(), found.state_dict())
    with pytest.raises(InputError, match=r"start_share: got 1\.5, expected 0 to 0\.9999"):
        tiny_settings(optimiser={"start_share": 1.5})


def test_frozen_parts_keep_weights_and_statistics(tmp_path: Path) -> None:
    frozen = ["backbone.stem", "backbone.blocks.3"]
    settings = tiny_settings(optimiser={"frozen": frozen}, run={"batch_norm": "train"})
    before = tiny_network(settings).state_dict()
    network, _ = run_tiny(tmp_path, settings)
    same = {name for name, value in network.state_dict().items() if value.equal(before[name])}
    inside = {name for name in before if name.startswith(tuple(f"{part}." for part in frozen))}
    assert inside <= same
    assert not {name for name in same - inside if name.endswith(("conv.weight", "running_mean"))}
    with pytest.raises(InputError, match=r"no part 'backbone.steam'.*backbone.stem"):
        network.freeze(["backbone.steam"])


def test_collapse_is_called_and_balance_is_not() -> None:
    labels = LabelSet(("road", "car"))
    bad = ConfusionMatrix(np.array([[50, 1], [49, 0]])).totals
    warning = collapse_warning(bad, labels)
    assert warning is not None
    assert re.search(r"'road' is 99% of the predictions and 51% of the truth", warning)
    assert collapse_warning(ConfusionMatrix(np.array([[50, 1], [9, 40]])).totals, labels) is None
    mostly = ConfusionMatrix(np.array([[920, 10], [20, 50]])).totals  # as it is in the truth
    assert collapse_warning(mostly, labels) is None
    assert collapse_warning(ConfusionMatrix(np.array([[930, 0], [60, 10]])).totals, labels)


def test_memory_advice_knows_what_it_is_about() -> None:
    full = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    assert "run.accumulate" in str(memory_advice(RuntimeError(full)))
    assert memory_advice(RuntimeError("something else")) is None
