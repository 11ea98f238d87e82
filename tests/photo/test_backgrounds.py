"""A background is a picture in any form that a photo has, or a colour; else words say so."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab import Segmenter
from deeplab.errors import ImageError, InputError, ModelNotFoundError
from deeplab.labels import LabelSet
from deeplab.photo.results import Segmentation
from tiny_tflite import tiny_network


@pytest.fixture
def result(tmp_path: Path) -> Segmentation:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(tiny_network(frame=33, stride=4))
    labels = LabelSet(("ground", "cat", "dog", "tree"), background=0)
    photo = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return Segmenter(path, labels=labels, threads=1)(photo)


def test_every_form_of_a_picture_is_the_same_background(
    result: Segmentation, tmp_path: Path
) -> None:
    values = np.random.default_rng(2).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    picture = Image.fromarray(values)
    path = tmp_path / "beach.png"
    picture.save(path)
    file = io.BytesIO()
    picture.save(file, "PNG")
    expected = np.asarray(result.replace_background(picture))
    for form in (path, str(path), file.getvalue(), values):
        np.testing.assert_array_equal(np.asarray(result.replace_background(form)), expected)
    colour = np.asarray(result.replace_background((9, 8, 7)))
    np.testing.assert_array_equal(np.asarray(result.replace_background([9, 8, 7])), colour)  # type: ignore[arg-type]


def test_what_is_no_background_is_told(result: Segmentation) -> None:
    for wrong in ((300, 0, 0), (0.5, 0.5, 0.5), (1, 2), (-1, 0, 0)):
        with pytest.raises(InputError, match=r"background: got .*from 0 to 255"):
            result.replace_background(wrong)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="there is no such file"):
        result.replace_background("beach.jpg")


def test_numbers_are_no_names_of_classes(result: Segmentation) -> None:
    for wrong in (1, [1], np.int64(1)):
        with pytest.raises(InputError, match=r"label: got .*1.*, expected the name.*ground, cat"):
            result.cutout(wrong)  # type: ignore[arg-type]


def test_of_a_trainings_folder_the_pair_is_named(tmp_path: Path) -> None:
    (tmp_path / "pets.safetensors").write_bytes(b"")
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match=r"is a folder.* It holds .*pets\.json: give that"):
        Segmenter(tmp_path)
