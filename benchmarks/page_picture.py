"""Take the picture of the browser page that README and docs/browser.md show.

    make pictures

It needs Chromium, Playwright and the built page (``make web``). The page is served as
``deeplab export voc --to web`` writes it, on a desktop and on a telephone side by side.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from deeplab.export.web import export_page
from deeplab.serve.browser_page import HEADERS, MEDIA_TYPES

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/images/browser.jpg"
GAP = 24
GROUND = (225, 229, 227)


class Handler(SimpleHTTPRequestHandler):
    """Files with the page's headers, without a log."""

    extensions_map = {"": "application/octet-stream", **MEDIA_TYPES}  # noqa: RUF012

    def end_headers(self) -> None:
        """Add the page's headers."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


def take(browser: Browser, address: str, *, size: tuple[int, int], look: str) -> Image.Image:
    """Return the page with a photo on a screen of that (width, height)."""
    photo = ROOT / "examples/photos/photographer.jpg"
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.goto(f"{address}#{look}")
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    page.set_input_files("#file", photo)
    page.wait_for_selector("#status >> text=/^Found/")
    page.wait_for_timeout(300)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    return shot


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        site = export_page("voc", Path(folder) / "site").folder
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        wide = take(browser, address, size=(1120, 720), look="")
        narrow = take(browser, address, size=(360, 720), look="look=cutout")
        browser.close()
        server.shutdown()
    both = Image.new("RGB", (wide.width + narrow.width + GAP, wide.height), GROUND)
    both.paste(wide, (0, 0))
    both.paste(narrow, (wide.width + GAP, 0))
    size = (1000, round(1000 * both.height / both.width))
    both.resize(size, Image.Resampling.LANCZOS).save(options.out, quality=72, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
