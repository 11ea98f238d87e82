"""Times of many runs, and what is said of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timings:
    """Times of runs in their order.

    Attributes:
        ms: milliseconds of each; may be empty, and then there is nothing to ask for but ``count``.
    """

    ms: Sequence[float]

    @property
    def count(self) -> int:
        """How many runs."""
        return len(self.ms)

    @property
    def first(self) -> float:
        """The first run."""
        return self.ms[0]

    @property
    def last(self) -> float:
        """The last run; ``benchmark_model`` calls it "curr"."""
        return self.ms[-1]

    @property
    def min(self) -> float:
        """The fastest run."""
        return min(self.ms)

    @property
    def max(self) -> float:
        """The slowest run."""
        return max(self.ms)

    @property
    def avg(self) -> float:
        """The mean."""
        return math.fsum(self.ms) / len(self.ms)

    @property
    def std(self) -> float:
        """The standard deviation of these very runs (not an estimate for others)."""
        return statistics.pstdev(self.ms)

    @property
    def median(self) -> float:
        """As many runs were faster as slower."""
        return statistics.median(self.ms)

    def percentile(self, share: float) -> float:
        """Return the time that this share of the runs, 0 to 1, stayed at or below."""
        ordered = sorted(self.ms)
        place = share * (len(ordered) - 1)
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    def line(self) -> str:
        """Return count, first, curr, … in microseconds, as ``benchmark_model`` writes them.

        Source: tensorflow/lite, util/stats_calculator.h (``Stat::OutputToStream``).
        """
        if not self.ms:
            return "count=0"
        if self.min == self.max:
            return f"count={self.count} curr={micro(self.last)}" + "(all same)" * (self.count > 1)
        said = {
            "first": self.first,
            "curr": self.last,
            "min": self.min,
            "max": self.max,
            "avg": self.avg,
            "std": self.std,
            "p5": self.percentile(0.05),
            "median": self.median,
            "p95": self.percentile(0.95),
        }
        return f"count={self.count} " + " ".join(f"{name}={micro(ms)}" for name, ms in said.items())


def micro(ms: float) -> str:
    """Return milliseconds as whole microseconds."""
    return f"{1e3 * ms:.0f}"
