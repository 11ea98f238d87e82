"""A program for MediaPipe or the Task Library at 1280×720: on theirs and on ours.

    make clients
    python benchmarks/drop_in.py [PHOTO] [--model FILE ...] [--rounds 3]

Each line runs one call in a process of its own, theirs and ours in turn, and prints the median of
the rounds' medians: from a photo in memory to masks that were looked at. Names are those of the two
libraries' documents; only the import line differs. "1 class" looks at one confidence mask of all.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from deeplab.benchmark.machine import machine
from deeplab.zoo import locate

ROOT = Path(__file__).parents[1]
MODELS = ("deeplabv3-mobilenetv2-dm05-257-metadata", "voc-fast", "voc")

TIMED = """
import statistics, sys, time
{line}
import numpy as np
frame = np.load(sys.argv[1])
{setup}
def call():
{call}
call()
seconds = []
for _ in range(6):
    start = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - start)
print(1e3 * statistics.median(seconds))
"""

MEDIAPIPE = """
vision = mp.tasks.vision
segmenter = vision.ImageSegmenter.create_from_options(vision.ImageSegmenterOptions(
    base_options=mp.tasks.BaseOptions(model_asset_path=sys.argv[2]),
    output_category_mask={category}, output_confidence_masks={confidence}))
"""
MEDIAPIPE_CALL = """
    result = segmenter.segment(mp.Image(image_format=mp.ImageFormat.SRGB, data=frame))
    {look}
"""
TASK_LIBRARY = """
segmenter = vision.ImageSegmenter.create_from_options(vision.ImageSegmenterOptions(
    core.BaseOptions(file_name=sys.argv[2]),
    processor.SegmentationOptions(output_type=processor.OutputType.{kind})))
"""
TASK_LIBRARY_CALL = """
    segmenter.segment(vision.TensorImage.create_from_array(frame))
"""

WAYS = {
    "MediaPipe, category mask": (
        "mediapipe",
        MEDIAPIPE.format(category=True, confidence=False),
        MEDIAPIPE_CALL.format(look="result.category_mask.numpy_view()"),
    ),
    "MediaPipe, 1 class": (
        "mediapipe",
        MEDIAPIPE.format(category=False, confidence=True),
        MEDIAPIPE_CALL.format(look="result.confidence_masks[15].numpy_view()"),
    ),
    "MediaPipe, all classes": (
        "mediapipe",
        MEDIAPIPE.format(category=False, confidence=True),
        MEDIAPIPE_CALL.format(look="[m.numpy_view() for m in result.confidence_masks]"),
    ),
    "Task Library, category mask": (
        "tflite-support",
        TASK_LIBRARY.format(kind="CATEGORY_MASK"),
        TASK_LIBRARY_CALL,
    ),
    "Task Library, confidences": (
        "tflite-support",
        TASK_LIBRARY.format(kind="CONFIDENCE_MASK"),
        TASK_LIBRARY_CALL,
    ),
}
LINES = {
    "mediapipe": ("import mediapipe as mp", "import deeplab.integrations.mediapipe as mp"),
    "tflite-support": (
        "from tflite_support.task import core, processor, vision",
        "from deeplab.integrations.task_library import core, processor, vision",
    ),
}


def measure(python: Path | str, line: str, way: str, frame: Path, model: Path) -> float:
    _, setup, call = WAYS[way]
    program = TIMED.format(line=line, setup=setup, call=call)
    done = subprocess.run(
        [python, "-c", program, frame, model], capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photo", nargs="?", type=Path, default=ROOT / "examples/photos/dog.jpg")
    parser.add_argument("--model", action="append", help="a name or a .tflite with metadata")
    parser.add_argument("--way", action="append", choices=WAYS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=Path, default=ROOT / "build/clients")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.npy"
        with Image.open(options.photo) as photo:
            np.save(frame, np.asarray(photo.convert("RGB").resize((1280, 720))))
        for name in options.model or MODELS:
            model = locate(name)
            for way in options.way or WAYS:
                client = WAYS[way][0]
                pythons = options.clients / client / "bin/python", sys.executable
                times: tuple[list[float], list[float]] = ([], [])
                for _ in range(options.rounds):
                    for python, line, found in zip(pythons, LINES[client], times, strict=True):
                        found.append(measure(python, line, way, frame, model))
                theirs, ours = map(statistics.median, times)
                print(
                    f"{name:42} {way:28} theirs {theirs:7.1f} ms   ours {ours:6.1f} ms   "
                    f"{theirs / ours:5.1f}x"
                )


if __name__ == "__main__":
    main()
