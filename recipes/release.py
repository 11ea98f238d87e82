"""Make a model that ships, from its recipe to its file.

    python recipes/release.py voc-fast --data VOC --judge COCO_VOC

Trains (interrupted, run it again: it resumes), prefers weak classes where `--judge` names pictures
to find them on, exports int8 with a certificate, and writes the file's hash under the log. The
starting weights are downloaded unless they are on this machine. The file, its certificate, the log
and the history lie in runs/NAME.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deeplab import zoo
from deeplab.data import open_dataset
from deeplab.files import hash_file
from deeplab.training.settings import read_recipe
from deeplab.training.weak_classes import prefer_weak_classes

STARTS = {
    "voc": "deeplabv3-mobilenetv2-513-int8",
    "voc-fast": "deeplabv3-mobilenetv2-dm05-513-int8",
}
RECIPES = Path(__file__).parent
CALIBRATION_PHOTOS = 60


def main() -> None:
    """Run the steps, each of which stops the rest where it fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=STARTS)
    parser.add_argument("--data", type=Path, required=True, help="VOC 2012, or part of it")
    parser.add_argument(
        "--judge", type=Path, help="data set of the same classes, not learned from, on whose "
        "training split is found which classes are weak; these are then preferred",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where to work (default: runs/NAME)")
    options = parser.parse_args()
    name, data = options.name, options.data
    folder = options.folder or Path("runs") / name
    start = zoo.locate(STARTS[name], weights=True)

    recipe = RECIPES / f"{name}.toml"
    settings = read_recipe(recipe)
    _deeplab("train", recipe, "--data", data, "--init", start, "--folder", folder)
    if options.judge is not None:
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            prefer_weak_classes(
                folder / f"{name}.json",
                open_dataset(options.judge, split="train"),
                open_dataset(data, split=settings.data.val),
                spare=settings.run.validate_classes,
                tell=lambda text: print(text, file=log),
            )
    file = folder / f"{name}.tflite"
    with tempfile.TemporaryDirectory() as photos:
        for photo in choose_photos(data, settings.data.train):
            shutil.copy(photo, photos)
        _deeplab(
            "export", folder / f"{name}.json", "--to", "tflite", "--precision", "int8",
            "--calibrate", photos, "--data", data, "-o", file, "--overwrite",
        )  # fmt: skip
    now = datetime.datetime.now().isoformat(" ", "seconds")
    line = f"{now} exported {file.name}: {file.stat().st_size} bytes, SHA-256 {hash_file(file)}"
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        print(line, file=log)
    print(line)


def choose_photos(data: Path, split: str) -> list[Path]:
    """Return photos of the split that was learned from, evenly spread, to find ranges on."""
    photos = list(open_dataset(data, split=split).images)
    step = max(1, len(photos) // CALIBRATION_PHOTOS)
    return photos[::step][:CALIBRATION_PHOTOS]


def _deeplab(*arguments: object) -> None:
    command = [sys.executable, "-m", "deeplab", *map(str, arguments)]
    if subprocess.run(command).returncode:
        raise SystemExit(f"stopped: {' '.join(command)}")


if __name__ == "__main__":
    main()
