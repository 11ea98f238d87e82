"""What the page needs of its host: files, and no more. Offline, headers, any path, any origin."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from hosting import ROOT, STARTER, serving, wait_until_ready

from deeplab import zoo
from deeplab.errors import InputError, ModelError, OutputError
from deeplab.labels import LabelSet
from deeplab.serve import browser_page
from deeplab.serve.browser_page import PageModel, describe_models, offer, write_page

pytestmark = [pytest.mark.reference, pytest.mark.integration]


def segment(page, photo: Path) -> list[str]:
    """Open a photo; return the names in the legend."""
    page.evaluate("document.getElementById('status').textContent = ''")
    page.set_input_files("#file", photo)
    page.wait_for_selector("#status >> text=/^(Found|Nothing)/")
    return page.locator("#legend .name").all_inner_texts()


def test_it_runs_offline_after_the_first_load(browser, open_page, page_folder, reference):
    asked: list[str] = []
    with serving(page_folder, headers=browser_page.HEADERS, asked=asked) as address:
        page = open_page(browser, f"{address}/")
    for large in (".wasm", ".tflite"):  # nothing large is loaded twice
        assert len([path for path in asked if large in path]) == 1, asked
    with pytest.raises(URLError, match="refused"):  # the host is gone
        urlopen(address)
    page.reload()
    wait_until_ready(page)
    assert page.evaluate("crossOriginIsolated")
    assert page.inner_text("#network-note").startswith("257 × 257")
    assert "person" in segment(page, reference / "photos" / "person.jpg")
    assert page.evaluate("fetch('example.jpg').then((answer) => answer.status)") == 200


def test_a_plain_host_at_any_path_does(browser, open_page, page_folder, reference):
    site = page_folder.parents[1]
    with serving(site, headers={}) as address:
        page = open_page(browser, f"{address}/some/where/")
        # The host sends no headers; the service worker adds them, at the second load.
        assert page.evaluate("crossOriginIsolated")
        assert page.is_enabled("#threads") or page.locator("#threads option").count() == 1
        assert "person" in segment(page, reference / "photos" / "person.jpg")


def test_without_a_service_worker_it_runs_on_one_thread_and_says_so(
    browser, open_page, page_folder, reference
):
    with serving(page_folder, headers={}) as address:
        page = open_page(browser, f"{address}/", service_workers="block")
        assert not page.evaluate("crossOriginIsolated")
        assert "One thread" in page.inner_text("#network-note")
        assert page.is_disabled("#threads")
        assert "person" in segment(page, reference / "photos" / "person.jpg")


def test_a_page_without_models_says_what_to_do(browser, open_page, built_page, reference):
    with serving(built_page, headers=browser_page.HEADERS) as address:
        page = open_page(browser, f"{address}/", service_workers="block")
        assert "No model is shipped" in page.inner_text("#network-note")
        page.set_input_files("#file", reference / "photos" / "person.jpg")
        page.wait_for_selector("#problem >> text=There is no network yet")
        page.set_input_files("#model-file", reference / "models" / STARTER)
        page.wait_for_selector("#legend .name >> text=class 15")


def test_header_and_page_state_the_same_policy(built_page):
    html = (built_page / "index.html").read_text()
    (stated,) = re.findall(r'http-equiv="Content-Security-Policy"\s+content="([^"]+)"', html)
    # Only a header may say who may show the page in a frame.
    assert browser_page.HEADERS["Content-Security-Policy"] == f"{stated}; frame-ancestors 'none'"
    assert "unsafe-inline" not in stated
    assert "'unsafe-eval'" not in stated
    # Nothing in the page's own files points to another host, or stands at the root of this one.
    assert not re.findall(r'(?:src|href)="(?:https?:)?/', html)


def test_every_file_of_the_page_has_a_known_type(page_folder):
    endings = {path.suffix for path in page_folder.rglob("*") if path.is_file()}
    assert endings <= set(browser_page.MEDIA_TYPES)
    manifest = json.loads((page_folder / "manifest.webmanifest").read_text())
    assert manifest["display"] == "standalone"
    assert all((page_folder / icon["src"]).is_file() for icon in manifest["icons"])


def test_it_can_be_installed(browser, open_page, host):
    page = open_page(browser, host)
    chromium = page.context.new_cdp_session(page)
    assert chromium.send("Page.getAppManifest")["errors"] == []
    errors = chromium.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert {error["errorId"] for error in errors} <= {"in-incognito"}  # tests leave no traces


def test_models_are_described_and_wrong_ones_refused(reference, tmp_path):
    model = reference / "models" / STARTER
    described = describe_models([PageModel(path=model, title="VOC")])
    (entry,) = described["models"]
    assert entry["file"] == f"models/{STARTER}"
    assert entry["labels"]["names"][15] == "person"
    assert entry["mean"] == (127.5,) * 3
    json.dumps(described)
    own = LabelSet(("a", "b"))
    (entry,) = describe_models([PageModel(path=model, title="own", labels=own)])["models"]
    assert entry["labels"]["names"] == ["a", "b"]

    with pytest.raises(InputError, match="two files have the name"):
        describe_models([PageModel(path=model, title="1"), PageModel(path=model, title="2")])
    text = tmp_path / "model.txt"
    text.write_text("no model")
    with pytest.raises(ModelError, match=r"no \.tflite file"):
        describe_models([PageModel(path=text, title="text")])
    broken = tmp_path / "model.tflite"
    broken.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(ModelError, match="damaged"):
        describe_models([PageModel(path=broken, title="broken")])


def test_the_list_of_models_is_as_documented():
    text = (ROOT / "docs/browser.md").read_text("utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    documented = json.loads(example)
    voc = PageModel(path=zoo.locate("voc"), title="voc")
    written = json.loads(json.dumps(describe_models(offer([voc]))))
    assert documented.keys() == written.keys()
    (one,) = documented["models"]
    first = written["models"][0]
    assert one.keys() == first.keys()
    for part in ("graphics", "card"):
        assert one[part].keys() == first[part].keys()
    assert (one["bytes"], one["graphics"]["bytes"]) == (first["bytes"], first["graphics"]["bytes"])
    for header in ("Cross-Origin-Opener-Policy", "Cross-Origin-Embedder-Policy"):
        assert f"`{header}` | `{browser_page.HEADERS[header]}`" in text
    for name in re.findall(r"[\w.]+\.ts\b", text):
        assert (ROOT / "web/src" / name).is_file(), name


def test_what_the_page_says_of_its_making_is_there():
    text = (ROOT / "docs/browser.md").read_text("utf-8")
    (tree,) = re.findall(r"^```\nweb/\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for line in tree.splitlines():
        assert (ROOT / "web" / line.split()[0]).exists(), line
    assert "`make web`" in text
    assert re.search("^web:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert "npm test" in text
    assert "test" in json.loads((ROOT / "web/package.json").read_text("utf-8"))["scripts"]
    assert "pytest tests/web" in text
    assert "`apt-get install chromium`" in text
    assert "chromium" in (ROOT / ".ci/run").read_text("utf-8")


def test_a_folder_is_written_whole_or_not_at_all(built_page, reference, tmp_path, monkeypatch):
    models = [PageModel(path=reference / "models" / STARTER, title="VOC")]
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="not an empty folder"):
        write_page(full, models)
    monkeypatch.setattr(browser_page, "BUILT", tmp_path / "nothing")
    with pytest.raises(OutputError, match="make web"):
        write_page(tmp_path / "new", models)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
