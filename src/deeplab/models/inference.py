"""Class probabilities for whole photos: any size, several scales, mirrored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplab.errors import InputError
from deeplab.models.deeplab import DeepLab
from deeplab.models.layers import resize, scale_size


def predict(
    model: DeepLab,
    image: Tensor,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    output_stride: int | None = None,
    pad: bool = False,
) -> Tensor:
    """Return probabilities (B, num_classes, H, W) at the photo's size, float32.

    The softmax of each scale, and of its mirror image, is averaged. A network with an
    ``image_pyramid`` or a ``mirror_scale`` merges the logits of its own looks; other ``scales``
    take their place.

    Args:
        model: in evaluation mode, or dropout and batch statistics act.
        image: (B, 3, H, W) RGB, uint8 or floating point in 0..255, any size.
        scales: of the photo, 1.0 is its own size. The published results use 0.5 to 1.75.
        flip: average with the mirrored photo.
        output_stride: 4, 8, 16 or 32; by default the configuration's.
        pad: extend the photo at the bottom and right with the mean pixel, so that its size is a
            multiple of the output stride plus 1, and crop the result. The original's evaluation
            pads to its crop size in the same way.

    Raises:
        InputError: no scale, or one that is not above 0.

    Source: deeplab/model.py ``predict_labels_multi_scale``.
    """
    if not scales or min(scales) <= 0:
        raise InputError(f"scales: got {tuple(scales)}. Give at least one, all above 0: (1.0,).")
    height, width = image.shape[2:]
    if pad:
        image = pad_to_stride(model, image, output_stride)
    total: Tensor | None = None
    for scale in scales:
        for mirrored in (False, True) if flip else (False,):
            x = image.flip(3) if mirrored else image
            if tuple(scales) == (1.0,):
                logits = model(x, output_stride)
            else:
                logits = _logits_at(model, x, scale, output_stride)
            logits = logits.flip(3) if mirrored else logits
            softmax = model.upsample(logits, image.shape[2:]).softmax(1)
            total = softmax if total is None else total.add_(softmax)
    assert total is not None
    mean = total / (len(scales) * (2 if flip else 1))
    return mean[:, :, :height, :width]


def _logits_at(model: DeepLab, image: Tensor, scale: float, output_stride: int | None) -> Tensor:
    """Return logits of one scale, on the grid of the photo's own size or a finer one."""
    logits = model.one_scale(image, output_stride, scale=scale)
    if scale >= 1.0 or not model.config.align_corners:
        return logits
    stride = model.logits_stride(output_stride)
    size = [scale_size(side, 1.0 / stride) for side in image.shape[2:]]
    return resize(logits, size, align_corners=True)


def pad_to_stride(model: DeepLab, image: Tensor, output_stride: int | None = None) -> Tensor:
    """Extend a photo at the bottom and right to k·stride + 1, with the mean pixel.

    At such sizes every cell of the logits has a pixel in its middle, at both ends too.
    """
    stride = output_stride or model.config.output_stride
    extra = [(1 - side) % stride for side in image.shape[2:]]
    if not any(extra):
        return image
    mean = model.pixel_mean
    assert isinstance(mean, Tensor)
    x = image.to(torch.promote_types(mean.dtype, torch.float32)) - mean
    return F.pad(x, (0, extra[1], 0, extra[0])) + mean
