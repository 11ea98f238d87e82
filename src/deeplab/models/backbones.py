"""The backbones by name, and what the original does with each family of them."""

from __future__ import annotations

from typing import Any, NamedTuple

OUTPUT_STRIDES = (4, 8, 16, 32)

DERIVED: Any = None
"""Default of a field that follows from the version and the backbone where it is not given."""


class BackboneDefaults(NamedTuple):
    """What the original does with a family of backbones.

    Source: deeplab/core/feature_extractor.py (``_MEAN_RGB``, ``_PREPROCESSING_FN``, the argument
    scopes), slim/nets/mobilenet, deeplab/core/xception.py; apple/ml-cvnets for MobileViT.
    """

    family: str
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    bn_eps: float
    bn_decay: float
    atrous_rates: tuple[int, ...]


TIMM = "timm/"
"""Before the name of a network of the library timm."""

_UNIT = ((127.5,) * 3, (127.5,) * 3)  # (2/255)x − 1
_SHARE = ((0.0,) * 3, (255.0,) * 3)  # x/255, and in BGR: see derive_config
_MEAN = ((123.15, 115.90, 103.06), (1.0,) * 3)
_CAFFE = ((122.675, 116.669, 104.008), (1.0,) * 3)  # the usual BGR mean, written in RGB order
_RATES = (6, 12, 18)

BACKBONES: dict[str, BackboneDefaults] = {
    "vgg16": BackboneDefaults("vgg", *_CAFFE, 1e-5, 0.997, _RATES),
    "resnet_v1_18": BackboneDefaults("resnet", *_MEAN, 1e-5, 0.95, _RATES),
    "resnet_v1_34": BackboneDefaults("resnet", *_MEAN, 1e-5, 0.95, _RATES),
    "resnet_v1_50": BackboneDefaults("resnet", *_MEAN, 1e-5, 0.95, _RATES),
    "resnet_v1_101": BackboneDefaults("resnet", *_MEAN, 1e-5, 0.95, _RATES),
    "resnet_v1_152": BackboneDefaults("resnet", *_MEAN, 1e-5, 0.95, _RATES),
    "resnet_v1_18_beta": BackboneDefaults("resnet", *_UNIT, 1e-5, 0.95, _RATES),
    "resnet_v1_50_beta": BackboneDefaults("resnet", *_UNIT, 1e-5, 0.95, _RATES),
    "resnet_v1_101_beta": BackboneDefaults("resnet", *_UNIT, 1e-5, 0.95, _RATES),
    "xception_41": BackboneDefaults("xception", *_UNIT, 1e-3, 0.9997, _RATES),
    "xception_65": BackboneDefaults("xception", *_UNIT, 1e-3, 0.9997, _RATES),
    "xception_71": BackboneDefaults("xception", *_UNIT, 1e-3, 0.9997, _RATES),
    "mobilenet_v2": BackboneDefaults("mobilenet_v2", *_UNIT, 1e-3, 0.997, ()),
    "mobilenet_v3_large": BackboneDefaults("mobilenet_v3", *_UNIT, 1e-3, 0.997, ()),
    "mobilenet_v3_small": BackboneDefaults("mobilenet_v3", *_UNIT, 1e-3, 0.997, ()),
    "mobilenet_v3_large_seg": BackboneDefaults("mobilenet_v3", *_UNIT, 1e-3, 0.997, ()),
    "mobilenet_v3_small_seg": BackboneDefaults("mobilenet_v3", *_UNIT, 1e-3, 0.997, ()),
    "nas_pnasnet": BackboneDefaults("nas", *_UNIT, 1e-3, 0.9997, _RATES),
    "nas_hnasnet": BackboneDefaults("nas", *_UNIT, 1e-3, 0.9997, _RATES),
    **{
        name: BackboneDefaults("mobilevit", *_SHARE, 1e-5, 0.9, _RATES)
        for name in ("mobilevit_xxs", "mobilevit_xs", "mobilevit_s")
    },
    "mobilevit_v2": BackboneDefaults("mobilevit_v2", *_SHARE, 1e-5, 0.9, _RATES),
    "mobilenet_edgetpu": BackboneDefaults("mobilenet_edgetpu", *_UNIT, 1e-3, 0.997, ()),
}

# Of the library timm: pixels and epsilon are each network's own, and take the place of these.
_TIMM = BackboneDefaults("timm", *_UNIT, 1e-5, 0.9, _RATES)


def backbone_defaults(name: str) -> BackboneDefaults:
    """Return what is usual for a backbone, whose name is known."""
    return _TIMM if name.startswith(TIMM) else BACKBONES[name]
