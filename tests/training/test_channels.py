"""Pictures of one, four and five channels, of every kind of number, go the whole way."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import kills
import numpy as np
import pytest
import torch
from PIL import Image

from deeplab import Segmenter
from deeplab.cli import run as run_command
from deeplab.data import open_dataset
from deeplab.data.channels import measure
from deeplab.data.check import check
from deeplab.errors import DataError, ImageError, InputError, ModelError
from deeplab.evaluation.protocol import evaluate, open_predictor
from deeplab.export import export
from deeplab.info import describe
from deeplab.models import DeepLabConfig, build
from deeplab.photo.band_pictures import count_channels, read_values
from deeplab.training.experiment import run_experiment
from deeplab.training.first_layer import adapt_channels
from deeplab.training.settings import Settings
from deeplab.weights import release

SIDE = 33
KINDS = {1: np.uint16, 4: np.uint8, 5: np.float32}
RANGES: dict[Any, tuple[float, float]] = {
    np.uint8: (0, 255),
    np.uint16: (0, 65535),
    np.float32: (-3, 9),
}


def draw(channels: int, count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures whose first or last channel tells where the class is, and nothing else does."""
    random = np.random.default_rng(channels)
    kind = KINDS[channels]
    low, high = RANGES[kind]
    pairs = []
    for index in range(count):
        label = np.zeros((SIDE, SIDE), np.uint8)
        label[SIDE // 2 + 4 :] = 1  # half way between two cells of the logits
        label = np.rot90(label, index)
        values = random.uniform(low, low + 0.2 * (high - low), (SIDE, SIDE, channels))
        values[..., -1] += 0.7 * (high - low) * label
        pairs.append((values.astype(kind), np.ascontiguousarray(label)))
    return pairs


def write(folder: Path, channels: int) -> Path:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index, (values, label) in enumerate(draw(channels)):
        if channels == 1:
            Image.fromarray(values[:, :, 0]).save(folder / "images" / f"{index}.tif")
        elif channels == 4:
            Image.fromarray(values).save(folder / "images" / f"{index}.png")
        else:
            np.save(folder / "images" / f"{index}.npy", values)
        Image.fromarray(label).save(folder / "masks" / f"{index}.png")
    said = "" if channels == 5 else f"channels = {channels}\n"
    (folder / "dataset.toml").write_text(
        f'classes = ["background", "field"]\n{said}[splits]\ntrain = ["0", "1", "2", "3"]\n'
        'val = ["0", "1", "2", "3"]\n'
    )
    return folder


def settings(folder: Path, steps: int = 60, **model: Any) -> Settings:
    return Settings.from_dict(
        {
            "name": "fields",
            "data": {
                "path": str(folder), "crop_size": [SIDE, SIDE], "workers": 0, "check": False,
                "scale_range": [1.0, 1.0],
            },
            "model": {
                "depth_multiplier": 0.25, "head_channels": 16, "output_stride": 8, "dropout": 0.0,
                "backbone_bn_decay": 0.8, "head_bn_decay": 0.8, **model,
            },
            "schedule": {"base": 0.2, "start_steps": 5, "start_ramp": True},
            "optimiser": {"weight_decay": 0.0, "clip_norm": 5.0},
            "run": {
                "steps": steps, "batch_size": 4, "validate_every": steps, "device": "cpu",
                "validate_frame": True,
            },
        }
    )  # fmt: skip


@pytest.fixture(scope="module", params=sorted(KINDS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(channels, data set, release pair) of a network that learned four pictures by heart."""
    channels = request.param
    folder = tmp_path_factory.mktemp(f"channels{channels}")
    data = write(folder / "data", channels)
    torch.set_num_threads(1)
    run_experiment(settings(data), folder / "run", tell=lambda text: None)
    return channels, data, folder / "run" / "fields.json"


def photos(data: Path) -> list[Path]:
    return sorted((data / "images").iterdir())


def test_four_pictures_are_learned_by_heart(trained: Any) -> None:
    channels, _, pair = trained
    found = release.open_release(pair)
    assert found.scores["val"]["miou"] > 0.97
    assert found.config.channels == found.input_spec.channels == channels
    stacked = np.stack([values for values, _ in draw(channels)]).astype(np.float64)
    np.testing.assert_allclose(found.config.pixel_mean, stacked.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.config.pixel_std, stacked.std((0, 1, 2)), rtol=1e-6)
    assert found.input_spec.bands is not None
    assert found.input_spec.bands.kind == np.dtype(KINDS[channels]).name
    content = json.loads(pair.read_text())
    assert content["format_version"] == 2  # older programs must not run it on photos
    assert content["input"]["bands"] == found.input_spec.bands.to_dict()


def test_the_pair_is_evaluated_and_shown(trained: Any) -> None:
    channels, data, pair = trained
    found = evaluate(open_predictor(pair), open_dataset(data, split="val"))
    assert found.miou > 0.97
    result = Segmenter(pair)(photos(data)[0])
    assert result.overlay().size == (SIDE, SIDE)
    shown = np.asarray(result.photo.decode())
    assert shown.shape == (SIDE, SIDE, 3)
    assert (shown.min(), shown.max()) == (0, 255)
    twice = Segmenter(pair, flip=True)(draw(channels)[0][0])
    assert (twice.mask == result.mask).mean() > 0.97


@pytest.mark.parametrize("to", ["tflite", "onnx"])
def test_it_is_exported_with_a_certificate_and_gives_equal_masks(trained: Any, to: str) -> None:
    channels, data, pair = trained
    target = pair.with_suffix(f".{to}")
    done = export(pair, to, file=target, photos=photos(data))
    assert done.certificate.rounds[0].worst_equal_pixels > 0.9999
    reference, file = Segmenter(pair), Segmenter(target)
    assert file.spec == reference.spec
    for values, label in draw(channels):
        mask = file(values).mask
        assert (mask == reference(values).mask).all()
        assert (mask == label).mean() > 0.97
    assert describe(target).num_classes == 2


def test_without_pictures_of_its_own_it_gets_no_certificate(trained: Any) -> None:
    _, _, pair = trained
    with pytest.raises(InputError, match="--photos FOLDER"):
        export(pair, "tflite", file=pair.with_name("none.tflite"))
    with pytest.raises(InputError, match="precision: got 'int8'"):
        export(
            pair, "tflite", file=pair.with_name("none.tflite"), precision="int8", calibrate=[pair]
        )
    with pytest.raises(InputError, match="know tflite, onnx"):
        export(pair, "executorch", file=pair.with_name("none.pte"), photos=[pair])


def test_what_it_does_not_take_is_refused_in_words(trained: Any) -> None:
    channels, _, pair = trained
    segmenter = Segmenter(pair)
    kind = np.dtype(KINDS[channels]).name
    other = np.zeros((20, 30, channels + 1), KINDS[channels])
    with pytest.raises(InputError, match=f"has {channels + 1} channels of {kind}; this network"):
        segmenter(other)
    wrong = np.zeros((20, 30, channels), np.uint8 if kind != "uint8" else np.uint16)
    with pytest.raises(InputError, match=f"takes pictures with {channels} channel.* of {kind}"):
        segmenter(wrong)
    for what in (lambda: segmenter.video("a.mp4"), lambda: segmenter.tiles(other)):
        with pytest.raises(InputError, match="takes networks for photos"):
            what()
    with pytest.raises(InputError, match="normalisation"):
        Segmenter(pair, normalisation="imagenet")


def test_the_command_line_carries_it(trained: Any, tmp_path: Path, capsys: Any) -> None:
    _, data, pair = trained
    out = tmp_path / "out"
    code = run_command(
        ["segment", str(data / "images"), "--model", str(pair), "-o", str(out), "--json"]
    )
    assert code == 0
    entries = json.loads(capsys.readouterr().out)["photos"]
    assert len(entries) == 4
    assert all("field" in json.dumps(entry) for entry in entries)
    report = tmp_path / "report"
    assert run_command(["evaluate", str(pair), str(data), "--report", str(report)]) == 0
    assert (report / "report.html").is_file()  # the worst pictures are drawn as they are shown


def test_killed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    plan = settings(write(tmp_path / "data", 5), 5)
    plan = Settings.from_dict(
        plan.to_dict()
        | {"run": plan.to_dict()["run"] | {"save_every": 1, "validate_every": 2, "log_every": 1}}
    )
    assert kills.differences(plan, tmp_path, step=3) == []


# -- the first convolution -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "shown"), [(1, (1,)), (2, (1,)), (4, (3, 2, 1)), (3, (3, 2, 1))]
)
def test_the_first_convolution_answers_a_grey_photo_as_before(
    channels: int, shown: tuple[int, ...]
) -> None:
    small = {"backbone": "mobilenet_v2", "depth_multiplier": 0.25, "num_classes": 2}
    found = DeepLabConfig(**small)
    start = build(found).eval()
    config = DeepLabConfig(**small, pixel_mean=(127.5,) * channels, pixel_std=(127.5,) * channels)
    network = build(config).eval()
    network.load_state_dict(adapt_channels(start.state_dict(), network, found, shown))
    grey = torch.randint(0, 256, (1, 1, 65, 65), dtype=torch.uint8)
    with torch.inference_mode():
        expected = start(grey.expand(1, 3, 65, 65))
        torch.testing.assert_close(
            network(grey.expand(1, channels, 65, 65)), expected, rtol=1e-3, atol=1e-4
        )
    weight = network.state_dict()["backbone.stem.conv.weight"]
    if channels == 4:  # red lies in the third channel, the fourth is the mean
        rgb = start.state_dict()["backbone.stem.conv.weight"]
        torch.testing.assert_close(weight[:, 2], rgb[:, 0] * 3 / 4)
        torch.testing.assert_close(weight[:, 3], rgb.mean(1) * 3 / 4)


# -- files -----------------------------------------------------------------------------------------


def store(path: Path, values: np.ndarray, **told: Any) -> None:
    """Write a picture with GDAL."""
    rasterio = pytest.importorskip("rasterio")
    height, width, count = values.shape
    driver = "PNG" if path.suffix == ".png" else "GTiff"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it lies nowhere on earth
        with rasterio.open(
            path, "w", driver=driver, height=height, width=width, count=count, dtype=values.dtype,
            **told,
        ) as file:  # fmt: skip
            file.write(np.moveaxis(values, 2, 0))


def test_every_file_gives_the_numbers_it_holds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, dtype, channels in (
        ("a.npy", np.float64, 6), ("b.npy", np.uint16, 1), ("c.tif", np.uint16, 4),
        ("d.tif", np.float32, 1), ("e.tif", np.float32, 7), ("f.tif", np.uint8, 3),
        ("g.png", np.uint16, 3), ("h.tif", np.int16, 2), ("i.tif", np.uint16, 1),
    ):  # fmt: skip
        values = random.integers(0, 200, (9, 11, channels)).astype(dtype)
        values *= dtype(100 if dtype not in (np.uint8,) else 1)
        path = tmp_path / name
        if path.suffix == ".npy":
            np.save(path, values)
        else:
            store(path, values)
        _, read = read_values(path)
        assert read.dtype == (dtype if dtype in (np.uint8, np.uint16) else np.float32), name
        assert (read == values).all(), name
    pages = [Image.fromarray(np.full((4, 5), n, np.uint16)) for n in range(3)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    _, read = read_values(tmp_path / "stack.tif")
    assert read.shape == (4, 5, 3)
    assert [*read[0, 0]] == [0, 1, 2]


def test_what_is_no_measurement_is_refused(tmp_path: Path) -> None:
    holes = np.zeros((4, 5), np.float32)
    holes[1, 2] = np.nan
    np.save(tmp_path / "holes.npy", holes)
    with pytest.raises(ImageError, match="1 of its values are no numbers"):
        read_values(tmp_path / "holes.npy")
    store(tmp_path / "map.tif", np.full((4, 5, 2), -9999, np.float32), nodata=-9999)
    with pytest.raises(ImageError, match="are without data"):
        read_values(tmp_path / "map.tif")


def test_damaged_pictures_are_refused_in_words_and_at_once(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", np.zeros((4, 5, 2), np.float32))
    good = (tmp_path / "good.npy").read_bytes()
    damaged = tmp_path / "damaged.npy"
    for wrong in (good[:60], good.replace(b"False,", b"(((\0,,"), good.replace(b"(4,", b"(9,")):
        damaged.write_bytes(wrong)
        with pytest.raises(ImageError, match="damaged or no array of numbers"):
            read_values(damaged)
        with pytest.raises(ImageError, match="damaged or no array of numbers"):
            count_channels(damaged)
    # A few bytes that say 60,000 channels kept GDAL busy for minutes.
    store(tmp_path / "many.tif", np.zeros((1, 2, 300), np.uint8))
    with pytest.raises(ImageError, match="has 300 channels; networks take 256 at most"):
        read_values(tmp_path / "many.tif")


def test_the_doctor_names_a_picture_of_other_channels(tmp_path: Path) -> None:
    data = write(tmp_path / "data", 5)
    np.save(data / "images" / "2.npy", np.zeros((SIDE, SIDE, 4), np.float32))
    report = check([open_dataset(data, split="train")])
    assert [fault.code for fault in report.stops] == ["unreadable-photo"]
    assert "has 4 channels" in str(report.stops[0])
    assert any("5 channels in their own numbers" in line for line in report.assumed)


def test_mixed_numbers_and_settings_for_photos_are_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "data", 5)
    np.save(data / "images" / "2.npy", np.zeros((SIDE, SIDE, 5), np.uint16))
    with pytest.raises(DataError, match="holds uint16, others float32"):
        measure(open_dataset(data, split="train"))  # type: ignore[arg-type]
    plan = settings(write(tmp_path / "more", 4)).to_dict()
    plan["data"]["colour_jitter"] = 0.3
    with pytest.raises(InputError, match="is for photos"):
        run_experiment(Settings.from_dict(plan), tmp_path / "run", tell=lambda text: None)


def test_photos_stay_photos(tmp_path: Path) -> None:
    """A network for photos writes what it always wrote; grey 16-bit stays a photo unless said."""
    data = write(tmp_path / "data", 1)
    text = (data / "dataset.toml").read_text().replace("channels = 1\n", "")
    (data / "dataset.toml").write_text(text)
    dataset = open_dataset(data, split="train")
    assert dataset.channels == 0
    assert dataset[0].image.shape == (SIDE, SIDE, 3)
    pair = release.save(
        tmp_path / "plain",
        config := DeepLabConfig(depth_multiplier=0.25, num_classes=2),
        build(config).state_dict(),
        labels=dataset.labels,
        input_spec=release.InputSpec(height=65, width=65),
    )
    content = json.loads(pair.path.with_suffix(".json").read_text())
    assert content["format_version"] == 1
    assert "bands" not in content["input"]
    with pytest.raises((InputError, ModelError)):
        Segmenter(pair.path)(np.zeros((9, 9, 5), np.uint8))
