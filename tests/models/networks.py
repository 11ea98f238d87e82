"""Every kind of network there is, by name; small where size does not matter."""

from __future__ import annotations

import torch

from deeplab.models import DeepLab, DeepLabConfig, build
from deeplab.models.config_fields import DPC_TOP1

NETWORKS = {
    "v1": DeepLabConfig(version="v1", backbone="vgg16", large_fov_channels=32),
    "v1-msc": DeepLabConfig(
        version="v1", backbone="vgg16", large_fov_channels=32, multi_scale_features=True
    ),
    "v2-vgg": DeepLabConfig(version="v2", backbone="vgg16", large_fov_channels=32),
    "v2-resnet-msc": DeepLabConfig(
        version="v2", backbone="resnet_v1_18", image_pyramid=(1.0, 0.75, 0.5)
    ),
    "v3-resnet": DeepLabConfig(version="v3", backbone="resnet_v1_50", multi_grid=(1, 2, 4)),
    "v3-resnet18": DeepLabConfig(version="v3", backbone="resnet_v1_18"),
    "v3-cascade": DeepLabConfig(
        version="v3", backbone="resnet_v1_18", cascade_blocks=3, multi_grid=(1, 2, 1)
    ),
    "v3-torchvision": DeepLabConfig(
        version="v3",
        backbone="resnet_v1_18",
        padding="symmetric",
        stride_unit="first",
        aspp_separable=False,
        pooling_first=False,
        post_aspp="conv",
        align_corners=False,
        head_channels=32,
    ),
    "v3-mobilenet": DeepLabConfig(depth_multiplier=0.5),
    "v3-pyramid": DeepLabConfig(
        depth_multiplier=0.5, image_pyramid=(0.5, 1.0, 1.5), merge_method="avg"
    ),
    "v3+-beta": DeepLabConfig(version="v3+", backbone="resnet_v1_18_beta"),
    "v3+-xception": DeepLabConfig(version="v3+", backbone="xception_41"),
    "v3+-dpc": DeepLabConfig(
        version="v3+", backbone="mobilenet_v2", dense_prediction_cell=DPC_TOP1, head_channels=64
    ),
    "v3+-two-strides": DeepLabConfig(
        version="v3+", backbone="mobilenet_v2", decoder_output_stride=(8, 4), decoder_channels=64
    ),
    "v3+-mirror": DeepLabConfig(
        version="v3+", backbone="mobilenet_v2", depth_multiplier=0.35, mirror_scale=0.6, dropout=0.0
    ),
    "v3+-mobilenet_v3": DeepLabConfig(
        version="v3+",
        backbone="mobilenet_v3_large_seg",
        num_classes=19,
        output_stride=32,
        head_channels=128,
        squeeze_excitation=True,
        hard_gate=True,
        concat_projection=False,
        image_pooling_crop_size=(97, 97),
        image_pooling_stride=(4, 5),
        decoder_output_stride=(8,),
        decoder_merge="sum",
        decoder_channels=19,
        decoder_output_is_logits=True,
    ),
    "v3-mobilenet_v3-small": DeepLabConfig(version="v3", backbone="mobilenet_v3_small_seg"),
    "v3-mobilenet_edgetpu": DeepLabConfig(
        version="v3",
        backbone="mobilenet_edgetpu",
        depth_multiplier=0.75,
        num_classes=19,
        head_channels=128,
    ),
    "v3+-mobilevit": DeepLabConfig(
        version="v3+",
        backbone="mobilevit_xxs",
        head_channels=32,
        decoder_output_stride=(8, 4),
        decoder_channels=32,
        dropout=0.0,
    ),
    "v3-mobilevit_v2": DeepLabConfig(
        version="v3",
        backbone="mobilevit_v2",
        depth_multiplier=0.5,
        head_channels=32,
        aspp_separable=False,
        padding="symmetric",
        odd_patches="zero",
        align_corners=False,
    ),
    "v3+-mobilenet_edgetpu": DeepLabConfig(
        version="v3+",
        backbone="mobilenet_edgetpu",
        depth_multiplier=0.35,
        padding="symmetric",
        head_channels=32,
        decoder_output_stride=(8, 4),
        decoder_channels=32,
    ),
}


def make(network: str | DeepLabConfig, seed: int = 0) -> DeepLab:
    """Return a network, by name or configuration, in evaluation mode, its weights seeded.

    They are drawn so that signals keep their size: those that training starts from leave that to
    batch norm, and without it fade to nothing.
    """
    torch.manual_seed(seed)
    with torch.device("meta"):
        model = build(NETWORKS[network] if isinstance(network, str) else network).eval()
    model.to_empty(device="cpu")
    model.set_pixel_statistics()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_normal_(module.weight)
            torch.nn.init.zeros_(module.bias)
        elif isinstance(module, torch.nn.LayerNorm | torch.nn.GroupNorm | torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
            torch.nn.init.zeros_(module.bias)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.zero_()
            module.running_var.fill_(1)
    return model


def photo(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Return a random photo, uint8 (1, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)
