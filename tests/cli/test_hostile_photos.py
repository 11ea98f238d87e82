"""One bad photo never stops the rest, and all of them stay within the memory that they may take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab.cli import run
from deeplab.cli.outputs import shorten
from hostile_photos import dib_that_claims, webp_that_claims

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "cat.jpg"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_no_jpeg_can_hold_becomes_a_png(tmp_path: Path, capsys) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    Image.new("RGB", (65_501, 9), (90, 60, 30)).save(photos / "wide.png")
    (photos / "cat.jpg").write_bytes(PHOTO.read_bytes())
    command = ["segment", str(photos), "-o", str(out), "-m", "voc-fast"]
    command += ["--save", "overlay,contour,blur", "--only", "cat"]
    assert run(command) == 0
    kinds = ("overlay", "contour", "blur")
    ends = {"cat": "jpg", "wide": "png"}
    assert names(out) == {f"{name}.{kind}.{end}" for kind in kinds for name, end in ends.items()}
    assert "*.overlay.png" in capsys.readouterr().out
    with Image.open(out / "wide.overlay.png") as picture:
        assert picture.size == (65_501, 9)
    (out / "cat.overlay.jpg").unlink()
    # The PNG's name is not known before the photo is opened; it is not replaced unasked, either.
    command = ["segment", str(photos / "wide.png"), "-o", str(out), "-m", "voc-fast", "--json"]
    assert run([*command, "--save", "overlay"]) == 1
    assert run([*command, "--save", "overlay", "--overwrite"]) == 0
    told = json.loads("{" + capsys.readouterr().out.partition("\n}\n{")[2])
    assert told["photos"][0]["files"] == {"overlay": str(out / "wide.overlay.png")}


def test_names_that_leave_no_room_for_a_suffix(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    long = [photos / ("n" * 240 + end + ".jpg") for end in "ab"] + [photos / ("ü" * 120 + ".jpg")]
    for path in (*long, photos / "cat.jpg"):
        path.write_bytes(PHOTO.read_bytes())
    command = ["segment", str(photos), "-o", str(out), "-m", "voc-fast", "--save", "mask"]
    assert run(command) == 0
    assert len(names(out)) == 4
    assert "cat.mask.png" in names(out)
    assert run(command) == 2  # the same names again
    assert shorten("short") == "short"


def test_claims_stop_nobody(tmp_path: Path, capsys) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    (photos / "claim.webp").write_bytes(webp_that_claims(16_383, 16_383))
    (photos / "cut.dib").write_bytes(dib_that_claims(19_000, 19_000))
    (photos / "empty.png").write_bytes(b"")
    (photos / "cat.jpg").write_bytes(PHOTO.read_bytes())
    command = ["segment", str(photos), "-o", str(out), "-m", "voc-fast", "--memory", "900MB"]
    assert run([*command, "--save", "mask"]) == 1
    told = capsys.readouterr()
    assert names(out) == {"cat.mask.png"}
    assert "claim.webp: the photo needs about 7.2 GB of memory" in told.err
    assert "cut.dib: the picture is damaged or cut off" in told.err
    assert "empty.png: the file is empty" in told.err
    assert "3 of 4 photos could not be done" in told.err


@pytest.mark.skipif(sys.platform != "linux", reason="measures as Linux does")
def test_photos_stay_within_their_memory(tmp_path: Path) -> None:
    """Eight workers, four photos of 16 megapixels, and memory for one of them."""
    pixels = np.zeros((4000, 4000, 3), np.uint8)
    for number in range(4):
        Image.fromarray(pixels + 9 * number).save(tmp_path / f"{number}.png", compress_level=1)
    code = (
        "import resource, sys; from deeplab.cli import run; code = run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )

    def peak_bytes(*arguments: object) -> int:
        command = [sys.executable, "-c", code, "segment", "-m", "voc-fast", "--save", "cutout"]
        command += ["--only", "cat", "--workers", "8", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return 1024 * int(done.stdout.split()[-1])

    idle = peak_bytes(PHOTO, "-o", tmp_path / "small")
    busy = peak_bytes(*tmp_path.glob("*.png"), "-o", tmp_path / "large", "--memory", "600MB")
    assert busy - idle < 600e6
