"""Classes that overlap, and two told apart by one logit, go the whole way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kills
import numpy as np
import pytest
import torch
from PIL import Image

from deeplab import Segmenter
from deeplab.cli import run as run_command
from deeplab.crf import refine_segmentation
from deeplab.data import open_dataset
from deeplab.data.check import check
from deeplab.errors import DataError, InputError, ModelError, WeightsError
from deeplab.evaluation.calibration import calibrate
from deeplab.evaluation.overlap import OverlapCounts, evaluate_overlapping
from deeplab.evaluation.protocol import evaluate, open_predictor
from deeplab.export import export
from deeplab.labels import LabelSet
from deeplab.models import DeepLabConfig, build
from deeplab.photo.confidence import Scores
from deeplab.photo.overlapping import OverlappingSegmentation, find_masks
from deeplab.training.experiment import run_experiment
from deeplab.training.loop import Callbacks
from deeplab.training.one_logit import release_state
from deeplab.training.settings import Settings
from deeplab.weights import release

SIDE = 33
QUIET: dict[str, Any] = {"tell": lambda text: None}
LEARNED = Callbacks(validation=lambda step, score: score.miou > 0.98)


def draw() -> list[tuple[np.ndarray, np.ndarray]]:
    """(photo, (H, W, 2) truth): red says the one class, green the other; both may be there."""
    random = np.random.default_rng(0)
    pairs = []
    for index in range(4):
        half = np.zeros((SIDE, SIDE), np.uint8)
        half[SIDE // 2 + 4 :] = 1  # half way between two cells of the logits
        label = np.stack([np.rot90(half, index), np.rot90(half, index + 1)], axis=2)
        photo = random.integers(0, 40, (SIDE, SIDE, 3))
        photo[..., :2] += 180 * label
        pairs.append((photo.astype(np.uint8), label))
    return pairs


def write(folder: Path, kind: str) -> Path:
    """Write pictures with masks as "stack", "npy", "folders", "white", or as one class "red"."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for index, (photo, label) in enumerate(draw()):
        Image.fromarray(photo).save(folder / "images" / f"{index}.png")
        planes = [Image.fromarray(plane) for plane in label.transpose(2, 0, 1)]
        if kind == "stack":
            planes[0].save(
                folder / "masks" / f"{index}.tif", save_all=True, append_images=planes[1:]
            )
        elif kind == "npy":
            np.save(folder / "masks" / f"{index}.npy", label)
        elif kind == "red":
            planes[0].save(folder / "masks" / f"{index}.png")
        else:
            for name, plane in zip(("red", "green"), planes, strict=True):
                (folder / "masks" / name).mkdir(exist_ok=True)
                white = Image.fromarray(np.asarray(plane) * np.uint8(255))
                white.save(folder / "masks" / name / f"{index}.png")
    said = {
        "red": 'classes = ["background", "red"]',
        "folders": 'classes = ["red", "green"]\noverlap = true\nvalues = [0, 255]\nignore = []',
    }.get(kind, 'classes = ["red", "green"]\noverlap = true')
    lists = '["0", "1", "2", "3"]'
    (folder / "dataset.toml").write_text(f"{said}\n[splits]\ntrain = {lists}\nval = {lists}\n")
    return folder


def settings(data: Path, steps: int = 60, **loss: Any) -> Settings:
    return Settings.from_dict(
        {
            "name": "red",
            "data": {
                "path": str(data), "crop_size": [SIDE, SIDE], "workers": 0, "check": False,
                "scale_range": [1.0, 1.0],
            },
            "loss": loss,
            "model": {
                "depth_multiplier": 0.25, "head_channels": 16, "output_stride": 8, "dropout": 0.0,
                "backbone_bn_decay": 0.8, "head_bn_decay": 0.8,
            },
            "schedule": {"base": 0.2, "start_steps": 5, "start_ramp": True},
            "optimiser": {"weight_decay": 0.0, "clip_norm": 5.0},
            "run": {
                "steps": steps, "batch_size": 4, "validate_every": min(steps, 20), "device": "cpu",
                "validate_frame": True, "log_every": 1, "save_every": 1,
            },
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def overlapping(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data set, release pair) of overlapping classes, learned by heart."""
    folder = tmp_path_factory.mktemp("overlap")
    data = write(folder / "data", "stack")
    torch.set_num_threads(1)
    run_experiment(settings(data, 200), folder / "run", callbacks=LEARNED, **QUIET)
    return data, folder / "run" / "red.json"


@pytest.fixture(scope="module")
def one_logit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same of one class and one logit, learned by BCE and Dice."""
    folder = tmp_path_factory.mktemp("one")
    data = write(folder / "data", "red")
    torch.set_num_threads(1)
    plan = settings(data, 200, one_logit=True, terms={"bce": 1.0, "dice": 0.5})
    run_experiment(plan, folder / "run", callbacks=LEARNED, **QUIET)
    return data, folder / "run" / "red.json"


# -- classes that overlap --------------------------------------------------------------------------


def test_overlapping_classes_are_learned_by_heart(overlapping: tuple[Path, Path]) -> None:
    data, pair = overlapping
    found = release.open_release(pair)
    assert found.scores["val"]["miou"] > 0.97
    assert found.labels.overlap
    assert found.thresholds == tuple(found.scores["val"]["thresholds"].values())
    assert json.loads(pair.read_text())["format_version"] == 2
    predictor: Any = open_predictor(pair)
    scored = evaluate_overlapping(predictor, open_dataset(data, split="val"))
    assert scored.miou == pytest.approx(found.scores["val"]["miou"])
    assert scored.to_dict()["iou"] == pytest.approx(found.scores["val"]["iou"])


def test_a_result_has_a_mask_per_class(overlapping: tuple[Path, Path], tmp_path: Path) -> None:
    _, pair = overlapping
    segmenter = Segmenter(pair)
    for photo, label in draw():
        result = segmenter(photo)
        assert isinstance(result, OverlappingSegmentation)
        assert result.masks.shape == (2, SIDE, SIDE)
        assert (result.masks == label.transpose(2, 0, 1)).mean() > 0.97
        probability = result.probability("green")
        assert ((probability >= result.thresholds[1]) == result.mask_of("green")).mean() > 0.999
        assert ((result.mask == 255) == ~result.masks.any(0)).all()
        assert result.shares["red"] == result.mask_of("red").mean()
    result.save_masks(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as file:
        assert file.n_frames == 2
    runs = {entry["name"]: entry["segmentation"]["counts"] for entry in result.to_dict()["classes"]}
    for name, counts in runs.items():
        plane = np.repeat(np.arange(len(counts)) % 2, counts).reshape(SIDE, SIDE).T
        assert (plane == result.mask_of(name)).all()
    assert result.overlay().size == result.contour().size == (SIDE, SIDE)
    assert [plane["label"] for plane in result.to_pipeline()] == list(result.shares)
    assert np.asarray(result.cutout("red"))[..., 3].any()
    for refused in (lambda: result.confidence, lambda: result.save_mask(tmp_path / "a.png")):
        with pytest.raises(InputError, match="overlap"):
            refused()


@pytest.mark.parametrize("to", ["tflite", "onnx"])
def test_it_is_exported_with_a_certificate_and_equal_masks(
    overlapping: tuple[Path, Path], to: str
) -> None:
    data, pair = overlapping
    target = pair.with_suffix(f".{to}")
    done = export(pair, to, file=target, photos=sorted((data / "images").iterdir()))
    assert done.certificate.rounds[0].worst_equal_pixels > 0.9999
    reference, file = Segmenter(pair), Segmenter(target)
    assert file.labels == reference.labels
    assert file.card.thresholds == reference.card.thresholds
    for photo, _ in draw():
        one, other = file(photo), reference(photo)
        assert isinstance(one, OverlappingSegmentation)
        assert isinstance(other, OverlappingSegmentation)
        assert (one.masks == other.masks).all()
    renamed = Segmenter(target, labels=LabelSet(("rouge", "vert")))
    assert isinstance(renamed(draw()[0][0]), OverlappingSegmentation)


def test_what_has_one_class_per_pixel_refuses_it(
    overlapping: tuple[Path, Path], tmp_path: Path
) -> None:
    data, pair = overlapping
    segmenter = Segmenter(pair)
    for refused in (
        lambda: segmenter.video("a.mp4"),
        lambda: segmenter.tiles(draw()[0][0]),
        lambda: Segmenter(pair, temperature=2.0),
        lambda: refine_segmentation(segmenter(draw()[0][0])),
        lambda: calibrate(segmenter, open_dataset(data, split="val")),
        lambda: evaluate(open_predictor(pair), open_dataset(data, split="val")),
        lambda: export(pair, "tflite", file=tmp_path / "a.tflite", output="mask"),
        lambda: export(
            pair, "tflite", file=tmp_path / "a.tflite", precision="int8", calibrate=[pair]
        ),
    ):
        with pytest.raises(InputError, match="overlap"):
            refused()
    for name, loss, more in (
        ("loss.class_weights", {"class_weights": "auto"}, {}),
        ("cross_entropy", {"terms": {"cross_entropy": 1.0}}, {}),
        ("data.rare_class_crops", {}, {"rare_class_crops": 0.5}),
        ("data.repeat_threshold", {}, {"repeat_threshold": 0.5}),
    ):
        plan = settings(data, **loss).to_dict()
        plan["data"] |= more
        with pytest.raises(InputError, match=name):
            run_experiment(Settings.from_dict(plan), tmp_path / "run", **QUIET)


def test_the_command_line_carries_it(
    overlapping: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    data, pair = overlapping
    photos, out = str(data / "images"), tmp_path / "out"
    kinds = "overlay,contour,mask,json"
    assert run_command(["segment", photos, "-m", str(pair), "-o", str(out), "--save", kinds]) == 0
    assert len(list(out.glob("*.masks.tif"))) == 4
    again = tmp_path / "again"
    (again / "images").mkdir(parents=True)
    (again / "masks").mkdir()
    for index in range(4):  # what is written is read as a data set
        (data / "images" / f"{index}.png").rename(again / "images" / f"{index}.png")
        (out / f"{index}.masks.tif").rename(again / "masks" / f"{index}.tif")
    (again / "dataset.toml").write_text((data / "dataset.toml").read_text())
    for index in range(4):
        (data / "images" / f"{index}.png").write_bytes(
            (again / "images" / f"{index}.png").read_bytes()
        )
    capsys.readouterr()
    assert run_command(["evaluate", str(pair), str(again), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["miou"] == 1.0
    words = ["segment", photos, "-m", str(pair), "-o", str(tmp_path / "sets"), "--save", "coco"]
    assert run_command(words) == 0
    coco = tmp_path / "sets" / "coco" / "annotations" / "instances_default.json"
    turned = ["data", "convert", str(coco), "-o", str(tmp_path / "turned"), "--overlap"]
    assert run_command([*turned, "--split", "train"]) == 0
    back = open_dataset(tmp_path / "turned", split="train")
    for index, sample in enumerate(back):
        assert (sample.label == open_dataset(again, split="train")[index].label).all()
    for wrong in (
        ["--save", "cutout"],
        ["--save", "voc"],
        ["--crf"],
        ["--unknown", "0.5"],
        ["--only", "red"],
    ):
        words = ["segment", photos, "-m", str(pair), "-o", str(tmp_path / "no"), *wrong]
        assert run_command(words) == 2
        assert "overlap" in capsys.readouterr().err


@pytest.mark.parametrize("head", ["overlapping", "one logit"])
def test_killed_it_ends_with_the_same_bits(tmp_path: Path, head: str) -> None:
    data = write(tmp_path / "data", "npy" if head == "overlapping" else "red")
    plan = settings(data, 4, one_logit=head == "one logit")
    assert kills.differences(plan, tmp_path, step=3) == []


# -- the data --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stack", "npy", "folders", "white"])
def test_all_ways_of_writing_masks_are_one(tmp_path: Path, kind: str) -> None:
    dataset = open_dataset(write(tmp_path / "data", kind), split="train")
    for sample, (photo, label) in zip((dataset[i] for i in range(4)), draw(), strict=True):
        assert (sample.image == photo).all()
        assert (sample.label == label).all()
    report = check([dataset])
    assert report.stops == ()
    pixels = np.stack([label for _, label in draw()]).sum((0, 1, 2))
    assert [*report.splits[0].counts.pixels] == [*pixels]


def test_the_doctor_says_what_is_wrong_with_such_masks(tmp_path: Path) -> None:
    data = write(tmp_path / "data", "npy")
    np.save(data / "masks" / "0.npy", np.full((SIDE, SIDE, 2), 255, np.uint8))
    np.save(data / "masks" / "1.npy", np.full((SIDE, SIDE, 2), 7, np.uint8))
    np.save(data / "masks" / "2.npy", np.zeros((SIDE, SIDE, 3), np.uint8))
    (data / "masks" / "3.npy").unlink()
    dataset = open_dataset(data, split="train")
    codes = {fault.code: fault for fault in check([dataset]).faults}
    assert {"all-ignored", "unreadable-mask", "missing-mask"} <= codes.keys()
    assert "values = [0, 255]" in str(codes["unreadable-mask"])
    with pytest.raises(DataError, match="holds 3 masks, expected one for each of the 2 classes"):
        dataset[2]
    with pytest.raises(DataError, match="there is no mask of '3'"):
        dataset[3]
    text = (data / "dataset.toml").read_text()
    (data / "dataset.toml").write_text(text.replace('["red", "green"]', '["red"]'))
    with pytest.raises(DataError, match="overlap: is for two classes or more"):
        open_dataset(data, split="train")


# -- counting --------------------------------------------------------------------------------------


def test_counts_are_those_of_counting_every_pixel() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (9, 9, 3)).astype(np.float32)
    label = random.integers(0, 2, (9, 9, 3)).astype(np.uint8)
    label[random.random(label.shape) < 0.2] = 255
    look = Scores(values=logits, align_corners=True)
    whole = OverlapCounts.none(3)
    whole.add(label, [look])
    for edge, threshold in enumerate(whole.edges):
        masks, topmost = find_masks([look], (threshold,) * 3, 9, 9)
        for index in range(3):
            known, mask = label[:, :, index] != 255, masks[index]
            true = (label[:, :, index] == 1) & known
            both, either = (mask & true).sum(), ((mask & known) | true).sum()
            assert whole.ious[index, edge] == pytest.approx(both / either)
            rest, found = ~true & known, ~mask & known
            expected = (rest & found).sum() / (rest | found).sum()
            assert whole.complement_iou(edge)[index] == pytest.approx(expected)
        inside = topmost != 255
        assert (inside == masks.any(0)).all()
        assert np.take_along_axis(masks, np.where(inside, topmost, 0)[None], 0)[0][inside].all()
    parts = OverlapCounts.none(3)
    for rows in (slice(0, 4), slice(4, 9)):
        one = OverlapCounts.none(3)
        one.add(label[rows], [Scores(values=logits[rows], align_corners=True)])
        parts.merge(one)
    assert (parts.counts == whole.counts).all()
    best = whole.choose()
    assert [whole.ious[i, e] for i, e in enumerate(best)] == [*np.nanmax(whole.ious, axis=1)]


# -- one logit -------------------------------------------------------------------------------------


def test_one_logit_is_learned_by_heart_and_runs_as_two_classes(
    one_logit: tuple[Path, Path],
) -> None:
    data, pair = one_logit
    found = release.open_release(pair)
    assert found.scores["val"]["miou"] > 0.97
    assert found.labels.names == ("background", "red")
    assert json.loads(pair.read_text())["format_version"] == 1  # whatever runs two classes runs it
    assert not found.state_dict()["classifier.weight"][0].any()
    scored = evaluate(open_predictor(pair), open_dataset(data, split="val"))
    assert scored.miou == pytest.approx(found.scores["val"]["miou"])
    segmenter = Segmenter(pair)
    for photo, label in draw():
        assert (segmenter(photo).mask == label[:, :, 0]).mean() > 0.97


def test_one_logit_is_exported_with_a_certificate(one_logit: tuple[Path, Path]) -> None:
    data, pair = one_logit
    photos = sorted((data / "images").iterdir())
    done = export(pair, "tflite", file=pair.with_suffix(".tflite"), photos=photos)
    assert done.certificate.rounds[0].worst_equal_pixels > 0.9999
    for path in photos:
        assert (Segmenter(done.file)(path).mask == Segmenter(pair)(path).mask).all()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_the_released_object_is_where_its_probability_reaches_the_threshold(
    threshold: float,
) -> None:
    config = DeepLabConfig(depth_multiplier=0.25, num_classes=2)
    network = build(config).eval()
    released = build(config, release_state(network, threshold)).eval()
    image = torch.randint(0, 256, (1, 3, 65, 65), dtype=torch.uint8)
    with torch.inference_mode():
        plain, other = network(image), released(image)
    probability = torch.sigmoid(plain[:, 1] - plain[:, 0])
    sure = (probability - threshold).abs() > 1e-5
    assert ((other.argmax(1) == 1) == (probability >= threshold))[sure].all()


def test_one_logit_refuses_what_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no class_weights and no cross_entropy"):
        settings(tmp_path, one_logit=True, terms={"cross_entropy": 1.0})
    data = write(tmp_path / "data", "npy")
    with pytest.raises(InputError, match="is for two classes that exclude each other"):
        run_experiment(settings(data, one_logit=True), tmp_path / "run", **QUIET)


def test_damaged_thresholds_are_named(overlapping: tuple[Path, Path], tmp_path: Path) -> None:
    _, pair = overlapping
    content = json.loads(pair.read_text())
    for wrong in ([0.5], [0.5, 1.5], "half"):
        broken = tmp_path / "broken.json"
        broken.write_text(json.dumps({**content, "thresholds": wrong}))
        broken.with_suffix(".safetensors").write_bytes(
            pair.with_suffix(".safetensors").read_bytes()
        )
        with pytest.raises((WeightsError, ModelError)):
            release.open_release(broken)
