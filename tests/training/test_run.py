"""Training from Python: runs, callbacks, objects in place of folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deeplab
from deeplab.data import open_dataset
from deeplab.errors import DataError, InputError
from deeplab.evaluation.metrics import ConfusionMatrix
from deeplab.training.loop import Score, StepNews

TINY = {
    "model.depth_multiplier": 0.1, "model.head_channels": 8, "data.crop_size": [33, 49],
    "data.workers": 0, "run.device": "cpu",
}  # fmt: skip


class Pairs:
    """An object of one's own: not a class of the package, and no files."""

    labels = ("background", "grey", "white")

    def __init__(self, pairs: list[Any]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Any:
        return self.pairs[index]


def _train(data: Any, folder: Path, **options: Any) -> deeplab.Run:
    options = {"steps": 2, "batch_size": 2, "tell": lambda text: None, **options}
    return deeplab.train(data, folder=folder, settings=TINY, **options)


def test_a_run_is_what_its_folder_holds(shapes: Path, tmp_path: Path) -> None:
    steps: list[StepNews] = []
    scores: list[tuple[int, Score]] = []
    run = _train(
        shapes,
        tmp_path / "run",
        steps=3,
        on_step=steps.append,
        on_validation=lambda step, score: scores.append((step, score)),
    )
    assert [(news.step, news.steps) for news in steps] == [(1, 3), (2, 3), (3, 3)]
    assert [step for step, _ in scores] == [3]
    assert [row["step"] for row in run.history] == [1, 2, 3]
    assert run.history[-1]["loss"] == pytest.approx(steps[-1].loss, rel=1e-5)
    assert run.history[-1]["miou"] == pytest.approx(run.scores["miou"], rel=1e-5)
    for name, iou in scores[-1][1].iou.items():
        assert run.history[-1][f"iou.{name}"] == pytest.approx(iou, rel=1e-5)
    again = deeplab.Run.open(tmp_path / "run")
    assert again == run
    assert "IoU by class" in again.plot()
    again.plot().save(tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text("utf-8") == run.plot()
    assert f"mIoU {run.scores['miou']:.4f} at step 3" in repr(run)
    assert "<svg" in run._repr_html_()
    mask = run.segmenter()(shapes / "images/val/0.png").mask
    assert mask.shape == (48, 64)


def test_a_callback_ends_a_training_saved(shapes: Path, tmp_path: Path) -> None:
    run = _train(shapes, tmp_path / "run", steps=50, on_step=lambda news: news.step == 2)
    assert max(row["step"] for row in run.history) == 2
    with pytest.raises(InputError, match="no network yet"):
        _ = run.model
    assert "no validation yet" in repr(run)
    longer = _train(shapes, tmp_path / "run", steps=3)
    assert longer.step == 3


def test_objects_train_as_their_folder_does(shapes: Path, tmp_path: Path) -> None:
    """The same pairs give the same loss, from files and from objects."""
    files = [open_dataset(shapes, split=split) for split in ("train", "val")]
    objects = [Pairs([(sample.image, sample.label) for sample in one]) for one in files]
    options: dict[str, Any] = {"name": "same"}
    by_file = _train(shapes, tmp_path / "files", **options)
    by_object = _train(objects[0], tmp_path / "objects", val=objects[1], **options)
    losses = [[row["loss"] for row in run.history] for run in (by_file, by_object)]
    assert losses[0] == losses[1]
    assert by_file.scores["iou"] == by_object.scores["iou"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "a int has no labels"),
        (Pairs([]), "holds no picture"),
        (Pairs([7]), r"got int at index 0, expected \(image, label\)"),
        (Pairs([(np.zeros((9, 9)), np.zeros((9, 9), int))]), "expected .*uint8, RGB"),
        (Pairs([(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 8), int))]), "of the image's size"),
        (Pairs([(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9)))]), "expected whole numbers"),
        (Pairs([(np.zeros((9, 9, 3), np.uint8), np.full((9, 9), -1))]), "from -1 to -1"),
    ],
)
def test_odd_objects_are_refused(data: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        _train(data, tmp_path / "run", val=data)


def test_what_does_not_go_together_is_refused(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="val: is missing"):
        _train(Pairs([]), tmp_path / "run")
    with pytest.raises(InputError, match="has its own splits"):
        _train(shapes, tmp_path / "run", val=Pairs([]))
    with pytest.raises(InputError, match="no training has begun"):
        deeplab.Run.open(tmp_path)


def test_scores_are_those_of_the_counts(shapes: Path, tmp_path: Path) -> None:
    run = _train(shapes, tmp_path / "run")
    scores = deeplab.evaluate(run, shapes)
    assert scores.miou == pytest.approx(run.scores["miou"], abs=1e-12)
    objects = Pairs([(sample.image, sample.label) for sample in open_dataset(shapes, split="val")])
    again = deeplab.evaluate(run.model, objects)
    np.testing.assert_array_equal(scores.confusion, again.confusion)
    assert "<table>" in scores._repr_html_()
    assert repr(scores).startswith("<Scores: mIoU ")
    assert scores.write_report(tmp_path / "report").is_file()


def test_precision_recall_and_f1_follow_their_definitions() -> None:
    counts = np.random.default_rng(0).integers(0, 100, (4, 4))
    counts[3], counts[:, 3] = 0, 0
    totals = ConfusionMatrix(counts).totals
    for index in range(3):
        right = counts[index, index]
        precision, recall = right / counts[:, index].sum(), right / counts[index].sum()
        assert totals.precision[index] == pytest.approx(precision)
        assert totals.recall[index] == pytest.approx(recall)
        f1 = 2 * precision * recall / (precision + recall)
        assert totals.f1[index] == pytest.approx(f1)
        assert totals.f1[index] == pytest.approx(2 * totals.iou[index] / (1 + totals.iou[index]))
    assert np.isnan([totals.precision[3], totals.recall[3], totals.f1[3]]).all()


def test_a_segmentation_shows_itself() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    picture = deeplab.Segmenter("voc-fast")(photo)._repr_png_()
    assert picture.startswith(b"\x89PNG")
    assert int.from_bytes(picture[16:20], "big") == 800
