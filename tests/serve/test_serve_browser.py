"""The page and the description of the API in Chromium, as ``deeplab serve`` sends them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import ROOT, Server, serving

pytest.importorskip("fastapi")
playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.integration

DOG = ROOT / "examples/photos/dog.jpg"


@pytest.fixture(scope="module")
def served(built_page: Path) -> Iterator[Server]:
    """Serve what is served where nobody names a model."""
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def context() -> Iterator[playwright.BrowserContext]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        # Names are not looked up: nothing but this machine can be reached.
        offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", offline])
        yield browser.new_context()
        browser.close()


@pytest.fixture
def page(context: playwright.BrowserContext) -> Iterator[playwright.Page]:
    """Yield a page on which nothing may go wrong, and which may ask nobody but the server."""
    faults: list[str] = []
    opened = context.new_page()
    opened.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:"))
            else faults.append(request.url)
        ),
    )
    yield opened
    opened.close()
    assert faults == []


def test_the_page_segments_a_photo(page: playwright.Page, served: Server) -> None:
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    assert page.locator("#model option").all_inner_texts() == ["voc", "voc-fast"]
    assert page.evaluate("crossOriginIsolated")
    page.set_input_files("#file", DOG)
    page.wait_for_selector("#legend .name >> text=dog")


def test_the_description_tries_the_api(page: playwright.Page, served: Server) -> None:
    page.goto(f"http://127.0.0.1:{served.port}/docs")
    assert page.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse") == (
        "collapse"  # the policy lets the page's own style through
    )
    page.set_input_files("input[name=photo]", DOG)
    with page.expect_navigation():
        page.click("button >> text=json")
    assert '"name":"dog"' in page.inner_text("body")
    page.goto(f"http://127.0.0.1:{served.port}/docs")
    page.set_input_files("input[name=photo]", DOG)
    with page.expect_navigation():
        page.click("button >> text=overlay")
    page.wait_for_function("document.images[0].naturalWidth > 100")


def test_the_page_behind_a_token_and_below_a_path(
    context: playwright.BrowserContext, built_page: Path
) -> None:
    token = "a-token-of-letters"
    with serving("--root-path", "/seg", environment={"DEEPLAB_TOKEN": token}) as server:
        credentials = {"username": "anybody", "password": token}  # as a browser asks for them
        own = context.browser.new_context(http_credentials=credentials)
        opened = own.new_page()
        refused: list[str] = []
        opened.on(
            "response", lambda answer: refused.append(answer.url) if answer.status > 399 else None
        )
        opened.goto(f"http://127.0.0.1:{server.port}/seg/")
        opened.wait_for_selector("body[data-ready]", timeout=60_000)
        opened.set_input_files("#file", DOG)
        opened.wait_for_selector("#legend .name >> text=dog")
        own.close()
        assert refused == []
