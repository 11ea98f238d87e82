"""Time contenders against each other, fairly: interleaved in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

Name = TypeVar("Name")
Result = TypeVar("Result")


def take_turns(
    contenders: Mapping[Name, Callable[[], Result]], *, enough: Callable[[int], bool]
) -> Iterator[tuple[Name, Result]]:
    """Run every contender once per round, and give (name, result) after each.

    Whatever else the machine does then falls on all of them alike.

    Args:
        contenders: what is run, by name.
        enough: called before every round with the number of rounds done.
    """
    rounds = 0
    while not enough(rounds):
        for name, run in contenders.items():
            yield name, run()
        rounds += 1


def interleave(
    contenders: Mapping[str, Callable[[], Any]], *, rounds: int, warmup_rounds: int = 1
) -> dict[str, float]:
    """Return the median milliseconds of each contender over the rounds after the warm-up."""

    def timed(run: Callable[[], Any]) -> Callable[[], float]:
        def call() -> float:
            start = time.perf_counter()
            run()
            return 1e3 * (time.perf_counter() - start)

        return call

    times: dict[str, list[float]] = {name: [] for name in contenders}
    runs = {name: timed(run) for name, run in contenders.items()}
    for name, ms in take_turns(runs, enough=lambda done: done == warmup_rounds + rounds):
        times[name].append(ms)
    return {name: statistics.median(ms[warmup_rounds:]) for name, ms in times.items()}
