"""The page on every screen: picture and looks in view together, messages in view, axe content."""

from __future__ import annotations

import pytest
from hosting import ROOT, drop, show

pytestmark = [pytest.mark.reference, pytest.mark.integration]

SCREENS = {"desktop": (1280, 860), "upright": (360, 740), "across": (740, 360)}
KINDS = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "forced": {"forced_colors": "active"},
    "large text": {},
}

BOXES = """() => Object.fromEntries(['screen', 'effects', 'problem'].map((id) => {
  const { left, top, right, bottom } = document.getElementById(id).getBoundingClientRect();
  return [id, { left, top, right, bottom }];
}))"""


@pytest.fixture(scope="module")
def axe(built_page) -> str:
    return (ROOT / "web/node_modules/axe-core/axe.min.js").read_text("utf-8")


def faults(page) -> list[str]:
    return page.evaluate(
        "axe.run().then(({ violations }) => violations.map((one) => `${one.id}: ` +"
        " one.nodes.map(({ target }) => target.join(' ')).join(', ')))"
    )


@pytest.mark.parametrize("screen", SCREENS)
def test_it_fits_the_screen(screen, host, browser, open_page, reference, axe, tmp_path):
    width, height = SCREENS[screen]
    for kind, options in KINDS.items():
        page = open_page(browser, host, viewport={"width": width, "height": height}, **options)
        page.evaluate(axe)
        if kind == "large text":
            page.evaluate("document.documentElement.style.fontSize = '200%'")
        assert faults(page) == [], kind
        show(page, reference / "photos" / "person.jpg")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, kind
        drop(page, ("notes.tflite", b"These are only notes."))
        page.wait_for_selector("#problem >> text=is no model")
        for scrolled in (0, 300):
            page.evaluate(f"window.scrollTo(0, {scrolled})")
            page.wait_for_timeout(50)
            for name, box in page.evaluate(BOXES).items():
                where = f"{kind}, {name}, scrolled by {scrolled}: {box}"
                assert -1 <= box["left"] < box["right"] <= width + 1, where
                assert -1 <= box["top"] < box["bottom"] <= height + 1, where
            page.screenshot(path=tmp_path / f"{screen}-{kind}-{scrolled}.png")
        assert faults(page) == [], kind
        page.context.close()
    print(f"screenshots: {tmp_path}")


def test_what_is_chosen_is_seen(host, browser, open_page):
    """The chosen look stands out from the others by 3:1, as WCAG 1.4.11 asks."""
    for options in KINDS.values():
        page = open_page(browser, host, **options)
        grounds = page.evaluate(
            """() => ['input:checked + span', 'input:not(:checked) + span'].map((choice) => {
              let part = document.querySelector(`#effects ${choice}`);
              const colour = () => getComputedStyle(part).backgroundColor;
              while (/, 0\\)$/.test(colour()) && part.parentElement) part = part.parentElement;
              return colour().match(/[\\d.]+/g).slice(0, 3).map(Number);
            })"""
        )
        chosen, other = (luminance(ground) for ground in grounds)
        assert (max(chosen, other) + 0.05) / (min(chosen, other) + 0.05) >= 3, grounds
        page.context.close()


def luminance(colour: list[float]) -> float:
    parts = [value / 255 for value in colour]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
