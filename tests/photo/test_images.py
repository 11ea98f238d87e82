"""Photos of every kind come in upright and right, or with an error that says what is wrong."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deeplab.errors import ImageError, ImageFormatError, InputError
from deeplab.photo import images
from deeplab.photo.images import Geometry, InputSpec, Photo, read


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def picture() -> Image.Image:
    """A picture that no rotation or flip maps onto itself."""
    array = np.zeros((24, 40, 3), np.uint8)
    array[:, :, 0] = np.arange(40) * 6
    array[:, :, 1] = np.arange(24)[:, None] * 10
    return Image.fromarray(array)


# --- right results ----------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientations(picture: Image.Image, orientation: int, kind: str) -> None:
    upright_to_stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    turn = upright_to_stored.get(orientation)
    stored = picture if turn is None else picture.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}
    photo = Photo(encoded(stored, kind, exif=exif, **options.get(kind, {})))
    assert photo.size == (24, 40)
    assert np.abs(photo.pixels().astype(int) - np.asarray(picture)).max() <= 6


@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_decoding_keeps_the_full_size_and_enough(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = (1600, 1200) if orientation == 1 else (1200, 1600)
    data = encoded(Image.effect_noise(stored, 50).convert("RGB"), "JPEG", exif=exif)
    photo = Photo(data)
    reduced = photo.decode(at_least=(100, 130))
    assert reduced.size == (400, 300)
    assert photo.size == (1200, 1600)
    assert photo.pixels().shape == (1200, 1600, 3), "the full picture can still be had"


def test_every_source_gives_the_same(picture: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "bild mit ümlaut 写真.png"
    picture.save(path)
    wanted = np.asarray(picture)
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), picture,
                   wanted, wanted[:, ::-1][:, ::-1]):  # fmt: skip
        assert (read(source) == wanted).all()
    written = io.BytesIO()
    picture.save(written, "PNG")  # and stands at its end
    with path.open("rb") as file:
        for opened in (file, written):
            assert (read(opened) == wanted).all()
            assert not opened.closed
        with pytest.raises(InputError, match="open it with 'rb'"), path.open(errors="ignore") as t:
            read(t)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"cannot be read: .* closed file"):
        read(file)


def test_grey() -> None:
    grey = np.arange(200, dtype=np.uint8).reshape(10, 20)
    for source in (grey, grey[:, :, None], encoded(Image.fromarray(grey))):
        assert (read(source) == grey[:, :, None]).all()


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_parts_become_white(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (0, 200, 0, 0))
    got = read(encoded(image.convert(mode)))
    assert got[0, 1].tolist() == [255, 255, 255]
    assert got[0, 0].tolist() == ([200, 0, 0] if mode == "RGBA" else [60, 60, 60])


def test_palette_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert read(encoded(image)).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert read(encoded(image, transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_rgb_png_with_a_transparent_colour() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    assert read(encoded(image, transparency=(1, 2, 3)))[0].tolist() == [[255] * 3, [9] * 3]


def test_cmyk() -> None:
    got = read(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert (got.reshape(-1, 3) == [254, 0, 0]).all() or np.abs(
        got.astype(int) - [255, 0, 0]
    ).max() < 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(kind: str) -> None:
    grey = np.array([[0, 257, 32768, 65535]], np.uint16)
    assert read(encoded(Image.fromarray(grey), kind))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (read(data) == [255, 0, 0]).all(), kind


def test_one_pixel_and_a_very_long_picture() -> None:
    assert read(encoded(Image.new("RGB", (1, 1), (5, 6, 7)), "JPEG", quality=100)).shape == (
        1,
        1,
        3,
    )
    photo = Photo(encoded(Image.new("RGB", (20000, 60), (5, 6, 7)), "JPEG"))
    geometry = Geometry(photo.size, (257, 257))
    frame = geometry.place(photo.decode(at_least=geometry.content), (127, 127, 127))
    assert geometry.content == (1, 257)
    assert frame.shape == (257, 257, 3)
    assert (frame[1:] == 127).all()


def test_an_orientation_out_of_range_is_ignored(picture: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert Photo(encoded(picture, exif=exif)).size == (24, 40)


# --- errors -----------------------------------------------------------------------------------


def test_missing_file_folder_and_zero_byte(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nothing\.jpg: there is no such file"):
        read(tmp_path / "nothing.jpg")
    with pytest.raises(ImageError, match="is a folder, expected a photo"):
        read(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        read("a\0b.jpg")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"empty\.jpg: the file is empty \(0 bytes\)"):
        read(tmp_path / "empty.jpg")


def test_text_named_jpg(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello, I am not a photo")
    with pytest.raises(ImageFormatError, match=r"text\.jpg: is not a picture in a format"):
        read(tmp_path / "text.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_files(kind: str, part: float) -> None:
    noise = Image.effect_noise((120, 90), 80).convert("RGB")
    data = encoded(noise, kind)
    with pytest.raises(ImageError, match=r"damaged or cut off|not a picture"):
        read(data[: int(len(data) * part)])


@pytest.mark.parametrize("exif", ["none", "before", "behind"])
def test_a_png_with_damaged_pixels(picture: Image.Image, exif: str) -> None:
    options = {}
    if exif != "none":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    noise = Image.effect_noise((120, 90), 80).convert("RGB")
    whole = encoded(noise, "PNG", **options)
    if exif == "behind":
        whole = _with_late_exif(whole)
    assert Photo(whole).size == ((90, 120) if exif == "none" else (120, 90))
    middle = len(whole) // 2
    damaged = whole[:middle] + bytes(500) + whole[middle + 500 :]
    with pytest.raises(ImageError, match="damaged or cut off"):
        read(damaged)
    if exif == "behind":
        return
    photo = Photo(damaged)  # only its header is looked at
    with pytest.raises(ImageError, match="damaged or cut off"):
        photo.decode()


def _with_late_exif(png: bytes) -> bytes:
    """Return a PNG whose EXIF comes behind its pixels, as some programs write it."""
    start = png.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(png[start : start + 4], "big")
    last = png.index(b"IEND") - 4
    return png[:start] + png[end:last] + png[start:end] + png[last:]


@pytest.mark.parametrize("seed", range(30))
def test_damaged_files_give_a_picture_or_an_image_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = ["JPEG", "PNG", "WEBP", "GIF", "TIFF"][seed % 5]
    data = bytearray(encoded(Image.effect_noise((60, 50), 80).convert("RGB"), kind))
    for place in rng.integers(0, len(data), 10):
        data[place] = rng.integers(256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(ImageError):
            assert read(bytes(data)).shape[2] == 3


def test_decompression_bomb_is_refused_in_words_without_a_warning() -> None:
    bomb = encoded(Image.new("1", (30000, 30000)))
    assert len(bomb) < 200_000
    with pytest.raises(ImageError, match=r"900 megapixels \(30000×30000\), the limit is 400"):
        read(bomb)


def test_a_large_photo_below_the_limit_warns_of_nothing() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    photo = Photo(encoded(Image.new("1", (10000, 10000))))
    assert photo.size == (10000, 10000)
    assert limit == Image.MAX_IMAGE_PIXELS, "Pillow's own limit is as it was"


def test_max_pixels(picture: Image.Image) -> None:
    assert read(encoded(picture), max_pixels=24 * 40).shape == (24, 40, 3)
    with pytest.raises(ImageError, match="--tile auto"):
        read(encoded(picture), max_pixels=24 * 40 - 1)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "array of float32.*astype"),
        (np.zeros((4, 4, 3), bool), "array of bool"),
        (np.zeros((3, 40, 50), np.uint8), r"shape \(3, 40, 50\).*Channels come last"),
        (np.zeros((1, 40, 50, 3), np.uint8), r"shape \(1, 40, 50, 3\)"),
        (np.zeros(7, np.uint8), r"shape \(7,\)"),
        (np.zeros((0, 5, 3), np.uint8), "empty array"),
    ],
)
def test_wrong_arrays(array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(array)


def test_an_empty_pil_image() -> None:
    with pytest.raises(InputError, match="empty PIL image"):
        read(Image.new("RGB", (0, 5)))


def test_wrong_types() -> None:
    with pytest.raises(InputError, match="got int, expected a path"):
        read(7)


def test_float_tiff() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        read(encoded(Image.new("F", (3, 3), 0.5), "TIFF"))


# --- geometry ---------------------------------------------------------------------------------

sides = st.integers(1, 5000)


@given(height=sides, width=sides, frame_height=st.integers(1, 600), frame_width=st.integers(1, 600))
def test_letterbox_fits_and_touches(
    height: int, width: int, frame_height: int, frame_width: int
) -> None:
    h, w = Geometry((height, width), (frame_height, frame_width)).content
    assert 1 <= h <= frame_height
    assert 1 <= w <= frame_width
    assert h == frame_height or w == frame_width
    scale = min(frame_height / height, frame_width / width)
    assert abs(h - height * scale) <= 1
    assert abs(w - width * scale) <= 1


def test_place_pads_below_and_to_the_right(picture: Image.Image) -> None:
    frame = Geometry((24, 40), (40, 40)).place(picture, (1, 2, 3))
    assert (frame[:24] == np.asarray(picture)).all()
    assert (frame[24:] == [1, 2, 3]).all()


def test_stretch_fills_the_frame(picture: Image.Image) -> None:
    geometry = Geometry((24, 40), (33, 33), "stretch")
    assert geometry.content == (33, 33)
    assert geometry.region == (33, 33, 0, 0, 33, 33)
    wanted = picture.resize((33, 33), images.RESIZE_FILTER)
    assert (geometry.place(picture, (0, 0, 0)) == np.asarray(wanted)).all()


def test_input_spec_is_checked() -> None:
    with pytest.raises(InputError, match="got 0×5"):
        InputSpec(height=0, width=5)
    with pytest.raises(InputError, match="fit: got 'crop'"):
        InputSpec(height=5, width=5, fit="crop")
    with pytest.raises(InputError, match="std above 0"):
        InputSpec(height=5, width=5, std=(1.0, 0.0, 1.0))
    assert InputSpec(height=5, width=5).padding == (127, 127, 127)
