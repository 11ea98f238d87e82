"""``deeplab serve`` under load from a second process: good, huge, broken and slow requests, mixed.

    python benchmarks/serve.py [--seconds 120] [--connections 50] [--model voc]

The server runs with small limits, so that everything is reached often. Every answer is looked at:
a mask must be the one that ``Segmenter`` gives, pixel for pixel, and what is wrong with a request
must be answered with its status. Meanwhile the server's memory is read from /proc. In the end the
server is told to stop. Prints a table by kind of request, and what went wrong; exit code 1 where
anything did.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

import deeplab
from deeplab.benchmark.machine import machine
from deeplab.zoo import locate
from deeplab.zoo.example_photos import list_example_photos

MAX_MEGABYTES, MAX_MEGAPIXELS, TRANSFER_SECONDS = 4, 13, 2
LIMITS = [
    "--max-megabytes", str(MAX_MEGABYTES), "--max-megapixels", str(MAX_MEGAPIXELS),
    "--transfer-timeout", str(TRANSFER_SECONDS), "--timeout", "120", "--no-access-log",
]  # fmt: skip

MOST_GROWTH_MB = 25
"""From the rest in the middle to that in the end; more is taken for a leak. Under load, memory
tells which photos are at work; at rest, what is kept, and half of the time warms everything up."""

MOST_KEPT_MS = 20.0
"""It is below 1 where nothing else runs; where a system waits for more to send, it is 40."""

GIVE_BACK = {"MALLOC_TRIM_THRESHOLD_": "1000000"}
"""Makes glibc give freed memory back to the system, of which it otherwise keeps up to 64 MB."""

NOTE = "deeplab: note: "
"""How lines begin that tell of nothing wrong: that the browser page is not built."""

Check = Callable[[bytes], bool]


@dataclass(frozen=True)
class Case:
    """A request, and what must come back."""

    kind: str
    status: int
    path: str = "/v1/segment"
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    check: Check = lambda content: True
    manner: str = "plain"  # or chunked, slow, leaving


@dataclass
class Tally:
    """What came back, from all connections."""

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    faults: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, case: Case, status: int, content: bytes, milliseconds: float) -> None:
        fault = ""
        is_late = status == 408 and milliseconds > 1000 * TRANSFER_SECONDS  # a busy machine
        if status != case.status and not is_late:
            fault = f"{case.kind}: got {status}, expected {case.status}: {content[:200]!r}"
        elif not is_late and not case.check(content):
            fault = f"{case.kind}: a wrong answer"
        with self.lock:
            self.milliseconds[case.kind].append(milliseconds)
            self.statuses[case.kind][status] += 1
            if fault:
                self.faults[fault] += 1


# --- what is asked ----------------------------------------------------------------------------


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def is_mask(expected: np.ndarray) -> Check:
    return lambda content: np.array_equal(np.asarray(Image.open(io.BytesIO(content))), expected)


def is_run_lengths(expected: np.ndarray) -> Check:
    def check(content: bytes) -> bool:
        mask = np.full(expected.size, 255, np.uint8)
        for found in json.loads(content)["classes"]:
            counts = found["segmentation"]["counts"]
            inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
            mask[: inside.size][inside] = found["id"]
        return np.array_equal(mask.reshape(expected.shape[::-1]).T, expected)

    return check


def is_boxes(expected: np.ndarray) -> Check:
    def check(content: bytes) -> bool:
        found = json.loads(content)["objects"]
        return sum(one["area"] for one in found) == (expected != 0).sum()

    return check


def is_picture(size: tuple[int, int]) -> Check:
    return lambda content: Image.open(io.BytesIO(content)).size == size


def make_cases(segmenter: deeplab.Segmenter) -> list[tuple[int, Case]]:
    """Return requests, each with how often it is made."""
    cases = []
    photos = {path.stem: path.read_bytes() for path in list_example_photos()}
    with Image.open(io.BytesIO(photos["cat"])) as cat:
        photos["12 MP"] = encode(cat.resize((4000, 3000)), "JPEG", quality=85)
    for name, data in photos.items():
        mask = segmenter(data).mask
        size = mask.shape[::-1]
        often = 1 if name == "12 MP" else 5
        kind = "12 MP " if name == "12 MP" else ""
        cases += [
            (2 * often, Case(f"{kind}mask", 200, "/v1/segment?output=mask", data,
                             check=is_mask(mask))),
            (often, Case(f"{kind}json", 200, "/v1/segment", data, check=is_run_lengths(mask))),
            (often, Case(f"{kind}overlay", 200, "/v1/segment?output=overlay", data,
                         check=is_picture(size))),
        ]  # fmt: skip
    form = b'--a\r\nContent-Disposition: form-data; name="p"; filename="p"\r\n\r\n'
    form += photos["cat"] + b"\r\n--a--\r\n"
    form_type = (("Content-Type", "multipart/form-data; boundary=a"),)
    fields = b'--a\r\nContent-Disposition: form-data; name="output"\r\n\r\nmask\r\n' + form
    mask = segmenter(photos["cat"]).mask
    png = encode(Image.open(io.BytesIO(photos["cat"])), "PNG")
    huge = bytes(3_000_000 * MAX_MEGABYTES)
    wide = encode(Image.new("1", (5000, 1000 * MAX_MEGAPIXELS // 4)), "PNG")
    cases += [
        (4, Case("form", 200, "/v1/segment?output=mask", form, form_type, is_mask(mask))),
        (2, Case("form with fields", 200, "/v1/segment", fields, form_type, is_mask(mask))),
        (2, Case("boxes", 200, "/v1/segment?output=boxes", photos["cat"], check=is_boxes(mask))),
        (2, Case("too many bytes", 413, body=huge)),
        (2, Case("too many bytes, chunked", 413, body=huge, manner="chunked")),
        (3, Case("too many pixels", 413, body=wide)),
        (3, Case("no picture", 415, body=b"this is no picture" * 1000)),
        (2, Case("other type", 415, body=b"{}", headers=(("Content-Type", "application/json"),))),
        (3, Case("cut off", 422, body=photos["astronaut"][:20_000])),
        (3, Case("damaged", 422, body=png[:9000] + bytes(2000) + png[11000:])),
        (2, Case("empty", 422)),
        (2, Case("unknown model", 404, "/v1/segment?model=/etc/passwd", photos["cat"])),
        (2, Case("unknown parameter", 422, "/v1/segment?file=/etc/passwd", photos["cat"])),
        (2, Case("unknown class", 422, "/v1/segment?only=unicorn", photos["cat"])),
        (3, Case("slow", 408, body=photos["cat"], manner="slow")),
        (3, Case("leaving", 0, body=photos["cat"], manner="leaving")),
    ]
    return cases


# --- asking -----------------------------------------------------------------------------------


class Client:
    """One connection, opened again where the server closed it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=180)

    def ask(self, case: Case) -> tuple[int, bytes]:
        if case.manner in ("slow", "leaving"):
            return self._ask_badly(case)
        body: bytes | Iterator[bytes] = case.body
        headers = dict(case.headers)
        if case.manner == "chunked":
            body = (case.body[i : i + 65536] for i in range(0, len(case.body), 65536))
            headers["Transfer-Encoding"] = "chunked"
        try:
            self.connection.request(
                "POST", case.path, body, headers, encode_chunked=case.manner == "chunked"
            )
            response = self.connection.getresponse()
            return response.status, response.read()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # An idle connection that the server closed meanwhile; once more on a new one.
            if self.connection.sock is None:
                raise
            self.connection.close()
            return self.ask(case)

    def _ask_badly(self, case: Case) -> tuple[int, bytes]:
        head = f"POST {case.path} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Length: {len(case.body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=180) as connection:
            connection.sendall(head.encode() + case.body[:1000])
            if case.manner == "leaving":
                return 0, b""
            for i in range(int(TRANSFER_SECONDS / 0.2) - 2):
                time.sleep(0.2)
                connection.sendall(case.body[1000 + i : 1001 + i])
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status, response.read()


def keep_asking(
    port: int, cases: list[tuple[int, Case]], tally: Tally, seed: int, end: float
) -> None:
    generator = random.Random(seed)
    client = Client(port)
    first: list[Case] = [cases[seed % len(cases)][1]]  # so that everything is met in the warm-up
    weights = [often for often, _ in cases]
    while time.monotonic() < end:
        case = first.pop() if first else generator.choices(cases, weights)[0][1]
        start = time.perf_counter()
        try:
            status, content = client.ask(case)
        except (OSError, http.client.HTTPException) as error:
            client = Client(port)
            status, content = -1, repr(error).encode()
        tally.add(case, status, content, 1000 * (time.perf_counter() - start))
    client.connection.close()


# --- the server -------------------------------------------------------------------------------


def start_server(model: str) -> tuple[subprocess.Popen[str], int]:
    launch = "from deeplab.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", launch, "serve", "--model", model, "--port", "0", *LIMITS],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **GIVE_BACK},
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    if not line.startswith("http://"):
        sys.exit(line + process.stderr.read())
    return process, int(line.split("/")[2].rpartition(":")[2])


def resident_megabytes(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # over, or not on Linux
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def read_gauges(port: int) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines if "{" not in name}


def put_load(
    pid: int, port: int, cases: list[tuple[int, Case]], tally: Tally, seeds: range, seconds: float
) -> float:
    """Let one connection per seed ask for so long; return the most megabytes of the server."""
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=keep_asking, args=(port, cases, tally, seed, end)) for seed in seeds
    ]
    for thread in threads:
        thread.start()
    most = 0.0
    while any(thread.is_alive() for thread in threads):
        most = max(most, resident_megabytes(pid))
        time.sleep(0.1)
    return most


def measure_kept_connection(port: int, *, times: int = 200) -> float:
    """Return the median milliseconds of ``/healthz`` on a connection that is kept open."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    found = []
    for _ in range(times):
        start = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        found.append(1000 * (time.perf_counter() - start))
    connection.close()
    return statistics.median(found)


def count_open_files(pid: int) -> int:
    folder = Path(f"/proc/{pid}/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0  # none but on Linux


def rest(process: subprocess.Popen[str], port: int, open_files: int, tally: Tally) -> float:
    """Wait until the server is idle and holds nothing of the past; return its megabytes then."""
    end = time.monotonic() + 30
    while process.poll() is None and any(
        read_gauges(port)[f"deeplab_{name}"] for name in ("photos_pending", "uploads_held_bytes")
    ):
        if time.monotonic() > end:
            tally.faults["photos or uploads are left over"] += 1
            break
        time.sleep(0.1)
    while process.poll() is None and count_open_files(process.pid) > open_files:
        if time.monotonic() > end:
            tally.faults["files or connections are left open"] += 1
            break
        time.sleep(0.1)
    return resident_megabytes(process.pid)


def stop(process: subprocess.Popen[str], tally: Tally) -> None:
    """See that the server runs still, and that it stops when it is told to."""
    if process.poll() is not None:
        tally.faults[f"the server ended with {process.returncode}"] += 1
        return
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    told = "".join(line for line in told.splitlines(True) if not line.startswith(NOTE))
    if process.returncode or told:
        tally.faults[f"the server ended with {process.returncode} and said: {told[:2000]}"] += 1


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--model", default="voc")
    options = parser.parse_args()
    cases = make_cases(deeplab.Segmenter(locate(options.model), threads=1))
    tally = Tally()
    process, port = start_server(options.model)
    read_gauges(port)
    kept_ms = measure_kept_connection(port)
    open_files = count_open_files(process.pid)
    resting, most = [], 0.0
    try:
        for half in range(2):
            seeds = range(half * options.connections, (half + 1) * options.connections)
            half_seconds = options.seconds / 2
            most = max(most, put_load(process.pid, port, cases, tally, seeds, half_seconds))
            resting.append(rest(process, port, open_files, tally))
        stop(process, tally)
    finally:
        process.kill()

    if resting[1] > resting[0] + MOST_GROWTH_MB:
        tally.faults["memory grew from {:.0f} to {:.0f} MB".format(*resting)] += 1
    count = sum(map(len, tally.milliseconds.values()))
    print(f"{machine()}; {options.connections} connections, {options.seconds:g} s, one model")
    print("\n| request | count | status | p50 ms | p99 ms |\n|---|---|---|---|---|")
    for kind, ms in tally.milliseconds.items():
        status = ", ".join(map(str, sorted(tally.statuses[kind])))
        cells = f"{len(ms)} | {status} | {statistics.median(ms):.0f} | {percentile(ms, 0.99):.0f}"
        print(f"| {kind} | {cells} |")
    good = [ms for kind, all_ms in tally.milliseconds.items() for ms in all_ms
            if 200 in tally.statuses[kind]]  # fmt: skip
    print(f"\n{count} requests, {count / options.seconds:.1f} a second; good ones: "
          f"p50 {statistics.median(good):.0f} ms, p99 {percentile(good, 0.99):.0f} ms")  # fmt: skip
    print(
        f"memory at rest: {resting[0]:.0f} MB after half of the time, {resting[1]:.0f} MB in the "
        f"end; at most {most:.0f} MB"
    )
    print(f"/healthz on a connection that is kept open: median {kept_ms:.2f} ms")
    if kept_ms > MOST_KEPT_MS:
        tally.faults["an answer on a connection that is kept open waits"] += 1
    for fault, times in tally.faults.most_common():
        print(f"WRONG, {times}×: {fault}")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
