"""The starter model: what can be spared left out, against LiteRT on the file as it is.

    python benchmarks/starter.py [--rounds 200] [--threads 1 2] [--openvino] [PHOTO ...]

Two times: the network alone (LiteRT's invoke), and a frame of bytes in, an array of logits out,
which is what a program waits for. Both get the same frames. The mask of the golden photo must be
the original's to the last pixel, or nothing is timed.

With --openvino, OpenVINO in float32 and bfloat16 too. bfloat16 is not exact: its masks of the
photos are compared with float32's, by the share of the pixels that are an object's in either that
have the same class. (The golden photo is taken where DEEPLAB_REFERENCE names the reference files.)
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

import deeplab
from deeplab.benchmark.interleave import interleave
from deeplab.benchmark.machine import machine
from deeplab.runtimes import open_network
from deeplab.zoo import locate

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
REFERENCE = Path(os.environ.get("DEEPLAB_REFERENCE", ""))


class AsItIs:
    """LiteRT on the published file, fed and read with care."""

    def __init__(self, model: Path, threads: int) -> None:
        self.interpreter = Interpreter(str(model), num_threads=threads)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]["index"]
        self.output = self.interpreter.get_output_details()[0]["index"]

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        batch = np.subtract(frame[None], np.float32(127.5), dtype=np.float32)
        batch /= np.float32(127.5)
        self.interpreter.set_tensor(self.input, batch)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.output)[0]


def check_golden(**options: Any) -> str:
    """Return how the mask of the golden photo compares with the original's."""
    golden = REFERENCE / "golden"
    if not golden.is_dir():
        return "not compared (set DEEPLAB_REFERENCE)"
    segmenter = deeplab.Segmenter("starter", fit="stretch", exact=True, **options)
    mask = segmenter(golden / "segmentation_input_rotation0.jpg").mask
    with Image.open(golden / "segmentation_golden_rotation0.png") as file:
        wanted = np.asarray(file) // 10
    same, foreground = mask == wanted, (mask > 0) | (wanted > 0)
    if not options:
        assert same.all(), f"the golden mask changed in {(~same).sum()} pixels"
    return f"{same.mean():.3%} of pixels, foreground IoU {same[foreground].mean():.4f}"


def compare_photos(photos: list[Path], **options: Any) -> Iterator[str]:
    """Give the lines of a table: masks made with these options against float32's."""
    exact, other = deeplab.Segmenter("starter"), deeplab.Segmenter("starter", **options)
    total, agree = 0, 0
    for photo in photos:
        wanted, mask = exact(photo).mask, other(photo).mask
        same, foreground = mask == wanted, (mask > 0) | (wanted > 0)
        total, agree = total + int(foreground.sum()), agree + int((same & foreground).sum())
        iou = f"{same[foreground].mean():.4f}" if foreground.any() else "no object"
        yield f"| {photo.stem} | {same.mean():.3%} | {iou} |"
    yield f"| all {len(photos)} | | {agree / max(total, 1):.4f} |"


def time_it(model: Path, threads: int, rounds: int, engines: list[str]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (257, 257, 3), dtype=np.uint8)
    plain = AsItIs(model, threads)
    folded = open_network(model, runtime="litert", threads=threads)
    wanted, got = plain(frame)[::8, ::8], folded(frame)
    difference = np.abs(wanted - got).max()
    assert difference < 1e-3, difference
    inside = Interpreter(model_content=folded.network.content, num_threads=threads)
    inside.allocate_tensors()
    alone: dict[str, Callable[[], Any]] = {"as it is": plain.interpreter.invoke}
    alone["folded"] = inside.invoke
    whole: dict[str, Callable[[], Any]] = {"as it is": lambda: plain(frame)}
    whole["folded"] = lambda: folded(frame)
    for precision in engines:
        other = open_network(model, runtime="openvino", threads=threads, precision=precision)
        whole[f"folded, OpenVINO {precision}"] = lambda run=other: run(frame)
        alone[f"folded, OpenVINO {precision}"] = other.request.infer
    ms = {"network": interleave(alone, rounds=rounds, warmup_rounds=5)}
    ms["frame to logits"] = interleave(whole, rounds=rounds, warmup_rounds=5)
    for way in whole:
        cells = [str(threads), way]
        for times in ms.values():
            cells += [f"{times[way]:.2f}", f"{times['as it is'] / times[way]:.2f}×"]
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--openvino", action="store_true")
    options = parser.parse_args()
    photos = options.photos or sorted(PHOTOS.glob("*.jpg"))
    engines = ["float32", "bfloat16"] if options.openvino else []
    bfloat16 = {"runtime": "openvino", "precision": "bfloat16"}

    print(f"{machine()}; median of {options.rounds}\n")
    print(f"golden mask, folded: {check_golden()}")
    if options.openvino:
        print(f"golden mask, OpenVINO bfloat16: {check_golden(**bfloat16)}")
    print("\n| threads | way | network ms | faster | frame to logits ms | faster |")
    print("|---|---|---|---|---|---|")
    for threads in options.threads:
        time_it(locate("starter"), threads, options.rounds, engines)
    if options.openvino:
        print("\n| photo | bfloat16: same pixels | same-class foreground IoU |\n|---|---|---|")
        for line in compare_photos(photos, **bfloat16):
            print(line)


if __name__ == "__main__":
    main()
