"""A photo on disk to its full-size category mask: ours against MediaPipe and the Task Library.

    make clients
    python benchmarks/clients.py [PHOTO] [--rounds 15] [--folder 200]

Each runs as its documentation calls it, with its own defaults, in a process of its own that stays
open; the photos go to them in turn, and each times itself from the file's name to the mask as a
numpy array. The Task Library gives the network's own small mask, which is enlarged by nearest
neighbour, as its examples do. ``--folder N`` also lets each work through N photos at 720p: ours by
``map``, MediaPipe in a loop.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from deeplab.benchmark.machine import machine
from deeplab.zoo import locate

HERE = Path(__file__).parents[1]
PHOTO = HERE / "examples" / "photos" / "dog.jpg"
SIZES = {"1280×720": (1280, 720), "4000×3000": (4000, 3000)}

_LOOP = """
import time
for line in sys.stdin:
    photos = line.rstrip("\\n").split("\\t")
    start = time.perf_counter()
    shapes = {mask.shape for mask in run(photos)}
    print(1e3 * (time.perf_counter() - start), *shapes, sep="\\t", flush=True)
"""

_OURS = """
import sys
from deeplab import Segmenter
segmenter = Segmenter(sys.argv[1])
def run(photos):
    if len(photos) == 1:
        return [segmenter(photos[0]).mask]
    return (result.mask for result in segmenter.map(photos))
"""

_MEDIAPIPE = """
import sys, mediapipe
from mediapipe.tasks.python import BaseOptions, vision
options = vision.ImageSegmenterOptions(
    base_options=BaseOptions(model_asset_path=sys.argv[1]), output_category_mask=True)
segmenter = vision.ImageSegmenter.create_from_options(options)
def run(photos):
    for photo in photos:
        found = segmenter.segment(mediapipe.Image.create_from_file(photo))
        yield found.category_mask.numpy_view().squeeze()
"""

_TASK_LIBRARY = """
import sys, numpy
from tflite_support.task import vision
segmenter = vision.ImageSegmenter.create_from_file(sys.argv[1])
def run(photos):
    for photo in photos:
        image = vision.TensorImage.create_from_file(photo)
        found = segmenter.segment(image).segmentations[0]
        small = numpy.array(found.category_mask).reshape(found.height, found.width)
        height, width = image.buffer.shape[:2]
        rows = numpy.arange(height) * small.shape[0] // height
        yield small[rows][:, numpy.arange(width) * small.shape[1] // width]
"""


class Client:
    """A program that waits for photos."""

    def __init__(self, python: Path, code: str, model: Path) -> None:
        self._process = subprocess.Popen(
            [python, "-c", code + _LOOP, model], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __call__(self, *photos: Path) -> float:
        """Return the milliseconds from names to masks."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\t".join(map(str, photos)) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline().split("\t")[0])

    def close(self) -> None:
        """End the program."""
        self._process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO)
    parser.add_argument("--clients", type=Path, default=HERE / "build" / "clients")
    parser.add_argument("--models", default="deeplabv3-mobilenetv2-dm05-257-metadata,voc")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=int, default=0)
    options = parser.parse_args()
    print(f"{machine()}; median of {options.rounds}, {options.photo.stem}\n")
    print("| model | size | ours ms | MediaPipe ms | faster | Task Library ms | faster |")
    print("|---|---|---|---|---|---|---|")
    for model in options.models.split(","):
        path = locate(model)
        ways = {
            "ours": Client(Path(sys.executable), _OURS, path),
            "mediapipe": Client(options.clients / "mediapipe/bin/python", _MEDIAPIPE, path),
            "tasks": Client(options.clients / "tflite-support/bin/python", _TASK_LIBRARY, path),
        }
        with tempfile.TemporaryDirectory() as folder:
            for size, pixels in SIZES.items():
                photo = Path(folder, "photo.jpg")
                Image.open(options.photo).convert("RGB").resize(pixels).save(photo, quality=90)
                times: dict[str, list[float]] = {name: [] for name in ways}
                for number in range(options.rounds + 2):
                    for name, run in ways.items():
                        ms = run(photo)
                        times[name] += [ms] if number > 1 else []
                ms = {name: statistics.median(found) for name, found in times.items()}
                print(_row(model, size, ms), flush=True)
            if options.folder:
                photos = [Path(folder, f"{i}.jpg") for i in range(options.folder)]
                small = Image.open(options.photo).convert("RGB").resize(SIZES["1280×720"])
                for one in photos:
                    small.save(one, quality=90)
                ms = {name: ways[name](*photos) for name in ("ours", "mediapipe", "tasks")}
                print(_row(model, f"{options.folder} photos, 720p", ms), flush=True)
        for way in ways.values():
            way.close()


def _row(model: str, size: str, ms: dict[str, float]) -> str:
    cells = [model, size, f"{ms['ours']:.1f}"]
    for name in ("mediapipe", "tasks"):
        cells += [f"{ms[name]:.1f}", f"{ms[name] / ms['ours']:.1f}×"]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
