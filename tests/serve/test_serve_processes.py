"""Several processes at one address, and an end in which no client is cut off."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from serving import LAUNCH, Server, draw_photo, encode, serving

pytest.importorskip("fastapi")

LINUX = Path("/proc/self/stat").exists()


def children(server: Server) -> set[int]:
    found = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return {
        int(pid)
        for pid in found.split()
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    }


@pytest.mark.integration
@pytest.mark.skipif(not LINUX, reason="looks at processes in /proc")
def test_several_processes_count_and_limit_as_one(model: Path, labels: Path, photo: bytes) -> None:
    with serving("-m", model, "--labels", labels, "--workers", 2, "--rate", 20) as server:
        first = children(server)
        assert len(first) == 2
        # A connection each, so that both processes have some of them.
        statuses = Counter(server.post("/v1/segment", photo).status for _ in range(25))
        assert statuses[200] in (20, 21)
        assert statuses[429] == 25 - statuses[200]
        wait_for_metric(server, 'deeplab_photos_total{model="tiny"}', statuses[200])
        # One that is killed is replaced, and what it counted is not lost.
        time.sleep(1)
        os.kill(min(first), signal.SIGKILL)
        server.wait_for_log("another starts")
        end = time.monotonic() + 60
        while len(children(server)) < 2 or children(server) == first:
            assert time.monotonic() < end
            time.sleep(0.05)
        wait_for_metric(server, 'deeplab_photos_total{model="tiny"}', statuses[200])
        assert server.get("/v1/models").status == 200
        assert "Traceback" not in "".join(server.log)
        # All end with the one that started them.
        left = children(server)
        server.process.kill()
        server.process.wait()
        while any(Path(f"/proc/{pid}/cmdline").exists() for pid in left):
            assert time.monotonic() < end
            time.sleep(0.05)


def wait_for_metric(server: Server, name: str, value: float) -> None:
    end = time.monotonic() + 60
    while server.metric(name) != value:
        assert time.monotonic() < end, (server.metric(name), value)
        time.sleep(0.05)


@pytest.mark.integration
def test_what_cannot_start_is_told_once(tmp_path: Path, model: Path) -> None:
    command = [sys.executable, "-c", LAUNCH, "serve", "--port", "0", "--workers", "2", "-m", model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2  # nobody says what its classes are called
    (line,) = [one for one in done.stderr.splitlines() if "note:" not in one]
    assert "the model does not say what its 4 classes are called" in line


# --- the end ----------------------------------------------------------------------------------


def ask_until_the_end(port: int, photo: bytes, told: Counter[str], *, keep: bool) -> None:
    """Ask again and again; note how it ended."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while True:
        try:
            connection.request("POST", "/v1/segment?output=mask", photo)
            response = connection.getresponse()
            response.read()
            told[str(response.status)] += 1
        except ConnectionRefusedError:
            told["refused"] += 1  # a new connection, and nobody listens: in order
            return
        except TimeoutError:
            told["timeout"] += 1
            return
        except (OSError, http.client.HTTPException) as error:
            told[type(error).__name__] += 1
            return
        if not keep or response.will_close:
            connection.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_no_client_sees_a_reset_when_it_ends(model: Path, labels: Path, workers: int) -> None:
    photo = encode(draw_photo(300, 400))
    options = ("-m", model, "--labels", labels, "--workers", workers, "--no-access-log")
    told: Counter[str] = Counter()
    with serving(*options) as server:
        threads = [
            threading.Thread(
                target=ask_until_the_end,
                args=(server.port, photo, told),
                kwargs={"keep": number % 2 == 0},
            )
            for number in range(16)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1)
        server.stop()
        for thread in threads:
            thread.join()
    assert set(told) == {"200", "refused"}, told
    assert told["refused"] == 16
    assert told["200"] > 16


def test_readiness_ends_before_the_rest(model: Path, labels: Path, photo: bytes) -> None:
    with serving("-m", model, "--labels", labels, "--drain", 1.5) as server:
        assert server.get("/readyz").status == 200
        server.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        while (answer := server.get("/readyz")).status == 200:
            time.sleep(0.01)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert answer.headers["Content-Type"] == "application/problem+json"
        # New connections are taken still, and told to end.
        answer = server.post("/v1/segment", photo)
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert server.get("/livez").status == 200
        assert server.process.wait(timeout=60) == 0
        assert time.monotonic() - start > 1.4


def test_a_silent_connection_is_closed_in_order(model: Path, labels: Path) -> None:
    with serving("-m", model, "--labels", labels) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert (answer.status, bool(answer.read())) == (200, True)
            server.process.terminate()
            assert connection.recv(2000) == b""  # an end, not a reset
        assert server.process.wait(timeout=60) == 0
