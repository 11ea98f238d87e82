"""What people expect of such a page: compare, zoom, choose objects, copy, record, keys, address."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hosting import STARTER, at_pixel, download, look, saved_mask, serving, show, wait_for_result
from PIL import Image

from deeplab import Segmenter
from deeplab.serve import browser_page

pytestmark = [pytest.mark.reference, pytest.mark.integration]


@pytest.fixture(scope="module")
def photo(reference) -> Path:
    return reference / "photos" / "person.jpg"


@pytest.fixture(scope="module")
def seen(reference, photo):
    return Segmenter(reference / "models" / STARTER, threads=1, exact=True)(photo)


def cut_alpha(page) -> np.ndarray:
    look(page, "cutout")
    _, content = download(page, "save-picture")
    return np.asarray(Image.open(io.BytesIO(content)))[:, :, 3]


def test_one_object_is_dropped_kept_and_kept_alone(host, browser, open_page, photo, seen):
    import cv2

    page = open_page(browser, host)
    show(page, photo)
    person = (seen.mask == seen.labels.names.index("person")).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(person, connectivity=4)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    rows, columns = np.nonzero(cv2.erode((parts == largest).astype(np.uint8), np.ones((9, 9))))
    spot = int(columns[len(rows) // 2]), int(rows[len(rows) // 2])
    before = cut_alpha(page)
    inside = cv2.erode((parts == largest).astype(np.uint8), np.ones((25, 25))) > 0
    assert before[inside].min() > 200

    page.mouse.click(*at_pixel(page, *spot))
    page.wait_for_selector("#dropped:visible")
    dropped = cut_alpha(page)
    assert dropped[inside].max() == 0
    others = cv2.erode(((seen.mask > 0) & (parts != largest)).astype(np.uint8), np.ones((9, 9))) > 0
    # Beside what was dropped, the network's own word on soft edges counts no more.
    assert ((dropped[others] > 127) == (before[others] > 127)).mean() > 0.98
    page.mouse.click(*at_pixel(page, *spot))
    assert np.array_equal(cut_alpha(page), before)

    page.keyboard.down("Shift")
    page.mouse.click(*at_pixel(page, *spot))
    page.keyboard.up("Shift")
    alone = cut_alpha(page)
    assert alone[inside].min() > 200
    assert (alone[others] < 128).mean() > 0.999
    page.click("[data-action=restore]")
    assert np.array_equal(cut_alpha(page), before)
    # The mask that is saved is the network's.
    assert (saved_mask(page) == seen.mask).mean() > 0.999


def test_only_one_class(host, browser, open_page, photo):
    page = open_page(browser, host)
    show(page, photo)
    ticks = page.locator("#legend input")
    assert ticks.count() > 1
    page.click("button[aria-label='Only person']")
    checked = page.locator("#legend input:checked")
    assert checked.count() == 1
    assert page.get_by_role("checkbox", name="person").is_checked()
    page.click("button[aria-label='Only person']")
    assert checked.count() == ticks.count()


def test_before_and_after(host, browser, open_page, photo):
    page = open_page(browser, host)
    show(page, photo)
    canvas = "document.querySelector('#canvas').getBoundingClientRect()"
    whole = page.evaluate(canvas)
    page.select_option("#compare", "side")
    half = page.evaluate(canvas)
    assert half["width"] < 0.51 * whole["width"]
    before = page.evaluate("document.querySelector('#before').getBoundingClientRect().right")
    assert before < half["left"]
    same = page.evaluate(
        """() => {
          const [x, y] = [20, 20];
          const at = (id) => document.getElementById(id).getContext('2d').getImageData(x, y, 1, 1);
          return [...at('before').data].slice(0, 3);
        }"""
    )
    expected = np.asarray(Image.open(photo))[20, 20]
    assert np.abs(np.array(same) - expected).max() <= 2
    page.select_option("#compare", "slider")
    page.fill("#divider", "30")
    assert page.evaluate(
        "document.querySelector('#screen').style.getPropertyValue('--divide')"
    ) == ("30%")
    assert "70%" in page.evaluate("getComputedStyle(document.querySelector('.before')).clipPath")
    page.select_option("#compare", "off")
    assert page.is_hidden("#before")


def test_it_zooms_around_a_point_and_names_the_class_there(host, browser, open_page, photo, seen):
    page = open_page(browser, host)
    show(page, photo)
    y, x = (int(values[len(values) // 3]) for values in np.nonzero(seen.mask))
    page.mouse.move(*at_pixel(page, x, y))
    name = page.inner_text("#probe")
    place = page.mouse
    page.keyboard.down("Control")
    place.wheel(0, -100)
    page.keyboard.up("Control")
    assert page.get_attribute("#screen", "data-zoomed") == "true"
    left, top = at_pixel(page, x, y)
    page.mouse.move(left, top)
    assert page.inner_text("#probe") == name
    # It is dragged, not clicked.
    page.mouse.down()
    page.mouse.move(left + 60, top + 30, steps=4)
    page.mouse.up()
    assert page.is_hidden("#dropped")
    moved = at_pixel(page, x, y)
    assert abs(moved[0] - left - 60) < 2
    assert abs(moved[1] - top - 30) < 2
    page.keyboard.press("0")
    assert page.get_attribute("#screen", "data-zoomed") == "false"


def test_how_sure_it_is(host, browser, open_page, photo, seen):
    page = open_page(browser, host)
    show(page, photo)
    look(page, "confidence")
    page.mouse.move(*at_pixel(page, 10, 10))
    assert page.inner_text("#probe").endswith(" %")
    page.fill("#threshold", "90")
    alpha = cut_alpha(page)
    sure = np.max([seen.probability(name) for name in seen.shares], axis=0)
    below = (sure < 0.8) & (seen.mask > 0)
    above = (sure > 0.95) & (seen.mask > 0)
    assert below.sum() > 500
    assert (alpha[below] < 128).mean() > 0.9
    assert (alpha[above] > 128).mean() > 0.9


def test_the_mask_alone_and_outlines(host, browser, open_page, photo, seen):
    page = open_page(browser, host)
    show(page, photo)

    def picture(effect: str) -> np.ndarray:
        look(page, effect)
        _, content = download(page, "save-picture")
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)

    picture("replace")  # whose ground must not stay
    alone, lines = picture("mask"), picture("outline")
    original = np.asarray(Image.open(photo)).astype(int)
    assert alone[seen.mask == 0].mean() < 4
    assert alone[seen.mask > 0].max(axis=1).mean() > 90
    changed = np.abs(lines - original).max(axis=2) > 40
    assert 0.002 < changed.mean() < 0.06
    assert np.abs(lines - original)[20:60, 20:60].mean() < 4


def test_many_photos_become_a_zip(host, browser, open_page, reference, tmp_path):
    page = open_page(browser, host)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no more")
    photos = [reference / "photos" / f"{name}.jpg" for name in ("dog", "person")]
    with page.expect_download(timeout=60_000) as caught:
        page.set_input_files("#file", [photos[0], broken, photos[1]])
    with zipfile.ZipFile(caught.value.path()) as packed:
        assert packed.testzip() is None
        assert sorted(packed.namelist()) == [
            "dog.mask.png", "dog.overlay.jpg", "person.mask.png", "person.overlay.jpg"
        ]  # fmt: skip
        mask = np.asarray(Image.open(io.BytesIO(packed.read("dog.mask.png"))))
    expected = Segmenter(reference / "models" / STARTER, threads=1, exact=True)(photos[0])
    assert (mask == expected.mask).mean() > 0.999
    page.wait_for_selector("#news >> text=2 of 3 photos")
    assert "broken.jpg is not a picture" in page.inner_text("#news")


def test_settings_are_in_the_address(host, browser, open_page, photo):
    page = open_page(browser, host)
    show(page, photo)
    page.keyboard.press("4")
    page.keyboard.press("b")
    assert page.evaluate("location.hash") == "#look=blur&compare=slider"
    assert page.is_checked("[name=effect][value=blur]")
    other = open_page(browser, f"{host}#look=replace&background=%23102030&opacity=20&compare=side")
    assert other.is_checked("[name=effect][value=replace]")
    assert other.input_value("#background-colour") == "#102030"
    assert other.input_value("#compare") == "side"
    third = open_page(browser, f"{host}#model=nothing-of-that-name")
    third.wait_for_selector("#problem >> text=nothing-of-that-name")


def test_keys_are_told_of_and_leave_controls_alone(host, browser, open_page, photo):
    page = open_page(browser, host)
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    assert "before and after" in page.inner_text("#help")
    page.keyboard.press("Escape")
    show(page, photo)
    page.focus("#threshold")
    page.keyboard.press("2")  # a digit in a slider is no key of the page
    assert page.is_checked("[name=effect][value=overlay]")
    page.focus("#canvas")
    page.keyboard.press("2")
    assert page.is_checked("[name=effect][value=outline]")


def test_an_address_gets_an_honest_answer(host, browser, open_page):
    page = open_page(browser, host)
    page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          transfer.setData('text/uri-list', 'https://example.org/cat.jpg');
          const drop = new DragEvent('drop', { dataTransfer: transfer, bubbles: true });
          document.querySelector('#screen').dispatchEvent(drop);
        }"""
    )
    page.wait_for_selector("#problem >> text=asks nobody for anything but its own host")


def test_a_photo_is_seen_before_its_network_is_there(browser, page_folder, photo, seen):
    with serving(page_folder, headers=browser_page.HEADERS) as address:
        context = browser.new_context(service_workers="block")
        page = context.new_page()
        chromium = context.new_cdp_session(page)
        chromium.send("Network.enable")
        chromium.send(
            "Network.emulateNetworkConditions",
            {"offline": False, "latency": 20, "downloadThroughput": 900_000,
             "uploadThroughput": 900_000},
        )  # fmt: skip
        page.goto(f"{address}/")
        page.wait_for_selector("#busy-text >> text=MB")
        page.set_input_files("#file", photo)
        page.wait_for_selector(".screen[data-state=photo]")
        assert page.is_hidden("#problem")
        assert page.evaluate("[canvas.width, canvas.height]") == list(seen.mask.shape[::-1])
        assert page.evaluate("canvas.getContext('2d').getImageData(9, 9, 1, 1).data[3]") == 255
        page.wait_for_selector("#busy-text >> text=s left")
        assert page.is_visible("#busy-bar")
        wait_for_result(page)
        assert page.is_hidden("#busy")
        context.close()
