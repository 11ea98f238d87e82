"""Downloads go on where they broke off, end in words when too slow, and bring the right kind."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deeplab import zoo
from deeplab.errors import DownloadError
from deeplab.zoo import download

CONTENT = os.urandom(300_000)


class _Server(BaseHTTPRequestHandler):
    """Gives ``content`` by ranges; breaks off after ``patience`` bytes, ``breaks`` times."""

    content: bytes = CONTENT
    breaks = 0
    patience = 100_000
    slow = False
    asked: list[str]

    def do_GET(self) -> None:
        kind = type(self)
        wanted = self.headers.get("Range", "bytes=0-")
        kind.asked.append(wanted)
        start = int(wanted[len("bytes=") : -1])
        part = kind.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if kind.slow:
            for at in range(100):
                self.wfile.write(part[at : at + 1])
                self.wfile.flush()
                time.sleep(0.02)
        elif kind.breaks:
            kind.breaks -= 1
            self.wfile.write(part[: kind.patience])
        else:
            self.wfile.write(part)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[_Server], str]]:
    kind = type("Server", (_Server,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield kind, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEPLAB_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DEEPLAB_MODEL_PATH", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def entry(address: str, *, content: bytes | None = CONTENT, name: str = "net.tflite"):
    return zoo.ZooModel(
        name="a-model", address=f"{address}/{name}", licence="MIT", miou=0.5, protocol="none",
        sha256=hashlib.sha256(content).hexdigest() if content else "",
        size=len(content) if content else None,
    )  # fmt: skip


def test_a_transfer_that_breaks_off_goes_on(server, cache: Path) -> None:
    kind, address = server
    kind.breaks = 2
    assert zoo.pull(entry(address)).read_bytes() == CONTENT
    assert kind.asked == ["bytes=0-", "bytes=100000-", "bytes=200000-"]
    assert os.listdir(cache) == ["net.tflite"]


def test_what_came_is_kept_for_another_time(server, cache: Path) -> None:
    kind, address = server
    kind.breaks, kind.patience = 10, 0
    (cache).mkdir()
    download.unfinished(cache / "net.tflite").write_bytes(CONTENT[:1234])
    with pytest.raises(DownloadError, match=r"broke off.* To put the file there by hand"):
        zoo.pull(entry(address))
    kind.breaks = 0
    assert zoo.pull(entry(address)).read_bytes() == CONTENT
    assert kind.asked[-1] == "bytes=1234-"
    assert os.listdir(cache) == ["net.tflite"]


def test_what_came_of_another_file_is_thrown_away(server, cache: Path) -> None:
    kind, address = server
    cache.mkdir()
    download.unfinished(cache / "net.tflite").write_bytes(b"x" * 5000)
    assert zoo.pull(entry(address)).read_bytes() == CONTENT
    assert kind.asked == ["bytes=5000-", "bytes=0-"]


def test_threads_that_want_one_model_fetch_it_once(server, cache: Path) -> None:
    kind, address = server
    found: list[object] = []

    def pull() -> None:
        try:
            found.append(zoo.pull(entry(address)))
        except Exception as error:  # it shall be seen
            found.append(error)

    threads = [threading.Thread(target=pull) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cache / "net.tflite"] * 8
    assert kind.asked == ["bytes=0-"]


def test_too_slow_ends_in_words(server, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, address = server
    kind.slow = True
    monkeypatch.setattr(download, "_SLOW_SECONDS", 0.3)
    with pytest.raises(DownloadError, match=r"too slow: \d+ bytes in 0 s; try again later"):
        zoo.pull(entry(address))


def test_silence_ends_in_words(server, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, address = server
    monkeypatch.setattr(kind, "do_GET", lambda self: time.sleep(2))
    monkeypatch.setattr(download, "_STALL_SECONDS", 0.3)
    with pytest.raises(DownloadError, match="no answer in time"):
        zoo.pull(entry(address))


def test_no_more_than_the_known_size_is_taken(server, cache: Path) -> None:
    kind, address = server
    kind.content = CONTENT * 2
    with pytest.raises(DownloadError, match="has 600000 bytes, expected 300000"):
        zoo.pull(entry(address))
    assert os.listdir(cache) == []


def archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("model.ckpt")
        info.size = len(CONTENT)
        tar.addfile(info, io.BytesIO(CONTENT))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>sign in here</html>", "gave a page"),
        (b"\n <html>", "gave a page"),
        (b"", "empty file"),
        (archive()[:-5000], "damaged or cut off"),
        (gzip.compress(b"x")[:-8] + b"12345678", "damaged or cut off"),
        (b"no archive at all", "damaged or cut off"),
    ],
)
def test_weights_without_a_known_hash_are_of_the_right_kind(
    content: bytes, words: str, server, cache: Path
) -> None:
    kind, address = server
    kind.content = content
    model = entry(address, content=None, name="weights.tar.gz")
    with pytest.raises(DownloadError, match=words):
        zoo.pull(model)
    assert os.listdir(cache) == []
    kind.content = archive()
    assert zoo.pull(model).read_bytes() == kind.content


# --- places that cannot be read ------------------------------------------------------------------


def test_places_that_cannot_be_read_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (model,) = (model for model in zoo.MODELS if model.name == "voc-fast")
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if "locked" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    monkeypatch.setenv("DEEPLAB_HOME", str(tmp_path / "locked"))
    monkeypatch.setenv("DEEPLAB_MODEL_PATH", f"{tmp_path / 'locked'}:~nobody-at-all/models")
    assert zoo.find(model) == zoo._BUNDLED / model.file_name
    assert [place.state for place in zoo.places(model)][1:] == ["missing"] * 3
    offline = dataclasses.replace(model, address="http://127.0.0.1:9/net.tflite", file_name="n.bin")
    assert zoo.find(offline) is None


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() != 0, reason="needs another user")
@pytest.mark.parametrize("home", ["/root", "/no/such/home", None])
def test_another_user_finds_what_comes_inside(home: str | None, tmp_path: Path) -> None:
    """As in ``docker run --user 1000`` with the home of root."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    environment.pop("DEEPLAB_HOME", None)
    environment.pop("HOME", None)
    if home:
        environment["HOME"] = home
    # The interpreter itself may lie in root's home, so that the user changes after it has started.
    code = (
        "import os, platformdirs, pooch; from deeplab import zoo\n"
        "os.setgroups([]); os.setgid(54321); os.setuid(54321)\n"
        "print(zoo.locate('voc-fast')); print(zoo.home())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment, cwd="/", text=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, cache = map(Path, done.stdout.split())
    assert found.name == "voc-fast.tflite"
    assert cache.is_absolute()
