"""The pictures on the doctor's page: small photos and masks, whole and as augmentation has them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deeplab.data.channels import shown_alone
from deeplab.data.mask_files import UInt8, open_mask
from deeplab.data.masks import IGNORE, NOT_A_CLASS
from deeplab.data.overlapping import OverlappingDataset
from deeplab.data.sample import FileDataset
from deeplab.errors import DataError, DeepLabError
from deeplab.photo.band_pictures import read_values
from deeplab.photo.images import Photo

IGNORED_COLOUR = (224, 224, 192)  # VOC's own
WRONG_COLOUR = (255, 0, 255)

_THUMBNAIL = (180, 135)  # width, height
_LARGEST_AUGMENTED = 32_000_000  # pixels; larger photos are shown, but not augmented


def small_photo(path: Path, dataset: FileDataset) -> Image.Image | None:
    """Return a small upright photo, or None when it cannot be read."""
    try:
        if dataset.channels:
            picture = Image.fromarray(shown_alone(read_values(path)[1], dataset.rgb))
        else:
            picture = Photo(path).decode(at_least=_THUMBNAIL)
    except DeepLabError:  # a thumbnail is no place to complain; the fault says what is wrong
        return None
    picture.thumbnail(_THUMBNAIL)
    return picture


def small_mask(dataset: FileDataset, index: int) -> Image.Image | None:
    """Return a small mask in the colours of its classes; what is no class is magenta.

    A mask that is mostly no class is shown as its file has it. Of overlapping classes the smallest
    lies on top.
    """
    path = dataset.masks[index]
    if isinstance(dataset, OverlappingDataset):
        try:
            return _drawn(flatten(dataset.label(index)), dataset)
        except DataError:
            return None
    try:
        mask = open_mask(path)
    except DataError:
        return None
    label = dataset.encoding.decode(mask)
    raw = mask.colours
    if raw is None or (label == NOT_A_CLASS).mean() < 0.5:
        return _drawn(label, dataset)
    step = _step(label.shape)
    return Image.fromarray(np.ascontiguousarray(raw[::step, ::step]))


def augment(dataset: FileDataset, index: int, transform: Any) -> list[Image.Image]:
    """Return what a training would see of a pair: photo and mask of one random crop.

    Args:
        dataset: the split.
        index: of the pair.
        transform: a ``transforms.TrainTransform``.

    Returns:
        Nothing when the pair cannot be read.
    """
    try:
        if dataset.channels:  # these are held in memory whole in any case
            height, width = dataset.values(index).shape[:2]
        else:
            height, width = Photo(dataset.images[index]).size
        if height * width > _LARGEST_AUGMENTED:
            return []
        sample = transform(dataset[index], np.random.default_rng(index))
    except DeepLabError:
        return []
    seen = shown_alone(sample.image, dataset.rgb) if dataset.channels else sample.image
    photo = Image.fromarray(seen)
    photo.thumbnail(_THUMBNAIL)
    label = flatten(sample.label) if sample.label.ndim == 3 else sample.label
    return [photo, _drawn(label, dataset)]


def encode(image: Image.Image, *, lossless: bool) -> str:
    """Return a picture as an address that holds it whole."""
    buffer = io.BytesIO()
    # A mask blurred by its own thumbnail would mislead.
    image.save(buffer, format="WEBP", quality=80, lossless=lossless)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def flatten(label: UInt8) -> UInt8:
    """Return overlapping classes as one layer to be looked at, the smallest on top.

    Args:
        label: (H, W, K) uint8, 0, 1 or 255.

    Returns:
        (H, W) uint8 ids; IGNORE where there is none.
    """
    flat = np.full(label.shape[:2], IGNORE, np.uint8)
    inside = label == 1
    for index in np.argsort(-inside.sum((0, 1)), kind="stable"):
        flat[inside[:, :, index]] = index
    return flat


def _drawn(label: UInt8, dataset: FileDataset) -> Image.Image:
    palette: UInt8 = dataset.labels.palette.copy()
    palette[IGNORE], palette[NOT_A_CLASS] = IGNORED_COLOUR, WRONG_COLOUR
    step = _step(label.shape)
    return Image.fromarray(palette[np.ascontiguousarray(label[::step, ::step])])


def _step(shape: tuple[int, ...]) -> int:
    return max(1, -(-shape[0] // _THUMBNAIL[1]), -(-shape[1] // _THUMBNAIL[0]))
