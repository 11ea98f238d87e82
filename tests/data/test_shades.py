"""Pictures of 16 bits that would keep a handful of shades as photos are not taken for photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab.data import open_dataset
from deeplab.errors import ImageError
from deeplab.photo import images


def write(
    folder: Path, low: int, high: int, *, kind: type = np.uint16, suffix: str = "tif"
) -> Path:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(5):
        values = np.linspace(low, high, 12 * 16).reshape(12, 16).astype(kind)
        values = np.roll(values, index) if index else np.full_like(values, low)  # a blank first one
        Image.fromarray(values).save(folder / f"images/{index}.{suffix}")
        Image.fromarray((values > low).astype(np.uint8)).save(folder / f"masks/{index}.png")
    (folder / "labels.txt").write_text("background\nfinding\n")
    return folder


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize(
    ("low", "high"), [(0, 4095), (29000, 32000)]
)  # a scanner, a thermal camera
def test_few_shades_keep_their_own_numbers(
    tmp_path: Path, low: int, high: int, suffix: str
) -> None:
    dataset = open_dataset(write(tmp_path / "data", low, high, suffix=suffix), split="all")
    assert dataset.channels == 1
    values = dataset[1].image
    assert values.dtype == np.uint16
    assert len(np.unique(values)) > 190  # as a photo it had 16 or 12
    assert any(f"{low} to {high}" in text for text in dataset.assumed)


def test_many_shades_are_a_photo(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path / "data", 0, 60000), split="all")
    assert dataset.channels == 0
    assert dataset[1].image.shape == (12, 16, 3)


def test_numbers_below_nought_are_no_photo(tmp_path: Path) -> None:
    """Hounsfield units, as scanners write them."""
    dataset = open_dataset(write(tmp_path / "data", -1000, 2000, kind=np.int32), split="all")
    assert dataset.channels == 1
    assert dataset[1].image.min() == -1000


def test_a_nearly_black_photo_is_refused_in_words(tmp_path: Path) -> None:
    path = write(tmp_path / "data", 0, 4095) / "images/1.tif"
    with pytest.raises(ImageError, match=r"end at 4095.*--range 0,4095"):
        images.read(path)
