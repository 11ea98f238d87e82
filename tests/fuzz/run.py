"""Change files, settings and command lines at random: right, or refused in one line; nothing else.

    python tests/fuzz/run.py [--seconds 120] [--kinds graphs,photos] [--seed 0]

Each kind runs in a process of its own that writes down which number it is at, so that what dies,
hangs or takes too much memory has a name: run it again with ``--kinds KIND --seed SEED --only
NUMBER``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

KINDS = ("graphs", "engines", "photos", "bands", "packed", "videos", "tiles", "weights", "imports",
         "states", "recipes", "lines", "addresses", "coco", "cvat", "label_studio", "labelme",
         "supervisely", "via", "yolo")  # fmt: skip
_ANNOTATIONS = KINDS[KINDS.index("coco") :]
_MEMORY = 6 << 30
"""Of one process, with torch in it: more is a file that takes what it should not."""
_PATIENCE = 120
"""Seconds for one try on a busy machine; more is a hang."""


def try_one(kind: str, seed: int, number: int, folder: Path) -> str:
    """Make one try and return how it ended; whatever else happens is raised."""
    chance = random.Random(f"{kind} {seed} {number}")
    if kind in _ANNOTATIONS:
        import annotations

        ends, wrong = annotations.run(kind, folder, seed=seed * 1_000_000 + number, count=1)
        if wrong:
            raise AssertionError(wrong[0])
        return next(iter(ends))
    if kind == "weights":
        import weights

        counts = weights.fuzz(folder, count=5, seed=seed * 1_000_000 + number)
        return max(counts, key=lambda end: counts[end])
    module = importlib.import_module(kind)
    end: str = module.run_one(chance, folder)
    return end


def work(kind: str, seed: int, only: int | None, end: float, diary: Path) -> None:
    """Make tries until the time is over, and keep a diary of them."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    counts: Counter[str] = Counter()
    number = only or 0
    while time.time() < end:
        diary.write_text(json.dumps({"at": number, "counts": counts}))
        signal.alarm(_PATIENCE)
        try:
            with tempfile.TemporaryDirectory() as folder:
                counts[try_one(kind, seed, number, Path(folder))] += 1
        except BaseException:
            words = traceback.format_exc()
            diary.write_text(json.dumps({"at": number, "counts": counts, "wrong": words}))
            os._exit(1)
        number += 1
        if only is not None:
            break
    signal.alarm(0)
    diary.write_text(json.dumps({"at": None, "counts": counts}))


def main() -> int:
    """Run the kinds one after the other, and tell what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="in all")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", type=int, help="this number alone")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    found = 0
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            diary = Path(folder) / "diary.json"
            end = time.time() + options.seconds / len(kinds)
            process = multiprocessing.get_context("spawn").Process(
                target=work, args=(kind, options.seed, options.only, end, diary)
            )
            process.start()
            process.join()
            told = json.loads(diary.read_text()) if diary.is_file() else {"at": 0, "counts": {}}
        counts = ", ".join(f"{count} {end}" for end, count in sorted(told["counts"].items()))
        print(f"{kind:>12}: {counts or 'nothing'}", flush=True)
        if process.exitcode:
            found += 1
            died = signal.Signals(-process.exitcode).name if process.exitcode < 0 else "see below"
            print(f"{kind:>12}: WRONG ({died}): --kinds {kind} --seed {options.seed} "
                  f"--only {told['at']}\n{told.get('wrong', '')}", flush=True)  # fmt: skip
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
