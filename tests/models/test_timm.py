"""Networks of timm as backbones: they compute what timm computes, or are refused in words."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

if importlib.util.find_spec("timm") is None:  # importing it needs a torchvision, or ours
    pytest.skip("timm is not installed (extra timm)", allow_module_level=True)

from deeplab.errors import ConfigError, MissingExtraError
from deeplab.models import DeepLabConfig, build, timm_import
from deeplab.models.timm_encoder import TimmEncoder
from deeplab.models.timm_facts import create, measure
from deeplab.models.timm_import import import_timm

SMALL = "timm/mobilenetv4_conv_small_035"
PATCHES = "timm/test_convnext"


def config_of(backbone: str, **values: Any) -> DeepLabConfig:
    return DeepLabConfig(
        backbone=backbone, num_classes=3, head_channels=8, decoder_channels=8, **values
    )


def test_timm_is_imported_where_torchvision_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert import_timm().is_model("resnet18")
    timm_import.import_timm()
    if importlib.util.find_spec("torchvision") is None:
        assert "torchvision" not in sys.modules
    monkeypatch.delitem(sys.modules, "timm")
    monkeypatch.setattr(
        timm_import, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'deeplab\[timm\]'"):
        build(config_of("timm/resnet18", output_stride=16, pixel_mean=(0.0,) * 3))


def test_names_stand_for_a_torchvision_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in sys.modules if name.partition(".")[0] == "torchvision"]
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    with timm_import._stand_in():
        from torchvision import transforms  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from torchvision.ops.misc import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
            FrozenBatchNorm2d,
        )

        assert not isinstance(nn.BatchNorm2d(3), FrozenBatchNorm2d)
        with pytest.raises(ImportError, match=r"Resize: torchvision could not be imported"):
            transforms.Resize(3)
        with pytest.raises(ImportError):
            import torchvision.models.feature_extraction  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: F401
    assert "torchvision" not in sys.modules


@pytest.mark.parametrize("backbone", [SMALL, PATCHES])
def test_features_are_timm_s_own(backbone: str) -> None:
    """In evaluation and in training, at the trained stride and at another one."""
    torch.manual_seed(0)
    network = build(config_of(backbone, version="v3+"))
    encoder = network.backbone
    assert isinstance(encoder, TimmEncoder)
    image = torch.randn(2, 3, 65, 97)
    for stride in (16, 8):
        own = create(backbone, stride)
        own.load_state_dict(encoder.net.state_dict(), strict=False)
        for mode in (False, True):
            own.train(mode)
            network.train(mode)
            with torch.no_grad():
                maps, (last, low) = own(image), encoder(image, stride, (4,))
            torch.testing.assert_close(last, maps[-1], rtol=0, atol=1e-5)
            assert torch.equal(low[4], maps[measure(backbone).strides.index(4)])
        ours = encoder.net.state_dict()
        for name, value in own.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6)


def test_a_configuration_holds_all_that_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(SMALL, version="v3+")
    assert config.pixel_mean == config.pixel_std == (127.5,) * 3  # of this network's weights
    assert config_of("timm/resnet18").pixel_mean == (0.485 * 255, 0.456 * 255, 0.406 * 255)
    assert (config.output_stride, config.align_corners, config.channel_order) == (16, True, "rgb")
    monkeypatch.setattr(timm_import, "import_timm", None)  # a file is described without timm
    for module in ("timm_facts", "timm_encoder"):
        monkeypatch.setitem(sys.modules, f"deeplab.models.{module}", None)
    assert DeepLabConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(("version", "stride"), [("v1", 8), ("v2", 8), ("v3", 16), ("v3+", 16)])
def test_every_head_is_there(version: str, stride: int) -> None:
    config = config_of(PATCHES, version=version)
    assert (config.output_stride, config.align_corners) == (stride, False)
    assert config.pixel_mean == (127.5,) * 3  # not Caffe's, which v1 and v2 have otherwise
    network = build(config).eval()
    image = torch.randint(0, 255, (1, 3, 64, 96), dtype=torch.uint8)
    at = 4 if version == "v3+" else stride
    with torch.no_grad():
        logits = network(image)
        again = build(config, network.state_dict()).eval()(image)
    assert logits.shape == (1, 3, 64 // at, 96 // at)
    assert torch.equal(logits, again)


def test_a_network_without_atrous_strides_stays_at_its_own() -> None:
    config = config_of("timm/hgnetv2_b0")
    assert config.output_stride == 32
    with torch.device("meta"):
        encoder = TimmEncoder(config)
    assert encoder.describe().startswith("Backbone: timm/hgnetv2_b0 at output stride 32 (its own)")
    with pytest.raises(ConfigError, match=r"no atrous strides for 'timm/hgnetv2_b0'\. Set"):
        encoder(torch.zeros(1, 3, 64, 64), 16)


@pytest.mark.parametrize(
    ("backbone", "values", "words"),
    [
        ("timm/vit_tiny_patch16_224", {}, "does not take pictures of any size"),
        ("timm/swin_tiny_patch4_window7_224", {}, "does not take pictures of any size"),
        ("timm/legacy_xception", {}, "do not cover the picture evenly"),
        ("timm/resnet19", {}, r"timm has no network 'resnet19'\. Did you mean 'resnet1"),
        ("timm/resnet18.no_in1k", {}, r"no weights 'no_in1k' of 'resnet18'\. It has: "),
        ("timm/", {}, r"Give timm/NAME"),
        (SMALL, {"padding": "symmetric"}, "padding: got 'symmetric'.*do not read it"),
        (SMALL, {"depth_multiplier": 0.5}, "Only mobilenet_v2, mobilenet_edgetpu"),
        (SMALL, {"version": "v3", "cascade_blocks": 1}, "v3 on a ResNet"),
    ],
)
def test_what_cannot_work_is_words(backbone: str, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config_of(backbone, **values)


def test_a_decoder_needs_features_of_its_stride() -> None:
    config = config_of("timm/xcit_nano_12_p8_224", version="v3+", output_stride=8)
    with torch.device("meta"), pytest.raises(ConfigError, match=r"got 4, .* features at 8 only"):
        build(config)


def test_other_channels_than_three() -> None:
    config = config_of(SMALL, pixel_mean=(100.0,) * 5, pixel_std=(50.0,) * 5)
    with torch.device("meta"):
        assert build(config)(torch.zeros(1, 5, 65, 65)).shape == (1, 3, 5, 5)
