"""Command lines with wrong values everywhere: one line and exit 2, never a traceback.

    python tests/fuzz/command_lines.py --count 2000 --seed 1

A line is a command with a value in every place, right ones and wrong ones: folders for files, names
that are too long, files of every kind with the wrong content, numbers beyond reason.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from deeplab import cli

ROOT = Path(__file__).parents[2]
PHOTO = str(ROOT / "examples" / "photos" / "cat.jpg")

COMMANDS: dict[str, Sequence[str]] = {
    "segment": ("{photo}", "-m {model}", "-o {out}", "--labels {text}", "--memory {number}",
                "--only {word}", "--save {word}", "--threads {number}", "--workers {number}",
                "--fit {word}", "--runtime {word}", "--json", "--overwrite"),
    "info": ("{model}", "--size {number}", "--output-stride {number}"),
    "import": ("{model}", "-o {out}", "--labels {text}", "--size {number}", "--overwrite"),
    "export": ("{pair}", "--to {word}", "-o {out}", "--size {number}", "--calibrate {photo}",
               "--photos {photo}", "--data {data}", "--threads {number}"),
    "optimize": ("{model}", "-o {out}", "--photo {photo}"),
    "evaluate": ("{model}", "{data}", "--split {word}", "--scales {number}", "--tile {number}",
                 "--report {out}"),
    "train": ("{recipe}", "--data {data}", "--init {model}", "--steps {number}",
              "-s {setting}", "--folder {out}"),
    "data check": ("{data}", "--split {word}", "--json {out}", "--page {out}"),
    "data convert": ("{export}", "-o {out}", "--images {data}", "--split {word}"),
    "models show": ("{word}",), "models path": ("{word}",), "models verify": ("{word}",),
    "benchmark": ("{model} --max-secs 1", "--photos {photo}", "--threads {number}",
                  "--num-runs {number}", "--min-secs {number}", "-o {out}"),
}  # fmt: skip


def make_values(folder: Path) -> dict[str, list[str]]:
    """Write files of every kind that is wrong, and return what may stand in each place."""
    deep = {"deep.json": "[" * 20_000, "deep.toml": "a = " + "[" * 20_000,
            "deeper.json": '{"a":' * 20_000, "dict.json": "{}", "list.json": "[]",
            "null.json": "null", "text.json": '"a"', "empty.toml": "", "wrong.toml": "[[",
            "types.toml": "name = 3\n[run]\nsteps = 'a'\n[model]\nversion = []\n",
            "coco.json": '{"images": [], "annotations": [], "categories": []}',
            "coco-odd.json": '{"images": [{}], "annotations": [3], "categories": {"a": 1}}',
            "odd.xml": "<annotations><image/></annotations>", "bomb.xml": "<a>" * 20_000,
            "labels.txt": "cat\n\n\x1b[2Jdog\n", "empty.txt": ""}  # fmt: skip
    for name, text in deep.items():
        (folder / name).write_text(text, "utf-8")
    (folder / "latin.txt").write_bytes("Kätzchen\n".encode("latin-1"))
    rng = random.Random(0)
    for suffix in ("tflite", "onnx", "xml", "pth", "pb", "safetensors", "tar.gz", "png", "jpg"):
        (folder / f"random.{suffix}").write_bytes(rng.randbytes(3000))
        (folder / f"empty.{suffix}").touch()
        (folder / f"folder.{suffix}").mkdir()
    for part in ("images", "masks"):
        (folder / "set" / part).mkdir(parents=True)
        (folder / "set" / part / "a.png").write_bytes(rng.randbytes(100))
    (folder / "set" / "dataset.toml").write_text("labels = 3\n")
    (folder / "blank").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "locked.txt").touch(mode=0)
    files = [str(path) for path in sorted(folder.iterdir())]
    paths = [
        *files, "", ".", "/dev/null", "/no/such/place", "~", "n" * 256, "n" * 250 + ".png", "[",
        "a/" * 2100 + "b", "\udcff.png", "[red]x[/]", "\x1b[2J", "a\nb", "-", "C:\\x", "*", "**",
        str(folder / "empty.png" / "x"),
    ]  # fmt: skip
    out = [str(folder / "out" / str(n)) for n in range(5)]
    return {
        "photo": [PHOTO, *paths], "model": ["voc-fast", *paths], "pair": paths, "data": paths,
        "text": ["voc", *paths], "recipe": paths, "export": paths, "out": [*out, *paths],
        "word": ["cat", "val", "overlay", "litert", "", ",", "a,b", "n" * 300, "\x1b[2J", "[/]",
                 "é", "..", "a/b", "../x", "tflite", "web", "\udcff", "voc", "none"],
        "number": ["1", "2", "65", "0", "-1", "nan", "inf", "1e400", "9" * 30, "9" * 5000, "1.5",
                   "", "a", "2GB", "1,2", "1,,2", "129x97", "0x0", "٣", "1e9x1"],
        "setting": ["run.steps=1", "run.steps=nan", "run=1", "=", "a.b.c=1", "model.version=[]",
                    "data.path=3", "run.steps=" + "[" * 5000, "\x1b=1", "optimiser.name={}"],
    }  # fmt: skip


def draw(rng: random.Random, values: dict[str, list[str]]) -> list[str]:
    """Return one command line."""
    name = rng.choice([*COMMANDS])
    line = name.split()
    for number, place in enumerate(COMMANDS[name]):
        if number and rng.random() > 0.3:
            continue
        for word in place.split():
            kind = word.strip("{}")
            known = values.get(kind)
            # Right values in half of the cases, so that the wrong ones further on are met.
            right = known and (rng.random() < 0.4)
            line.append(word if known is None else known[0] if right else rng.choice(known))
    return line


def run_one(line: list[str]) -> str:
    """Run one, and return what is wrong about how it ended."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run(line)
    except BaseException:  # whatever it is, nobody shall see it
        return "".join(traceback.format_exc().splitlines(keepends=True)[-5:])
    told = [text for text in err.getvalue().splitlines() if text.startswith("deeplab:")]
    if code not in (0, 1, 2, 130):
        return f"exit code {code}"
    if code == 2 and len(told) != 1:
        return f"{len(told)} lines: {err.getvalue()[:300]}"
    if "\x1b" in err.getvalue():
        return "an escape sequence"
    return ""


def main() -> int:
    """Run command lines; print each that ended wrongly, and return 1 where one did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    rng, faults, done = random.Random(options.seed), Counter[str](), Counter[str]()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = make_values(folder)
        here = folder / "here"
        here.mkdir()
        os.chdir(here)
        for _ in range(options.count):
            if time.monotonic() - start > options.seconds:
                break
            line = draw(rng, values)
            begun = time.monotonic()
            fault = run_one(line)
            if time.monotonic() - begun > 20:
                fault = fault or f"{time.monotonic() - begun:.0f} s"
            done[line[0]] += 1
            if fault:
                faults[fault] += 1
                if faults[fault] == 1:
                    shown = " ".join(repr(word)[:60] for word in line)
                    print(f"{shown}\n    {fault}", flush=True)
        os.chdir(ROOT)
    print(f"{done.total()} command lines ({dict(done)}), {faults.total()} ended wrongly")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
