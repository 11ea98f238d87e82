"""Clips with known truth: an animal, cut out of a photo, moves over textured ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from deeplab import Segmenter
from deeplab.labels import VOC
from deeplab.zoo.example_photos import list_example_photos

UInt8 = npt.NDArray[np.uint8]

CutOut = tuple[UInt8, npt.NDArray[np.bool_], int]

SIZE = (270, 480)
NOISE = 8.0


@dataclass(frozen=True)
class SyntheticClip:
    """Frames (H, W, 3) uint8 RGB and their truth, (H, W) uint8 ids of VOC."""

    frames: list[UInt8]
    truth: list[UInt8]


STEPS = {"slow": 1.5, "walk": 6.0, "run": 15.0, "fast": 24.0}
"""Pixels per frame that the animal moves; 24 are a twentieth of the width."""


def make_clip(kind: str, segmenter: Segmenter, *, count: int = 24) -> SyntheticClip:
    """Make a clip: one cat lies still, another goes by, and the camera is a noisy one."""
    rng = np.random.default_rng(list(STEPS).index(kind))
    ground, no_label = _texture(rng), np.zeros(SIZE, np.uint8)
    pixels, shape, index = walker = _cut_out("cat", segmenter, height=0.6)
    _paste(ground, no_label, (pixels[:, ::-1], shape[:, ::-1], index), left=8, top=20)
    frames, truth = [], []
    for number in range(count):
        frame, label = ground.copy(), no_label.copy()
        left = 0.72 * SIZE[1] - walker[0].shape[1] / 2 + STEPS[kind] * (number - count / 2)
        _paste(frame, label, walker, left=round(left), top=SIZE[0] - walker[0].shape[0] - 4)
        # Its exposure breathes, too.
        grain = rng.normal(0, NOISE, (*SIZE, 3)) + 2 * np.sin(number * 1.7)
        frames.append(np.clip(frame + grain, 0, 255).astype(np.uint8))
        truth.append(label)
    return SyntheticClip(frames, truth)


def make_camera_clip(kind: str, segmenter: Segmenter, *, count: int = 24) -> SyntheticClip:
    """Make a clip whose camera moves: it pans, or is held in a hand. A dog goes by, a cat lies."""
    rng = np.random.default_rng({"pan": 101, "hand": 202}[kind])
    ground = _texture(rng, (SIZE[0] + 60, 2 * SIZE[1]))
    no_label = np.zeros(ground.shape[:2], np.uint8)
    walker = _cut_out("dog", segmenter, height=0.55)
    _paste(ground, no_label, _cut_out("cat", segmenter, height=0.5), left=350, top=70)
    path = np.full((count, 2), (30.0, 204.0)) + np.arange(count)[:, None] * (0, 3)
    if kind == "hand":
        path += np.cumsum(rng.normal(0, (1.5, 2.5), (count, 2)), axis=0)
    frames, truth = [], []
    for number, (top, left) in enumerate(np.rint(path).astype(int)):
        frame, label = ground.copy(), no_label.copy()
        middle = 560 + (7 if kind == "pan" else 4) * (number - count / 2)
        at = round(middle - walker[0].shape[1] / 2)
        _paste(frame, label, walker, left=at, top=len(ground) - len(walker[0]) - 36)
        seen = slice(top, top + SIZE[0]), slice(left, left + SIZE[1])
        grain = rng.normal(0, NOISE, (*SIZE, 3)) + 2 * np.sin(number * 1.7)
        frames.append(np.clip(frame[seen] + grain, 0, 255).astype(np.uint8))
        truth.append(label[seen])
    return SyntheticClip(frames, truth)


def _paste(frame: UInt8, label: UInt8, animal: CutOut, *, left: int, top: int) -> None:
    pixels, shape, index = animal
    a, b = max(0, left), min(frame.shape[1], left + shape.shape[1])
    if a < b:
        there = shape[:, a - left : b - left]
        frame[top : top + len(shape), a:b][there] = pixels[:, a - left : b - left][there]
        label[top : top + len(shape), a:b][there] = index


def _cut_out(name: str, segmenter: Segmenter, *, height: float) -> CutOut:
    """Return an animal's pixels, its silhouette and its class, at a share of the height."""
    photo = next(path for path in list_example_photos() if path.stem == name)
    result = segmenter(photo)
    index = VOC.names.index(name)
    pixels = result.photo.pixels()
    mask = result.mask == index
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    scale = height * SIZE[0] / (rows[-1] + 1 - rows[0])
    size = round(scale * mask[box].shape[1]), round(scale * mask[box].shape[0])
    small = np.asarray(Image.fromarray(pixels[box]).resize(size, Image.Resampling.BILINEAR))
    inside = Image.fromarray(mask[box]).resize(size, Image.Resampling.NEAREST)
    return small, np.asarray(inside).astype(bool), index


def _texture(rng: np.random.Generator, size: tuple[int, int] = SIZE) -> UInt8:
    """Return ground like grass and gravel: noise of several sizes."""
    height, width = size
    ground = np.zeros((height, width, 3))
    for radius, strength in ((1, 40), (4, 120), (24, 500)):
        grain = rng.integers(0, 256, (height, width, 3), np.uint8)
        blurred = Image.fromarray(grain).filter(ImageFilter.GaussianBlur(radius))
        ground += (np.asarray(blurred, dtype=float) - 127.5) * strength / 127.5
    return np.clip(ground * 0.35 + (40, 55, 35), 0, 255).astype(np.uint8)
