"""The closed-form fit of classes that overlap, of one logit, and of grey pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import deeplab
from deeplab.training.fit_overlapping import OverlappingCells, best_ious, regress_each


def cells(*, photos: int = 4, seed: int = 0) -> tuple[OverlappingCells, torch.Tensor]:
    """Cells of photos with three features and two classes; of the second some are ignored."""
    random = torch.Generator().manual_seed(seed)
    seen = OverlappingCells(np.array([0.5, 0.2]), photos=photos, seed=seed)
    for photo in range(photos):
        rows = torch.randn(200, 3, generator=random)
        noise = torch.randn(200, 2, generator=random)
        truth = (rows[:, :2] + 0.5 * noise > torch.tensor([0.0, 0.8])).to(torch.uint8)
        truth[:40, 1] = 255
        seen.add(photo, rows, truth)
    return seen, rows


def test_regression_is_the_minimum_of_its_loss_where_something_is_known() -> None:
    seen, _ = cells()
    rows, truth, _, weight, _ = seen.all()
    prior = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    found = regress_each(rows, truth, weight, prior, strength=0.05, rounds=200)
    mean = weight.mean(1) @ rows[:, :-1] / weight.mean(1).sum()
    spread = (weight.mean(1) @ (rows[:, :-1] - mean).square()).mean()
    pull = rows.T @ (weight * ((rows @ found).sigmoid() - truth))
    pull[:-1] += 2 * 0.05 * spread * (found - prior)[:-1]
    assert pull.abs().max() < 1e-3
    # What is not known has no say: no answer of it, and not that there are other classes.
    other = torch.where(weight > 0, truth, 1 - truth)
    again = regress_each(rows, other, weight, prior, strength=0.05, rounds=200)
    torch.testing.assert_close(again, found)


def test_the_best_iou_is_that_of_trying_every_threshold() -> None:
    random = np.random.default_rng(0)
    logits = random.integers(-3, 4, (60, 3)).astype(np.float32)  # many are equal
    truth = (random.random((60, 3)) < 0.4).astype(np.float32)
    truth[:, 2] = 0
    share = random.random((60, 3)).astype(np.float32)
    found = best_ious(*map(torch.from_numpy, (logits, truth, share))).numpy()
    for k in range(2):
        ious = []
        for threshold in np.unique(logits[:, k]):
            said, yes, size = logits[:, k] >= threshold, truth[:, k] > 0, share[:, k]
            ious.append(size[said & yes].sum() / size[said | yes].sum())
        assert found[k] == pytest.approx(max(ious), abs=1e-5)
    assert np.isnan(found[2])


def write(folder: Path, kind: str) -> Path:
    """The shapes as classes that overlap, as one object, or in grey."""
    tiny.make_shapes(folder)
    for kinds in ("images", "masks"):
        for split, most in (("train", 6), ("val", 2)):
            for path in (folder / kinds / split).iterdir():
                if int(path.stem) >= most:
                    path.unlink()
    splits = '[splits]\ntrain = "train"\nval = "val"\n'
    for path in sorted((folder / "masks").rglob("*.png")):
        label = np.asarray(Image.open(path))
        if kind == "overlapping":  # what is white is bright, too
            planes = [Image.fromarray((label >= least).astype(np.uint8)) for least in (1, 2)]
            planes[0].save(path.with_suffix(".tif"), save_all=True, append_images=planes[1:])
            path.unlink()
        elif kind == "one logit":
            Image.fromarray((label == 2).astype(np.uint8)).save(path)
    lines = {
        "overlapping": 'classes = ["bright", "white"]\noverlap = true\n',
        "one logit": 'classes = ["background", "white"]\n',
        "grey": 'classes = ["background", "grey", "white"]\nchannels = 1\n',
    }
    (folder / "dataset.toml").write_text(lines[kind] + splits)
    if kind == "grey":
        for path in (folder / "images").rglob("*.png"):
            Image.open(path).convert("L").save(path)
    return folder


@pytest.mark.parametrize("kind", ["overlapping", "one logit", "grey"])
def test_what_a_newcomer_gets_at_once_is_good(tmp_path: Path, kind: str) -> None:
    told: list[str] = []
    settings: dict[str, Any] = {"data.check": False, "data.frame": (129, 161)}
    if kind == "one logit":
        settings["loss.one_logit"] = True
    run = deeplab.train(
        write(tmp_path / "data", kind),
        folder=tmp_path / "run",
        seconds=0,
        settings=settings,
        tell=told.append,
    )
    # Six grey pictures of noise say little; nothing is learned by steps here.
    assert run.scores["miou"] > (0.5 if kind == "grey" else 0.75)
    assert any("Fit: 6 photos looked at" in line for line in told)
    result = run.segmenter()(next((tmp_path / "data" / "images" / "val").glob("*1.png")))
    assert "white" in result.shares or kind == "grey"
    if kind == "overlapping":
        thresholds = run.scores["thresholds"]
        assert set(thresholds) == {"bright", "white"}
        assert result.thresholds == tuple(thresholds.values())
        assert (result.masks[0] | ~result.masks[1]).mean() > 0.97


def test_a_start_whose_classes_overlap_keeps_what_it_knows_better(tmp_path: Path) -> None:
    data = write(tmp_path / "data", "overlapping")
    given: dict[str, Any] = {"data.check": False, "data.frame": (129, 161)}
    told: list[str] = []
    options: dict[str, Any] = {"seconds": 0, "settings": given, "tell": told.append}
    first = deeplab.train(data, folder=tmp_path / "a", **options)
    assert not any("kept by name" in line for line in told)
    again = deeplab.train(data, folder=tmp_path / "b", init=first.model, **options)
    assert any("Classifier rows kept by name: bright, white" in line for line in told)
    assert again.scores["miou"] > first.scores["miou"] - 0.02
