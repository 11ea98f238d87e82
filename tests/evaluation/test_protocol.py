from __future__ import annotations

import dataclasses
import functools
import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from deeplab.data.sample import Sample
from deeplab.errors import DataError, InputError
from deeplab.evaluation.metrics import ConfusionMatrix
from deeplab.evaluation.protocol import (
    Evaluation,
    FilePredictor,
    TorchPredictor,
    evaluate,
    match_labels,
    open_predictor,
    share_labels,
)
from deeplab.evaluation.report import summary_table, to_dict, write_report
from deeplab.evaluation.server import ServerWriter
from deeplab.labels import CITYSCAPES, VOC, LabelSet
from deeplab.models import DeepLabConfig, build
from deeplab.models.inference import predict
from deeplab.photo.images import InputSpec
from deeplab.segmenter import Segmenter
from deeplab.weights.release import save

LABELS = LabelSet(("sky", "road", "car"))


@dataclass
class Pictures:
    """A data set in memory: random truth, photos of random sizes."""

    labels: LabelSet = LABELS
    split: str = "val"
    count: int = 7

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        random = np.random.default_rng(index)
        height, width = random.integers(40, 60, 2)
        label = random.choice([0, 1, 255], (height, width)).astype(np.uint8)
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Sample(image=image, label=label, id=f"picture {index}")


@dataclass
class Brightness:
    """Predicts by the red channel, so that the truth has nothing to do with it."""

    labels: LabelSet = LABELS

    def __call__(self, photo: np.ndarray) -> np.ndarray:
        return (photo[..., 0] // 100).astype(np.uint8)

    def describe(self) -> dict[str, Any]:
        return {"model": "brightness"}


@pytest.fixture
def network() -> TorchPredictor:
    torch.manual_seed(0)
    config = DeepLabConfig(depth_multiplier=0.1, head_channels=8, num_classes=3)
    model = build(config).eval()
    torch.nn.init.normal_(model.classifier.weight)
    return TorchPredictor(network=model, labels=LABELS, name="tiny")


def test_parts_of_any_number_of_processes_merge_to_the_whole() -> None:
    whole = evaluate(Brightness(), Pictures(), trimap=[1, 3])
    for count in (2, 3):
        parts = [
            evaluate(
                Brightness(),
                Pictures(),
                trimap=[1, 3],
                indices=range(rank, len(Pictures()), count),
            )
            for rank in range(count)
        ]
        merged = functools.reduce(Evaluation.merge, reversed(parts))
        merged.seconds = whole.seconds
        assert to_dict(merged) == to_dict(whole)


def test_one_picture_alone_has_no_interval() -> None:
    found = evaluate(Brightness(), Pictures(count=1))
    assert all(np.isnan(found.interval()))
    assert to_dict(found)["miou_95"] == [None, None]
    assert found.miou > 0


def test_objects_in_two_colours_are_counted_and_told(tmp_path: Path) -> None:
    half = np.zeros((40, 40), np.uint8)
    half[20:] = 1

    class Half(Pictures):
        def __getitem__(self, index: int) -> Sample:
            label = half if index % 2 else np.zeros_like(half)
            return Sample(image=np.stack([half] * 3, -1) * 100, label=label, id=str(index))

    # A sky that is a road below, four times of seven; and three that are right.
    streets = LabelSet(LABELS.names, background=None)
    found = evaluate(Brightness(labels=streets), Half(labels=streets))
    assert to_dict(found)["objects"] == {"count": 10, "two_coloured": 4}
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(summary_table(found))
    assert "4 of 10" in console.export_text()
    page = write_report(tmp_path, found, predictor=Brightness(), dataset=Half())
    assert "<td>objects in two colours</td><td>4 of 10</td>" in page.read_text("utf-8")


def test_counts_equal_one_confusion_of_all_pixels() -> None:
    found = evaluate(Brightness(), Pictures())
    labels, masks = [], []
    for index in range(7):
        sample = Pictures()[index]
        labels.append(sample.label.ravel())
        masks.append(Brightness()(sample.image).ravel())
    expected = ConfusionMatrix.of(np.concatenate(labels), np.concatenate(masks), 3)
    np.testing.assert_array_equal(found.confusion.counts, expected.counts)
    assert found.miou == pytest.approx(float(expected.totals.mean_iou()))
    assert len(found.worst(3)) == 3


def test_classes_are_matched_by_name_and_refused_where_they_differ() -> None:
    turned = LabelSet(("car", "sky", "road"))
    straight = evaluate(Brightness(), Pictures())
    shuffled = evaluate(Brightness(labels=turned), Pictures(labels=turned))
    assert to_dict(shuffled)["confusion"] == to_dict(straight)["confusion"]
    table = np.array([2, 0, 1])
    crossed = evaluate(Brightness(labels=turned), Pictures())
    sample = Pictures()[0]
    mask = table[Brightness()(sample.image)]
    np.testing.assert_array_equal(
        crossed.pictures[0][1].prediction,
        ConfusionMatrix.of(sample.label, mask, 3).totals.prediction,
    )
    with pytest.raises(InputError, match="share no class but the background"):
        evaluate(Brightness(labels=LabelSet(("tree", "lake"))), Pictures())
    with pytest.raises(InputError, match="21 classes, the data set has 3"):
        match_labels(VOC, Pictures().labels)
    with pytest.raises(InputError, match="'tree' is none of the data set's"):
        match_labels(LabelSet(("sky", "road", "tree")), Pictures().labels)
    with pytest.raises(DataError, match="'val' is empty"):
        evaluate(Brightness(), Pictures(count=0))


def test_classes_shared_by_name_are_scored_and_the_others_named() -> None:
    """A network of many classes on own data of few: everybody's first question."""
    own = LabelSet(("background", "dog", "kennel"))
    table, labels, shared = share_labels(VOC, own)
    assert (labels, shared) == (own, (0, 1))
    assert table[VOC.index("dog")] == 1
    assert table[VOC.index("cat")] == table[VOC.index("background")] == 0  # no cats in this data

    streets = LabelSet(("road", "car"), background=None)
    table, labels, shared = share_labels(VOC, streets)
    assert labels.names == ("road", "car", "none of these")
    assert shared == (1,)
    assert table[VOC.index("car")] == 1
    assert table[VOC.index("background")] == table[VOC.index("dog")] == 2

    found = evaluate(Brightness(labels=LabelSet(("sky", "tree", "car"))), Pictures())
    assert found.shared == (0, 2)
    assert found.miou == pytest.approx(float(found.confusion.totals.mean_iou((0, 2))))
    told = to_dict(found)
    assert list(told["iou"]) == ["sky", "car"]
    assert told["protocol"]["scored classes"] == ["sky", "car"]
    console = Console(file=io.StringIO(), width=200)
    console.print(summary_table(found))
    assert "not shared" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "mIoU of shared classes" in console.file.getvalue()  # type: ignore[attr-defined]


def test_one_scale_is_the_argmax_of_the_upsampled_logits(network: TorchPredictor) -> None:
    photo = Pictures()[0].image
    image = torch.from_numpy(photo).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = predict(network.network, image, pad=True)[0]
    top = expected.topk(2, dim=0).values
    clear = (top[0] - top[1] > 1e-5).numpy()
    mask = network(photo)
    assert mask.shape == photo.shape[:2]
    np.testing.assert_array_equal(mask[clear], expected.argmax(0).numpy()[clear])


def test_flip_and_scales_average_probabilities(network: TorchPredictor) -> None:
    network.scales, network.flip = (0.75, 1.0), True
    photo = Pictures()[1].image
    mask = network(photo)
    mirrored = network(np.ascontiguousarray(photo[:, ::-1]))[:, ::-1]
    # Padding is at the right: a mirrored photo meets it on its other side.
    assert (mask == mirrored).mean() > 0.9
    assert network.describe()["scales"] == [0.75, 1.0]


def test_in_a_frame_a_network_is_judged_as_its_file_will_be(
    network: TorchPredictor, tmp_path: Path
) -> None:
    frame = InputSpec(height=65, width=97)
    pair = tmp_path / "tiny"
    config = network.network.config
    save(pair, config, network.network.state_dict(), labels=LABELS, input_spec=frame)
    segmenter = Segmenter(pair.with_suffix(".json"), exact=True)
    network.frame = frame
    for photo in (Pictures()[1].image, Pictures()[2].image.repeat(4, 0)):
        np.testing.assert_array_equal(network(photo), segmenter(photo).mask)
    assert network.describe()["input"] == "letterbox to 65×97"
    with pytest.raises(InputError, match="frame is looked at once"):
        dataclasses.replace(network, flip=True)


def test_several_looks_at_what_fits_into_the_frame(network: TorchPredictor, tmp_path: Path) -> None:
    """At the photo's own size a network that was trained in a frame is another network."""
    config, state = network.network.config, network.network.state_dict()
    pair = save(
        tmp_path / "tiny",
        config,
        state,
        labels=LABELS,
        input_spec=InputSpec(height=65, width=97),
        provenance={"recipe": {"run": {"validate_frame": True}}},
    ).path.with_suffix(".json")
    predictor = open_predictor(pair, scales=(0.75, 1.0), flip=True)
    protocol = predictor.describe()
    assert (protocol["input"], protocol["scales"]) == ("letterbox to 65×97", [0.75, 1.0])
    segmenter = Segmenter(pair, scales=(0.75, 1.0), flip=True)
    photo = Pictures()[2].image.repeat(4, 0)
    np.testing.assert_array_equal(predictor(photo), segmenter(photo).mask)
    with pytest.raises(InputError, match="output_stride: this network was trained on photos"):
        open_predictor(pair, flip=True, output_stride=8)


def test_windows_answer_as_the_whole_photo_does(network: TorchPredictor) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    photo = blocks.repeat(40, 0).repeat(40, 1)
    whole = network(photo)
    network.tile = 97
    assert network.describe()["input"] == "windows of 97×97, 25% shared, blended"
    assert (network(photo) == whole).mean() > 0.9
    network.scales, network.flip = (0.75, 1.0), True
    assert network(photo).shape == (200, 240)
    with pytest.raises(InputError, match="tile: got 10"):
        TorchPredictor(network=network.network, labels=LABELS, name="x", tile=10)


def test_an_exported_file_is_judged_in_windows_as_segment_looks_through_them() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    photo = photo.repeat(60, 0).repeat(60, 1)
    predictor = open_predictor("voc-fast", tile="auto", overlap=0.5, scales=(0.9,))
    assert isinstance(predictor, FilePredictor)
    assert predictor.describe()["input"] == "windows of 577×577, 50% shared, blended"
    assert predictor.describe()["scales"] == [0.9]
    tiles = Segmenter("voc-fast").tiles(photo, scale=0.9, overlap=0.5)
    assert tiles.windows == 4
    np.testing.assert_array_equal(predictor(photo), tiles.segmentation().mask)
    with pytest.raises(InputError, match="takes 577×577 only"):
        open_predictor("voc-fast", tile=97)


def test_report_holds_scores_protocol_and_worst_pictures(tmp_path: Path) -> None:
    found = evaluate(Brightness(), Pictures(), trimap=[2])
    page = write_report(tmp_path, found, predictor=Brightness(), dataset=Pictures(), classes=[0, 1])
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["iou"]["car"] == 0.0  # predicted, never true
    assert told["absent_classes"] == []
    assert told["protocol"]["model"] == "brightness"
    assert told["miou_95"][0] <= told["miou"] <= told["miou_95"][1]
    assert told["subset"]["miou"] == pytest.approx((told["iou"]["sky"] + told["iou"]["road"]) / 2)
    assert set(told["trimap_miou"]) == {"2"}
    assert page.read_text().count("<figure>") == 7
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.size[0] > 3 * 40


def test_an_absent_class_is_told_as_such() -> None:
    labels = LabelSet(("sky", "road", "car", "gnu"))
    told = to_dict(evaluate(Brightness(labels=labels), Pictures(labels=labels)))
    assert told["iou"]["gnu"] is None
    assert told["absent_classes"] == ["gnu"]
    assert "NaN" not in json.dumps(told)


def test_server_formats(tmp_path: Path) -> None:
    mask = np.array([[0, 15], [18, 1]], np.uint8)
    ServerWriter(tmp_path, "voc", VOC)(0, "2007_000033", mask)
    written = tmp_path / "results/VOC2012/Segmentation/comp6_test_cls/2007_000033.png"
    with Image.open(written) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), mask)
        assert picture.getpalette()[45:48] == list(VOC.colours[15])
    writer = ServerWriter(tmp_path, "cityscapes", CITYSCAPES)
    writer(0, "ulm/ulm_000001_000019_leftImg8bit", mask)
    with Image.open(tmp_path / "ulm_000001_000019_pred.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), [[7, 28], [33, 8]])
    with pytest.raises(InputError, match=r"got 'vok'.*Did you mean 'voc'"):
        ServerWriter(tmp_path, "vok", VOC)
    with pytest.raises(InputError, match="has 21 classes, the data set 3"):
        ServerWriter(tmp_path, "voc", LABELS)


def test_exported_files_have_one_frame() -> None:
    with pytest.raises(InputError, match="its own stride"):
        open_predictor("some.tflite", output_stride=8)


@pytest.mark.reference
@pytest.mark.integration
def test_command_scores_an_exported_file(reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for kind in ("images", "masks"):
        (folder / kind / "val").mkdir(parents=True)
    photo = Image.open(reference / "golden/segmentation_input_rotation0.jpg").convert("RGB")
    golden = Image.open(reference / "golden/segmentation_golden_rotation0.png").convert("L")
    golden = golden.resize(photo.size, Image.Resampling.NEAREST)
    photo.save(folder / "images/val/a.png")
    Image.fromarray((np.asarray(golden) // 10).astype(np.uint8)).save(folder / "masks/val/a.png")
    (folder / "dataset.toml").write_text(
        f"classes = {json.dumps(list(VOC.names))}\n[splits]\nval = 'val'\n"
    )
    model = reference / "models/deeplabv3_257_mv_gpu.tflite"
    command = [sys.executable, "-m", "deeplab", "evaluate", str(model), str(folder), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told = json.loads(done.stdout)
    assert told["pixel_accuracy"] > 0.97
    assert "letterbox" in told["protocol"]["input"]
