"""Panoptic quality and parsing covering against their definitions, written out pixel by pixel."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab import cli
from deeplab.errors import DataError, InputError
from deeplab.evaluation.panoptic import PanopticCounts, Segment
from deeplab.evaluation.panoptic_files import evaluate_panoptic

CLASSES = 3


def _draw(random: np.random.Generator, *, crowds: bool) -> tuple[np.ndarray, list[Segment]]:
    """Return random ids (H, W), void included, and what they are; one crowd per class at most."""
    ids = np.zeros((14, 17), np.int64)
    segments: dict[int, Segment] = {}
    crowded: set[int] = set()
    for _ in range(7):
        top, left = random.integers(0, 11), random.integers(0, 13)
        identity = int(random.integers(1, 1 << 24))
        ids[top : top + random.integers(2, 8), left : left + random.integers(2, 9)] = identity
        category = int(random.integers(CLASSES))
        crowd = crowds and random.random() < 0.25 and category not in crowded
        crowded |= {category} if crowd else set()
        segments[identity] = Segment(id=identity, category=category, is_crowd=crowd)
    return ids, [segments[i] for i in np.unique(ids).tolist() if i]


def _disturb(random: np.random.Generator, ids: np.ndarray, segments: list[Segment]):
    """Return a prediction that is often right: moved by a pixel, some classes changed."""
    moved = np.roll(ids, random.integers(-1, 2), random.integers(2))
    moved[random.random(ids.shape) < 0.08] = 0
    kept = []
    for segment in segments:
        category = segment.category if random.random() < 0.8 else int(random.integers(CLASSES))
        kept.append(Segment(id=segment.id, category=category))
    shown = set(np.unique(moved).tolist())
    return moved, [segment for segment in kept if segment.id in shown]


def _define(pairs) -> tuple[list[list[float]], list[float]]:
    """Return per class (sum of IoU, found, invented, missed), and PC, from sets of pixels."""
    sums = [[0.0, 0, 0, 0] for _ in range(CLASSES)]
    covered, areas = [0.0] * CLASSES, [0.0] * CLASSES
    for truth, true_segments, prediction, found_segments in pairs:

        def pixels(ids, identity):
            return {tuple(at) for at in np.argwhere(ids == identity)}

        void = pixels(truth, 0)
        real = [(s, pixels(truth, s.id)) for s in true_segments if not s.is_crowd]
        crowds = [(s, pixels(truth, s.id)) for s in true_segments if s.is_crowd]
        guesses = [(s, pixels(prediction, s.id)) for s in found_segments]
        counted = {at for _, area in real for at in area}
        partners = set()
        for segment, area in real:
            best, partner = 0.0, None
            for guess, region in guesses:
                if guess.category == segment.category:
                    iou = len(area & region) / len(area | (region - void))
                    if iou > 0.5:
                        best, partner = iou, guess.id
            sums[segment.category][0] += best
            sums[segment.category][1 if partner else 3] += 1
            partners.add(partner)
            same = [r & counted for g, r in guesses if g.category == segment.category]
            iou = max((len(area & r) / len(area | r) for r in same), default=0.0)
            covered[segment.category] += iou * len(area) / truth.size
            areas[segment.category] += len(area) / truth.size
        for guess, region in guesses:
            excused = set(void)
            for crowd, area in crowds:
                excused |= area if crowd.category == guess.category else set()
            if guess.id not in partners and len(region & excused) <= len(region) / 2:
                sums[guess.category][2] += 1
    pc = [c / a if a else math.nan for c, a in zip(covered, areas, strict=True)]
    return sums, pc


def _pairs(seed: int, count: int, *, crowds: bool = True):
    random = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        truth, segments = _draw(random, crowds=crowds)
        pairs.append((truth, segments, *_disturb(random, truth, segments)))
    return pairs


def _count(pair) -> PanopticCounts:
    truth, segments, prediction, found = pair
    return PanopticCounts.of(
        truth, prediction, truth_segments=segments, predicted_segments=found, num_classes=CLASSES
    )


@pytest.mark.parametrize("seed", range(3))
def test_they_are_what_their_definitions_say(seed: int) -> None:
    pairs = _pairs(seed, 4)
    counts = PanopticCounts(CLASSES)
    for pair in pairs:
        counts.merge(_count(pair))
    sums, pc = _define(pairs)
    assert min(counts.found.sum(), counts.invented.sum(), counts.missed.sum()) > 0
    for index, (iou, found, invented, missed) in enumerate(sums):
        assert counts.iou[index] == pytest.approx(iou, rel=1e-12)
        assert [counts.found[index], counts.invented[index], counts.missed[index]] == [
            found, invented, missed,
        ]  # fmt: skip
        assert counts.pq[index] == pytest.approx(iou / (found + invented / 2 + missed / 2))
        assert counts.pq[index] == pytest.approx(counts.sq[index] * counts.rq[index])
    assert counts.pc == pytest.approx(pc, nan_ok=True)


def test_merging_does_not_depend_on_who_counted_what() -> None:
    parts = [_count(pair) for pair in _pairs(9, 8)]
    one, two, three = PanopticCounts(CLASSES), PanopticCounts(CLASSES), PanopticCounts(CLASSES)
    for index, part in enumerate(parts):
        one.merge(part)
        (two if index % 3 else three).merge(part)
    two.merge(three)
    for name in ("found", "invented", "missed"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert one.mean().pq == pytest.approx(two.mean().pq, rel=1e-12)


def test_a_perfect_prediction_scores_1_and_an_empty_one_0() -> None:
    truth, segments = _draw(np.random.default_rng(1), crowds=False)
    best = _count((truth, segments, truth, segments)).mean()
    assert (best.pq, best.sq, best.rq, best.pc) == (1, 1, 1, 1)
    worst = _count((truth, segments, np.zeros_like(truth), [])).mean()
    assert (worst.pq, worst.rq, worst.pc) == (0, 0, 0)
    nothing = PanopticCounts(CLASSES).mean()
    assert math.isnan(nothing.pq)
    assert nothing.classes == 0


def test_ids_and_segments_that_do_not_belong_together_are_refused() -> None:
    truth, segments = _draw(np.random.default_rng(2), crowds=False)

    def count(prediction, found):
        return _count((truth, segments, prediction, found))

    with pytest.raises(DataError, match="prediction: 1 ids are in the picture, but in no segment"):
        count(truth, segments[1:])
    with pytest.raises(DataError, match="is described, but has no pixel"):
        count(truth, [*segments, Segment(id=(1 << 24) + 1, category=0)])
    with pytest.raises(DataError, match="described twice"):
        count(truth, [*segments, segments[0]])
    with pytest.raises(DataError, match="of a class that is not known"):
        count(truth, [Segment(id=segments[0].id, category=7), *segments[1:]])
    with pytest.raises(InputError, match="bring it to the truth's size"):
        count(truth[1:], segments)


# --- files of COCO's format -------------------------------------------------------------------


def write(folder: Path, name: str, pairs, which: int) -> Path:
    """Write truth (0) or predictions (2) as COCO does."""
    pictures = folder / name
    pictures.mkdir(parents=True)
    annotations = []
    for index, pair in enumerate(pairs):
        ids, segments = pair[which], pair[which + 1]
        rgb = np.stack((ids % 256, ids // 256 % 256, ids // 65536), 2).astype(np.uint8)
        Image.fromarray(rgb).save(pictures / f"{index}.png")
        infos = [
            {"id": s.id, "category_id": 10 + s.category, "iscrowd": int(s.is_crowd),
             "area": int((ids == s.id).sum())}
            for s in segments
        ]  # fmt: skip
        entry = {"image_id": index, "file_name": f"{index}.png", "segments_info": infos}
        annotations.append(entry)
    content: dict[str, object] = {"annotations": annotations}
    if which == 0:
        content["categories"] = [
            {"id": 10 + i, "name": f"class {i}", "isthing": int(i > 0)} for i in range(CLASSES)
        ]
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def test_files_are_compared_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = _pairs(4, 5)
    truth, found = write(tmp_path, "truth", pairs, 0), write(tmp_path, "found", pairs, 2)
    assert cli.run(["evaluate", "--panoptic", str(found), str(truth), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    whole = PanopticCounts(CLASSES)
    for pair in pairs:
        whole.merge(_count(pair))
    assert said["all"]["pq"] == pytest.approx(whole.mean().pq)
    assert said["things"]["pq"] == pytest.approx(whole.mean(np.array([False, True, True])).pq)
    assert said["classes"][2]["pc"] == pytest.approx(whole.pc[2])
    assert cli.run(["evaluate", "--panoptic", str(found), str(truth)]) == 0
    assert "5 pictures" in capsys.readouterr().out
    assert cli.run(["evaluate", "--panoptic", str(found), str(truth), "--flip"]) == 2
    assert "--flip: not with --panoptic" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t, f: f["annotations"].pop(), "1 of 2 pictures have no prediction"),
        (lambda t, f: f.pop("annotations"), "is not COCO's panoptic JSON"),
        (lambda t, f: t.pop("categories"), "has no categories with id, name and isthing"),
        (lambda t, f: f["annotations"][0]["segments_info"].pop(), "but in no segment"),
        (lambda t, f: f["annotations"][0].update(file_name="no.png"), "cannot be read"),
        (lambda t, f: f["annotations"][0]["segments_info"][0].update(category_id=3), "lists"),
        (lambda t, f: t["annotations"].append(t["annotations"][0]), "has an image_id twice"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, damage, said: str) -> None:
    pairs = _pairs(5, 2, crowds=False)
    paths = write(tmp_path, "truth", pairs, 0), write(tmp_path, "found", pairs, 2)
    contents = [json.loads(path.read_text()) for path in paths]
    damage(*contents)
    for path, content in zip(paths, contents, strict=True):
        path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=said):
        evaluate_panoptic(paths[1], paths[0])


def test_a_picture_that_is_not_rgb_is_refused(tmp_path: Path) -> None:
    pairs = _pairs(6, 1)
    truth, found = write(tmp_path, "truth", pairs, 0), write(tmp_path, "found", pairs, 2)
    Image.new("L", (17, 14)).save(tmp_path / "found" / "0.png")
    with pytest.raises(DataError, match="expected an RGB PNG"):
        evaluate_panoptic(found, truth)
