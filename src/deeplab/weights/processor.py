"""How transformers feeds a network: what ``preprocessor_config.json`` says beside the weights.

Source: transformers/models/mobilevit/image_processing_mobilevit.py, which brings pixels to 0..1,
turns RGB to BGR and never normalises; image_processing_mobilenet_v2.py, which does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from deeplab.errors import DeepLabError, WeightsError
from deeplab.models.config import DeepLabConfig
from deeplab.photo.images import InputSpec
from deeplab.weights.report import ImportReport

FILE = "preprocessor_config.json"


def apply_processor(
    config: DeepLabConfig,
    report: ImportReport,
    *,
    settings: Mapping[str, Any],
    values: Mapping[str, Any],
) -> tuple[DeepLabConfig, ImportReport]:
    """Return a network fed as its image processor feeds it, and what was found or assumed of that.

    Without the library's file a MobileViT is fed as its processor does by default; networks of
    other libraries are left as they are.

    Args:
        config: the network.
        report: of its import; a frame that is stated is added.
        settings: of ``config.json``.
        values: of ``preprocessor_config.json``; empty where there is none.

    Raises:
        WeightsError: the file says what no network here can do, or something unreadable.
    """
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    vit = config.family.startswith("mobilevit")
    if not vit and settings.get("model_type") != "mobilenet_v2":
        return config, report
    known = "MobileViT" if vit else "MobileNetV2"
    if values and not kind.lower().startswith(known.lower()):
        raise WeightsError(
            f"{FILE}: the processor is {kind or 'not named'}, expected {known}ImageProcessor; how "
            f"another one feeds a {known} is not known here."
        )
    if vit and not values and not report.backbone_only:
        words = f"0..1 in the order blue, green, red, the library's default; no {FILE} beside it"
        report = dataclasses.replace(report, assumed={**report.assumed, "pixels": words})
    try:
        config = _apply_pixels(config, values, normalises=not vit)
        if vit and not report.backbone_only:
            height, width = _read_frame(values, settings)
            spec = InputSpec(height=height, width=width)
            report = dataclasses.replace(report, input_spec=spec)
    except (DeepLabError, TypeError, ValueError, ArithmeticError) as error:
        raise WeightsError(f"{FILE}: {error}") from error
    return config, report


def _apply_pixels(
    config: DeepLabConfig, values: Mapping[str, Any], *, normalises: bool
) -> DeepLabConfig:
    # One step of the pixels' 0..255 in the processor's numbers.
    scale = float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0
    if not (math.isfinite(scale) and scale):
        raise ValueError(f"rescale_factor: got {scale}, expected what pixels are multiplied by")
    mean, std = [0.0] * 3, [1.0] * 3
    if normalises and values.get("do_normalize", True):
        mean = [float(x) for x in values.get("image_mean", [0.5] * 3)]
        std = [float(x) for x in values.get("image_std", [0.5] * 3)]
    if not all(math.isfinite(x / scale) for x in (*mean, *std)):
        raise ValueError(f"image_mean {mean} and image_std {std} are no numbers to normalise by")
    flips = values.get("do_flip_channel_order", not normalises)
    return dataclasses.replace(
        config,
        pixel_mean=tuple(round(x / scale, 6) for x in mean),
        pixel_std=tuple(round(x / scale, 6) for x in std),
        channel_order="bgr" if flips else "rgb",
    )


def _read_frame(values: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[int, int]:
    """Return (height, width) of what the network sees: the crop, else the resized photo.

    Without a processor's file it is ``image_size``, 512 where nothing says so: the frame on which
    the published networks were trained.
    """
    stated: Any = settings.get("image_size", 512)
    if values.get("do_center_crop", bool(values)) and "crop_size" in values:
        stated = values["crop_size"]
    elif values.get("do_resize", bool(values)) and "size" in values:
        stated = values["size"]
    if isinstance(stated, Mapping):
        side = stated.get("shortest_edge")
        stated = [stated.get("height", side), stated.get("width", side)]
    height, width = stated if isinstance(stated, list | tuple) else (stated, stated)
    return int(height), int(width)
