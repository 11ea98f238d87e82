"""``deeplab segment --tile``: photos and maps in windows, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab import Segmenter, cli
from deeplab.errors import InputError
from documents import ROOT, blocks

rasterio = pytest.importorskip("rasterio")

DOG = ROOT / "examples/photos/dog.jpg"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("DEEPLAB_MODEL_PATH", raising=False)

    def run_one(*arguments: str | Path) -> tuple[int, str, str]:
        code = cli.run(["segment", *map(str, arguments), "-m", "voc-fast"])
        out, err = capfd.readouterr()
        return code, out, "\n".join(x for x in err.splitlines() if not x.startswith("INFO: "))

    return run_one


@pytest.fixture(scope="module")
def dog_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a GeoTIFF of a dog, of which a corner holds nothing."""
    path = tmp_path_factory.mktemp("map") / "dog.tif"
    with Image.open(DOG) as photo:
        pixels = np.asarray(photo.convert("RGB").resize((1280, 960))).copy()
    pixels[pixels.min(axis=2) == 0] = 1
    pixels[:100, :200] = 0
    with rasterio.open(
        path, "w", driver="GTiff", height=960, width=1280, count=3, dtype="uint8", nodata=0,
        photometric="rgb", crs="EPSG:32632", transform=rasterio.Affine(2, 0, 5e5, 0, -2, 5e6),
    ) as file:  # fmt: skip
        file.write(np.moveaxis(pixels, 2, 0))
    return path


@pytest.mark.integration
def test_a_map_gives_a_mask_of_its_place_and_a_picture(run, dog_map, tmp_path):
    out = tmp_path / "out"
    code, told, err = run(dog_map, "--tile", "auto", "--scale", "0.7", "-o", out)
    assert (code, err) == (0, "")
    assert "dog" in told
    assert sorted(path.name for path in out.iterdir()) == ["dog.mask.tif", "dog.overlay.jpg"]
    with rasterio.open(out / "dog.mask.tif") as file:
        mask = file.read(1)
        assert file.crs.to_epsg() == 32632
        assert file.transform.a == 2
        assert file.nodata == 255
    assert (mask[:100, :200] == 255).all()
    assert (mask == 255).sum() == 100 * 200
    assert 0.2 < (mask == 12).mean() < 0.5
    with Image.open(out / "dog.overlay.jpg") as picture:
        assert picture.size == (1280, 960)
    code, _, err = run(dog_map, "--tile", "auto", "-o", out)
    assert code == 2
    assert "dog.mask.tif exists already" in err or "dog.overlay.jpg exists already" in err
    code, told, _ = run(dog_map, "--tile", "auto", "--scale", "0.7", "--json", "--only", "dog")
    (entry,) = json.loads(told)["photos"]
    assert entry["nodata"] == pytest.approx(100 * 200 / (1280 * 960))
    assert [found["name"] for found in entry["classes"]][-1] == "dog"
    assert sum(found["share"] for found in entry["classes"]) == pytest.approx(1)


@pytest.mark.integration
def test_in_one_window_a_photo_has_the_mask_it_always_has(run, tmp_path):
    assert run(DOG, "-o", tmp_path / "whole")[0] == 0
    scale = str(577 / 640)
    kinds = "mask,overlay,cutout,json,probabilities"
    code, _, err = run(
        DOG, "--tile", "auto", "--scale", scale, "-o", tmp_path / "windows", "--save", kinds
    )
    assert (code, err) == (0, "")
    whole, windows = (tmp_path / name / "dog.mask.png" for name in ("whole", "windows"))
    assert whole.read_bytes() == windows.read_bytes()


@pytest.mark.integration
def test_windows_on_a_large_photo_are_those_of_one_window_at_its_scale():
    """6000×4000: at the scale of one window, tiles read by region and untiled agree."""
    with Image.open(DOG) as photo:
        large = np.asarray(photo.convert("RGB").resize((6000, 4000), Image.Resampling.BICUBIC))
    segmenter = Segmenter("voc-fast")
    whole = segmenter(large).mask
    tiles = segmenter.tiles(large, scale=577 / 6000)
    assert tiles.windows == 1
    mask = np.empty_like(whole)
    for top, left, part in tiles:
        mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    assert (mask == whole).mean() >= 0.999


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scale", "0.5"], "--scale: is for pictures in windows; add --tile auto"),
        (["--range", "0,1"], "--range: is for pictures in windows"),
        (["--context", "picture"], "--context: is for pictures in windows"),
        (["--tile", "auto", "--context", "photo"], "context: got 'photo', expected picture"),
        (["--tile", "some"], "--tile: got 'some', expected HEIGHTxWIDTH"),
        (["--tile", "auto", "--overlap", "1"], "'--overlap'"),
        (["--tile", "auto", "--scale", "0"], "scale: got 0.0, expected a number above 0"),
        (["--tile", "auto", "--scale", "nan"], "'--scale'"),
        (["--tile", "auto", "--bands", "a"], "--bands: got 'a', expected whole numbers"),
        (["--tile", "auto", "--range", "7"], "--range: got '7', expected two numbers"),
        (["--tile", "65"], "takes 577×577 only"),
        (["--tile", "65", "--size", "65"], "both say how large a window is"),
        (["--tile", "auto", "--save", "cutout"], "there is no cutout, only: overlay, mask"),
        (["--tile", "auto", "--memory", "1MB"], "dog.tif"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, run, dog_map, tmp_path):
    code, _, err = run(dog_map, "-o", tmp_path / "out", *options)
    assert code in (1, 2)
    assert message in err
    assert "Traceback" not in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_rasterio_it_is_asked_for(run, dog_map, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    code, _, err = run(dog_map, "--tile", "auto", "-o", tmp_path / "out")
    assert code in (1, 2)
    assert "pip install 'deeplab[tiles]'" in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.integration
def test_a_disk_that_fills_up_leaves_nothing(run, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root mounts a small disk")
    try:
        with Image.open(DOG) as photo:
            photo.save(tmp_path / "dog.tif")
        code, _, err = run(tmp_path / "dog.tif", "--tile", "auto", "-o", disk, "--save", "mask")
        assert code == 2
        assert "no space left on device" in err.lower()
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.integration
def test_the_python_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Image.open(DOG) as photo:
        photo.save("map.tif")
        photo.save("photo.jpg")
    (code,) = [
        text for name, text in blocks(ROOT / "docs/large-pictures.md") if name == "python"
    ]  # fmt: skip
    names: dict[str, object] = {}
    exec(compile(code, "docs/large-pictures.md", "exec"), names)
    assert "dog" in names["found"].shares
    assert Path("map.mask.tif").is_file()


def test_several_looks_are_refused_and_the_temperature_is_kept():
    photo = np.zeros((40, 50, 3), np.uint8)
    with pytest.raises(InputError, match="is looked at once"):
        Segmenter("voc-fast", flip=True).tiles(photo)
    tiles = Segmenter("voc-fast", temperature=1.7).tiles(photo)
    assert tiles.segmentation().temperature == 1.7
