"""The mask writer: every mask comes back as it was, and the file is a sound PNG."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deeplab.labels import VOC
from deeplab.photo.palette_png import encode_palette_png


def decoded(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.mode == "P"
        return np.asarray(picture)


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 700),
    block=st.integers(1, 300),
    classes=st.integers(1, 256),
    seed=st.integers(0, 2**32 - 1),
)
def test_masks_come_back(height: int, width: int, block: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, classes, (height, width // block + 1), dtype=np.uint8)
    mask = np.ascontiguousarray(np.repeat(small, block, axis=1)[:, :width])
    assert (decoded(encode_palette_png(mask, VOC.palette)) == mask).all()


@pytest.mark.parametrize("length", [*range(1, 12), 256, 257, 258, 259, 260, 261, 517, 518, 32770])
@pytest.mark.parametrize("value", [0, 1, 255])
def test_every_run_length(length: int, value: int) -> None:
    mask = np.full((1, length + 1), 7, np.uint8)
    mask[0, :length] = value
    assert (decoded(encode_palette_png(mask, VOC.palette)) == mask).all()


def test_the_stream_passes_zlib_and_all_checksums() -> None:
    mask = np.zeros((600, 800), np.uint8)
    mask[100:300, 200:500] = 15
    data = encode_palette_png(mask, VOC.palette)
    position, kinds, stream = 8, [], b""
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        kind = data[position + 4 : position + 8]
        content = data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack(">I", data[position + 8 + length : position + 12 + length])
        assert checksum == zlib.crc32(kind + content)
        kinds.append(kind)
        stream += content if kind == b"IDAT" else b""
        position += 12 + length
    assert kinds == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    raw = np.frombuffer(zlib.decompress(stream), np.uint8).reshape(600, 801)
    assert (raw[:, 1:] == mask).all()
    assert not raw[:, 0].any()


def test_colours_are_the_palette() -> None:
    mask = np.arange(256, dtype=np.uint8).repeat(60).reshape(16, 960)
    with Image.open(io.BytesIO(encode_palette_png(mask, VOC.palette))) as picture:
        assert (np.asarray(picture.convert("RGB")) == VOC.palette[mask]).all()


def test_noise_comes_back() -> None:
    mask = np.random.default_rng(0).integers(0, 256, (90, 110), dtype=np.uint8)
    assert (decoded(encode_palette_png(mask, VOC.palette)) == mask).all()


def test_a_mask_of_a_photo_is_small() -> None:
    y, x = np.mgrid[:1500, :2000]
    mask = np.where((y - 700) ** 2 + (x - 900) ** 2 < 500**2, 15, 0).astype(np.uint8)
    assert len(encode_palette_png(mask, VOC.palette)) < 20_000
