"""Deriving what a configuration leaves open, and refusing what cannot work."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

from deeplab.errors import ConfigError, near_matches
from deeplab.models.backbones import (
    BACKBONES,
    DERIVED,
    OUTPUT_STRIDES,
    TIMM,
    backbone_defaults,
)
from deeplab.models.config_fields import ConfigFields
from deeplab.photo.bands import MOST_CHANNELS

_CHOICES: dict[str, tuple[Any, ...]] = {
    "version": ("v1", "v2", "v3", "v3+"),
    "backbone": tuple(BACKBONES),
    "padding": ("same", "symmetric", "block_input", "block_input_only"),
    "lost_stride_rate": ("old", "new", "old_in_group", "first_of_group"),
    "stride_unit": ("last", "first"),
    "stride_conv": ("3x3", "1x1"),
    "projection": ("1x1", "3x3"),
    "basic_rates": ("both", "first"),
    "odd_patches": ("resize", "zero"),
    "post_aspp": ("none", "conv", "separable"),
    "decoder_merge": ("concat", "sum"),
    "decoder_order": ("encoder_first", "low_level_first"),
    "low_level": ("inner", "block"),
    "channel_order": ("rgb", "bgr"),
    "merge_method": ("max", "avg"),
}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "bool": bool,
    "int": int,
    "float": (int, float),
    "str": str,
    "tuple": tuple,
}
_IN_WORDS = {
    "bool": "true or false, without quotes",
    "int": "a whole number, without quotes",
    "float": "a number, without quotes",
    "str": "a name",
    "tuple": "several values: a tuple, in JSON a list",
}
_POSITIVE = (
    "num_classes",
    "depth_multiplier",
    "divisible_by",
    "head_channels",
    "decoder_channels",
    "decoder_convs",
    "large_fov_channels",
    "logits_kernel_size",
    "nas_channels",
    "backbone_bn_eps",
    "head_bn_eps",
)


_SCALED = ("mobilenet_v2", "mobilenet_edgetpu", "mobilevit_v2")
"""Families that have a depth multiplier."""


def derive_config(config: ConfigFields) -> dict[str, Any]:
    """Return a value for every derived field that was not given."""
    _check_choice(config, "version")
    _check_choice(config, "backbone")
    backbone = backbone_defaults(config.backbone)
    early = config.version in ("v1", "v2")
    in_bgr = backbone.family.startswith("mobilevit")  # Source: apple/ml-cvnets reads with OpenCV
    caffe = config.version == "v2" and backbone.family == "resnet"
    derived: dict[str, Any] = {
        # v1 and v2 predict at stride 8 (1606.00915, section 3.1), v3 and v3+ at 16 by default.
        "output_stride": 8 if early or config.backbone == "nas_hnasnet" else 16,
        "divisible_by": 8
        if config.depth_multiplier == 1.0 or backbone.family != "mobilenet_v2"
        else 1,
        "lost_stride_rate": "new" if caffe else "old",
        "stride_unit": "first" if caffe else "last",
        "stride_conv": "1x1" if caffe else "3x3",
        "pool_ceil_mode": early,
        "stem_channels": _derive_stem(config.backbone),
        "backbone_bn_eps": backbone.bn_eps,
        "backbone_bn_decay": backbone.bn_decay,
        "aspp": not early and config.cascade_blocks == 0,
        "rates_stated_at": 8 if early else 16,
        "atrous_rates": {"v1": (12,), "v2": (6, 12, 18, 24)}.get(
            config.version, backbone.atrous_rates
        ),
        "dropout": 0.5 if early else 0.1,
        "decoder_output_stride": (4,) if config.version == "v3+" else (),
        "low_level_channels": config.decoder_channels if config.decoder_merge == "sum" else 48,
        "pixel_mean": BACKBONES["vgg16"].pixel_mean if early else backbone.pixel_mean,
        "pixel_std": BACKBONES["vgg16"].pixel_std if early else backbone.pixel_std,
        "channel_order": "bgr" if (early or in_bgr) and _takes_photos(config) else "rgb",
        "align_corners": True,
    }
    if backbone.family == "timm":
        derived |= _derive_timm(config, derived["output_stride"])
    return {name: value for name, value in derived.items() if getattr(config, name) is DERIVED}


def _derive_timm(config: ConfigFields, usual_stride: int) -> dict[str, Any]:
    """Return what follows from a network of timm's, which is asked only where something is open."""
    names = ("output_stride", "backbone_bn_eps", "pixel_mean", "pixel_std", "align_corners")
    decided = {"channel_order": "rgb", "pool_ceil_mode": False}
    if config.own or all(getattr(config, name) is not DERIVED for name in names):
        return decided
    from deeplab.models.timm_facts import measure, read_pixels  # torch, which is not needed before

    stride, features = config.output_stride, measure(config.backbone)
    if stride is DERIVED:
        stride = features.strides[-1]
        with contextlib.suppress(ConfigError):  # else it stays at its own
            stride = measure(config.backbone, usual_stride).strides[-1]
    pixels = read_pixels(config.backbone)
    return {
        "output_stride": stride,
        "backbone_bn_eps": features.bn_eps,
        "pixel_mean": pixels.mean,
        "pixel_std": pixels.std,
        "align_corners": features.aligned,
        **decided,
    }


def _takes_photos(config: ConfigFields) -> bool:
    return config.pixel_mean is DERIVED or len(config.pixel_mean) == 3


def _derive_stem(backbone: str) -> tuple[int, ...]:
    """Return the channels before the blocks. Source: resnet_v1_beta.py, resnet_v1_beta_block."""
    if backbone_defaults(backbone).family != "resnet":
        return ()
    return (64, 64, 128) if backbone.endswith("_beta") else (64,)


def check_config(config: ConfigFields) -> None:
    """Refuse a configuration that contradicts itself.

    Raises:
        ConfigError: says which field, what it got, and what to do.
    """
    _check_types(config)
    for name in _CHOICES:
        _check_choice(config, name)
    for name in _POSITIVE:
        value = getattr(config, name)
        if not value > 0:
            raise ConfigError(f"{name}: got {value}. Give a number above 0.")
    for name in ("output_stride", "rates_stated_at"):
        if getattr(config, name) not in OUTPUT_STRIDES:
            raise ConfigError(
                f"{name}: got {getattr(config, name)}. Choose one of "
                f"{', '.join(map(str, OUTPUT_STRIDES))}; 16 trains, 8 is finer and slower."
            )
    if config.own and ":" not in config.own:
        raise ConfigError(f"own: got '{config.own}'. Give FILE.py:NAME or MODULE:NAME.")
    _check_numbers(config)
    _check_version(config)
    _check_head(config)
    _check_decoder(config)


def _check_types(config: ConfigFields) -> None:
    """A file may hold anything: "false" is a text that counts as true."""
    for field in dataclasses.fields(config):
        value, kind = getattr(config, field.name), str(field.type)
        if value is None and kind.endswith("| None"):
            continue
        expected = _TYPES.get(kind.partition("[")[0])
        if expected and (
            not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool")
        ):
            raise ConfigError(f"{field.name}: got {value!r}. Give {_IN_WORDS[kind.split('[')[0]]}.")


def _check_choice(config: ConfigFields, name: str) -> None:
    value, choices = getattr(config, name), _CHOICES[name]
    if name == "backbone" and isinstance(value, str) and value.startswith(TIMM):
        if value.removeprefix(TIMM).strip(".") == "":
            raise ConfigError(f"backbone: got '{value}'. Give timm/NAME: timm/convnext_tiny.")
        return  # whether timm knows it is seen when the network is built
    if value not in choices:
        near = near_matches(value, choices) if isinstance(value, str) else ""
        raise ConfigError(
            f"{name}: got {value!r}.{near} Choose one of: {', '.join(map(str, choices))}."
        )


def _check_numbers(config: ConfigFields) -> None:
    if config.num_classes < 2:
        raise ConfigError(
            f"num_classes: got {config.num_classes}. Give at least 2; background is a class too."
        )
    if not 0 <= config.dropout < 1:
        raise ConfigError(
            f"dropout: got {config.dropout}. Give the probability of dropping, 0 to below 1 "
            "(a keep probability of 0.9 is dropout 0.1)."
        )
    if not 0 < config.drop_path_keep_prob <= 1:
        raise ConfigError(
            f"drop_path_keep_prob: got {config.drop_path_keep_prob}. Give the probability of "
            "keeping, above 0 and at most 1; 1 drops nothing."
        )
    for name, decay in (
        ("backbone_bn_decay", config.backbone_bn_decay),
        ("head_bn_decay", config.head_bn_decay),
    ):
        if not 0 <= decay < 1:
            raise ConfigError(
                f"{name}: got {decay}. Give the weight of the old average, 0 to below 1 "
                "(PyTorch's momentum is 1 − decay)."
            )
    if any(scale <= 0 for scale in config.image_pyramid):
        raise ConfigError(f"image_pyramid: got {config.image_pyramid}. Give scales above 0.")
    if config.mirror_scale < 0:
        raise ConfigError(
            f"mirror_scale: got {config.mirror_scale}. Give a scale above 0, such as 1.0; 0 leaves "
            "the mirrored photo out."
        )
    _check_pixels(config)


def _check_pixels(config: ConfigFields) -> None:
    mean, std = config.pixel_mean, config.pixel_std
    if not 1 <= len(mean) <= MOST_CHANNELS or len(mean) != len(std):
        raise ConfigError(
            f"pixel_mean, pixel_std: got {len(mean)} and {len(std)} numbers. Give three each, for "
            f"R G B, or one for each channel of other pictures, {MOST_CHANNELS} at most."
        )
    if min(std) <= 0:
        raise ConfigError(f"pixel_std: got {std}. Give values above 0, in the units of the pixels.")
    if config.channel_order == "bgr" and len(mean) != 3:
        raise ConfigError(
            f"channel_order: 'bgr' is for photos, got {len(mean)} channels. Use 'rgb': the order "
            "in which the pictures have them."
        )


def _check_backbone(config: ConfigFields, family: str) -> None:
    """Refuse what only another family has, and a stem that does not fit."""
    for name, others in (
        ("padding", "'same' or 'symmetric'"),
        ("lost_stride_rate", "'old' or 'new'"),
    ):
        value = getattr(config, name)
        if value.startswith(("block_input", "old_", "first_")) and family != "mobilenet_v2":
            raise ConfigError(
                f"{name}: '{value}' exists for mobilenet_v2 only, got '{config.backbone}'. "
                f"Use {others}."
            )
    if (
        len(config.stem_channels) != len(_derive_stem(config.backbone))
        or min(config.stem_channels, default=1) < 1
    ):
        raise ConfigError(
            f"stem_channels: got {config.stem_channels} for '{config.backbone}'. Give "
            f"{len(_derive_stem(config.backbone))} numbers, one per convolution before the blocks."
        )


def _check_family_fields(config: ConfigFields, family: str) -> None:
    """Refuse settings that this family does not read."""
    for name, reader, unset in (
        ("weight_standardization", "resnet", False),
        ("nas_classification_head", "nas", False),
        ("nas_channels", "nas", 20),
        ("drop_path_keep_prob", "nas", 1.0),
        ("odd_patches", "mobilevit", "resize"),
    ):
        value = getattr(config, name)
        if value != unset and not family.startswith(reader):
            owner = {"resnet": "ResNets", "nas": "the NAS backbones"}.get(reader, "MobileViTs")
            raise ConfigError(
                f"{name}: got {value} with '{config.backbone}'. Only {owner} read it; leave it "
                f"at {unset}."
            )
    if config.nas_remove_os32_stride and config.backbone != "nas_hnasnet":
        raise ConfigError(
            f"nas_remove_os32_stride: got True with '{config.backbone}'. Only nas_hnasnet reads "
            "it; leave it at False."
        )
    if config.bounded_activation and config.version in ("v1", "v2"):
        raise ConfigError(
            f"bounded_activation: got True with version='{config.version}'. It is of v3 and v3+; "
            "leave it at False."
        )
    if family == "nas":
        ends_at_8 = config.backbone == "nas_hnasnet" and not config.nas_classification_head
        strides = [8] if ends_at_8 else [8, 16, 32]
        if config.output_stride not in strides:
            raise ConfigError(
                f"output_stride: got {config.output_stride} with '{config.backbone}'. Choose "
                f"{' or '.join(map(str, strides))}."
            )


def _check_timm(config: ConfigFields) -> None:
    """Refuse what is decided by timm."""
    for name, unset in (
        ("padding", "same"),
        ("lost_stride_rate", "old"),
        ("stride_unit", "last"),
        ("stride_conv", "3x3"),
        ("basic_rates", "both"),
        ("last_conv", False),
        ("gate_slope", 0.16667),
        ("multi_grid", (1, 1, 1)),
        ("multi_scale_features", False),
        ("pool_ceil_mode", False),
        ("low_level", "inner"),
    ):
        if getattr(config, name) != unset:
            raise ConfigError(
                f"{name}: got {getattr(config, name)!r} with '{config.backbone}'. timm's networks "
                "do not read it; leave it out."
            )


def _check_version(config: ConfigFields) -> None:
    family = config.family
    if config.version == "v1" and family not in ("vgg", "timm"):
        raise ConfigError(
            f"backbone: v1 is defined on vgg16 only, got '{config.backbone}'. "
            "Use version='v3' with this backbone, or backbone='vgg16'."
        )
    if config.version == "v2" and family not in ("vgg", "resnet", "timm"):
        raise ConfigError(
            f"backbone: v2 is defined on vgg16 and ResNets, got '{config.backbone}'. "
            "Use version='v3' with this backbone, or backbone='resnet_v1_101'."
        )
    if family == "vgg" and config.version not in ("v1", "v2"):
        raise ConfigError(
            f"backbone: vgg16 belongs to v1 and v2, got version='{config.version}'. "
            "Use version='v1', or a ResNet, Xception or MobileNet backbone."
        )
    if config.depth_multiplier != 1.0 and family not in _SCALED:
        raise ConfigError(
            f"depth_multiplier: got {config.depth_multiplier} with '{config.backbone}'. "
            f"Only {', '.join(_SCALED)} have one; leave it at 1.0."
        )
    if config.cascade_blocks and (config.version != "v3" or family != "resnet"):
        raise ConfigError(
            f"cascade_blocks: got {config.cascade_blocks} with version='{config.version}', "
            f"backbone='{config.backbone}'. The cascaded form is v3 on a ResNet; set it to 0."
        )
    _check_backbone(config, family)
    _check_family_fields(config, family)
    if family == "timm":
        _check_timm(config)
    if (
        config.low_level == "block"
        and config.decoder_output_stride
        and family in ("resnet", "xception")
        and (family == "xception" or config.stride_unit == "last")
    ):
        raise ConfigError(
            f"low_level: 'block' needs blocks that stride in their first unit, got "
            f"'{config.backbone}' with stride_unit='{config.stride_unit}'. "
            "Use low_level='inner', or stride_unit='first' on a ResNet."
        )
    if config.multi_scale_features and config.version != "v1":
        raise ConfigError(
            f"multi_scale_features: is the MSc variant of v1, got version='{config.version}'. "
            "Set version='v1', or remove it (image_pyramid merges several scales of the photo)."
        )
    if len(config.multi_grid) != 3 or min(config.multi_grid) < 1:
        raise ConfigError(
            f"multi_grid: got {config.multi_grid}. Give three rates of at least 1, such as "
            "(1, 2, 4): one for each unit of the last block."
        )


def _check_head(config: ConfigFields) -> None:
    if any(rate < 1 for rate in config.atrous_rates):
        raise ConfigError(f"atrous_rates: got {config.atrous_rates}. Give rates of at least 1.")
    if config.version == "v1" and len(config.atrous_rates) != 1:
        raise ConfigError(
            f"atrous_rates: v1 has one (fc6, rate 12), got {config.atrous_rates}. "
            "Give one rate, or use version='v2' for several."
        )
    if config.version == "v2" and not config.atrous_rates:
        raise ConfigError(
            "atrous_rates: v2 sums one branch per rate, got none. Use (6, 12, 18, 24)."
        )
    if config.squeeze_excitation and not config.image_pooling:
        raise ConfigError(
            "squeeze_excitation: gates with the pooled image, but image_pooling is off. "
            "Set image_pooling=True, or squeeze_excitation=False."
        )
    for index, branch in enumerate(config.dense_prediction_cell):
        if not -1 <= branch.input < index:
            raise ConfigError(
                f"dense_prediction_cell: branch {index} reads from branch {branch.input}. "
                "Give −1 for the features, or the index of an earlier branch."
            )


def _check_decoder(config: ConfigFields) -> None:
    strides = config.decoder_output_stride
    if (config.version == "v3+") != bool(strides):
        raise ConfigError(
            f"decoder_output_stride: got {strides} with version='{config.version}'. "
            "A decoder is what makes v3+: use version='v3+' with (4,), or 'v3' without it."
        )
    if list(strides) != sorted(set(strides), reverse=True) or any(
        stride not in (4, 8, 16) or stride > config.output_stride for stride in strides
    ):
        raise ConfigError(
            f"decoder_output_stride: got {strides} at output_stride={config.output_stride}. "
            "Give strides out of 16, 8, 4, coarse to fine, none above output_stride: (4,)."
        )
    if config.decoder_output_is_logits and config.decoder_channels != config.num_classes:
        raise ConfigError(
            f"decoder_channels: got {config.decoder_channels}, but decoder_output_is_logits makes "
            f"them the classes. Set decoder_channels={config.num_classes}."
        )
