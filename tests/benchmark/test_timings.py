from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplab.benchmark.interleave import interleave, take_turns
from deeplab.benchmark.timings import Timings

times = st.lists(st.floats(0.001, 1e5), min_size=1, max_size=40)
LINE = re.compile(
    r"count=\d+ first=\d+ curr=\d+ min=\d+ max=\d+ avg=\d+ std=\d+ p5=\d+ median=\d+ p95=\d+"
)


@given(times)
def test_the_numbers_are_in_order(ms: list[float]) -> None:
    found = Timings(ms)
    slack = 1 + 1e-12
    assert found.min <= found.percentile(0.05) * slack
    assert found.percentile(0.05) <= found.median * slack
    assert found.median <= found.percentile(0.95) * slack
    assert found.percentile(0.95) <= found.max * slack
    assert found.min <= found.avg * slack <= found.max * slack**2
    assert (found.count, found.first, found.last) == (len(ms), ms[0], ms[-1])
    assert found.percentile(0.5) == pytest.approx(found.median)


@given(times)
def test_the_line_is_benchmark_models(ms: list[float]) -> None:
    line = Timings(ms).line()
    if min(ms) == max(ms):
        assert re.fullmatch(r"count=\d+ curr=\d+(\(all same\))?", line)
    else:
        assert LINE.fullmatch(line)
        assert f"count={len(ms)} first={1e3 * ms[0]:.0f} " in line


def test_lines_of_few_runs() -> None:
    assert Timings([]).line() == "count=0"
    assert Timings([1.5]).line() == "count=1 curr=1500"
    assert Timings([2, 2]).line() == "count=2 curr=2000(all same)"
    assert Timings([1, 3]).line() == (
        "count=2 first=1000 curr=3000 min=1000 max=3000 avg=2000 std=1000 p5=1100 median=2000 "
        "p95=2900"
    )


def test_turns_are_taken_in_order() -> None:
    runs = {name: lambda name=name: name.upper() for name in "abc"}
    found = list(take_turns(runs, enough=lambda rounds: rounds == 2))
    assert found == [(name, name.upper()) for name in "abcabc"]


def test_warmup_rounds_do_not_count() -> None:
    calls: list[str] = []
    found = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert set(found) == {"a", "b"}
    assert all(ms >= 0 for ms in found.values())
