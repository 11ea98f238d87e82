"""MobileViTs of transformers give here what they give there, from the photo to the mask.

transformers is the oracle; litert-torch brings it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import peers
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from deeplab import Segmenter
from deeplab.errors import WeightsError
from deeplab.labels import VOC
from deeplab.models import build
from deeplab.weights import from_state_dict, import_file, load, load_with_report, open_release

SMALL: dict[str, dict[str, Any]] = {
    "s": {},
    "xs": {"hidden_sizes": [96, 120, 144], "neck_hidden_sizes": [16, 32, 48, 64, 80, 96, 384]},
    "xxs": {
        "hidden_sizes": [64, 80, 96],
        "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320],
        "expand_ratio": 2.0,
    },
}


@pytest.fixture(scope="module")
def oracle() -> ModuleType:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        found = pytest.importorskip("transformers")
        logging.disable(logging.NOTSET)
    return found  # type: ignore[no-any-return]


def make(oracle: ModuleType, size: str | float, *, head: bool = True, **settings: Any) -> Any:
    """Return one of their networks in evaluation mode, weights and statistics drawn."""
    settings = {"num_labels": 7, **settings}
    kind = "ForSemanticSegmentation" if head else "ForImageClassification"
    with torch.device("meta"):
        network = _build(oracle, size, kind, settings)
    state = network.state_dict()
    floats = {name: tuple(v.shape) for name, v in state.items() if v.is_floating_point()}
    counts = {name: torch.zeros_like(v, device="cpu") for name, v in state.items()}
    network.load_state_dict({**counts, **peers.draw(floats)}, assign=True)
    return network.eval()


def _build(oracle: ModuleType, size: str | float, kind: str, settings: dict[str, Any]) -> Any:
    if isinstance(size, str):
        config = oracle.MobileViTConfig(**SMALL[size], **settings)
        return getattr(oracle, f"MobileViT{kind}")(config)
    config = oracle.MobileViTV2Config(width_multiplier=size, **settings)
    return getattr(oracle, f"MobileViTV2{kind}")(config)


def write(network: Any, folder: Path, **processor: Any) -> Path:
    """Write what ``save_pretrained`` writes, and what its processor does."""
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()},
              folder / "model.safetensors")  # fmt: skip
    (folder / "config.json").write_text(network.config.to_json_string())
    values = {"image_processor_type": "MobileViTImageProcessor", **processor}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize(
    ("size", "stride", "sides"),
    [("s", 16, (64, 96)), ("xs", 8, (75, 101)), ("xxs", 32, (75, 101)), (1.0, 8, (75, 101)),
     (0.5, 16, (64, 96))],
)  # fmt: skip
def test_logits_are_those_of_transformers(
    oracle: ModuleType, tmp_path: Path, size: str | float, stride: int, sides: tuple[int, int]
) -> None:
    theirs = make(oracle, size, output_stride=stride, atrous_rates=[3, 6, 9])
    config, state, report = load_with_report(write(theirs, tmp_path / "theirs"))
    assert (config.output_stride, config.rates(stride)) == (stride, (3, 6, 9))
    assert not report.assumed
    assert all("num_batches_tracked" in name for name in report.ignored)
    image = peers.image(*sides)
    with torch.inference_mode():
        expected = theirs(image.flip(1).float() / 255).logits
        logits = build(config, state).eval()(image)
    assert (logits - expected).abs().max() < 2e-5 * expected.abs().max()
    assert expected.std() > 0.1


@pytest.mark.parametrize("size", ["xxs", 0.5])
@pytest.mark.parametrize("flip", [True, False])
def test_from_photo_to_mask_all_is_as_there(
    oracle: ModuleType, tmp_path: Path, size: str | float, flip: bool
) -> None:
    names = {index: f"thing {index}" for index in range(7)}
    theirs = make(oracle, size, output_stride=16, id2label=names)
    settings: dict[str, Any] = {
        "do_resize": False, "do_center_crop": False, "do_flip_channel_order": flip,
    }  # fmt: skip
    folder = write(theirs, tmp_path / "theirs", **settings, size=96)
    (folder / "config.json").write_text(
        json.dumps({**json.loads((folder / "config.json").read_text()), "image_size": 96})
    )
    report = import_file(folder, tmp_path / "pair")
    assert not report.assumed
    pair = open_release(tmp_path / "pair")
    assert pair.labels.names == tuple(names.values())
    assert (pair.input_spec.height, pair.input_spec.width) == (96, 96)
    assert pair.config.channel_order == ("bgr" if flip else "rgb")

    photo = peers.image(96, 96)[0].permute(1, 2, 0).numpy()
    processor = oracle.MobileViTImageProcessorPil(**settings)
    pixels = processor(Image.fromarray(photo), return_tensors="pt")
    with torch.inference_mode():
        answer = theirs(**pixels)
    expected = processor.post_process_semantic_segmentation(answer, [(96, 96)])[0].numpy()
    mask = Segmenter(tmp_path / "pair.json")(photo).mask
    assert len(np.unique(expected)) > 2
    assert (mask == expected).mean() > 0.9995  # ties


def test_without_their_files_beside_what_is_assumed_is_said(
    oracle: ModuleType, tmp_path: Path
) -> None:
    theirs = make(oracle, "xxs", num_labels=21)
    torch.save(theirs.state_dict(), tmp_path / "alone.bin")
    report = import_file(tmp_path / "alone.bin", tmp_path / "pair")
    assert set(report.assumed) == {"pixels", "output_stride", "labels"}
    assert "blue, green, red" in report.assumed["pixels"]
    pair = open_release(tmp_path / "pair")
    assert pair.labels is VOC
    assert (pair.input_spec.height, pair.config.output_stride) == (512, 16)
    assert (pair.config.channel_order, pair.config.pixel_std) == ("bgr", (255.0,) * 3)


def test_a_classifier_gives_the_backbone(oracle: ModuleType, tmp_path: Path) -> None:
    for size in ("xxs", 0.5):
        theirs = make(oracle, size, head=False)
        folder = write(theirs, tmp_path / str(size))
        config, state, report = load_with_report(folder)
        assert report.backbone_only
        assert {name.split(".")[0] for name in state} == {"backbone"}
        assert config.channel_order == "bgr"
        rest = [name for name in report.ignored if "num_batches" not in name]
        assert all("conv_1x1_exp." in name or name.startswith("classifier.") for name in rest)
        with torch.device("meta"):
            network = build(config)
        assert not network.load_state_dict(state, strict=False, assign=True).unexpected_keys


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("config.json", {"num_attention_heads": 8}, "num_attention_heads is 8, expected 4"),
        ("config.json", {"hidden_act": "relu"}, "hidden_act is 'relu', expected 'silu'"),
        ("config.json", {"atrous_rates": [0, 1]}, "atrous_rates: got"),
        ("config.json", {"atrous_rates": 6}, "config.json"),
        ("preprocessor_config.json", {"image_processor_type": "ViTImageProcessor"},
         "processor is ViTImageProcessor, expected MobileViTImageProcessor"),
        ("preprocessor_config.json", {"rescale_factor": 0}, "rescale_factor: got 0"),
        ("preprocessor_config.json", {"rescale_factor": "x"}, "could not convert"),
        ("preprocessor_config.json", {"crop_size": {"height": 0}}, "preprocessor_config.json"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_name(
    oracle: ModuleType, tmp_path: Path, file: str, values: dict[str, Any], words: str
) -> None:
    folder = write(make(oracle, "xxs"), tmp_path / "theirs", do_center_crop=True)
    said = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**said, **values}))
    with pytest.raises(WeightsError, match=words):
        load(folder)


@pytest.mark.parametrize(
    ("kept", "words"), [(20, "cannot be read as JSON"), (None, "holds a list")]
)
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_a_damaged_file_of_settings_is_not_passed_over(
    oracle: ModuleType, tmp_path: Path, file: str, kept: int | None, words: str
) -> None:
    folder = write(make(oracle, "xxs"), tmp_path / "theirs")
    content = "[]" if kept is None else (folder / file).read_text()[:kept]
    (folder / file).write_text(content)
    with pytest.raises(WeightsError, match=rf"{file}: {words}"):
        load(folder / "model.safetensors")


def test_another_size_is_refused_by_its_channels(oracle: ModuleType) -> None:
    config = oracle.MobileViTConfig(**{**SMALL["xxs"], "hidden_sizes": [64, 80, 104]})
    state = oracle.MobileViTForSemanticSegmentation(config).state_dict()
    with pytest.raises(WeightsError, match=r"widths \(64, 80, 104\) is not known"):
        from_state_dict(state)


@pytest.mark.parametrize(("mean", "factor"), [([0.5, 0.5, 0.5], 1 / 255), ([0.1, 0.2, 0.3], 1.0)])
def test_mobilenet_v2_of_transformers_is_fed_as_its_processor_says(
    oracle: ModuleType, tmp_path: Path, mean: list[float], factor: float
) -> None:
    config = oracle.MobileNetV2Config(num_labels=5, depth_multiplier=0.35, output_stride=16)
    network = oracle.MobileNetV2ForSemanticSegmentation(config)
    folder = write(network, tmp_path / "theirs", image_processor_type="MobileNetV2ImageProcessor",
                   image_mean=mean, image_std=[0.25] * 3, rescale_factor=factor)  # fmt: skip
    found = load(folder)[0]
    assert found.pixel_mean == pytest.approx([x / factor for x in mean])
    assert found.pixel_std == pytest.approx([0.25 / factor] * 3)
    assert found.channel_order == "rgb"
