"""A photo on disk to a mask on disk: ours against the ordinary way.

    python benchmarks/photo_to_mask.py [PHOTO ...] [--threads 2] [--rounds 9]

The ordinary way, carefully written: Pillow decodes and resizes, LiteRT runs the file as it is,
OpenCV resizes class by class with a running maximum, Pillow writes the palette PNG. Ours is the
public API, ``segmenter(path).save_mask(path)``: once with ``exact=True``, which decodes every pixel
and must give the same mask, and once as it is by default, which lets the JPEG decoder skip what
the network cannot see. Every photo is enlarged to 1280×720 and 4000×3000 beforehand.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

import deeplab
from deeplab.benchmark.interleave import interleave
from deeplab.benchmark.machine import machine
from deeplab.labels import VOC
from deeplab.zoo import locate
from upsample import PHOTOS, mosaic, running_maximum

SIZES = {"1280×720": (1280, 720), "4000×3000": (4000, 3000)}


class OrdinaryWay:
    """What a good engineer writes in an afternoon."""

    def __init__(self, model: Path, threads: int) -> None:
        self.interpreter = Interpreter(str(model), num_threads=threads)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]
        self.palette = VOC.palette.tobytes()

    def __call__(self, photo: Path, target: Path) -> None:
        with Image.open(photo) as opened:
            image = opened.convert("RGB")
        height, width = (int(side) for side in self.input["shape"][1:3])
        scale = min(height / image.height, width / image.width)
        fitted = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        frame = np.full((1, height, width, 3), 127, np.float32)
        frame[0, : fitted[1], : fitted[0]] = image.resize(fitted, Image.Resampling.BILINEAR)
        self.interpreter.set_tensor(self.input["index"], frame / 127.5 - 1)
        self.interpreter.invoke()
        logits = self.interpreter.get_tensor(self.output["index"])[0]
        mask = running_maximum(logits[: fitted[1], : fitted[0]], image.height, image.width)
        picture = Image.fromarray(mask)
        picture.putpalette(self.palette)
        picture.save(target)


def ours(segmenter: deeplab.Segmenter, photo: Path, target: Path) -> None:
    segmenter(photo).save_mask(target)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    cv2.setNumThreads(options.threads)
    model = "starter"  # it answers in the frame's size, which the ordinary way needs
    ways = {
        "ordinary": OrdinaryWay(locate(model), options.threads),
        "exact": partial(ours, deeplab.Segmenter(model, threads=options.threads, exact=True)),
        "default": partial(ours, deeplab.Segmenter(model, threads=options.threads)),
    }
    photos = options.photos or sorted(PHOTOS.glob("*.jpg"))
    pictures = {path.stem: Image.open(path).convert("RGB") for path in photos}
    pictures["mosaic of 16"] = Image.fromarray(mosaic(photos))

    print(f"{machine()}; {options.threads} threads, median of {options.rounds}\n")
    columns = "faster | same pixels"
    print(f"| size | photo | ordinary ms | exact ms | {columns} | default ms | {columns} |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            for title, picture in pictures.items():
                photo = Path(folder, "photo.jpg")
                picture.resize(size, Image.Resampling.BICUBIC).save(photo, quality=90)
                targets = {way: Path(folder, f"{way}.png") for way in ways}
                ms = interleave(
                    {way: partial(run, photo, targets[way]) for way, run in ways.items()},
                    rounds=options.rounds,
                )
                masks = {way: np.asarray(Image.open(target)) for way, target in targets.items()}
                cells = [name, title, f"{ms['ordinary']:.1f}"]
                for way in ("exact", "default"):
                    same = (masks[way] == masks["ordinary"]).mean()
                    ratio = ms["ordinary"] / ms[way]
                    cells += [f"{ms[way]:.1f}", f"{ratio:.1f}×", f"{same:.3%}"]
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
