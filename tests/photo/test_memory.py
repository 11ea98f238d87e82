"""What photos take is known before they take it, and all of them together stay within a budget."""

from __future__ import annotations

import io
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab.errors import ImageError, ImageSizeError, InputError
from deeplab.photo import memory
from deeplab.photo.images import Photo
from hostile_photos import dib_that_claims, webp_that_claims


def test_a_picture_cut_short_is_refused_before_memory_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Image.init()
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"damaged or cut off \(it has 90000 bytes, expected"):
        Photo(dib_that_claims(19_000, 19_000))


@pytest.mark.parametrize("format", ["BMP", "DIB", "TIFF", "PPM", "TGA"])
def test_pictures_as_they_are_stored_are_long_enough(format: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (7, 5, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format)
    assert (Photo(data.getvalue()).pixels() == pixels).all()


def png_with_late_exif(orientation: int) -> bytes:
    data, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (6, 4)).save(data, "PNG")
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = b"eXIf" + content
    chunk = len(content).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return data.getvalue()[:-12] + chunk + data.getvalue()[-12:]


def test_exif_behind_the_pixels_is_found_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png_with_late_exif(6)
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
        photo = Photo(data)
    assert photo.size == (6, 4)
    assert photo.orientation == 6
    assert photo.pixels().shape == (6, 4, 3)


@pytest.mark.parametrize(
    ("name", "least"),
    [("a.png", 8), ("a.jpg", 6), ("a.webp", 24), ("a.bmp", 8), ("rgba.png", 15), ("a.gif", 16)],
)
def test_an_estimate_needs_the_header_alone(tmp_path: Path, name: str, least: int) -> None:
    path = tmp_path / name
    Image.new("RGBA" if "rgba" in name else "RGB", (200, 100)).save(path)
    found = memory.estimate(path, kinds=("mask",), classes=21)
    assert found >= 20_000 * least
    assert memory.estimate(path, kinds=("blur",), classes=21) >= max(found, 20_000 * 21)
    assert memory.estimate(path, kinds=("probabilities",), classes=21) >= 20_000 * 126


def test_a_claim_counts_as_what_it_would_take(tmp_path: Path) -> None:
    path = tmp_path / "small.webp"
    path.write_bytes(webp_that_claims(16_383, 16_383))
    assert path.stat().st_size == 34
    assert memory.estimate(path, classes=21) > 4e9
    (tmp_path / "no picture.jpg").write_text("no picture")
    assert memory.estimate(tmp_path / "no picture.jpg", classes=21) == 0
    assert memory.estimate(tmp_path / "nothing.jpg", classes=21) == 0


def test_who_needs_more_than_is_left_waits() -> None:
    budget = memory.Budget(100)
    at_work, most, lock = 0, 0, threading.Lock()

    def work(amount: int) -> None:
        nonlocal at_work, most
        with budget.holding(amount, name="photo"):
            with lock:
                at_work += amount
                most = max(most, at_work)
            with lock:
                at_work -= amount

    threads = [threading.Thread(target=work, args=(30 + n % 50,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert 0 < most <= 100
    with (
        pytest.raises(ImageSizeError, match=r"big\.png: the photo needs about 0 MB .* --memory"),
        budget.holding(101, name="big.png"),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "amount"),
    [("2GB", 2_000_000_000), ("512 MiB", 512 << 20), ("1.5g", 1_500_000_000), ("1000000", 10**6)],
)
def test_amounts(text: str, amount: int) -> None:
    assert memory.parse_bytes("--memory", text) == amount


@pytest.mark.parametrize(
    "text", ["", "GB", "-1GB", "nan", "inf", "1e99", "5", "2 apples", "1_0GB!"]
)
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(InputError, match="--memory: got"):
        memory.parse_bytes("--memory", text)


def test_what_there_is_is_known_here() -> None:
    free = memory.free_bytes()
    assert free is None or free > 1_000_000
    assert memory.default_budget() > 1_000_000
