"""A video on disk to an overlay on disk: ours against MediaPipe's ImageSegmenter in video mode.

    make clients
    python benchmarks/video.py [CLIP] [--frames 150] [--rounds 3]
    python benchmarks/video.py --memory 10000

Both read the same clip, scaled to 1280×720 beforehand, run the same ``voc-fast`` file, colour every
frame by its class and write an H.264 file with the same settings. MediaPipe runs in an environment
of its own, which has no encoder of H.264; there OpenCV decodes and draws, and the frames go to an
ffmpeg process that encodes them, which leaves that work to the other core. Ours is
``segmenter.video`` with steady masks, and ``VideoWriter``. The two take turns; the median of the
rounds is told, in frames per second without the opening of models and files.

``--memory FRAMES`` makes a clip of so many frames of 128×96, plays it through ``segmenter.video``
with drawing and encoding, and tells the memory of the process every thousand frames.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deeplab.benchmark.machine import machine
from deeplab.zoo import locate

ROOT = Path(__file__).parents[1]
MEDIAPIPE = Path(os.environ.get("DEEPLAB_CLIENTS", ROOT / "build" / "clients")) / "mediapipe"

THEIRS = r"""
import json, subprocess, sys, time
import cv2, numpy as np, mediapipe as mp
from mediapipe.tasks.python import BaseOptions, vision

clip, model, target, palette = sys.argv[1:5]
colours = np.array(json.loads(palette), np.uint8)
options = vision.ImageSegmenterOptions(
    base_options=BaseOptions(model_asset_path=model),
    running_mode=vision.RunningMode.VIDEO,
    output_category_mask=True,
    output_confidence_masks=False,
)
capture = cv2.VideoCapture(clip)
rate = capture.get(cv2.CAP_PROP_FPS)
size = [int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
words = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24"]
words += ["-s", "%dx%d" % tuple(size), "-r", str(rate), "-i", "-", "-c:v", "libx264"]
words += ["-preset", "veryfast", "-crf", "20", "-bf", "0", "-pix_fmt", "yuv420p", target]
with vision.ImageSegmenter.create_from_options(options) as segmenter:
    encoder = subprocess.Popen(words, stdin=subprocess.PIPE)
    count, begin = 0, time.perf_counter()
    while True:
        there, frame = capture.read()
        if not there:
            break
        image = mp.Image(mp.ImageFormat.SRGB, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        found = segmenter.segment_for_video(image, int(1000 * count / rate))
        mask = np.squeeze(found.category_mask.numpy_view())
        tint = cv2.addWeighted(frame, 0.5, colours[mask], 0.5, 0)
        cv2.copyTo(tint, (mask > 0).astype(np.uint8), frame)
        encoder.stdin.write(frame.tobytes())
        count += 1
    encoder.stdin.close()
    encoder.wait()
    print(json.dumps({"frames": count, "seconds": time.perf_counter() - begin}))
"""

OURS = r"""
import json, sys, time
from deeplab import Segmenter
from deeplab.video.write import VideoWriter

clip, model, target = sys.argv[1:4]
segmenter = Segmenter(model, threads=1)
with segmenter.video(clip) as video, VideoWriter(target, like=video) as writer:
    begin = time.perf_counter()
    drawn = video.map(lambda frame: writer.prepare(frame.segmentation.overlay()))
    for frame, picture in drawn:
        writer.write(picture, frame)
    writer.close()
    print(json.dumps({"frames": writer.frames, "seconds": time.perf_counter() - begin}))
"""


def watch_memory(frames: int, model: str, labels: str | None) -> None:
    """Print the resident memory every thousand frames of one long clip."""
    from deeplab import Segmenter
    from deeplab.photo.memory import resident_bytes
    from deeplab.video.write import VideoWriter

    segmenter = Segmenter(model, threads=1, labels=labels)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "long.mp4")
        words = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=128x96:rate=25"]
        words += ["-frames:v", str(frames), "-c:v", "libx264", "-preset", "ultrafast", clip]
        subprocess.run([str(word) for word in words], check=True)
        with (
            segmenter.video(clip, flicker=True) as video,
            VideoWriter(Path(folder, "out.mp4"), like=video) as writer,
        ):
            drawn = video.map(lambda frame: writer.prepare(frame.segmentation.overlay()))
            for count, (frame, picture) in enumerate(drawn, 1):
                writer.write(picture, frame)
                if count % 1000 == 0 or count == 100:
                    print(f"{count:>7} frames: {(resident_bytes() or 0) / 1e6:.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("clip", type=Path, nargs="?")
    parser.add_argument("--labels", help="of a model that does not name its classes")
    parser.add_argument("--memory", type=int, metavar="FRAMES")
    parser.add_argument("--model", default="voc-fast")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.memory:
        watch_memory(options.memory, options.model, options.labels)
        return
    if options.clip is None:
        parser.error("CLIP or --memory is needed")
    theirs = MEDIAPIPE / "bin" / "python"
    if not theirs.is_file():
        sys.exit(f"{theirs} is not there: run `make clients` first.")
    from deeplab.labels import VOC

    model = locate(options.model)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        words = ["ffmpeg", "-v", "error", "-i", options.clip, "-frames:v", options.frames]
        words += ["-vf", "scale=1280:720", "-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", clip]
        subprocess.run([str(word) for word in words], check=True)
        palette = json.dumps([list(colour)[::-1] for colour in VOC.colours])
        ways = {
            "MediaPipe": [theirs, "-c", THEIRS, clip, model, Path(folder, "theirs.mp4"), palette],
            "ours": [sys.executable, "-c", OURS, clip, model, Path(folder, "ours.mp4")],
        }
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, command in ways.items():
                speeds[way].append(measure([str(word) for word in command]))
                time.sleep(0.5)
    medians = {way: statistics.median(found) for way, found in speeds.items()}
    what = f"{options.frames} frames of 1280×720, {options.model}, {options.rounds} rounds"
    print(f"{machine()}; {what}")
    print("| | frames/s | of each round |\n|---|---|---|")
    for way, found in speeds.items():
        print(f"| {way} | {medians[way]:.1f} | {', '.join(f'{speed:.1f}' for speed in found)} |")
    print(f"\nours / MediaPipe: {medians['ours'] / medians['MediaPipe']:.2f}×")


def measure(command: list[str]) -> float:
    """Return the frames per second that a process tells."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    told = json.loads(done.stdout.strip().splitlines()[-1])
    return float(told["frames"] / told["seconds"])


if __name__ == "__main__":
    main()
