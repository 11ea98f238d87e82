"""Kills commands at random moments and looks at what they leave: whole files or none.

    python tests/fuzz/kills.py --count 20 --seed 1 segment convert import export optimize pull

Each command runs once undisturbed; what it writes then is what there may be. Then it is killed, in
turn with SIGKILL, SIGTERM, SIGINT (Ctrl-C) and SIGTERM to its whole group, at a moment between its
start and its end. Of what lies in its folder then, every file that is not hidden must be one of the
undisturbed run, to the byte; hidden ones must have the name of a file in the making. Nobody who
presses Ctrl-C reads a traceback. Then it runs again, and must end as if nothing had been.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from deeplab import zoo
from deeplab.files import is_partial

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"
SIGNALS = ("KILL", "TERM", "INT", "GROUP")
_TIMES = ("latency", "ms", "time", "date", "seconds")
"""In JSON, what has one of these in its name differs from run to run."""


class Command:
    """A command line that writes into the folder ``out`` of its working directory.

    Args:
        name: for the report.
        arguments: of ``deeplab``.
        code: run in place of it, in Python.
        once: it refuses to do again what is done.
    """

    def __init__(self, name: str, *arguments: object, code: str = "", once: bool = False) -> None:
        self.name, self.once = name, once
        start = ["-c", code] if code else ["-m", "deeplab"]
        self.line = [sys.executable, *start, *map(str, arguments)]

    def start(self, folder: Path) -> subprocess.Popen[str]:
        """Run it in a group of its own."""
        environment = {**os.environ, "DEEPLAB_HOME": str(folder / "out"), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            self.line, cwd=folder, env=environment, start_new_session=True, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def finish(self, folder: Path) -> None:
        """Run it to its end, which must be a good one."""
        _, err = (process := self.start(folder)).communicate(timeout=600)
        if process.returncode:
            raise SystemExit(f"{self.name} does not run at all: {err}")


def describe(folder: Path) -> dict[str, str]:
    """Return what every file is, by name; of JSON, but for its times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".json":
                data = json.dumps(_without_times(json.loads(data)), sort_keys=True).encode()
            found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {
            key: _without_times(inner)
            for key, inner in value.items()
            if not any(word in key for word in _TIMES)
        }
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def kill(process: subprocess.Popen[str], how: str) -> str:
    """End it, and return what it wrote to stderr."""
    if how == "GROUP":
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(getattr(signal, f"SIG{how}"))
    _, err = process.communicate(timeout=60)
    return err


def check(command: Command, expected: dict[str, str], seconds: float, how: str, rng: random.Random):
    """Kill it once; return what is wrong, and whether it was still at work."""
    faults = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "out").mkdir()
        process = command.start(folder)
        time.sleep(rng.uniform(0.05, 1.0) * seconds)
        at_work = process.poll() is None
        err = kill(process, how)
        if how == "INT" and "Traceback" in err and "deeplab/" in err:
            faults.append(f"traceback after Ctrl-C: {err.strip().splitlines()[-1]}")
        out = folder / "out"
        for path in [*out.iterdir()]:
            if path.name.startswith("."):
                if not is_partial(path.name):
                    faults.append(f"left {path.name}")
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        faults += [
            f"{file} is not whole"
            for file, digest in describe(out).items()
            if expected.get(file) != digest
        ]
        if command.once and describe(out) == expected:
            return faults, at_work  # it had ended; that it refuses to do all again is right
        try:
            command.finish(folder)
        except SystemExit as error:
            faults.append(f"the second run: {error}")
        else:
            hidden = [path.name for path in out.iterdir() if path.name.startswith(".")]
            if describe(out) != expected or hidden:
                faults.append(f"the second run left {sorted({*describe(out), *hidden})}")
    return faults, at_work


class _Slow(BaseHTTPRequestHandler):
    content = random.Random(0).randbytes(2_000_000)

    def do_GET(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        part = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        try:
            for at in range(0, len(part), 50_000):
                self.wfile.write(part[at : at + 50_000])
                time.sleep(0.04)
        except OSError:  # whoever asked was killed
            pass

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[str]:
    """Give the address of a file that takes two seconds."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Slow) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/net.tflite"
        server.shutdown()


def commands(folder: Path, address: str) -> dict[str, Command]:
    """Return what can be killed, by name."""
    sys.path[:0] = [str(ROOT / "tests" / "export"), str(ROOT / "tests")]
    from tiny_exports import WRITERS, draw_scenes

    pull = (
        "import dataclasses, sys\n"
        "try: from deeplab import zoo\n"
        "except KeyboardInterrupt: sys.exit(130)\n"  # what the command's own start does
        f"one = dataclasses.replace(zoo.MODELS[2], name='slow', address='{address}', "
        f"sha256='{hashlib.sha256(_Slow.content).hexdigest()}', size={len(_Slow.content)}, "
        "file_name='net.tflite')\n"
        "zoo.MODELS = (one,)\n"
        "sys.argv[1:] = ['models', 'pull', 'slow']\n"
        "from deeplab.__main__ import main\n"
        "main()"
    )
    network = zoo.locate("voc-fast")
    source = WRITERS["coco"](folder / "export", draw_scenes(1, 12))
    found = {
        "segment": Command(
            "segment", "segment", PHOTOS, "-o", "out", "-m", "voc-fast", "--overwrite",
            "--save", "overlay,mask,cutout,json",
        ),
        "import": Command("import", "import", network, "-o", "out/net", "--overwrite"),
        "optimize": Command("optimize", "optimize", network, "-o", "out/n.tflite", "--overwrite"),
        "pull": Command("pull", code=pull),
        "convert": Command("convert", "data", "convert", source, "-o", "out/set", once=True),
    }  # fmt: skip
    try:
        from pairs import write_pair
    except ImportError:  # no torch
        return found
    pair = write_pair(folder)
    line = ("export", pair, "--to", "onnx", "-o", "out/net.onnx", "--overwrite", "--allow")
    return {**found, "export": Command("export", *line)}


def main() -> int:
    """Kill the commands that are named, and return 1 where one left something half done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", default=["segment", "convert", "import", "optimize", "pull"]
    )
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, wrong = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name, serve() as address:
        known = commands(Path(name), address)
        for one in options.names:
            command = known[one]
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "out").mkdir()
                start = time.monotonic()
                command.finish(Path(folder))
                seconds = time.monotonic() - start
                expected = describe(Path(folder) / "out")
            hit: Counter[str] = Counter()
            for number in range(options.count):
                how = SIGNALS[number % len(SIGNALS)]
                faults, at_work = check(command, expected, seconds, how, rng)
                hit[how] += at_work
                wrong += bool(faults)
                for fault in faults:
                    print(f"{one}, kill {number} ({how}): {fault}", flush=True)
            told = ", ".join(f"{how} {count}" for how, count in hit.items())
            print(
                f"{one}: {options.count} kills, {hit.total()} of them at work ({told}); "
                f"{len(expected)} files, {seconds:.1f} s undisturbed",
                flush=True,
            )
    print("all whole" if not wrong else f"{wrong} kills left something")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
