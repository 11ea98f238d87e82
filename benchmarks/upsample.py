"""From low-resolution logits to a full-size mask: ours against the ordinary ways.

    python benchmarks/upsample.py [PHOTO ...] [--rounds 9]

Peers: OpenCV resizing the stack of all classes, then numpy's argmax (what most code does), and
OpenCV resizing class by class with a running maximum (the careful way). One thread each. The
logits are the default model's on a real photo, on a mosaic of sixteen photos (clutter), and random
numbers, where no cell can be pruned. Every row also says on how many pixels the masks agree; they
differ only where OpenCV's rounding decides between equal classes.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import deeplab
from deeplab.benchmark.interleave import interleave
from deeplab.benchmark.machine import machine

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"


def running_maximum(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    best = cv2.resize(np.ascontiguousarray(logits[..., 0]), (width, height))
    mask = np.zeros((height, width), np.uint8)
    for index in range(1, logits.shape[2]):
        value = cv2.resize(np.ascontiguousarray(logits[..., index]), (width, height))
        mask[value > best] = index
        np.maximum(best, value, out=best)
    return mask


def stack_argmax(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(logits, (width, height)).argmax(axis=2).astype(np.uint8)


def mosaic(paths: list[Path], size: int = 1024) -> np.ndarray:
    picture = Image.new("RGB", (size, size))
    for number, path in enumerate(islice(cycle(paths), 16)):
        tile = Image.open(path).convert("RGB").resize((size // 4, size // 4))
        picture.paste(tile, (number % 4 * size // 4, number // 4 * size // 4))
    return np.asarray(picture)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    photos = options.photos or sorted(PHOTOS.glob("*.jpg"))
    cv2.setNumThreads(1)

    segmenter = deeplab.Segmenter("starter", fit="stretch")
    cases = {path.stem: segmenter(path).logits for path in photos}
    cases["mosaic of 16"] = segmenter(mosaic(photos)).logits
    shape = next(iter(cases.values())).shape
    cases["random"] = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    print(f"{machine()}; logits {shape}, one thread, median of {options.rounds}\n")
    print(
        "| size | logits | ours ms | running maximum ms | stack + argmax ms "
        "| vs running | vs stack | same pixels |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, (height, width) in {"1280×720": (720, 1280), "4000×3000": (3000, 4000)}.items():
        for case, logits in cases.items():
            ways = {
                "ours": partial(deeplab.argmax_bilinear, align_corners=False),
                "running": running_maximum,
                "stack": stack_argmax,
            }
            runs = {way: partial(run, logits, height, width) for way, run in ways.items()}
            ms = interleave(runs, rounds=options.rounds)
            ours = deeplab.argmax_bilinear(logits, height, width, align_corners=False)
            same = (ours == running_maximum(logits, height, width)).mean()
            print(
                f"| {name} | {case} | {ms['ours']:.2f} | {ms['running']:.1f} | {ms['stack']:.1f} "
                f"| {ms['running'] / ms['ours']:.1f}× | {ms['stack'] / ms['ours']:.0f}× "
                f"| {same:.4%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
