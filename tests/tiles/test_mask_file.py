"""The mask as others read it."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from deeplab.errors import OutputError
from deeplab.labels import LabelSet
from deeplab.tiles import mask_file
from deeplab.tiles.blend import MaskPart

rasterio = pytest.importorskip("rasterio")
tifffile = pytest.importorskip("tifffile")

LABELS = LabelSet(("background", "cat", "dog"))
MASK = np.random.default_rng(0).integers(0, 3, (150, 270), dtype=np.uint8).repeat(9, 0).repeat(7, 1)
PLACE = {
    "crs": rasterio.CRS.from_epsg(32632),
    "transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6),
    "pixel_is": "Point",
}


def write(path, mask=MASK, *, nodata=None, profile=PLACE, strip=1024, rows=300) -> None:
    with mask_file.open_mask(
        path, mask.shape, name=str(path), labels=LABELS, nodata=nodata, profile=profile
    ) as file:
        for left in range(0, mask.shape[1], strip):
            for top in range(0, mask.shape[0], rows):
                file.write(MaskPart(top, left, mask[top : top + rows, left : left + strip]))


def test_tifffile_and_rasterio_read_what_was_written(tmp_path):
    path = tmp_path / "mask.tif"
    mask = MASK.copy()
    mask[:100] = 255
    write(path, mask, nodata=255)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert page.photometric.name == "PALETTE"
        assert page.compression.name == "ADOBE_DEFLATE"
        assert page.tile == (512, 512)
        np.testing.assert_array_equal(page.asarray(), mask)
        assert (page.colormap[:, 1] // 257 == [128, 0, 0]).all()
        assert page.geotiff_tags["ProjectedCSTypeGeoKey"] == 32632
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), mask)
        assert file.crs.to_epsg() == 32632
        assert file.transform == PLACE["transform"]
        assert file.nodata == 255
        assert file.tags()["AREA_OR_POINT"] == "Point"
        assert file.tags(1)["CLASS_2"] == "dog"
        assert file.overviews(1) == [2]
        np.testing.assert_array_equal(file.dataset_mask() > 0, mask != 255)


def test_ground_control_points_are_kept(tmp_path):
    corners = [(0, 0), (0, 1890), (1350, 0), (1350, 1890)]
    points = [
        rasterio.control.GroundControlPoint(row, column, 10 + column / 1e4, 50 - row / 1e4)
        for row, column in corners
    ]
    profile = {"gcps": (points, rasterio.CRS.from_epsg(4326))}
    write(tmp_path / "mask.tif", profile=profile)
    with rasterio.open(tmp_path / "mask.tif") as file:
        kept, crs = file.gcps
        assert [(p.row, p.col, p.x, p.y) for p in kept] == [
            (p.row, p.col, p.x, p.y) for p in points
        ]
        assert crs.to_epsg() == 4326


@pytest.mark.parametrize("room", ["64k", "300k"])
def test_a_full_disk_is_told(room, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root mounts a small disk")
    noise = np.random.default_rng(1).integers(0, 3, (2000, 2000), dtype=np.uint8)
    try:
        with pytest.raises(OutputError, match=r"mask\.tif: no space left on device\."):
            write(disk / "mask.tif", noise)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_that_is_not_whole_is_not_taken_for_one(tmp_path, monkeypatch):
    path = tmp_path / "mask.tif"
    check = mask_file._check_complete

    def cut(rasterio, path, name):
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        check(rasterio, path, name)

    monkeypatch.setattr(mask_file, "_check_complete", cut)
    with pytest.raises(OutputError, match="the file is not whole"):
        write(path, LARGE)


LARGE = np.random.default_rng(2).integers(0, 3, (900, 1100), dtype=np.uint8)
