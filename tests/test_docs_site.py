"""The documents as a site: each has its place, the build is strict, and no network is needed."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MKDOCS = ROOT / "build/docs-env/bin/mkdocs"


def test_every_document_has_its_place() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1]
    places = re.findall(r"(?:: |- )([\w./-]+\.md)$", navigation, re.MULTILINE)
    documents = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert len(places) == len(set(places))
    assert not {str(path) for path in documents} - set(places), "add them to mkdocs.yml"


def test_the_pictures_of_the_ideas_are_those_that_the_script_draws(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "benchmarks/idea_pictures.py"))
    script["main"].__globals__["FOLDER"] = tmp_path
    script["main"]()
    shown = ROOT / "docs/images/ideas"
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in shown.iterdir()}
    for picture in tmp_path.iterdir():
        assert picture.read_bytes() == (shown / picture.name).read_bytes()
        assert picture.stat().st_size < 20_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a strict build: any warning, any broken link fails it."""
    mkdocs = Path(os.environ.get("DEEPLAB_MKDOCS", MKDOCS))
    if not mkdocs.is_file():
        pytest.skip("run `make docs` first")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [mkdocs, "build", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Documentation built" in done.stderr  # with --quiet, warnings would not count
    return folder


def test_the_build_is_strict_and_whole(site: Path) -> None:
    assert "a photo in, an exact full-size mask out" in (site / "index.html").read_text("utf-8")
    assert (site / "recipes/voc.toml").is_file()  # what pages link to outside of docs/
    reference = (site / "api/deeplab.html").read_text("utf-8")
    for name in ("Segmenter", "Segmentation", "train", "Run", "evaluate", "Scores", "LabelSet"):
        assert f'id="deeplab.{name}"' in reference, name
    assert not re.findall(r":\w+:<code>", reference)


def test_lists_are_lists_in_both_readings(site: Path) -> None:
    """GitHub takes a list right behind a line of text for one; the site would run it on."""
    run_on = {}
    for page in site.rglob("*.html"):
        for text in re.findall(r"<p>(.*?)</p>", page.read_text("utf-8"), re.DOTALL):
            if re.search(r"^\s*(?:[-*] |\d+\. |\||```)", text, re.MULTILINE):
                run_on[page.name] = text[:80]
    assert not run_on


def test_the_site_is_read_and_searched_from_the_disk(site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("needs Chromium: apt-get install chromium")
    asked = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("s")
        page.keyboard.type("letterbox")
        page.locator(".md-search-result__item").first.wait_for(timeout=30_000)
        browser.close()
    assert not [url for url in asked if url.startswith("http")]
