"""Photos over a local Ray cluster against the same command without it, on the same cores.

    python benchmarks/cluster.py [--photos 400] [--part speed|kill|nodes]

- speed: both as many workers as there are cores; the outputs are compared byte for byte. Speed is
  counted from the first result to the last, and for the whole command; Ray starts slowly.
- kill: a worker is killed with -9 in the middle; then a run is, and goes on. What is missing or
  differs is counted.
- nodes: two Ray nodes of one processor each, as two groups of processes on this machine.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples" / "photos"
OURS = {".deeplab-segment.json", "failed.jsonl"}
SAVE = "mask,overlay"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--part", choices=["speed", "kill", "nodes"], action="append")
    options = parser.parse_args()
    parts = options.part or ["speed", "kill", "nodes"]
    # As other commands are, so that both take the same share of a machine that is not at rest.
    os.environ["RAY_AUTH_MODE"] = "disabled"  # for nodes that only this machine reaches
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photos(folder / "photos", options.photos)
        alone = timed(segment(folder, "alone"), folder / "alone")
        print(f"segment:          {alone}")
        for part in parts:
            {"speed": measure_speed, "kill": measure_kills, "nodes": measure_nodes}[part](
                folder, alone
            )


class Timed:
    """Photos per second of a command: from its first result to its last, and of all of it."""

    def __init__(self, count: int, between: float, whole: float) -> None:
        self.steady, self.whole, self.seconds = (count - 1) / between, count / whole, whole

    def __str__(self) -> str:
        return (
            f"{self.steady:.1f} photos/s from the first to the last, {self.whole:.1f} for the "
            f"whole command ({self.seconds:.1f} s)"
        )


def make_photos(folder: Path, count: int) -> None:
    """Write parts of the example photos, none like another."""
    folder.mkdir()
    sources = [Image.open(path).convert("RGB") for path in sorted(EXAMPLES.glob("*.jpg"))]
    for index in range(count):
        photo = sources[index % len(sources)]
        left, top = index % 50, index % 37
        size = min(photo.width - left, 640), min(photo.height - top, 480)
        part = photo.crop((left, top, left + size[0], top + size[1]))
        part.save(folder / f"{index:05}.jpg", quality=90)


def segment(folder: Path, output: str, *more: str) -> list[str]:
    command = [sys.executable, "-m", "deeplab", "segment", str(folder / "photos"), "--save", SAVE]
    return [*command, "-o", str(folder / output), *more]


def timed(command: list[str], output: Path) -> Timed:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - start
    ends = sorted(path.stat().st_mtime for path in output.glob("*.overlay.jpg"))
    return Timed(len(ends), ends[-1] - ends[0], whole)


def compare(folder: Path, name: str) -> str:
    """Return in words how the files of a folder differ from those of one process."""
    expected, found = (
        {path.name: path.read_bytes() for path in (folder / one).iterdir() if path.name not in OURS}
        for one in ("alone", name)
    )
    missing = len(expected.keys() - found.keys())
    more = len(found.keys() - expected.keys())
    other = sum(found[file] != expected[file] for file in expected.keys() & found.keys())
    return f"{len(found)} files; missing {missing}, more {more}, other bytes {other}"


def measure_speed(folder: Path, alone: Timed) -> None:
    many = timed(segment(folder, "local", "--cluster", "local"), folder / "local")
    print(f"--cluster local:  {many}")
    print(f"efficiency:       {many.steady / alone.steady:.2f} from the first to the last result")
    print(f"against segment:  {compare(folder, 'local')}")


def measure_kills(folder: Path, alone: Timed) -> None:
    command = segment(folder, "kill", "--cluster", "local")
    run = start_until(command, folder / "kill")
    (victim, *_) = workers_of(run)
    victim.kill()
    run.wait()
    print(f"a worker killed:  exit {run.returncode}, {compare(folder, 'kill')}")

    command = segment(folder, "again", "--cluster", "local")
    run = start_until(command, folder / "again")
    started = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(started, timeout=30)  # Ray ends with its driver
    for process in alive:
        process.kill()
    there = len([*(folder / "again").glob("*.overlay.jpg")])
    code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    print(f"the run killed:   at {there} photos; again: exit {code}, {compare(folder, 'again')}")


def start_until(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    """Start a command and return when some of its results are there."""
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while len([*output.glob("*.overlay.jpg")]) < 50 and run.poll() is None:
        time.sleep(0.05)
    return run


def workers_of(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found = psutil.Process(run.pid).children(recursive=True)
    return [one for one in found if "_Worker" in " ".join(one.cmdline())]


def measure_nodes(folder: Path, alone: Timed) -> None:
    with socket.socket() as one, socket.socket() as two:
        for free in (one, two):
            free.bind(("127.0.0.1", 0))
        port, client = one.getsockname()[1], two.getsockname()[1]
    ray = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1"]
    head = [*ray, "--head", f"--port={port}", "--include-dashboard=false"]
    head += [f"--ray-client-server-port={client}"]
    other = [*ray, f"--address=127.0.0.1:{port}"]
    quiet: dict[str, int] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    nodes = []
    try:
        for one in (head, other):
            nodes.append(subprocess.Popen(one, **quiet))
            time.sleep(12)
        many = timed(segment(folder, "nodes", "--cluster", f"127.0.0.1:{port}"), folder / "nodes")
        print(f"two Ray nodes:    {many}")
        print(f"against segment:  {compare(folder, 'nodes')}")
    finally:
        for node in nodes:
            node.send_signal(signal.SIGTERM)
        for node in nodes:
            node.wait(60)


if __name__ == "__main__":
    main()
