"""A new version of the page on its host, while old pages of it are open."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hosting import STARTER, serving, show, wait_for_result, wait_until_ready

from deeplab.files import hash_file
from deeplab.serve import browser_page
from deeplab.serve.browser_page import PageModel, write_page

pytestmark = [pytest.mark.reference, pytest.mark.integration]

OTHER = "deeplabv3_with_metadata.tflite"
TIMES = 4
"""Twenty held as well, and take a minute."""


@pytest.fixture
def site(built_page, reference, tmp_path):
    models = reference / "models"
    folder = tmp_path / "site"
    write_page(
        folder,
        [
            PageModel(path=models / STARTER, title="first"),
            PageModel(path=models / OTHER, title="second"),
        ],
    )
    return folder


def renew(site: Path, number: int) -> None:
    """Put another version on the host: every script under another name, every model changed."""
    assets = site / "assets"
    old = {path.name: path for path in assets.iterdir()}
    new = {name: re.sub(r"-[^-]*\.(js|css)$", rf"-v{number}v.\1", name) for name in old}
    texts = {site / "index.html", site / "sw.js", *assets.iterdir()}
    for path in texts:
        text = path.read_text("utf-8")
        for name, other in new.items():
            text = text.replace(name, other)
        if path.name == "sw.js":
            text = re.sub(r'"version":"[^"]*"', f'"version":"v{number}"', text)
        path.write_text(text, "utf-8")
    for name, path in old.items():
        path.rename(assets / new[name])
    catalogue = json.loads((site / "models.json").read_text("utf-8"))
    for model in catalogue["models"]:
        with (site / model["file"]).open("ab") as file:
            file.write(bytes([number]))
        model["sha256"] = hash_file(site / model["file"])
        model["bytes"] += 1
    (site / "models.json").write_text(json.dumps(catalogue), "utf-8")


def test_an_old_page_goes_on_and_the_new_version_is_offered(browser, open_page, site, reference):
    photo = reference / "photos" / "dog.jpg"
    with serving(site, headers=browser_page.HEADERS) as address:
        page = open_page(browser, f"{address}/")
        show(page, photo)
        for number in range(TIMES):
            renew(site, number)
            other = page.context.new_page()  # what finds out that there is a new version
            other.goto(f"{address}/")
            other.evaluate("navigator.serviceWorker.getRegistration().then((one) => one.update())")
            other.wait_for_selector("#news >> text=new version")
            other.close()
            # The old page changes its model: its own worker, another network, the host's new file.
            page.evaluate("document.getElementById('status').textContent = ''")
            page.select_option("#model", ["second", "first"][number % 2])
            wait_for_result(page)
            assert page.is_hidden("#problem"), page.inner_text("#problem")

        # Somebody takes the new version: one page does, the other goes on.
        beside = page.context.new_page()
        beside.goto(f"{address}/")
        wait_until_ready(beside)
        beside.wait_for_selector("#news:visible")
        with beside.expect_navigation():
            beside.click("[data-action=news]")
        wait_until_ready(beside)
        assert f"-v{TIMES - 1}v.js" in beside.content()
        page.evaluate("document.getElementById('status').textContent = ''")
        page.select_option("#model", "second" if TIMES % 2 else "first")
        page.select_option("#threads", "1")
        wait_for_result(page)
        assert page.is_hidden("#problem")
        names = beside.evaluate("caches.keys()")
        assert len([name for name in names if not name.endswith("large")]) == 2
        page.close()
        beside.reload()
        wait_until_ready(beside)
        beside.wait_for_function("caches.keys().then((names) => names.length === 2)")


def test_offline_a_model_that_was_never_loaded_is_told_of(browser, site, reference):
    page = browser.new_context().new_page()
    with serving(site, headers=browser_page.HEADERS) as address:
        page.goto(f"{address}/")
        wait_until_ready(page)
        show(page, reference / "photos" / "dog.jpg")
    page.reload()
    wait_until_ready(page)
    page.context.set_offline(True)
    watched = page.evaluate("document.querySelector('#model').value")
    page.select_option("#model", "second")
    page.wait_for_selector("#problem >> text=second is not on this device yet")
    assert page.evaluate("document.querySelector('#model').value") == watched
    show(page, reference / "photos" / "dog.jpg")  # what was there works on
    page.context.close()


def test_as_a_file_and_without_scripts_it_says_what_to_do(browser, site):
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.wait_for_selector("text=python -m http.server", state="visible")
    page.close()
    with serving(site, headers=browser_page.HEADERS) as address:
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(f"{address}/")
        page.wait_for_timeout(2700)
        assert page.get_by_text("scripts may be switched off").is_visible()
        context.close()
    shutil.rmtree(site)
