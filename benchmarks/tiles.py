"""Pictures larger than memory: what they take, and what the usual way takes.

    python benchmarks/tiles.py [--side 32768] [--scale 1] [--rounds 3] [--voc FOLDER] [--whole 0.25]

Up to four tables. The first: a picture made on the fly, and one of twice its side, segmented and
written with ``Segmenter.tiles``; each in a process of its own, whose largest memory the kernel
tells. The second: a photo of 6,000 × 4,000 in the same windows with the same network on one
thread, here and in mmsegmentation's way (``slide_inference``): the logits of each window enlarged
to its size, added up at the size of the photo, divided by how often each pixel was seen, then the
argmax. The sum is done in place; mmsegmentation pads each window to the size of the photo first and
takes longer. With ``--voc``: mIoU and time of windows that know the whole picture and of those that
do not, on labelled photos of VOC's layout, enlarged and laid side by side to larger pictures. With
``--whole SCALE``: how many pixels of the photo's mask are as if one frame had seen all of it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "dog.jpg"
MODEL = "voc-fast"


class MadeOnTheFly:
    """A photo beside itself as often as wanted; only what is asked for is there."""

    dtype = np.dtype(np.uint8)

    def __init__(self, side: int) -> None:
        self.shape = (side, side, 3)
        with Image.open(PHOTO) as photo:
            self._photo = np.asarray(photo.convert("RGB"))

    def __getitem__(self, where: tuple[slice, slice]) -> np.ndarray:
        rows, columns = where
        part = np.empty((rows.stop - rows.start, columns.stop - columns.start, 3), np.uint8)
        height, width = self._photo.shape[:2]
        for top in range(rows.start - rows.start % height, rows.stop, height):
            for left in range(columns.start - columns.start % width, columns.stop, width):
                first, end = max(top, rows.start), min(top + height, rows.stop)
                begin, stop = max(left, columns.start), min(left + width, columns.stop)
                block = self._photo[first - top : end - top, begin - left : stop - left]
                y, x = first - rows.start, begin - columns.start
                part[y : y + block.shape[0], x : x + block.shape[1]] = block
        return part


def megabytes() -> float:
    """Return the largest memory of this process so far; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def large(side: int, scale: float) -> dict[str, float]:
    from deeplab import Segmenter

    tiles = Segmenter(MODEL).tiles(MadeOnTheFly(side), scale=scale, memory="1GB")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tiles.save(mask=Path(folder) / "mask.tif")
        written = (Path(folder) / "mask.tif").stat().st_size
    return {"seconds": time.perf_counter() - start, "windows": tiles.windows, "file": written / 1e6}


def photo() -> np.ndarray:
    with Image.open(PHOTO) as small:
        return np.asarray(small.convert("RGB").resize((6000, 4000), Image.Resampling.BICUBIC))


def ours(path: str) -> dict[str, float]:
    from deeplab import Segmenter

    picture, segmenter = photo(), Segmenter(MODEL)
    before = megabytes()
    start = time.perf_counter()
    mask = segmenter.tiles(picture, workers=1).segmentation().mask
    seconds = time.perf_counter() - start
    np.save(path, mask)
    return {"seconds": seconds, "before": before}


def theirs(path: str) -> dict[str, float]:
    import torch
    import torch.nn.functional as F

    from deeplab import Segmenter

    torch.set_num_threads(1)
    picture, segmenter = photo(), Segmenter(MODEL, threads=1)
    spec, network = segmenter.spec, segmenter.network
    before = megabytes()
    start = time.perf_counter()
    tiles = segmenter.tiles(picture)
    tops, lefts = (
        [axis.first_pixel(i) for i in range(len(axis.starts))]
        for axis in (tiles._rows, tiles._columns)
    )
    height, width = picture.shape[:2]
    total = torch.zeros(1, len(segmenter.labels), height, width)
    count = torch.zeros(1, 1, height, width)
    for top in tops:
        for left in lefts:
            bottom, right = min(top + spec.height, height), min(left + spec.width, width)
            top_, left_ = max(0, bottom - spec.height), max(0, right - spec.width)
            crop = np.ascontiguousarray(picture[top_:bottom, left_:right])
            logits = torch.from_numpy(network(crop).astype(np.float32)).permute(2, 0, 1)[None]
            large = F.interpolate(logits, crop.shape[:2], mode="bilinear", align_corners=True)
            total[:, :, top_:bottom, left_:right] += large
            count[:, :, top_:bottom, left_:right] += 1
    mask = (total / count).argmax(1)[0].to(torch.uint8).numpy()
    seconds = time.perf_counter() - start
    np.save(path, mask)
    return {"seconds": seconds, "before": before}


WAYS = (("window", 0.25), ("picture", 0.25), ("picture", 0.6))
"""Context and overlap."""


def labelled(root: Path, count: int) -> None:
    """Print mIoU and time of labelled pictures that are larger than a window."""
    from deeplab import Segmenter
    from deeplab.evaluation.metrics import ConfusionMatrix

    names = (root / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    segmenter = Segmenter(MODEL)
    for what, every in scenes(root, names).items():
        pictures = every[:count]
        matrices = [ConfusionMatrix(len(segmenter.labels)) for _ in WAYS]
        seconds = [0.0] * len(WAYS)
        for picture, label in pictures:
            for i, (context, overlap) in enumerate(WAYS):
                tiles = segmenter.tiles(picture, context=context, overlap=overlap)
                start = time.perf_counter()
                mask = tiles.segmentation().mask
                seconds[i] += time.perf_counter() - start
                matrices[i].merge(ConfusionMatrix.of(label, mask, len(segmenter.labels)))
        print(f"{what}, {len(pictures)} pictures", flush=True)
        for (context, overlap), matrix, took in zip(WAYS, matrices, seconds, strict=True):
            miou = float(matrix.totals.mean_iou())
            print(f"{context:>10} {overlap:.2f}: mIoU {miou:.2%}, {took:.0f} s", flush=True)


def scenes(root: Path, names: list[str]) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Return labelled pictures: photos enlarged, and nine photos beside each other."""

    def read(name: str, scale: float) -> tuple[np.ndarray, np.ndarray]:
        with (
            Image.open(root / "JPEGImages" / f"{name}.jpg") as photo,
            Image.open(root / "SegmentationClass" / f"{name}.png") as label,
        ):
            size = round(scale * photo.width), round(scale * photo.height)
            large = photo.convert("RGB").resize(size, Image.Resampling.BICUBIC)
            return np.asarray(large), np.asarray(label.resize(size, Image.Resampling.NEAREST))

    mosaics = []
    for first in range(0, len(names) - 8, 9):  # each photo once
        picture = np.full((3 * 500, 3 * 500, 3), 127, np.uint8)
        label = np.full((3 * 500, 3 * 500), 255, np.uint8)
        for place, name in enumerate(names[first : first + 9]):
            top, left = 500 * (place // 3), 500 * (place % 3)
            pixels, classes = read(name, 1)
            height, width = classes.shape
            picture[top : top + height, left : left + width] = pixels
            label[top : top + height, left : left + width] = classes
        mosaics.append((picture, label))
    return {
        "nine photos as one picture": mosaics,
        "photos enlarged 3 times": [read(name, 3) for name in names[::4]],
    }


def whole(scale: float) -> None:
    """Print how many pixels of windows' masks are those of one frame that sees it all."""
    from deeplab import Segmenter
    from deeplab.photo.upsample import Region, argmax_bilinear
    from deeplab.tiles.pictures import Seen

    pair = Path(__file__).parents[1] / "docs" / "results" / MODEL / f"{MODEL}.json"
    picture, segmenter = photo(), Segmenter(pair)
    tiles = segmenter.tiles(picture, scale=scale)
    height, width = tiles.seen_size
    side = [-(-(size - 1) // 16) * 16 + 1 for size in tiles.seen_size]
    frame = np.empty((*side, 3), np.uint8)
    frame[:] = segmenter.spec.padding
    seen = Seen(tiles.picture.smaller((height, width)), (height, width), segmenter.spec.padding)
    frame[:height, :width] = seen.read(0, 0, height, width)
    logits = Segmenter(pair, size=(side[0], side[1])).network(frame)
    region = Region(side[0], side[1], 0, 0, height, width)
    mask = argmax_bilinear(logits, *picture.shape[:2], align_corners=True, region=region)
    for context, overlap in WAYS:
        tiles = segmenter.tiles(picture, scale=scale, context=context, overlap=overlap)
        runs = tiles.windows
        equal = (tiles.segmentation().mask == mask).mean()
        print(f"scale {scale}, {context} {overlap:.2f}: {runs} windows, {equal:.3%} equal")


def run(*arguments: str) -> dict[str, float]:
    """Run one case in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--case", *arguments], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=32_768)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--voc", type=Path)
    parser.add_argument("--pictures", type=int, default=1000, help="of each kind, with --voc")
    parser.add_argument("--whole", type=float)
    parser.add_argument("--case", nargs="+")
    options = parser.parse_args()
    if options.case:
        name, argument, *more = options.case
        if name == "large":
            found = large(int(argument), float(more[0]))
        else:
            found = {"ours": ours, "theirs": theirs}[name](argument)
        peak = megabytes()
        print(json.dumps({**found, "peak": peak}))
        return
    if options.voc:
        labelled(options.voc, options.pictures)
    if options.whole:
        whole(options.whole)
    if options.side:
        print(f"{'side':>8} {'windows':>8} {'seconds':>8} {'file MB':>8} {'peak MB':>8}")
        for side in (options.side, 2 * options.side):
            case = run("large", str(side), str(options.scale))
            print(
                f"{side:>8} {case['windows']:>8.0f} {case['seconds']:>8.1f} {case['file']:>8.1f} "
                f"{case['peak']:>8.0f}",
                flush=True,
            )
    if options.rounds:
        with tempfile.TemporaryDirectory() as folder:
            cases: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
            for _ in range(options.rounds):
                for name, rounds in cases.items():
                    rounds.append(run(name, f"{folder}/{name}.npy"))
            same = (np.load(f"{folder}/ours.npy") == np.load(f"{folder}/theirs.npy")).mean()
        for name, rounds in cases.items():
            seconds = statistics.median(case["seconds"] for case in rounds)
            taken = statistics.median(case["peak"] - case["before"] for case in rounds)
            print(f"{name:>8}: {seconds:6.1f} s, {taken:6.0f} MB beside photo and network")
        ratio = [
            (b["seconds"] / a["seconds"], (b["peak"] - b["before"]) / (a["peak"] - a["before"]))
            for a, b in zip(cases["ours"], cases["theirs"], strict=True)
        ]
        times, memory = (statistics.median(values) for values in zip(*ratio, strict=True))
        print(f"theirs / ours: {times:.1f}× the time, {memory:.1f}× the memory; {same:.2%} equal")


if __name__ == "__main__":
    main()
