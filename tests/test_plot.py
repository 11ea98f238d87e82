from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplab.plot import Panel, picture, round_ticks, text

PANEL = Panel(left=60, top=20, width=200, height=100, x=(0, 10), y=(0.5, 0.75))
SVG = "{http://www.w3.org/2000/svg}"


def test_the_corners_have_their_places() -> None:
    assert PANEL.place((0, 0.5)) == (60, 120)
    assert PANEL.place((10, 0.75)) == (260, 20)
    assert PANEL.place((5, 0.625)) == (160, 70)


def test_one_number_is_enough_for_an_axis() -> None:
    flat = Panel(left=0, top=0, width=10, height=10, x=(3, 3), y=(7, 7))
    assert flat.place((3, 7)) == (0, 10)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_ticks_are_round_and_few(low: float, span: float, count: int) -> None:
    ticks = round_ticks(low, low + span, count=count)
    assert len(ticks) <= count
    slack = 1e-9 * max(1, abs(low) + span)
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0.52, 0.78, [0.55, 0.6, 0.65, 0.7, 0.75]), (3, 3, [3])],
)
def test_ticks_as_one_would_write_them(low: float, high: float, ticks: list[float]) -> None:
    assert round_ticks(low, high) == ticks


def test_the_picture_is_well_formed_and_words_are_escaped() -> None:
    points = [(0, 0.5), (10, 0.75)]
    body = PANEL.axes() + PANEL.grid(x=[0, 5], y=[0.6]) + PANEL.line(points, "#123")
    body += PANEL.dots(points, "#123", hollow=True) + text(1, 2, "a < b & c", bold=True)
    root = ElementTree.fromstring(picture(300, 200, body))
    assert [one.text for one in root.iter(f"{SVG}text")] == ["0", "5", "0.6", "a < b & c"]
    assert len(list(root.iter(f"{SVG}circle"))) == 2
