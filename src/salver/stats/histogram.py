"""Histograms that add: counts in fixed buckets, merged exactly across processes and time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

__all__ = ["LATENCY_BOUNDS_S", "Histogram", "HistogramCounter"]

LATENCY_BOUNDS_S: Final = tuple(50e-6 * 2**step for step in range(20))
"""Upper bounds in seconds: 50 microseconds to 26 seconds, each twice the one before."""


class Histogram(msgspec.Struct, frozen=True):
    """Counts of values by bucket; `counts` has one more element than `bounds`, for what is above.

    >>> a, b = Histogram.of([0.0001, 0.002]), Histogram.of([0.1])
    >>> (a + b).count, round((a + b).total, 4)
    (3, 0.1021)
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @classmethod
    def of(cls, values: Iterable[float], bounds: tuple[float, ...] = LATENCY_BOUNDS_S) -> Histogram:
        """Summarise `values`."""
        counter = HistogramCounter(bounds)
        for value in values:
            counter.add(value)
        return counter.freeze()

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def __add__(self, other: Histogram) -> Histogram:
        if self.bounds != other.bounds:
            raise ValueError("histograms with different bounds do not add")
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(self.bounds, counts, self.total + other.total)

    def quantile(self, q: float) -> float:
        """An upper bound of the q-quantile, at most one bucket (a factor of 2) too high; NaN when empty."""
        rank = q * self.count
        seen = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if count and seen >= rank:
                return bound
        return float("nan")


class HistogramCounter:
    """A histogram being filled."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS_S) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def add_all(self, values: Sequence[float]) -> None:
        """Count several values; quicker than one by one."""
        bounds, counts = self._bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)

    def freeze(self) -> Histogram:
        """What has been counted so far."""
        return Histogram(self._bounds, tuple(self.counts), self.total)
