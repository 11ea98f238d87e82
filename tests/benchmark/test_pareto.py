from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from deeplab.benchmark.pareto import draw_pareto, find_front

SVG = "{http://www.w3.org/2000/svg}"
points = st.lists(st.tuples(st.floats(0.1, 1e4), st.floats(0, 1)), min_size=1, max_size=20)


@given(points)
def test_nothing_quicker_is_as_good_as_the_front(found: list[tuple[float, float]]) -> None:
    front = find_front(found)
    for index, (x, y) in enumerate(found):
        beaten = any((a <= x and b >= y and (a, b) != (x, y)) for a, b in found)
        if index in front:
            assert not beaten
        else:
            assert beaten or any(found[other] == (x, y) for other in front)


def row(ms: float, miou: float | None, stride: int = 8, model: str = "a") -> dict:
    return {"network_ms": ms, "miou": miou, "output_stride": stride, "model": model,
            "runtime": "torch", "device": "cpu", "threads": 1, "size": "9×9"}  # fmt: skip


def drawn(rows: list[dict]) -> ElementTree.Element:
    names = [f"row {number}" for number, _ in enumerate(rows)]
    text = draw_pareto(rows, names, "mIoU", "a machine")
    assert text is not None
    return ElementTree.fromstring(text)


def test_a_dot_and_a_name_for_every_row_with_quality() -> None:
    root = drawn([row(10, 0.7), row(20, 0.6), row(2000, 0.8), row(5, None)])
    circles = list(root.iter(f"{SVG}circle"))
    assert len(circles) == 3
    assert sum(one.get("fill") == "white" for one in circles) == 1
    words = [one.text for one in root.iter(f"{SVG}text")]
    assert {"row 0", "row 1", "row 2"} <= set(words)
    assert "row 3" not in words
    assert "1000" in words  # so far apart that they are drawn by their ratios


def test_output_strides_of_one_model_are_joined() -> None:
    strides = [row(30, 0.8, 8), row(10, 0.6, 32), row(15, 0.7, 16)]
    lines = list(drawn([*strides, row(12, 0.5, model="b")]).iter(f"{SVG}polyline"))
    assert [len(line.get("points", "").split()) for line in lines] == [3, 3]
    x = [float(point.split(",")[0]) for point in lines[0].get("points", "").split()]
    assert x == sorted(x, reverse=True)


def test_no_quality_no_picture() -> None:
    assert draw_pareto([row(1, None)], ["a"], "mIoU", "a machine") is None
