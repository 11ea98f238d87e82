from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from deeplab.errors import ConfigError, InputError  # noqa: E402
from deeplab.models.config import DeepLabConfig  # noqa: E402
from deeplab.models.count import NetworkCount, count_network  # noqa: E402
from deeplab.models.deeplab import build  # noqa: E402


def by_name(count: NetworkCount) -> dict[str, Any]:
    return {part.name: part for part in count.parts}


@pytest.mark.parametrize(
    ("multiplier", "size", "output_stride", "folded", "giga"),
    [
        # The two public quantised VOC models, and the 257-pixel one at stride 8: their own files.
        (1.0, 513, 16, 2_097_013, "2.741"),
        (0.5, 513, 16, 688_357, "0.867"),
        (0.5, 257, 8, 688_357, "0.726"),
    ],
)
def test_mobilenet_v2_as_published(
    multiplier: float, size: int, output_stride: int, folded: int, giga: str
) -> None:
    config = DeepLabConfig(depth_multiplier=multiplier)
    count = count_network(config, (size, size), output_stride=output_stride)
    assert count.folded_parameters == folded
    assert f"{count.macs / 1e9:.3f}" == giga


@pytest.mark.parametrize(
    ("multiplier", "head_channels", "giga"),
    # Source: research/deeplab/g3doc/model_zoo.md, EdgeTPU-DeepLab and EdgeTPU-DeepLab-slim.
    [(1.0, 256, "7.1"), (0.75, 128, "4.3")],
)
def test_mobilenet_edgetpu_as_published(multiplier: float, head_channels: int, giga: str) -> None:
    config = DeepLabConfig(
        backbone="mobilenet_edgetpu",
        depth_multiplier=multiplier,
        head_channels=head_channels,
        num_classes=19,
    )
    assert f"{count_network(config).macs / 1e9:.1f}" == giga


@pytest.mark.parametrize(
    ("backbone", "output_stride", "millions", "giga"),
    [
        ("xception_65", 16, 41.06, 54.04),
        ("xception_65", 8, 41.06, 176.85),
        ("xception_41", 16, 28.1, 40.0),
        ("xception_71", 16, 43.5, 66.1),
    ],
)
def test_xception_with_decoder(
    backbone: str, output_stride: int, millions: float, giga: float
) -> None:
    config = DeepLabConfig(version="v3+", backbone=backbone)
    count = count_network(config, output_stride=output_stride)
    digits = 2 if backbone == "xception_65" else 1
    assert round(count.parameters / 1e6, digits) == millions
    assert round(count.macs / 1e9, digits) == giga


def test_decoder_without_separable_convolutions_costs_what_the_paper_says() -> None:
    # 1802.02611 table 5: 89.76 - 68.00 multiply-adds, with and without decoder.
    plain = DeepLabConfig(version="v3+", backbone="xception_65", decoder_separable=False)
    parts = by_name(count_network(plain))
    decoder = sum(part.macs for name, part in parts.items() if name.startswith("decoder"))
    with_decoder = decoder + parts["classifier"].macs
    without = parts["classifier"].macs * 33 * 33 / (129 * 129)
    assert round((with_decoder - without) / 1e9, 2) == 21.76


CONFIGS = [
    {"version": "v3", "backbone": "mobilenet_v2"},
    {"version": "v3+", "backbone": "mobilenet_v2", "depth_multiplier": 0.5},
    {"version": "v3", "backbone": "mobilenet_v2", "image_pyramid": (0.5, 1.0, 1.5)},
    {"version": "v3+", "backbone": "resnet_v1_50_beta", "decoder_separable": False},
    {"version": "v2", "backbone": "resnet_v1_101"},
    {"version": "v1", "backbone": "vgg16", "multi_scale_features": True},
]


@pytest.mark.parametrize("settings", CONFIGS, ids=lambda settings: "-".join(map(str, settings)))
def test_equals_what_really_runs(settings: dict[str, Any]) -> None:
    """The oracle counts operations as PyTorch dispatches them, and parameters in memory."""
    from torch.utils.flop_counter import FlopCounterMode

    config = DeepLabConfig(**settings)
    size = (65, 97)
    count = count_network(config, size)
    with torch.device("meta"):  # operations are dispatched and counted, not carried out
        network = build(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = network(torch.zeros(1, 3, *size, device="meta"))
    assert count.macs * 2 == counter.get_total_flops()
    assert count.logits_size == tuple(logits.shape[2:])
    assert count.parameters == sum(p.numel() for p in network.parameters())


def test_parts_are_named_as_in_the_state_dict_and_add_up() -> None:
    config = DeepLabConfig(version="v3+")
    count = count_network(config)
    with torch.device("meta"):
        names = list(build(config).state_dict())
    for part in count.parts:
        assert any(name.startswith(part.name + ".") for name in names), part.name
    assert [part.name.split(".")[0] for part in count.parts] == sorted(
        (part.name.split(".")[0] for part in count.parts),
        key=["backbone", "head", "decoder", "classifier"].index,
    )
    assert sum(part.macs for part in count.parts) == count.macs


def test_parameters_do_not_depend_on_size_or_stride_but_work_does() -> None:
    config = DeepLabConfig()
    small, large = count_network(config, (65, 65)), count_network(config, (2049, 1025))
    fine = count_network(config, (65, 65), output_stride=8)
    assert small.parameters == large.parameters == fine.parameters
    assert small.macs < fine.macs < large.macs


def test_nothing_is_allocated() -> None:
    # The activations of this photo would need about 300 GB.
    count = count_network(DeepLabConfig(), (100_001, 100_001))
    assert count.logits_size == (6251, 6251)


@pytest.mark.parametrize("size", [(513,), (0, 513), (513.0, 513), (1, 2, 3)])
def test_wrong_size_is_refused(size: Any) -> None:
    with pytest.raises(InputError, match=r"size: got .* expected \(height, width\)"):
        count_network(DeepLabConfig(), size)


def test_wrong_output_stride_is_refused() -> None:
    with pytest.raises(ConfigError, match="output_stride: got 7"):
        count_network(DeepLabConfig(), output_stride=7)


@pytest.mark.parametrize(
    ("config", "millions"),
    # Source: 2110.02178 table 3; the zoo of apple/ml-cvnets.
    [
        ({"backbone": "mobilevit_s"}, 6.4),
        ({"backbone": "mobilevit_xs"}, 2.9),
        ({"backbone": "mobilevit_xxs"}, 1.9),
        ({"backbone": "mobilevit_v2", "head_channels": 512}, 13.3),
        ({"backbone": "mobilevit_v2", "head_channels": 512, "depth_multiplier": 0.5}, 6.2),
    ],
)
def test_mobilevit_as_published(config: dict[str, Any], millions: float) -> None:
    count = count_network(DeepLabConfig(**config, aspp_separable=False), (64, 64))
    assert round(count.parameters / 1e6, 1) == millions
    assert count.folded_parameters < count.parameters


def test_attention_counts_each_pixel_with_each_other_one_at_its_place() -> None:
    config = DeepLabConfig(backbone="mobilevit_xxs")
    small, large = (
        by_name(count_network(config, (side, side)))["backbone"].macs for side in (256, 512)
    )
    patches = [(32 // 2) ** 2, (16 // 2) ** 2, (16 // 2) ** 2]  # at stride 8, 16 and 16
    products = sum(
        depth * 4 * 2 * n**2 * width
        for depth, n, width in zip((2, 4, 3), patches, (64, 80, 96), strict=True)
    )
    assert large - 4 * small == (16 - 4) * products
