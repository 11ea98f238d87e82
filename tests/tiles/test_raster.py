"""Files of other people's writers, read by region; and what is no such file."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from deeplab.errors import DeepLabError, ImageError, InputError
from deeplab.photo import images
from deeplab.tiles.open import open_picture, reads_by_region
from deeplab.tiles.raster import RasterPicture
from deeplab.tiles.tiff_pages import read_pages

rasterio = pytest.importorskip("rasterio")
tifffile = pytest.importorskip("tifffile")

SIZE = 301, 405
IMAGE = np.asarray(
    Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (20, 27, 3), dtype=np.uint8)
    ).resize(SIZE[::-1], Image.Resampling.BICUBIC)
)  # fmt: skip
PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6)}


def whole(picture) -> np.ndarray:
    return picture.read(0, 0, *picture.size)


def by_tifffile(path, image=IMAGE, **options) -> None:
    tifffile.imwrite(path, image, **{"photometric": "rgb"} | options)


def by_rasterio(path, **options) -> None:
    count = options.pop("bands", 3)
    settings = {"driver": "GTiff", "count": count, "dtype": "uint8", "photometric": "rgb"}
    settings |= {"height": SIZE[0], "width": SIZE[1]} | PLACE | options
    with rasterio.open(path, "w", **settings) as file:
        file.write(np.moveaxis(IMAGE, 2, 0))


WRITERS = {
    "tiles": lambda path: by_tifffile(path, tile=(64, 64), compression="zlib"),
    "BigTIFF in strips": lambda path: by_tifffile(path, bigtiff=True, rowsperstrip=16),
    "big-endian": lambda path: by_tifffile(path, byteorder=">"),
    "planes": lambda path: by_tifffile(path, np.moveaxis(IMAGE, 2, 0), planarconfig="separate"),
    "16 bits": lambda path: by_tifffile(path, IMAGE.astype(np.uint16) * 257),
    "a fourth channel": lambda path: by_tifffile(
        path, np.concatenate([IMAGE, IMAGE[..., :1]], 2), extrasamples=["unspecified"]
    ),
    "GeoTIFF": by_rasterio,
    "COG": lambda path: by_rasterio(path, driver="COG", photometric=None, compress="deflate"),
    "Pillow": lambda path: Image.fromarray(IMAGE).save(path, compression="tiff_lzw"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_reads_what_others_write(writer, tmp_path):
    path = tmp_path / "picture.tif"
    WRITERS[writer](path)
    picture = open_picture(path)
    assert isinstance(picture, RasterPicture)
    assert picture.size == SIZE
    np.testing.assert_array_equal(whole(picture), IMAGE)
    np.testing.assert_array_equal(picture.read(17, 30, 200, 401), IMAGE[17:200, 30:401])
    if "channel" in writer:
        assert picture.notes == ("of 4 channels, 1, 2, 3 are shown",)


@pytest.mark.parametrize("kind", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_reads_grey_both_ways(kind, dtype, tmp_path):
    grey = IMAGE[..., 0].astype(dtype) * (257 if dtype is np.uint16 else 1)
    by_tifffile(tmp_path / "grey.tif", grey, photometric=kind)
    expected = IMAGE[..., :1] if kind == "minisblack" else 255 - IMAGE[..., :1]
    picture = open_picture(tmp_path / "grey.tif")
    np.testing.assert_array_equal(whole(picture), np.repeat(expected, 3, 2))


def test_reads_palettes(tmp_path):
    few = Image.fromarray(IMAGE).quantize(64)
    few.save(tmp_path / "few.tif")
    np.testing.assert_array_equal(
        whole(open_picture(tmp_path / "few.tif")), np.asarray(few.convert("RGB"))
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_turns_pictures_upright_as_photos_are(orientation, suffix, tmp_path):
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(IMAGE).save(path, exif=exif)
    upright = images.read(path)
    picture = RasterPicture(path)
    assert picture.size == upright.shape[:2]
    np.testing.assert_array_equal(whole(picture), upright)
    np.testing.assert_array_equal(picture.read(3, 8, 90, 201), upright[3:90, 8:201])


def test_nodata_alpha_masks_and_clear_colours_hold_nothing(tmp_path):
    by_rasterio(tmp_path / "nodata.tif", nodata=7)
    with rasterio.open(tmp_path / "nodata.tif", "r+") as file:
        file.write(np.full((3, 20, 30), 7, np.uint8), window=((5, 25), (9, 39)))
    alpha = np.full((*SIZE, 1), 255, np.uint8)
    alpha[5:25, 9:39] = 0
    by_tifffile(
        tmp_path / "alpha.tif", np.concatenate([IMAGE, alpha], 2), extrasamples=["unassalpha"]
    )
    by_rasterio(tmp_path / "mask.tif")
    with rasterio.open(tmp_path / "mask.tif", "r+") as file:
        file.write_mask(alpha[..., 0])
    for name in ("nodata", "alpha", "mask"):
        picture = open_picture(tmp_path / f"{name}.tif")
        assert picture.has_nodata
        np.testing.assert_array_equal(picture.valid(0, 0, *SIZE), alpha[..., 0] > 0, err_msg=name)
    assert not open_picture(tmp_path / "alpha.tif", bands=[1]).notes


def test_a_smaller_copy_in_the_file_is_used_where_it_is_large_enough(tmp_path):
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(IMAGE, subifds=0, photometric="rgb", tile=(64, 64))
        for step in (2, 4):
            file.write(IMAGE[::step, ::step], subfiletype=1, photometric="rgb", tile=(64, 64))
    picture = open_picture(path)
    assert not picture.notes, "copies are no pages"
    assert picture.smaller((150, 200)) is picture
    half = picture.smaller((75, 101))
    np.testing.assert_array_equal(whole(half), IMAGE[::2, ::2])
    assert picture.smaller((30, 40)).size == (76, 102)
    assert picture.size == SIZE


def test_the_range_of_16_bits_is_asked_for_where_it_would_be_black(tmp_path):
    dark = tmp_path / "dark.tif"
    by_tifffile(dark, IMAGE.astype(np.uint16) * 8)
    with pytest.raises(ImageError, match=r"end near 20\d\d, .* nearly black .* --range 0,20\d\d"):
        open_picture(dark)
    np.testing.assert_array_equal(whole(open_picture(dark, value_range=(0, 2040))), IMAGE)
    by_tifffile(tmp_path / "float.tif", IMAGE.astype(np.float32) / 255)
    with pytest.raises(ImageError, match="values are float32, which have no fixed range"):
        open_picture(tmp_path / "float.tif")
    picture = open_picture(tmp_path / "float.tif", value_range=(0, 1))
    np.testing.assert_array_equal(whole(picture), IMAGE)
    with pytest.raises(InputError, match="range: got 1, 0; expected a low, then a high"):
        open_picture(dark, value_range=(1, 0))


def test_channels_that_nobody_names_are_asked_for(tmp_path):
    path = tmp_path / "five.tif"
    by_tifffile(
        path,
        np.concatenate([IMAGE, IMAGE[..., :2]], 2),
        photometric="minisblack",
        planarconfig="contig",
    )
    with pytest.raises(ImageError, match=r"has 5 channels .* Say it with --bands 1,2,3"):
        open_picture(path)
    np.testing.assert_array_equal(whole(open_picture(path, bands=[3, 2, 1])), IMAGE[..., ::-1])
    for bands in ([1, 2], [1, 2, 6], [0, 1, 2]):
        with pytest.raises(InputError, match=r"bands: got .* has 5"):
            open_picture(path, bands=bands)
    with pytest.raises(InputError, match="bands, range: only files"):
        open_picture(IMAGE, bands=[1])


# --- what is no such file -------------------------------------------------------------------------


def pages(count: int, *, circle: bool = False) -> bytes:
    """Return a TIFF of pages without pixels."""
    tags = b"".join(struct.pack("<HHII", tag, 3, 1, 1) for tag in (256, 257, 262))
    length = 2 + len(tags) + 4
    data = [b"II*\0" + struct.pack("<I", 8)]
    for number in range(1, count + 1):
        following = 8 + number * length if number < count else 8 if circle else 0
        data.append(struct.pack("<H", 3) + tags + struct.pack("<I", following))
    return b"".join(data)


def test_a_million_pages_are_refused_at_once(tmp_path):
    path = tmp_path / "million.tif"
    path.write_bytes(pages(1_000_000))
    with pytest.raises(ImageError, match=r"is a TIFF of more than 1000 pages. Take out the one"):
        open_picture(path)
    path.write_bytes(pages(3, circle=True))
    with pytest.raises(ImageError, match="its pages go in a circle"):
        open_picture(path)
    path.write_bytes(pages(3))
    assert len(read_pages(path)) == 3


def test_of_several_pages_the_first_is_taken_and_said(tmp_path):
    by_tifffile(tmp_path / "stack.tif", np.stack([IMAGE, IMAGE // 2]))
    picture = open_picture(tmp_path / "stack.tif")
    assert picture.notes == ("of 2 pages, the first is taken",)
    np.testing.assert_array_equal(whole(picture), IMAGE)


@pytest.mark.parametrize("kind", ["tif", "big.tif", "png", "jpg", "jp2"])
def test_what_is_cut_off_is_never_read_as_if_it_were_whole(kind, tmp_path):
    path = tmp_path / f"picture.{kind}"
    if "tif" in kind:
        by_tifffile(path, bigtiff="big" in kind, compression="zlib", rowsperstrip=16)
    else:
        Image.fromarray(IMAGE).save(path)
    data = path.read_bytes()
    for share in (0.01, 0.3, 0.6, 0.95):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ImageError, match=r"damaged or cut off|cannot be read by region"):
            whole(RasterPicture(path))


def test_other_files_are_refused_in_words(tmp_path):
    empty, text = tmp_path / "empty.tif", tmp_path / "text.tif"
    empty.write_bytes(b"")
    text.write_text("<VRTDataset/>")
    for path, message in (
        (empty, "the file is empty"),
        (text, "cannot be read by region"),
        (tmp_path / "none.tif", "there is no such file"),
        (tmp_path, "is a folder|cannot be read"),
    ):
        with pytest.raises(ImageError, match=message):
            RasterPicture(path)


def test_a_tag_that_cannot_be_read_is_told_in_words(tmp_path):
    """GDAL raises for it wherever the file is next asked for something."""
    by_rasterio(tmp_path / "good.tif", nodata=0)
    good = (tmp_path / "good.tif").read_bytes()
    samples = struct.pack("<HHI", 258, 3, 3)  # the tag of the bits, 16-bit numbers, of which 3
    assert good.count(samples) == 1
    path = tmp_path / "bad.tif"
    path.write_bytes(good.replace(samples, struct.pack("<HHI", 45_570, 110, 3)))
    with pytest.raises(ImageError, match="damaged or cut off"):
        whole(RasterPicture(path))


def test_bytes_at_random_never_end_in_a_traceback(tmp_path):
    by_tifffile(tmp_path / "good.tif", compression="zlib", tile=(64, 64))
    good = (tmp_path / "good.tif").read_bytes()
    rng, path = np.random.default_rng(1), tmp_path / "bad.tif"
    for _ in range(60):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 9))):
            data[int(rng.integers(4, 400 if rng.random() < 0.7 else len(data)))] ^= int(
                rng.integers(1, 256)
            )
        path.write_bytes(data)
        try:
            picture = open_picture(path)
            picture.read(0, 0, min(64, picture.size[0]), min(64, picture.size[1]))
        except DeepLabError:
            pass


def test_photos_that_fit_are_decoded_as_ever(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(IMAGE).save(path)
    assert not reads_by_region(path)
    assert reads_by_region(path, memory=1_000_000)
    np.testing.assert_array_equal(whole(open_picture(path)), images.read(path))
