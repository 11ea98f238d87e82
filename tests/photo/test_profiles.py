"""Pictures made from a photo keep what its colours mean: phones write Display P3, not sRGB."""

from __future__ import annotations

import dataclasses
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from deeplab import Segmenter
from deeplab.cli import run as run_command
from deeplab.labels import LabelSet
from tiny_tflite import tiny_network


def swapped_profile() -> bytes:
    """sRGB, but red is blue and blue is red: what is forgotten or converted wrongly is seen."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    places = {
        bytes(profile[at : at + 4]): struct.unpack_from(">I", profile, at + 4)[0]
        for at in range(132, 132 + 12 * struct.unpack_from(">I", profile, 128)[0], 12)
    }
    red, blue = (slice(places[tag], places[tag] + 20) for tag in (b"rXYZ", b"bXYZ"))
    profile[red], profile[blue] = profile[blue], profile[red]
    return bytes(profile)


LABELS = LabelSet(("ground", "cat", "dog", "tree"), background=0)
PROFILE = swapped_profile()


@pytest.fixture
def segmenter(tmp_path: Path) -> Segmenter:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(tiny_network(frame=33, stride=4))
    return Segmenter(path, labels=LABELS, threads=1)


@pytest.fixture
def photo() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    picture = Image.fromarray(values)
    picture.info["icc_profile"] = PROFILE
    return picture


def written(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_what_is_drawn_has_the_photos_profile(segmenter: Segmenter, photo: Image.Image) -> None:
    data = written(photo, "JPEG", icc_profile=PROFILE)
    result = segmenter(data)
    for picture in (
        result.overlay(),
        result.contour(),
        result.cutout(),
        result.blur_background(),
        result.replace_background((1, 2, 3)),
    ):
        assert picture.info["icc_profile"] == PROFILE
        assert Image.open(io.BytesIO(written(picture))).info["icc_profile"] == PROFILE
    clear = photo.convert("RGBA")
    clear.putalpha(128)
    assert segmenter(written(clear)).cutout().info["icc_profile"] == PROFILE
    assert segmenter(photo).cutout().info["icc_profile"] == PROFILE


def test_profiles_of_other_colours_are_left_behind(
    segmenter: Segmenter, photo: Image.Image
) -> None:
    """A grey or CMYK profile would make RGB pixels unreadable."""
    for mode, space in (("L", b"GRAY"), ("CMYK", b"CMYK")):
        profile = PROFILE[:16] + space + PROFILE[20:]
        data = written(photo.convert(mode), "JPEG", icc_profile=profile)
        assert not segmenter(data).cutout().info.get("icc_profile")


def test_another_background_comes_in_the_photos_colours(
    segmenter: Segmenter, photo: Image.Image
) -> None:
    nothing = np.zeros((photo.height, photo.width), np.uint8)
    result = dataclasses.replace(segmenter(photo), mask=nothing, logits=None)
    red = Image.new("RGB", photo.size, (255, 0, 0))  # sRGB
    shown = np.asarray(result.replace_background(red)).astype(int)
    assert np.abs(shown - (0, 0, 255)).max() <= 2  # which this profile shows as the same red
    red.info["icc_profile"] = PROFILE  # and now as blue, as the photo's own
    shown = np.asarray(result.replace_background(red))
    assert (shown == (255, 0, 0)).all()
    red.info["icc_profile"] = PROFILE[:300]  # damaged
    assert result.replace_background(red).size == photo.size


def test_files_have_it(tmp_path: Path, photo: Image.Image) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(written(photo))
    command = ["segment", str(path), "-o", str(tmp_path), "--save", "overlay,cutout,mask", "-m"]
    assert run_command([*command, "voc-fast"]) == 0
    for kind in ("overlay.jpg", "cutout.png"):
        with Image.open(tmp_path / f"photo.{kind}") as picture:
            assert picture.info["icc_profile"] == PROFILE
