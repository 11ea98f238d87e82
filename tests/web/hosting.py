"""A small web host for the built page, and a watch over what the page asks for."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import BrowserContext, Page

from deeplab.serve.browser_page import MEDIA_TYPES

ROOT = Path(__file__).parents[2]
STARTER = "deeplabv3_257_mv_gpu.tflite"
TITLE = "PASCAL VOC, 257 pixels, in 32-bit numbers (2.8 MB)"


class _Handler(SimpleHTTPRequestHandler):
    headers_sent: dict[str, str]
    asked: list[str]
    extensions_map = {"": "application/octet-stream", **MEDIA_TYPES}  # noqa: RUF012

    def end_headers(self) -> None:
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        self.asked.append(self.path)


@contextmanager
def serving(
    folder: Path, *, headers: dict[str, str], port: int = 0, asked: list[str] | None = None
) -> Iterator[str]:
    """Serve a folder on this machine; yield its address. ``asked`` gets what it is asked for."""

    requests: list[str] = [] if asked is None else asked

    class Handler(_Handler):
        headers_sent = headers
        asked = requests

        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Watch:
    """What a page did that it should not have done."""

    console: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def follow(self, context: BrowserContext) -> None:
        context.on("request", self._request)
        context.on("console", self._console)
        context.on("weberror", lambda error: self.console.append(str(error.error)))

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:")):
            self.outside.append(request.url)

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.console.append(f"{message.text} ({message.location})")


def wait_until_ready(page: Page) -> None:
    """Wait until the page has tried to load its first network."""
    page.wait_for_selector("body[data-ready]", timeout=60_000)


def wait_until(page, expression: str, *, seconds: float = 60) -> None:
    """Wait until an expression is true. Playwright's own waiting is against the page's policy."""
    for _ in range(int(seconds * 10)):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"it never came to be: {expression}")


def at_pixel(page, x: int, y: int) -> tuple[float, float]:
    """Return where on the page a pixel of the picture lies."""
    box = page.locator("#canvas").bounding_box()
    width, height = page.evaluate("[canvas.width, canvas.height]")
    scale = min(box["width"] / width, box["height"] / height)
    left = box["x"] + (box["width"] - scale * width) / 2
    top = box["y"] + (box["height"] - scale * height) / 2
    return left + (x + 0.5) * scale, top + (y + 0.5) * scale


def show(page, path: Path) -> None:
    """Open a photo, and wait until its own mask is on the screen."""
    clear_status(page)
    page.set_input_files("#file", path)
    wait_for_result(page)


def clear_status(page) -> None:
    page.evaluate("document.getElementById('status').textContent = ''")


def wait_for_result(page) -> None:
    page.wait_for_selector("#status >> text=/^(Found|Nothing)/")


def look(page, effect: str) -> None:
    """Choose a look, and wait until the network has told what it needs."""
    page.check(f"[name=effect][value={effect}]", force=True)
    page.wait_for_selector("#screen:not([aria-busy=true])")


def download(page, action: str) -> tuple[str, bytes]:
    with page.expect_download() as caught:
        page.click(f"[data-action={action}]")
    return caught.value.suggested_filename, Path(caught.value.path()).read_bytes()


def drop(page, *files: tuple[str, bytes]) -> None:
    """Drop files on the page, as from the desktop."""
    clear_status(page)
    transfer = page.evaluate_handle(
        """(files) => {
          const transfer = new DataTransfer();
          for (const [name, type, data] of files) {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], name, { type }));
          }
          return transfer;
        }""",
        [(name, _media_type(name), base64.b64encode(data).decode()) for name, data in files],
    )
    page.dispatch_event("#screen", "drop", {"dataTransfer": transfer})


def _media_type(name: str) -> str:
    """Return what a browser says of a file; models are unknown to it."""
    types = {".jpg": "image/jpeg", ".png": "image/png", ".txt": "text/plain"}
    return types.get(Path(name).suffix, "")


def saved_mask(page) -> np.ndarray:
    _, content = download(page, "save-mask")
    image = Image.open(io.BytesIO(content))
    assert image.mode == "P"
    return np.asarray(image)
