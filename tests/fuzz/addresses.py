"""Addresses, stores and web servers with something wrong: the right bytes, or one line of refusal.

A store in memory has odd names in it and fails at random, a web server on this machine cuts, lies
about lengths, refuses and sends elsewhere. What is kept of them lies whole in the cache, or not at
all, and never beside it.
"""

from __future__ import annotations

import contextlib
import io
import os
import random as rng
import socketserver
import threading
import types
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec
import numpy as np
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from PIL import Image

from deeplab import cli
from deeplab.errors import DeepLabError
from deeplab.files import is_partial
from deeplab.photo import images
from deeplab.remote import store
from deeplab.remote.address import Address, find_address
from deeplab.remote.copies import keep_file, keep_folder
from tiny_tflite import tiny_network

_NAMES = ("a", "b.jpg", " ", "a b", "ä.png", "a?b", "a#b.jpg", "a%20b", "%2e%2e", "*", "[x].png",
          "{a}", "~", "a\nb", "a\\b", ".hidden", "x" * 300, "a" * 250 + ".jpg", "..", ".", "c:",
          ".deeplab-remote.json", "\x00", "\x1b[31m", "\udcff", "::", "a::b", "$HOME", "-o",
          "[/]", "\u202egpj.x")  # fmt: skip
_TEXTS = ("memory://", "memory:///", "memory:/a", "memory://..", "memory://a/..", "file://", "foo://x",
          "http://", "http:///x", "http://[::1/x", "http://127.0.0.1:99999/x", "http://a b/x",
          "http://127.0.0.1:1/x", "https://127.0.0.1:1/x", "http://user:pass@127.0.0.1:1/x",
          "http://\udcff/", "http://" + "a" * 300 + ".invalid/x", "memory://a::memory://b", "zip://x",
          "zip://x::memory://y", "simplecache::memory://y", "local://", "reference://x", "data:/x",
          "dir://x", "filecache://x", "blockcache://", "http://127.0.0.1:x/y", "memory://\x00",
          "http://127.0.0.1:1/\n", "http://127.0.0.1:1/%", "ab+c://x", "cached://x")  # fmt: skip
_ERRORS = (OSError("broken"), PermissionError("no\nkey"), FileNotFoundError("gone"), TimeoutError(),
           ValueError("two\nlines"), KeyError("ETag"), RuntimeError(""), EOFError(),
           ConnectionResetError(104, "reset"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
           IsADirectoryError("a"), NotImplementedError(), AssertionError(), OSError(5, "[red]x"),
           TypeError("'NoneType' object"), StopIteration())  # fmt: skip


def run_one(random: rng.Random, folder: Path) -> str:
    """Make one try: with an address, a store that fails, or a web server."""
    one = random.choice((_try_text, _try_store, _try_store, _try_web, _try_web))
    # What is tried again is tried at once.
    with mock.patch.object(store, "time", types.SimpleNamespace(sleep=lambda _: None)):
        return one(random, folder)


def _asked(action: Any) -> tuple[str, Any]:
    """Return ("", what came) or (how it was refused, None)."""
    try:
        return "", action()
    except DeepLabError as error:
        text = str(error)
    assert text.strip()
    assert "\n" not in text, text
    return "refused", None


# --- addresses ------------------------------------------------------------------------------------


def _try_text(random: rng.Random, folder: Path) -> str:
    text = random.choice(_TEXTS)
    for _ in range(random.choice((0, 0, 1, 3))):
        at = random.randrange(len(text) + 1)
        text = (
            text[:at] + random.choice((":", "/", "?", "#", "%", "@", "\n", "..", "é")) + text[at:]
        )
    address = find_address(text)
    if address is None:
        return "no address"
    if address.scheme not in ("memory", "http", "https", "foo"):
        return "of another kind"
    actions = (
        lambda: store.read_bytes(address),
        lambda: store.is_file(address),
        lambda: images.read(text),
        lambda: store.list_files(address),
        lambda: store.match(address / "*"),
        lambda: keep_file(address, folder / "cache"),
        lambda: keep_folder(address, folder / "cache"),
    )
    end, _ = _asked(random.choice(actions))
    _check_copies(folder, {})
    return end or "answered"


# --- a store that fails ---------------------------------------------------------------------------


class _Failing(MemoryFileSystem):
    """A store in memory of its own kind, in which every other thing may go wrong."""

    protocol = "failing"
    store: dict[str, Any] = {}  # noqa: RUF012 - shared, as the class above has it
    pseudo_dirs = [""]  # noqa: RUF012
    chance = rng.Random(0)
    often = 0.0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(str(path).replace("failing://", "memory://", 1)))

    def _fail(self) -> None:
        if self.chance.random() < self.often:
            raise self.chance.choice(_ERRORS)

    def info(self, path: str, **options: Any) -> Any:
        self._fail()
        found = dict(super().info(path, **options))
        if self.chance.random() < self.often / 4:
            found["size"] = self.chance.choice((None, 0, 1 << 60))
        return found

    def find(self, path: str, **options: Any) -> Any:
        self._fail()
        return super().find(path, **options)

    def cat_file(self, path: str, *rest: Any, **options: Any) -> Any:
        self._fail()
        data = super().cat_file(path, *rest, **options)
        return data[: len(data) // 2] if self.chance.random() < self.often / 4 else data

    def get_file(self, path: str, target: str, *rest: Any, **options: Any) -> None:
        with open(target, "wb") as file:  # as much as came before it broke
            data = super().cat_file(path)
            file.write(data[: len(data) // 2])
            file.flush()
            self._fail()
            if self.chance.random() > self.often / 4:
                file.write(data[len(data) // 2 :])

    def put_file(self, source: str, path: str, *rest: Any, **options: Any) -> None:
        self._fail()
        super().put_file(source, path, *rest, **options)


def _try_store(random: rng.Random, folder: Path) -> str:
    fsspec.register_implementation("failing", _Failing, clobber=True)
    _Failing.store.clear()
    _Failing.pseudo_dirs[:] = [""]
    _Failing.chance, _Failing.often = random, random.choice((0.0, 0.0, 0.2, 0.6))
    truth = {}
    for _ in range(random.randrange(1, 6)):
        name = "/".join(random.choice(_NAMES) for _ in range(random.choice((1, 1, 2, 3))))
        truth[f"/top/{name}"] = random.randbytes(random.choice((0, 10, 5000)))
    system = fsspec.filesystem("failing")
    for name, data in truth.items():  # as a store's keys are: no file is in another's way
        _Failing.store[name] = MemoryFile(system, name, data)
    if random.random() < 0.4:
        return _try_command(random, folder, "failing://top")
    top = Address("failing://top")
    end, files = _asked(lambda: store.list_files(top))
    if end:
        return f"list {end}"
    for address in files:
        end, data = _asked(lambda address=address: store.read_bytes(address))
        # A name that a path cannot hold may be gone; what comes is what the name has.
        if not end and not _Failing.often:
            assert data in truth.values(), address
    end, kept = _asked(lambda: keep_folder(top, folder / "cache"))
    _check_copies(folder, truth)
    if end:
        return f"keep {end}"
    came = sorted(path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file())
    came = [name for name in came if name != ".deeplab-remote.json"]
    # A store that says once that nothing is there may say otherwise the next time.
    assert len(came) == len(files) or (_Failing.often and not files), (came, list(files))
    for name in came:
        assert (kept / name).read_bytes() == truth[f"/top/{name}"], name
    return "kept"


def _check_copies(folder: Path, truth: dict[str, bytes]) -> None:
    """Everything in the folder is whole, and below the cache's place."""
    whole = set(truth.values())
    for path in folder.rglob("*"):
        if path.is_file() and path.name != ".deeplab-remote.json":
            assert path.relative_to(folder).parts[:2] == ("cache", "remote"), path
            assert not is_partial(path.name), path
            assert path.read_bytes() in whole, path


# --- a web server ---------------------------------------------------------------------------------


@cache
def _files() -> dict[str, bytes]:
    photo, network = io.BytesIO(), tiny_network(classes=3)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(
        photo, "PNG"
    )
    return {"x.png": photo.getvalue(), "net.tflite": network}


class _Wrong(socketserver.StreamRequestHandler):
    """Answers a request, or does what the try's chance makes of it."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            words = self.rfile.readline().decode("latin-1").split()
            while self.rfile.readline().strip():
                pass
            if len(words) >= 2:
                self.wfile.write(_answer(words[0], words[1]))


def _answer(method: str, path: str) -> bytes:
    chance = _Server.chance
    data = _files().get(path.split("?")[0].rsplit("/", 1)[-1])
    if path.split("?")[0].endswith("/"):
        data = b"".join(b'<a href="%s">x</a>\n' % link for link in _Server.links)
    fault = chance.choice(_FAULTS) if chance.random() < _Server.often else ""
    body = data if data is not None else b"<html>nothing"
    status, headers = "200 OK" if data is not None else "404 Not Found", []
    length = str(len(body))
    if fault == "status":
        status = chance.choice(("401 No", "403 No", "404 No", "410 Gone", "416 No", "429 Later",
                                "500 Oh", "503 Later", "204 None",
                                "999 What", "206 Part"))  # fmt: skip
        body = chance.choice((b"", b"<html>\n<b>no</b>"))
        length = str(len(body))
    elif fault == "elsewhere":
        target = chance.choice(("http://127.0.0.1:1/", "://", "", path, "http://[", "memory://a",
                                "file:///etc/passwd", "http://127.0.0.1:99999/",
                                "/none"))  # fmt: skip
        status, body, length = "302 There", b"", "0"
        headers = [f"Location: {target}"]
    elif fault == "length":
        length = chance.choice(("-1", "x", str(len(body) + 9), str(2**70), ""))
    elif fault == "chunks":
        body = b"%x\r\n%s" % (len(body) + chance.choice((0, 0, 5)), body)
        body += chance.choice((b"\r\n0\r\n\r\n", b"", b"\r\nzz\r\n"))
        length, headers = "", ["Transfer-Encoding: chunked"]
    elif fault == "gzip":
        body = zlib.compress(body, wbits=31)  # whole: aiohttp does not see that one ends early
        length, headers = str(len(body)), ["Content-Encoding: gzip"]
    elif fault == "noise":
        return chance.randbytes(chance.choice((0, 3, 200)))
    elif fault == "headers":
        headers = [chance.choice(("ETag: \xff\xfe", "X" * 70_000, "Content-Range: bytes 0-0/9",
                                  "no colon", "Content-Length: 3",
                                  "Last-Modified: never"))]  # fmt: skip
    head = [f"HTTP/1.1 {status}", *headers, "Connection: close"]
    head += [f"Content-Length: {length}"] if length else []
    if method == "HEAD":
        body = b""
    elif fault == "cut":
        body = body[: chance.randrange(len(body) + 1)]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


_FAULTS = ("status", "elsewhere", "length", "chunks", "gzip", "noise", "headers", "cut", "cut")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    chance = rng.Random(0)
    often = 0.0
    links: tuple[bytes, ...] = ()

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no news."""


@cache
def _serve() -> int:
    server = _Server(("127.0.0.1", 0), _Wrong)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def _try_web(random: rng.Random, folder: Path) -> str:
    root = f"http://127.0.0.1:{_serve()}/{random.randrange(1 << 60)}"
    _Server.chance, _Server.often = random, random.choice((0.3, 0.6, 1.0))
    links = (b"x.png", b"net.tflite", b"../x.png", b"?C=N", b"%2e%2e/x.png", b"sub/x.png", b"/",
             b"", b"//127.0.0.1:1/x", b"x.png#a", b"..%2f..%2fx.png", b"a b/x.png", b"\xff/x.png",
             b"http://[", b"javascript:x", b"x" * 300 + b"/x.png")  # fmt: skip
    _Server.links = tuple(random.sample(links, random.randrange(5)))
    files = _files()
    name = random.choice(list(files))
    address = Address(f"{root}/{name}")
    kind = random.choice(("read", "keep", "is", "photo", "folder", "command"))
    if kind == "command":
        return _try_command(random, folder, root)
    if kind == "read":
        end, data = _asked(lambda: store.read_bytes(address))
        assert end or data == files[name] or _may_be_another(data, files[name]), len(data)
    elif kind == "keep":
        end, path = _asked(lambda: keep_file(address, folder / "cache"))
        assert (
            end
            or path.read_bytes() == files[name]
            or _may_be_another(path.read_bytes(), files[name])
        ), path.stat()
    elif kind == "is":
        end, _ = _asked(lambda: store.is_file(address))
    elif kind == "photo":
        end, photo = _asked(lambda: images.read(f"{root}/x.png"))
        assert end or np.array_equal(photo, images.read(files["x.png"])), "another photo"
    else:
        end, _ = _asked(lambda: keep_folder(Address(root + "/"), folder / "cache"))
    for path in folder.rglob("*"):
        if path.is_file() and path.name != ".deeplab-remote.json":
            assert path.relative_to(folder).parts[:2] == ("cache", "remote"), path
            assert not is_partial(path.name), path
    return f"{kind} {end or 'answered'}"


def _may_be_another(data: bytes, whole: bytes) -> bool:
    """Whether the server said that this is all: an empty page, or the bytes without a length."""
    return data in (b"", b"<html>\n<b>no</b>") or not whole.startswith(data)


def _try_command(random: rng.Random, folder: Path, root: str) -> str:
    """Segment what is there with what is there, to here or there."""
    (folder / "net.tflite").write_bytes(_files()["net.tflite"])
    (folder / "x.png").write_bytes(_files()["x.png"])
    (folder / "labels.txt").write_text("ground\ncat\ndog\n")
    if root.startswith("failing"):
        _Failing.store.clear()
        files = {f"{name}.png": _files()["x.png"] for name in random.sample(_NAMES[:16], 3)}
        for name, data in {**files, **_files()}.items():
            path = f"/top/{name}"
            _Failing.store[path] = MemoryFile(fsspec.filesystem("failing"), path, data)
    photo = random.choice(
        (f"{root}/x.png", f"{root}/", root, f"{root}/*.png", str(folder / "x.png"))
    )
    model = random.choice((f"{root}/net.tflite", str(folder / "net.tflite")))
    target = random.choice((f"{root}/out", str(folder / "out")))
    line = ["segment", photo, "-m", model, "-o", target, "--save", "mask"]
    line += ["--labels", str(folder / "labels.txt")]
    out, error = io.StringIO(), io.StringIO()
    home = {"DEEPLAB_HOME": str(folder / "home")}
    with (
        mock.patch.dict(os.environ, home),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        try:
            code = cli.run(line)
        except BaseException as problem:
            raise AssertionError(f"{line}: {type(problem).__name__}: {problem}") from problem
    said = error.getvalue()
    assert code in (0, 1, 2), (line, code)
    assert "Traceback" not in said + out.getvalue(), (line, said)
    assert code == 0 or said.strip(), line
    assert "\x1b[31m" not in said + out.getvalue(), line
    for data in _written(folder / "out", root):
        with Image.open(io.BytesIO(data)) as mask:
            mask.load()
            assert mask.size == (60, 40)
    assert not [path for path in folder.rglob("*") if is_partial(path.name)], line
    return f"exit {code}"


def _written(folder: Path, root: str) -> Iterator[bytes]:
    for path in folder.rglob("*.png"):
        yield path.read_bytes()
    if root.startswith("failing"):
        for name, file in _Failing.store.items():
            if name.startswith("/top/out/"):
                yield file.getvalue()
