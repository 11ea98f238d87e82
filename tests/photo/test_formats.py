"""What is no picture is named, with the way out; what is one is opened by one door alone."""

from __future__ import annotations

import ast
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deeplab
from deeplab.errors import ImageError, ImageFormatError, ImageSizeError
from deeplab.photo import formats
from deeplab.photo.formats import open_picture, readable_suffixes
from deeplab.photo.images import Photo, read

SOURCE = Path(deeplab.__file__).parent


def iso(brand: bytes, *more: bytes) -> bytes:
    body = brand + b"\0\0\0\0" + b"".join(more)
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + bytes(200)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.cr3", iso(b"crx ", b"crx ", b"isom"), "camera's raw file.*exiftool"),
        ("a.raf", b"FUJIFILMCCD-RAW 0201FF", "camera's raw file"),
        ("a.orf", b"IIRO\x08\0\0\0", "camera's raw file"),
        ("a.arw", b"something", "camera's raw file"),
        ("a.mp4", iso(b"isom", b"isom", b"avc1"), "is a video.*deeplab serve.*ffmpeg"),
        ("a.mov", iso(b"qt  "), "is a video"),
        ("a", b"\x1aE\xdf\xa3" + bytes(64), "is a video"),
        ("a", b"RIFF\x10\0\0\0AVI LIST", "is a video"),
        ("a.mts", b"\x47" + bytes(200), "is a video"),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript.*never run"),
        ("a.jpg", b"%PDF-1.7", "PDF"),
        ("a.jpg", b"8BPS\0\1", "Photoshop"),
        ("a.jxl", b"\xff\x0a\xfa", "JPEG XL"),
        ("a.svg", b"<?xml version='1.0'?><svg xmlns='x'/>", "SVG"),
        ("a.jpg", b"<!DOCTYPE html><html>", "web page.*download"),
        ("a.npy", b"\x93NUMPY\x01\0", "numpy array"),
        ("a.jpg", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("._a.jpg", b"\0\x05\x16\x07\0\x02", "macOS"),
        ("a.dcm", bytes(128) + b"DICM", "DICOM"),
        ("a.jpg", b"this is text", "not a picture in a format that can be read"),
    ],
)
def test_what_is_no_picture_is_named(name: str, data: bytes, words: str) -> None:
    with pytest.raises(ImageFormatError, match=words):
        open_picture(data, name=name)


def test_heic_is_read_or_leads_on(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    picture = Image.fromarray(np.full((40, 60, 3), (200, 90, 30), np.uint8))
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    heif.from_pillow(picture).save(file, exif=exif.tobytes())
    data = file.getvalue()
    photo = Photo(data)
    assert photo.pixels().shape == (*photo.size, 3)
    assert np.abs(photo.pixels().astype(int) - (200, 90, 30)).max() < 12
    with pytest.raises(ImageError, match=r"HEIC|damaged"):
        read(data[: len(data) // 2])
    monkeypatch.setattr(formats, "_can_read_heic", lambda: False)
    with pytest.raises(ImageFormatError, match=r"deeplab\[heic\]', or save it as JPEG"):
        read(data)
    assert ".heic" not in readable_suffixes()


def tiff(**tags: int) -> bytes:
    """A TIFF of 4 × 3 grey pixels without its pixels; ``tags`` are "t258" and so on."""
    known = {254: 0, 256: 4, 257: 3, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 3, 279: 12}
    known |= {int(tag[1:]): value for tag, value in tags.items()}
    entries = [struct.pack("<HHII", tag, 4, 1, known[tag]) for tag in sorted(known)]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return (b"II*\0" + struct.pack("<I", 8) + directory).ljust(300, b"\0")


def test_the_preview_in_a_raw_file_is_no_photo() -> None:
    assert open_picture(tiff(), name="photo.tif").size == (4, 3)
    with pytest.raises(ImageFormatError, match="camera's raw file"):
        open_picture(tiff(t254=1, t330=8), name="photo.tif")


def test_a_tiff_that_is_not_read_is_named() -> None:
    with pytest.raises(ImageFormatError, match="is a TIFF of a kind that is not read"):
        open_picture(tiff(t258=64), name="photo.tif")


def test_the_limit_is_ours_alone() -> None:
    file = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(file, "PNG")
    assert open_picture(file.getvalue(), name="a.png").size == (20_000, 10_000)
    with pytest.raises(ImageSizeError, match=r"200 megapixels .* the limit is 100"):
        open_picture(file.getvalue(), name="a.png", max_pixels=100_000_000)


def test_no_reader_opens_with_all_of_pillows_formats() -> None:
    """Some of them start other programs."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
                named = {keyword.arg for keyword in node.keywords}
                assert "formats" in named, f"{path}: use photo.formats.open_picture"
