"""The browser page under test: built, served as a good host or as a plain one, in Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosting import STARTER, TITLE, Watch, serving, wait_until_ready
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from deeplab.serve import browser_page
from deeplab.serve.browser_page import PageModel, write_page


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of a Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    return path


@pytest.fixture(scope="session")
def page_folder(
    built_page: Path, reference: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Write the page with the public starter model, and return the folder."""
    folder = tmp_path_factory.mktemp("page") / "site" / "some" / "where"
    write_page(folder, [PageModel(path=reference / "models" / STARTER, title=TITLE)])
    return folder


@pytest.fixture(scope="session")
def host(page_folder: Path) -> Iterator[str]:
    """Serve the page as ``deeplab serve`` does, at the root; yield its address."""
    with serving(page_folder, headers=browser_page.HEADERS) as address:
        yield f"{address}/"


# Module by module: while Playwright lives, it keeps an event loop running in this thread.
@pytest.fixture(scope="module")
def launch(chromium: str) -> Iterator[Callable[..., Browser]]:
    """Return a function that starts a Chromium with further command line arguments."""
    with sync_playwright() as playwright:
        browsers: list[Browser] = []

        def start(*arguments: str) -> Browser:
            # Names are not looked up: nothing but this machine can be reached.
            offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", offline, *arguments]
            )
            browsers.append(browser)
            return browser

        yield start
        for browser in browsers:
            browser.close()


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Browser]) -> Browser:
    return launch()


@pytest.fixture
def open_page() -> Iterator[Callable[..., Page]]:
    """Return a function that opens the page; in the end nothing may have gone wrong on it."""
    watch = Watch()
    contexts: list[BrowserContext] = []

    def open_at(browser: Browser, address: str, *, init_script: str = "", **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        watch.follow(context)
        if init_script:
            context.add_init_script(init_script)
        page = context.new_page()
        page.goto(address)
        wait_until_ready(page)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert watch.console == []
    assert watch.outside == []
