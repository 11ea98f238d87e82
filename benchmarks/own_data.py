"""What a newcomer gets: small data sets with names of their own, defaults only, scored on a test.

    python benchmarks/own_data.py VOC [CAMVID]
    python benchmarks/own_data.py VOC CAMVID --minutes 1 --tests 40 --only five-25

VOC is a folder in VOC's layout whose lists have photos of all classes, CAMVID one in SegNet's. Each
row: the fit alone (``deeplab train --data X --time 0``), then the default training in so many
minutes, then 20 steps from random weights. Test photos come from the list ``val``
(``--val-list``) and are never learned from.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from deeplab.labels import CAMVID, VOC

Groups = dict[str, tuple[str, ...]]

SETS: dict[str, tuple[Groups, int]] = {
    "three-40": ({"moggy": ("cat",), "hound": ("dog",), "nag": ("horse",)}, 40),
    "three-200": ({"pet": ("cat", "dog"), "folk": ("person",), "ox": ("cow",)}, 200),
    "five-25": (
        {
            "plane": ("aeroplane",), "coach": ("bus",), "rail": ("train",),
            "bike": ("motorbike",), "fowl": ("bird",),
        },
        25,
    ),
    "five-40": (
        {
            "seat": ("chair", "sofa"), "board": ("dining table",), "plant": ("potted plant",),
            "screen": ("tv",), "flask": ("bottle",),
        },
        40,
    ),
}  # fmt: skip


def list_of(voc: Path, name: str) -> list[str]:
    """Return the names in one of VOC's lists."""
    return (voc / f"ImageSets/Segmentation/{name}.txt").read_text("utf-8").split()


def pick(voc: Path, names: list[str], groups: Groups, count: int) -> list[str]:
    """Draw photos that show the groups, as many of each, most rarely shown first."""
    draw = random.Random(0)
    names = draw.sample(names, len(names))
    shown: dict[str, list[str]] = {group: [] for group in groups}
    for name in names:
        mask = np.asarray(Image.open(voc / f"SegmentationClass/{name}.png"))
        shares = np.bincount(mask.ravel(), minlength=256) / mask.size
        for group, members in groups.items():
            if sum(shares[VOC.index(member)] for member in members) > 0.02:
                shown[group].append(name)
    chosen: dict[str, None] = {}
    while len(chosen) < count and any(shown.values()):
        for pool in shown.values():
            while pool and pool[-1] in chosen:
                pool.pop()
            if pool and len(chosen) < count:
                chosen[pool.pop()] = None
    return list(chosen)


def write_voc(voc: Path, out: Path, groups: Groups, parts: dict[str, list[str]]) -> None:
    """Write a folder data set: other objects are background, names are one's own."""
    table = np.zeros(256, np.uint8)
    table[255] = 255
    for index, members in enumerate(groups.values(), 1):
        for member in members:
            table[VOC.index(member)] = index
    for kind in ("images", "masks"):
        (out / kind).mkdir(parents=True)
    for split, names in parts.items():
        for name in names:
            photo = (voc / f"JPEGImages/{name}.jpg").read_bytes()
            (out / f"images/{name}.jpg").write_bytes(photo)
            mask = table[np.asarray(Image.open(voc / f"SegmentationClass/{name}.png"))]
            Image.fromarray(mask).save(out / f"masks/{name}.png")
        (out / f"{split}.txt").write_text("\n".join(names) + "\n", "utf-8")
    (out / "labels.txt").write_text("\n".join(["background", *groups]) + "\n", "utf-8")


def write_camvid(camvid: Path, out: Path, count: int, tests: int) -> None:
    """Write 60 street photos under their own names, a fifth to judge by."""
    draw = random.Random(0)
    photos = {p.stem: p for part in ("train", "val") for p in (camvid / part).iterdir()}
    train = draw.sample(sorted(p.stem for p in (camvid / "trainannot").iterdir()), count)
    test = draw.sample(sorted(p.stem for p in (camvid / "valannot").iterdir()), tests)
    parts = {"val": train[: count // 5], "train": train[count // 5 :], "test": test}
    for kind in ("images", "masks"):
        (out / kind).mkdir(parents=True)
    for split, names in parts.items():
        folder = "val" if split == "test" else "train"
        for name in names:
            photo = photos[name]
            (out / f"images/{photo.name}").write_bytes(photo.read_bytes())
            mask = np.asarray(Image.open(camvid / f"{folder}annot/{name}.png"))
            mask = np.where(mask == CAMVID.ignore_index, 255, mask).astype(np.uint8)
            Image.fromarray(mask).save(out / f"masks/{name}.png")
        (out / f"{split}.txt").write_text("\n".join(names) + "\n", "utf-8")
    (out / "labels.txt").write_text("\n".join(CAMVID.names) + "\n", "utf-8")


def deeplab(*words: str) -> str:
    """Run a command as one would type it, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "deeplab", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"deeplab {' '.join(words)}\n{done.stderr}")
    return done.stdout


def learn(data: Path, run: Path, *options: str) -> tuple[float, float]:
    """Train and score; return test mIoU and the seconds of the training."""
    begun = time.perf_counter()
    deeplab("train", "--data", str(data), "--folder", str(run), *options)
    seconds = time.perf_counter() - begun
    pair = run / f"{data.name}.json"
    told = json.loads(deeplab("evaluate", str(pair), str(data), "--split", "test", "--json"))
    return told["miou"], seconds


def main() -> None:
    """Make the data sets, train on each, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("voc", type=Path)
    parser.add_argument("camvid", type=Path, nargs="?")
    parser.add_argument("--train-list", default="train21")
    parser.add_argument("--val-list", default="val21")
    parser.add_argument("--minutes", type=float, default=1.0, help="of each default training")
    parser.add_argument("--tests", type=int, default=40, help="test photos of each set")
    parser.add_argument("--only", nargs="*", help="names of sets")
    given = parser.parse_args()
    row = "{:12} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8}"
    print(row.format("set", "photos", "fit", "s", "trained", "s", "scratch"))
    with tempfile.TemporaryDirectory() as folder:
        for name in [*SETS, *(["camvid-60"] if given.camvid else [])]:
            if given.only and name not in given.only:
                continue
            data = Path(folder) / name
            if name in SETS:
                groups, count = SETS[name]
                train = pick(given.voc, list_of(given.voc, given.train_list), groups, count)
                test = pick(given.voc, list_of(given.voc, given.val_list), groups, given.tests)
                fifth = max(1, len(train) // 5)
                parts = {"val": train[:fifth], "train": train[fifth:], "test": test}
                write_voc(given.voc, data, groups, parts)
            else:
                count = 60
                write_camvid(given.camvid, data, count, given.tests)
            runs = Path(folder) / f"{name}-runs"
            fit, fit_s = learn(data, runs / "fit", "--time", "0")
            minutes = f"{60 * given.minutes:.0f}s"
            trained, trained_s = learn(data, runs / "default", "--time", minutes)
            scratch, _ = learn(
                data, runs / "scratch", "--init", "none", "--steps", "20", "--batch", "4",
                "-s", "data.crop_size=[257,257]", "-s", "run.validate_frame=true",
            )  # fmt: skip
            numbers = [f"{fit:.3f}", f"{fit_s:.0f}", f"{trained:.3f}", f"{trained_s:.0f}"]
            print(row.format(name, count, *numbers, f"{scratch:.3f}"), flush=True)


if __name__ == "__main__":
    main()
