"""``deeplab serve`` as a process of its own, and a plain HTTP client."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = ("ground", "cat", "dog", "tree")

ROOT = Path(__file__).parents[2]
LAUNCH = "from deeplab.cli import main; main()"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A running ``deeplab serve``."""

    process: subprocess.Popen[str]
    port: int
    log: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}), encode_chunked=chunked)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask("POST", path, body, headers)

    def stop(self) -> None:
        """Tell it to end, and wait until it has."""
        self.process.terminate()
        assert self.process.wait(timeout=60) == 0

    def wait_for_log(self, words: str) -> list[str]:
        """Return the lines of the log with these words in them, once there are any."""
        end = time.monotonic() + 30
        while not (found := [line for line in self.log if words in line]):
            assert time.monotonic() < end, self.log
            time.sleep(0.01)
        return found

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def metric(self, name: str) -> float:
        lines = self.get("/metrics").body.decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[-1])


@contextmanager
def serving(
    *options: object,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    python: Path | str = sys.executable,
) -> Iterator[Server]:
    """Run ``deeplab serve`` on a free port until the block ends."""
    process = subprocess.Popen(
        [python, "-W", "error", "-c", LAUNCH, "serve", "--port", "0", *map(str, options)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        cwd=cwd,
    )
    assert process.stderr is not None
    with process, process.stderr as told:
        try:
            notes, first = [], told.readline()
            while first.startswith("deeplab: note:"):  # what the model's file leaves open
                notes.append(first)
                first = told.readline()
            assert first.startswith("http://127.0.0.1:"), first + told.read()
            port = int(first.split("/")[2].split(":")[1])
            server = Server(process, port, log=[first], notes=notes)
            reader = threading.Thread(target=lambda: [server.log.append(line) for line in told])
            reader.start()
            yield server
        finally:
            process.kill()
        reader.join()


def encode(picture: Image.Image, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    picture.save(content, kind)
    return content.getvalue()


def draw_photo(height: int, width: int, *, seed: int = 5) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def form(*parts: tuple[str, str, bytes]) -> tuple[bytes, str]:
    """Return a form with parts of (name, further disposition, content), and its type."""
    lines = []
    for name, more, content in parts:
        head = f'--frontier\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
        lines.append(head.encode() + content + b"\r\n")
    return b"".join(lines) + b"--frontier--\r\n", "multipart/form-data; boundary=frontier"
