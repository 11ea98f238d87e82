"""What is refused, how, and what is left when it ends."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from serving import Answer, Server, encode, serving

pytest.importorskip("fastapi")


HEAD = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


def wait_until(is_so: Callable[[], bool], *, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def pending(server: Server) -> float:
    return server.metric("deeplab_photos_pending")


def in_background(work: Callable[[], Answer]) -> Future[Answer]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


def detail(answer: Answer) -> str:
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status
    return problem["detail"]


@pytest.fixture(scope="module")
def large() -> bytes:
    """Return a photo that keeps a thread busy for a while."""
    return encode(Image.new("RGB", (5000, 3000), (90, 120, 200)))


@pytest.fixture
def narrow(model: Path, labels: Path) -> Iterator[Server]:
    """Yield a server that does one photo at a time, and lets one wait."""
    with serving("-m", model, "--labels", labels, "--concurrency", 1, "--queue", 1) as running:
        yield running


# --- bad requests -----------------------------------------------------------------------------


def test_uploads_that_are_too_large(server: Server, photo: bytes) -> None:
    for size in (1_000_001, 30_000_000):
        answer = server.post("/v1/segment", bytes(size))
        assert answer.status == 413
        assert "at most 1 MB" in detail(answer)
    pieces = (bytes(50_000) for _ in range(200))  # 10 MB whose length nobody tells beforehand
    answer = server.ask(
        "POST", "/v1/segment", pieces, {"Transfer-Encoding": "chunked"}, chunked=True
    )
    assert answer.status == 413
    assert server.metric("deeplab_uploads_held_bytes") == 0
    assert server.post("/v1/segment", photo).status == 200


def test_an_upload_without_end_is_cut_off(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        with contextlib.suppress(ConnectionError):
            while True:
                connection.sendall(piece)


def test_whoever_asks_before_sending_is_told(server: Server, photo: bytes) -> None:
    head = HEAD.replace(b"Host", b"Expect: 100-continue\r\nHost")
    with server.connect() as connection:
        connection.sendall(head % 5_000_000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
    with server.connect() as connection:
        connection.sendall(head % len(photo))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(photo)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_photos_with_too_many_pixels(server: Server) -> None:
    answer = server.post("/v1/segment", encode(Image.new("RGB", (1000, 501))))
    assert answer.status == 413
    assert "at most 0.5 megapixels" in detail(answer)
    # A picture that says that it is huge is refused by its header alone.
    bomb = bytearray(encode(Image.new("1", (8, 8)), "BMP"))
    bomb[18:26] = (60_000).to_bytes(4, "little") * 2
    answer = server.post("/v1/segment", bytes(bomb))
    assert answer.status == 413
    assert "at most 0.5 megapixels" in detail(answer)


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        (b"hello", "image/jpeg", 415, "photo: is not a picture in a format"),
        (b"{}", "application/json", 415, "Content-Type: got 'application/json'"),
        (b"http://127.0.0.1/a.jpg", "text/plain", 415, "Content-Type: got 'text/plain'"),
        (b"", "image/png", 422, "the photo is empty"),
        (b"x", "multipart/form-data", 422, "without its boundary"),
        (b"x", "multipart/form-data; boundary=a", 422, "the form"),
        (b"--a--\r\n", "multipart/form-data; boundary=a", 422, "the form"),
        (b"x", "multipart/form-data; boundary=" + "a" * 300, 422, "the form is broken"),
    ],
)
def test_bodies_that_are_no_photo(
    server: Server, body: bytes, kind: str, status: int, words: str
) -> None:
    answer = server.ask("POST", "/v1/segment", body, {"Content-Type": kind})
    assert answer.status == status
    assert words in detail(answer)


def test_damaged_photos(server: Server, photo: bytes) -> None:
    answer = server.post("/v1/segment", photo[: len(photo) // 2])
    assert answer.status == 422
    assert "damaged or cut off" in detail(answer)


def test_compressed_bodies(server: Server, photo: bytes) -> None:
    answer = server.ask("POST", "/v1/segment", photo, {"Content-Encoding": "gzip"})
    assert answer.status == 415
    assert "Content-Encoding: got 'gzip'" in detail(answer)


@pytest.mark.parametrize(
    ("query", "accept", "status", "words"),
    [
        ("model=tyni", "*/*", 404, "Did you mean 'tiny'?"),
        ("output=maks", "*/*", 422, "output: got 'maks', expected 'json', 'mask'"),
        ("otput=mask", "*/*", 422, "no parameter 'otput'. Did you mean 'output'?"),
        ("only=cta", "*/*", 422, "Did you mean 'cat'?"),
        ("output=mask", "image/jpeg", 406, "there is only image/png"),
        ("", "text/html", 406, "application/json or image/png or image/jpeg"),
        ("", "image/png;q=nonsense", 406, "nonsense"),
    ],
)
def test_wrong_parameters(
    server: Server, photo: bytes, query: str, accept: str, status: int, words: str
) -> None:
    answer = server.post(f"/v1/segment?{query}", photo, Accept=accept)
    assert answer.status == status
    assert words in detail(answer)


def test_wrong_addresses_and_methods(server: Server) -> None:
    assert "/docs" in detail(server.get("/v2/segment"))
    for method, path in (("GET", "/v1/segment"), ("POST", "/healthz"), ("DELETE", "/")):
        answer = server.ask(method, path)
        assert (answer.status, answer.headers["Content-Type"]) == (405, "application/problem+json")


def test_what_is_not_http(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")


# --- slow clients -----------------------------------------------------------------------------


def test_slow_uploads_end(server: Server, photo: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(HEAD % 100_000 + photo[:100])
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 408
        assert b"within 1.5 seconds" in response.read()
    assert server.metric("deeplab_uploads_held_bytes") == 0


def test_slow_heads_end(server: Server) -> None:
    for beginning in (b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"):
        with server.connect() as connection:
            connection.sendall(beginning)
            start = time.monotonic()
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1000) == b""
            assert time.monotonic() - start > 1


def test_a_second_request_on_a_connection(server: Server, photo: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for body, status in ((photo, 200), (b"no photo", 415), (photo, 200)):
        connection.request("POST", "/v1/segment", body)
        response = connection.getresponse()
        response.read()
        assert response.status == status
        time.sleep(1)  # together more than a head may take
    connection.close()


def test_answers_that_nobody_takes_are_dropped(model: Path, labels: Path, tmp_path: Path) -> None:
    padded = tmp_path / "padded.tflite"
    padded.write_bytes(model.read_bytes() + bytes(50_000_000))
    with serving("-m", padded, "--labels", labels, "--transfer-timeout", 1) as server:
        with server.connect() as connection:
            connection.sendall(b"GET /models/padded.tflite HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(2)
            received = 0
            with contextlib.suppress(ConnectionResetError):
                while part := connection.recv(1 << 16):
                    received += len(part)
        assert received < 40_000_000
        assert len(server.get("/models/padded.tflite").body) > 50_000_000


def test_whoever_leaves_is_noted(server: Server, photo: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /v1/segment?left HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
        )
    with server.connect() as connection:
        connection.sendall(
            b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n"
            + photo[:10]
        )
    name = 'deeplab_requests_total{route="/v1/segment",method="POST",status="499"}'
    wait_until(lambda: name in server.get("/metrics").body.decode())
    wait_until(lambda: server.metric("deeplab_uploads_held_bytes") == 0)


# --- too much to do ---------------------------------------------------------------------------


def test_a_full_queue_refuses(narrow: Server, large: bytes, photo: bytes) -> None:
    working = in_background(lambda: narrow.post("/v1/segment?output=cutout", large))
    wait_until(lambda: pending(narrow) == 1)
    waiting = in_background(lambda: narrow.post("/v1/segment?output=mask", photo))
    wait_until(lambda: pending(narrow) == 2)
    for body in (photo, bytes(10_000_000)):
        answer = narrow.post("/v1/segment", body)
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert "2 photos" in detail(answer)
    assert narrow.get("/healthz").status == 200  # everything else goes on
    assert working.result().status == waiting.result().status == 200


def test_what_is_no_picture_does_not_wait(narrow: Server, large: bytes, photo: bytes) -> None:
    working = in_background(lambda: narrow.post("/v1/segment?output=cutout", large))
    wait_until(lambda: pending(narrow) == 1)
    assert narrow.post("/v1/segment", b"no picture").status == 415
    assert narrow.post("/v1/segment?only=cta", photo).status == 422
    assert not working.done()
    assert working.result().status == 200


def test_whoever_leaves_gives_the_place_free(narrow: Server, large: bytes, photo: bytes) -> None:
    working = in_background(lambda: narrow.post("/v1/segment?output=cutout", large))
    wait_until(lambda: pending(narrow) == 1)
    with narrow.connect() as connection:
        connection.sendall(HEAD % len(photo) + photo)
        wait_until(lambda: pending(narrow) == 2)
    wait_until(lambda: pending(narrow) == 1)
    assert not working.done()
    assert working.result().status == 200


def test_the_time_for_a_photo_ends(model: Path, labels: Path, large: bytes, photo: bytes) -> None:
    with serving("-m", model, "--labels", labels, "--timeout", 0.2, "--concurrency", 1) as server:
        answer = server.post("/v1/segment?output=cutout", large)
        assert answer.status == 503
        assert "within 0.2 seconds" in detail(answer)
        assert answer.headers["Retry-After"]
        answer = server.post("/v1/segment", photo)  # the thread is still at work on the other
        assert answer.status == 503
        wait_until(lambda: pending(server) == 0)
        assert server.post("/v1/segment", photo).status == 200
        assert server.metric("deeplab_uploads_held_bytes") == 0


def test_uploads_together_are_limited(model: Path, labels: Path, photo: bytes) -> None:
    options = ("--max-megabytes", 0.1, "--transfer-timeout", 4)
    with (
        serving("-m", model, "--labels", labels, *options) as server,
        contextlib.ExitStack() as all_,
    ):
        head = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        open_ones = [all_.enter_context(server.connect()) for _ in range(17)]
        for number, connection in enumerate(open_ones[:16]):
            connection.sendall(head + bytes(99_900))
            wait_until(lambda n=number: server.metric("deeplab_uploads_held_bytes") > 99_899 * n)
        open_ones[16].sendall(head + bytes(99_900))
        assert open_ones[16].recv(1000).startswith(b"HTTP/1.1 503 ")
        for connection in open_ones:
            connection.close()
        wait_until(lambda: server.metric("deeplab_uploads_held_bytes") == 0)
        assert server.post("/v1/segment", photo).status == 200


# --- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_finished_before_the_end(
    narrow: Server, large: bytes, photo: bytes, number: int
) -> None:
    working = in_background(lambda: narrow.post("/v1/segment?output=cutout", large))
    wait_until(lambda: pending(narrow) == 1)
    waiting = in_background(lambda: narrow.post("/v1/segment?output=mask", photo))
    wait_until(lambda: pending(narrow) == 2)
    narrow.process.send_signal(number)
    assert working.result().status == waiting.result().status == 200
    assert narrow.process.wait(timeout=30) == 0
    with pytest.raises(ConnectionRefusedError):
        narrow.connect()
    assert "Traceback" not in "".join(narrow.log)


def files_below(folder: Path) -> set[Path]:
    return {*folder.rglob("*")}


def test_killed_in_the_middle_it_leaves_nothing(
    model: Path, labels: Path, large: bytes, tmp_path: Path
) -> None:
    folders = {
        name: tmp_path / name for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME", "DEEPLAB_HOME")
    }
    for folder in folders.values():
        folder.mkdir()
    environment = {name: str(folder) for name, folder in folders.items()}
    work = tmp_path / "work"
    work.mkdir()
    with serving("-m", model, "--labels", labels, environment=environment, cwd=work) as server:
        # By now it has noted that it knows the model, which is of no photo.
        before = files_below(tmp_path), files_below(model.parent)
        form = b'--a\r\nContent-Disposition: form-data; name="p"; filename="p"\r\n\r\n' + large
        kind = {"Content-Type": "multipart/form-data; boundary=a"}
        asked = [
            in_background(lambda: server.post("/v1/segment?output=cutout", large)),
            in_background(lambda: server.ask("POST", "/v1/segment", form + b"\r\n--a--", kind)),
        ]
        wait_until(lambda: pending(server) == 2)
        with server.connect() as connection:
            connection.sendall(HEAD % 9_999_999 + bytes(5_000_000))
            descriptors = Path(f"/proc/{server.process.pid}/fd")
            opened = (
                [os.readlink(one) for one in descriptors.iterdir()] if descriptors.exists() else []
            )
            server.process.kill()
            server.process.wait()
        for one in asked:
            assert isinstance(one.exception(), (OSError, http.client.HTTPException))
    assert (files_below(tmp_path), files_below(model.parent)) == before
    assert not [name for name in opened if "deleted" in name or str(tmp_path) in name]


def test_many_threads_ask_for_the_page_and_the_api(server: Server, photo: bytes) -> None:
    faults: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(5):
                assert server.post("/v1/segment?output=mask", photo).status == 200
                assert server.get("/v1/models").status == 200
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
