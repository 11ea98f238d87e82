"""Masks as other programs write them: every depth, alpha, orientation and container."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deeplab.data.mask_files import open_mask
from deeplab.data.masks import IGNORE, NOT_A_CLASS, MaskEncoding, read_mask
from deeplab.errors import DataError

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # PNG colour types


def png(values: npt.NDArray[np.integer], depth: int, kind: int = GREY, **chunks: bytes) -> bytes:
    """Write a PNG by the letter of its standard: (H, W) or (H, W, channels) of ``depth`` bits."""
    height, width = values.shape[:2]
    samples = values.reshape(height, -1)
    if depth == 16:
        rows = samples.astype(">u2").view(np.uint8).reshape(height, -1)
    else:
        places = np.arange(depth - 1, -1, -1, dtype=np.uint8)
        bits = samples.astype(np.uint8)[..., None] >> places & 1
        rows = np.packbits(bits.reshape(height, -1), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))]
    parts += [(name.encode(), data) for name, data in chunks.items()]
    parts += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def draw(largest: int, seed: int = 0, shape: tuple[int, ...] = (7, 11)) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, largest + 1, shape)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 2, 4, 8, 16]), st.integers(1, 9), st.integers(1, 9), st.integers(0, 9999)
)
def test_png_of_every_depth_has_its_real_values(depth, height, width, seed) -> None:
    values = draw(2**depth - 1, seed, (height, width))
    mask = open_mask(png(values, depth))
    assert np.array_equal(mask.pixels, values)
    assert mask.depth == depth
    if depth == 16:  # a program that does not scale agrees
        seen = cv2.imdecode(np.frombuffer(png(values, depth), np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask.pixels, seen)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palette_png_of_every_depth_has_its_indices(depth: int) -> None:
    values = draw(2**depth - 1)
    colours = draw(255, 1, (2**depth, 3)).astype(np.uint8)
    data = png(values, depth, PALETTE, PLTE=colours.tobytes())
    mask = open_mask(data)
    assert np.array_equal(mask.pixels, values)
    assert np.array_equal(mask.colours, colours[values])
    seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(mask.colours, seen)


@pytest.mark.parametrize("largest", [1, 3, 15, 100, 255, 256, 1000, 65535])
@pytest.mark.parametrize("plain", [True, False])
def test_pgm_has_its_real_values(largest: int, plain: bool) -> None:
    values = draw(largest)
    head = f"{'P2' if plain else 'P5'}\n# by hand\n11 7 # width, height\n{largest}\n".encode()
    body = " ".join(map(str, values.ravel())).encode()
    if not plain:
        body = values.astype(np.uint8 if largest < 256 else ">u2").tobytes()
    assert np.array_equal(open_mask(head + body).pixels, values)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_of_every_type(tmp_path: Path, kind: type, compression: str | None) -> None:
    values = draw(200).astype(kind)
    path = tmp_path / "mask.tif"
    if kind is np.int16:
        cv2.imwrite(str(path), values)
    else:
        Image.fromarray(values).save(path, compression=compression)
    assert np.array_equal(open_mask(path).pixels, values)


@pytest.mark.parametrize("bits", [1, 8])
def test_tiff_that_calls_zero_white_has_its_stored_values(tmp_path: Path, bits: int) -> None:
    values = draw(2**bits - 1).astype(np.uint8)
    image = Image.fromarray(values if bits == 8 else values.astype(bool))
    path = tmp_path / "mask.tif"
    image.save(path, tiffinfo={262: 1})
    stored = bytearray(path.read_bytes())
    tag = stored.index(struct.pack("<HHII", 262, 3, 1, 1))
    stored[tag + 8] = 0  # the same bytes, called otherwise
    path.write_bytes(bytes(stored))
    assert np.array_equal(open_mask(path).pixels, values)


def test_fractions_are_no_ids(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    Image.fromarray(draw(9).astype(np.float32) / 9).save(path)
    with pytest.raises(DataError, match=r"fractions, so it is no mask of ids"):
        open_mask(path)
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(path)
    with pytest.raises(DataError, match="floating-point"):
        open_mask(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_orientation_turns_masks_as_it_turns_photos(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    from deeplab.photo.images import read

    values = draw(255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"mask{suffix}"
    Image.fromarray(values).save(path, exif=exif)
    assert np.array_equal(open_mask(path).pixels, read(path)[..., 0])
    assert open_mask(path).size == ((11, 7) if orientation >= 5 else (7, 11))


BINARY = MaskEncoding(values=(0, 255), ignore=())


def test_white_is_255_also_in_one_bit() -> None:
    white = draw(1)
    assert np.array_equal(BINARY.decode(open_mask(png(white, 1))), white)
    assert np.array_equal(BINARY.decode(open_mask(png(255 * white, 8))), white)
    ids = MaskEncoding(values=(0, 1))
    assert np.array_equal(ids.decode(open_mask(png(white, 1))), white)
    assert (ids.decode(open_mask(png(255 * white, 8))) == np.where(white, IGNORE, 0)).all()


@pytest.mark.parametrize("depth", [1, 8])
def test_white_is_255_also_in_a_palette_of_grey(depth: int) -> None:
    white = draw(1)
    colours = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)
    mask = open_mask(png(white, depth, PALETTE, PLTE=colours.tobytes()))
    assert np.array_equal(BINARY.decode(mask), white)
    assert np.array_equal(MaskEncoding(values=(0, 1)).decode(mask), white)
    red = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)
    mask = open_mask(png(white, depth, PALETTE, PLTE=red.tobytes()))
    assert np.array_equal(BINARY.decode(mask) == NOT_A_CLASS, white == 1)


def test_values_of_16_bits() -> None:
    values = np.array([[0, 1000, 65535, 256, 999]])
    encoding = MaskEncoding(values=(0, 1000, 65535), ignore=(256,))
    mask = open_mask(png(values, 16))
    assert encoding.decode(mask).tolist() == [[0, 1, 2, IGNORE, NOT_A_CLASS]]


def test_what_is_hidden_does_not_make_a_grey_mask_coloured() -> None:
    rgba = np.array([[[1, 1, 1, 255], [9, 8, 7, 0]]])
    encoding = MaskEncoding(values=(0, 1), transparent=0)
    assert encoding.decode(open_mask(png(rgba, 8, RGBA))).tolist() == [[1, 0]]


def test_a_class_may_have_several_values() -> None:
    encoding = MaskEncoding(values=(0, 1), ignore=(), also=((255, 1), (7, 0)))
    values = np.array([[0, 1, 255, 7, 9]])
    assert encoding.decode(open_mask(png(values, 8))).tolist() == [[0, 1, 1, 0, NOT_A_CLASS]]


@pytest.mark.parametrize("transparent", [0, IGNORE])
def test_what_lies_under_transparency_is_never_seen(transparent: int) -> None:
    hidden = np.array([[0, 0, 1, 1], [1, 0, 0, 1]], bool)
    ids = np.array([[0, 1, 2, 1], [2, 2, 1, 0]])
    colours = np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0]])
    encoding = MaskEncoding(
        values=(0, 1, 2), colours=tuple(map(tuple, colours.tolist())), transparent=transparent
    )
    expected = np.where(hidden, transparent, ids)
    alpha = np.where(hidden, 0, 128)[..., None]
    rgba = png(np.concatenate([colours[ids], alpha], -1), 8, RGBA)
    assert np.array_equal(encoding.decode(open_mask(rgba)), expected)
    grey = png(np.concatenate([ids[..., None], alpha], -1), 8, GREY_ALPHA)
    assert np.array_equal(encoding.decode(open_mask(grey)), expected)
    indices = np.where(hidden, 3 + ids, ids)  # three entries that nobody sees, of class colours
    palette = png(
        indices, 8, PALETTE, PLTE=np.vstack([colours, colours]).astype(np.uint8).tobytes(),
        tRNS=bytes([255, 255, 128, 0, 0, 0]),
    )  # fmt: skip
    assert np.array_equal(encoding.decode(open_mask(palette)), expected)
    by_colour = MaskEncoding(**{**vars_of(encoding), "by_colour": True})
    assert np.array_equal(by_colour.decode(open_mask(palette)), expected)


def vars_of(encoding: MaskEncoding) -> dict[str, object]:
    return {
        name: getattr(encoding, name) for name in ("values", "colours", "ignore", "transparent")
    }


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_transparent_value(depth: int) -> None:
    values = draw(1)
    mask = open_mask(png(values, depth, tRNS=struct.pack(">H", 1)))
    assert np.array_equal(mask.transparent, values == 1)
    encoding = MaskEncoding(values=(0, 1), transparent=0)
    assert (encoding.decode(mask) == 0).all()
    rgb = png(np.stack([values] * 3, -1), 8, RGB, tRNS=struct.pack(">HHH", 1, 1, 1))
    assert np.array_equal(open_mask(rgb).transparent, values == 1)


def test_an_ignored_palette_entry_stays_ignored() -> None:
    values = np.array([[0, 255, 1]])
    alphas = bytes([0] + [255] * 254 + [0])
    mask = open_mask(png(values, 8, PALETTE, PLTE=bytes(768), tRNS=alphas))
    encoding = MaskEncoding(values=(0, 1), transparent=0)
    assert encoding.decode(mask).tolist() == [[0, 255, 1]]


def test_grey_ids_in_three_channels_are_ids() -> None:
    ids = draw(2)
    mask = open_mask(png(np.stack([ids] * 3, -1), 8, RGB))
    assert np.array_equal(MaskEncoding(values=(0, 1, 2)).decode(mask), ids)
    red = open_mask(png(np.stack([ids, 0 * ids, 0 * ids], -1), 8, RGB))
    assert (MaskEncoding(values=(0, 1, 2)).decode(red) == NOT_A_CLASS).all()


def test_rgb_masks_list_their_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(np.array([[[1, 2, 3], [1, 2, 3], [4, 5, 6]]]), 8, RGB))
    with pytest.raises(DataError, match=r"has 2 colours: \[1, 2, 3\], \[4, 5, 6\]\. Give one"):
        read_mask(path, MaskEncoding(values=(0, 1)))


def test_16_bit_colours_are_8_bit_ones_or_refused() -> None:
    colours = draw(255, 0, (7, 11, 3))
    for wide in (colours * 257, colours << 8):
        assert np.array_equal(open_mask(png(wide, 16, RGB)).pixels, colours)
    with pytest.raises(DataError, match="16-bit colours"):
        open_mask(png(colours, 16, RGB))  # ids in the low bytes: their high bytes are all 0
    with pytest.raises(DataError, match="16-bit grey with alpha"):
        open_mask(png(draw(9, 0, (4, 4, 2)), 16, GREY_ALPHA))


@pytest.mark.parametrize("options", [
    {"format": "JPEG"}, {"format": "WEBP"}, {"format": "AVIF"}, {"format": "JPEG2000"},
    {"format": "TIFF", "compression": "jpeg"},
])  # fmt: skip
def test_formats_that_smear_are_known(tmp_path: Path, options: dict[str, str]) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(draw(9, 0, (16, 16, 3)).astype(np.uint8)).save(path, **options)
    assert open_mask(path).is_lossy
    with pytest.raises(DataError, match="smears class ids"):
        read_mask(path, MaskEncoding(values=tuple(range(10))))


def test_lossless_webp_is_exact(tmp_path: Path) -> None:
    ids = draw(9).astype(np.uint8)
    Image.fromarray(ids).save(tmp_path / "mask.webp", lossless=True)
    assert np.array_equal(read_mask(tmp_path / "mask.webp", MaskEncoding(tuple(range(10)))), ids)


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".png"])
def test_stacks_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(draw(9, seed).astype(np.uint8)) for seed in (1, 2)]
    frames[0].save(tmp_path / f"mask{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="several pictures of one size"):
        open_mask(tmp_path / f"mask{suffix}")


@pytest.mark.parametrize("colours", [2, 16, 256])
@pytest.mark.parametrize("grey", [True, False])
def test_bmp_palettes(tmp_path: Path, colours: int, grey: bool) -> None:
    values = draw(colours - 1).astype(np.uint8)
    ramp = np.arange(colours) * (255 // (colours - 1))
    palette = np.stack([ramp] * 3, -1) if grey else draw(255, 1, (colours, 3))
    bits = {2: 1, 16: 4, 256: 8}[colours]
    packed = np.packbits(
        (values[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint8) & 1).reshape(7, -1), 1
    )
    stride = -(-packed.shape[1] // 4) * 4
    rows = np.zeros((7, stride), np.uint8)
    rows[:, : packed.shape[1]] = packed[::-1]
    table = b"".join(bytes([b, g, r, 0]) for r, g, b in palette.tolist())
    start = 54 + len(table)
    head = struct.pack("<2sIHHI", b"BM", start + rows.size, 0, 0, start)
    head += struct.pack("<IiiHHIIiiII", 40, 11, 7, 1, bits, 0, rows.size, 0, 0, colours, 0)
    data = head + table + rows.tobytes()
    mask = open_mask(data)
    seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    shown = mask.colours if mask.colours is not None else np.stack([mask.pixels] * 3, -1)
    shown = shown * np.uint8(255) if mask.depth == 1 and mask.palette is None else shown
    assert np.array_equal(shown, seen)
    if not grey:
        assert np.array_equal(mask.pixels, values)


@pytest.mark.integration
def test_200_megapixels_are_read_under_our_own_limit(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    values = np.zeros((14_000, 14_300), np.uint8)
    values[:7_000, :5_000] = 1
    Image.fromarray(values).save(path, compress_level=1)
    label = read_mask(path, MaskEncoding(values=(0, 1)))  # Pillow's warning would be an error
    assert np.count_nonzero(label) == 35_000_000


def test_more_than_400_megapixels_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    head = bytearray(png(draw(1), 8)[:60])
    head[16:24] = struct.pack(">II", 30_000, 20_000)
    head[29:33] = struct.pack(">I", zlib.crc32(bytes(head[12:29])))
    path.write_bytes(bytes(head))
    with pytest.raises(DataError, match=r"600 megapixels \(30000×20000\), the limit is 400"):
        open_mask(path)


def test_a_program_named_png_never_runs(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n")
    code = (
        "import sys, subprocess; from pathlib import Path\n"
        "subprocess.Popen = None\n"
        "from PIL import Image; Image.init()\n"
        "from deeplab.data.mask_files import open_mask\n"
        f"open_mask(Path({str(path)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert "is a PostScript drawing (EPS)" in done.stderr
