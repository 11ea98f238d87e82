"""Weights of timm, and of smp's networks on its encoders."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import peers
import pytest
import torch
from safetensors.torch import save_file

if importlib.util.find_spec("timm") is None:  # importing it needs a torchvision, or ours
    pytest.skip("timm is not installed (extra timm)", allow_module_level=True)

from deeplab import weights
from deeplab.errors import WeightsError
from deeplab.models import DeepLabConfig, build
from deeplab.models.timm_import import import_timm
from deeplab.weights import smp
from deeplab.weights.naming import aspp_layers
from deeplab.weights.state_dicts import _foreign_name

NAME = "mobilenetv4_conv_small_035"


@pytest.fixture(scope="module")
def classifier() -> Any:
    torch.manual_seed(1)
    network = import_timm().create_model(NAME, num_classes=7)
    for name, value in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture
def hub(classifier: Any, tmp_path: Path) -> Path:
    """A folder as timm's repositories on the Hub are."""
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(classifier.state_dict(), folder / "model.safetensors")
    pixels = {"tag": "e2400_r224_in1k", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (folder / "config.json").write_text(
        json.dumps({"architecture": NAME, "num_classes": 7, "pretrained_cfg": pixels})
    )
    return folder


def test_a_file_of_the_hub_gives_backbone_and_pixels(classifier: Any, hub: Path) -> None:
    config, state, report = weights.load_with_report(hub)
    assert config.backbone == f"timm/{NAME}"
    assert config.pixel_mean == pytest.approx((25.5, 51.0, 76.5))
    assert config.pixel_std == pytest.approx((102.0, 127.5, 153.0))
    assert report.backbone_only
    assert not report.assumed
    assert {name.partition(".")[0] for name in report.ignored if "tracked" not in name} == {
        "classifier", "conv_head", "norm_head",
    }  # fmt: skip
    network = build(config).eval()
    network.load_state_dict(state, strict=False)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.blocks(classifier.bn1(classifier.conv_stem(image)))
        found, _ = network.backbone(image, 32)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_without_a_config_the_caller_says_whose_it_is(hub: Path) -> None:
    (hub / "config.json").unlink()
    config, state, report = weights.load_with_report(hub, backbone=f"timm/{NAME}")
    assert config.pixel_mean == (127.5,) * 3
    assert f"timm's for {NAME}" in report.assumed["normalisation"]
    with pytest.raises(WeightsError, match=r"not the weights of timm's mobilenetv4_conv_small: "):
        weights.load(hub, backbone="timm/mobilenetv4_conv_small")
    with pytest.raises(WeightsError, match="belong to no known library"):
        weights.load(hub)
    assert all(name.startswith("backbone.net.") for name in state)


def test_a_training_s_average_is_taken(classifier: Any, tmp_path: Path) -> None:
    plain = {name: value + 1 for name, value in classifier.state_dict().items()}
    path = tmp_path / "last.pth.tar"
    torch.save({"arch": NAME, "state_dict": plain, "state_dict_ema": classifier.state_dict()}, path)
    _, state, report = weights.load_with_report(path, backbone=f"timm/{NAME}")
    assert (report.taken, report.others) == ("state_dict_ema", ("state_dict",))
    weight = classifier.state_dict()["conv_stem.weight"]
    assert torch.equal(state["backbone.net.conv_stem.weight"], weight)
    _, state = weights.load(path, backbone=f"timm/{NAME}", part="state_dict")
    assert torch.equal(state["backbone.net.conv_stem.weight"], weight + 1)


def test_damaged_or_other_weights_are_refused(hub: Path, classifier: Any) -> None:
    state = dict(classifier.state_dict())
    del state["blocks.1.0.conv.weight"]
    save_file(state, hub / "model.safetensors")
    with pytest.raises(WeightsError, match=r"blocks\.1\.0\.conv\.weight"):
        weights.load(hub)
    with pytest.raises(WeightsError, match=r"weights of timm/.*, not of timm/resnet18"):
        weights.load(hub, backbone="timm/resnet18")


# Digest of names and shapes, logits of the last pixel, mean of the absolute logits: measured with
# smp 0.6.0 on timm 1.0.31, on the weights and the picture of `peers`.
SMP: dict[str, tuple[str, str, int, list[float], float]] = {
    "tu-mobilenetv4_conv_small_035": ("v3+", NAME, 2430131965, [-2.4001, 1.7080, -0.6487], 2.09379),
    "timm-regnetx_002": ("v3", "regnetx_002", 2286277227, [1.6250, 5.8548, -4.1455], 4.46304),
    "tu-convnext_atto": ("v3+", "convnext_atto", 490762774, [-0.6033, 0.9524, -0.0546], 0.99058),
}


def _smp_state(version: str, name: str) -> dict[str, torch.Tensor]:
    plus = version == "v3+"
    config = DeepLabConfig(
        version="v3+" if plus else "v3", backbone=f"timm/{name}", num_classes=3,
        output_stride=16 if plus else 8, head_channels=16, decoder_channels=16, decoder_convs=1,
        atrous_rates=(12, 24, 36), aspp_separable=plus, separable_norm=False, pooling_first=False,
        post_aspp="separable" if plus else "conv",
    )  # fmt: skip
    aspp = "decoder.aspp.0." if plus else "decoder.aspp."
    layers = [
        *aspp_layers(aspp, separable="" if plus else None), *smp._head_layers(aspp, plus=plus),
        ("classifier", "segmentation_head.0", None),
    ]  # fmt: skip
    table = {ours: (conv, norm) for ours, conv, norm in layers}
    with torch.device("meta"):
        expected = build(config).state_dict()
    prefix = ("backbone.net.", "encoder.model.")
    return peers.draw(
        {_foreign_name(key, table, prefix): tuple(v.shape) for key, v in expected.items()}
    )


@pytest.mark.parametrize("encoder", SMP)
def test_smp_on_encoders_of_timm_gives_its_own_numbers(encoder: str, tmp_path: Path) -> None:
    version, name, digest, corner, mean = SMP[encoder]
    state = _smp_state(version, name)
    assert peers.digest({name: tuple(value.shape) for name, value in state.items()}) == digest
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"name it as --backbone timm/NAME"):
        weights.load(tmp_path)
    said = {"encoder_name": encoder, "decoder_atrous_rates": [12, 24, 36]}
    (tmp_path / "config.json").write_text(json.dumps(said))
    config, ours, report = weights.load_with_report(tmp_path)
    assert len(report.kept) == len(state)
    assert f"timm's for {name}" in report.assumed["normalisation"]
    with torch.inference_mode():
        logits = build(config, ours).eval()(peers.image(64, 96))
    assert logits.abs().mean().item() == pytest.approx(mean, rel=1e-4)
    assert logits[0, :, -1, -1].tolist() == pytest.approx(corner, rel=2e-3, abs=2e-4)
