"""A small web host for the built page, and a watch over what the page asks for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page

from deeplab.serve.browser_page import MEDIA_TYPES

ROOT = Path(__file__).parents[2]
STARTER = "deeplabv3_257_mv_gpu.tflite"
TITLE = "PASCAL VOC, 257 pixels, in 32-bit numbers (2.8 MB)"


class _Handler(SimpleHTTPRequestHandler):
    headers_sent: dict[str, str]
    extensions_map = {"": "application/octet-stream", **MEDIA_TYPES}  # noqa: RUF012

    def end_headers(self) -> None:
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(folder: Path, *, headers: dict[str, str], port: int = 0) -> Iterator[str]:
    """Serve a folder on this machine; yield its address."""

    class Handler(_Handler):
        headers_sent = headers

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
