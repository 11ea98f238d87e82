from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from pairs import draw_weights  # noqa: E402

from deeplab.export.network import ExportNetwork, PooledASPP  # noqa: E402
from deeplab.models import DeepLabConfig, build  # noqa: E402

NETWORKS = {
    "v1-msc": DeepLabConfig(
        version="v1", backbone="vgg16", large_fov_channels=32, multi_scale_features=True
    ),
    "v2-msc": DeepLabConfig(version="v2", backbone="resnet_v1_18", image_pyramid=(1.0, 0.5)),
    "v3-mobilenet": DeepLabConfig(depth_multiplier=0.5),
    "v3+-mirror": DeepLabConfig(
        version="v3+", backbone="mobilenet_v2", depth_multiplier=0.35, mirror_scale=0.6
    ),
    "v3-torchvision": DeepLabConfig(
        backbone="resnet_v1_18",
        padding="symmetric",
        aspp_separable=False,
        pooling_first=False,
        post_aspp="conv",
        align_corners=False,
        head_channels=32,
    ),
    "v3-window": DeepLabConfig(depth_multiplier=0.5, image_pooling_crop_size=(33, 33)),
    "v3+-xception": DeepLabConfig(version="v3+", backbone="xception_41", bounded_activation=True),
    "v3-standardised": DeepLabConfig(backbone="resnet_v1_18", weight_standardization=True),
    "v3+-hnasnet": DeepLabConfig(version="v3+", backbone="nas_hnasnet", nas_channels=2),
    "v3-pnasnet": DeepLabConfig(backbone="nas_pnasnet", nas_channels=2),
    "v3+-mobilenet_v3": DeepLabConfig(
        version="v3+",
        backbone="mobilenet_v3_small_seg",
        head_channels=128,
        squeeze_excitation=True,
        hard_gate=True,
        concat_projection=False,
        decoder_output_stride=(8,),
        decoder_merge="sum",
        decoder_channels=19,
        decoder_output_is_logits=True,
        num_classes=19,
    ),
}


def answers(config: DeepLabConfig, shape: tuple[int, int], **given: object):
    """Return (the network's logits, the exported network's), for one picture."""
    state = draw_weights(config)
    before = {name: value.clone() for name, value in state.items()}
    exported = ExportNetwork(config, state, **given)
    assert all(torch.equal(before[name], state[name]) for name in before)  # not changed in place
    network = build(config, state).eval()
    image = torch.randint(0, 256, (1, 3, *shape), generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.pixel_mean, config.pixel_std))
    with torch.inference_mode():
        return network(image.to(torch.uint8)), exported((image - mean) / std), exported


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_but_rounding_differs(name):
    expected, found, exported = answers(NETWORKS[name], (65, 81), size=(65, 81))
    assert expected.std() > 0
    assert torch.allclose(found, expected, rtol=0, atol=2e-5 * expected.abs().max().item())
    assert not [m for m in exported.modules() if isinstance(m, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize("size", [(65, 65), (97, 129)])
def test_the_pooled_image_is_added_where_the_window_covers_the_map(size):
    config = DeepLabConfig(depth_multiplier=0.5, image_pooling_crop_size=(65, 65))
    expected, found, exported = answers(config, size, size=size)
    assert isinstance(exported.head, PooledASPP) == (size == (65, 65))
    assert torch.allclose(found, expected, rtol=0, atol=2e-5 * expected.abs().max().item())
    _, _, any_size = answers(config, size)
    assert not isinstance(any_size.head, PooledASPP)


def test_the_mask_is_the_argmax_of_the_resized_logits():
    config = DeepLabConfig(depth_multiplier=0.5, num_classes=4)
    logits, mask, _ = answers(config, (65, 49), size=(65, 49), output="mask")
    full = torch.nn.functional.interpolate(logits, (65, 49), mode="bilinear", align_corners=True)
    assert mask.dtype == torch.uint8
    assert mask.shape == (1, 65, 49)
    assert (mask == full.argmax(1)).float().mean() > 0.999
