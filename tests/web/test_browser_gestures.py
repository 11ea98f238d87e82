"""What fingers and other programs do: pinch and drag, copy, share."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hosting import look, show, wait_until
from PIL import Image

pytestmark = [pytest.mark.reference, pytest.mark.integration]

BOX = "(() => { const b = canvas.getBoundingClientRect(); return [b.x, b.y, b.width, b.height] })()"
KEEP_SHARED = """
navigator.canShare = ({ files }) => files.length === 1;
navigator.share = async ({ files }) => {
  if (globalThis.refusal) throw new DOMException('no', globalThis.refusal);
  globalThis.shared = files[0];
};
"""


def bytes_of(page, promise: str) -> bytes:
    """Return the bytes of a blob of the page."""
    text = page.evaluate(
        f"""(async () => {{
          const bytes = new Uint8Array(await (await {promise}).arrayBuffer());
          let text = '';
          for (const byte of bytes) text += String.fromCharCode(byte);
          return btoa(text);
        }})()"""
    )
    return base64.b64decode(text)


def seen_pixels(page) -> np.ndarray:
    encoded = bytes_of(page, "new Promise((done) => canvas.toBlob(done, 'image/png'))")
    return np.asarray(Image.open(io.BytesIO(encoded)))


def test_two_fingers_zoom_around_themselves_and_one_drags(host, browser, open_page, reference):
    page = open_page(
        browser, host, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True
    )
    show(page, reference / "photos" / "dog.jpg")
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *points: tuple[float, float]) -> None:
        given = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

    x, y, width, height = page.evaluate(BOX)
    at = (x + 0.4 * width, y + 0.6 * height)
    fingers("touchStart", (at[0] - 20, at[1]), (at[0] + 20, at[1]))
    for span in (30, 40, 50, 60):
        fingers("touchMove", (at[0] - span, at[1]), (at[0] + span, at[1]))
    fingers("touchEnd")
    left, top, wide, high = page.evaluate(BOX)
    assert wide / width == pytest.approx(3, rel=0.02)
    assert high / height == pytest.approx(3, rel=0.02)
    # What was between the fingers still is.
    assert (at[0] - left) / wide == pytest.approx(0.4, abs=0.01)
    assert (at[1] - top) / high == pytest.approx(0.6, abs=0.01)
    assert page.is_hidden("#dropped")  # it was no tap on an object
    assert page.evaluate("visualViewport.scale") == 1  # the picture, not the page

    fingers("touchStart", at)
    for step in (10, 20, 30):
        fingers("touchMove", (at[0] + step, at[1] - step))
    fingers("touchEnd")
    moved = page.evaluate(BOX)
    assert moved[0] - left == pytest.approx(30, abs=1)
    assert moved[1] - top == pytest.approx(-30, abs=1)
    assert page.evaluate("scrollY") == 0
    page.click("[data-action=zoom-fit]")  # of a tap on a busy machine a long press may come
    fits = f"(width) => Math.abs({BOX}[2] - width) < 0.5"
    page.wait_for_function(fits, arg=width)
    assert page.evaluate(BOX) == pytest.approx([x, y, width, height], abs=0.5)


def test_the_clipboard_gets_the_picture_that_is_seen(host, browser, open_page, reference):
    page = open_page(browser, host, permissions=["clipboard-read", "clipboard-write"])
    show(page, reference / "photos" / "dog.jpg")
    look(page, "cutout")
    page.click("[data-action=copy]")
    page.wait_for_selector("#news >> text=on the clipboard")
    read = "navigator.clipboard.read().then(([item]) => item.getType('image/png'))"
    got = np.asarray(Image.open(io.BytesIO(bytes_of(page, read))).convert("RGBA"))
    expected = seen_pixels(page)
    solid = expected[:, :, 3] == 255
    assert got.shape == expected.shape
    assert solid.sum() > 5000
    assert (got[solid] == expected[solid]).all()
    assert (got[:, :, 3] < 255).any()
    # Where the browser refuses, it says so.
    page.evaluate("navigator.clipboard.write = () => Promise.reject(new Error('not allowed')); 0")
    page.click("[data-action=copy]")
    page.wait_for_selector("#problem >> text=could not be copied (not allowed). Save it.")


def test_another_program_is_given_the_picture(host, browser, open_page, reference):
    page = open_page(browser, host, init_script=KEEP_SHARED)
    show(page, reference / "photos" / "dog.jpg")
    assert page.is_visible("[data-action=share]")
    page.click("[data-action=share]")
    wait_until(page, "globalThis.shared !== undefined")
    assert page.evaluate("[shared.name, shared.type]") == ["dog.overlay.jpg", "image/jpeg"]
    got = np.asarray(Image.open(io.BytesIO(bytes_of(page, "shared")))).astype(int)
    assert np.abs(got - seen_pixels(page)[:, :, :3]).mean() < 3
    look(page, "cutout")
    page.click("[data-action=share]")
    wait_until(page, "shared.name === 'dog.cutout.png'")
    assert page.evaluate("shared.type") == "image/png"
    # Somebody who changes their mind is told nothing; anything else is.
    page.evaluate("globalThis.refusal = 'AbortError'")
    page.click("[data-action=share]")
    page.wait_for_timeout(200)
    assert page.is_hidden("#problem")
    page.evaluate("globalThis.refusal = 'NotAllowedError'")
    page.click("[data-action=share]")
    page.wait_for_selector("#problem:visible")


def test_where_nothing_can_be_shared_there_is_no_button(host, browser, open_page):
    page = open_page(browser, host, init_script="navigator.canShare = undefined;")
    assert page.is_hidden("[data-action=share]")
