"""Intervals around proportions, their differences and means.

Few rows must give a wide interval, also where every row went well: Wald's interval of 20 of 20 is [1, 1],
Wilson's is [0.839, 1]. Every interval here keeps its width at the edges.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from salver.stats.checked import amount, finite, fraction, outcomes, same_length
from salver.stats.libraries import scipy_special

__all__ = [
    "Interval",
    "mean_interval",
    "newcombe_difference",
    "newcombe_paired_difference",
    "quantile_z",
    "wilson",
]


class Interval(msgspec.Struct, frozen=True):
    """An estimate with the values that are compatible with it at `level`; low <= estimate <= high."""

    estimate: float
    low: float
    high: float
    level: float = 0.95

    @property
    def width(self) -> float:
        """How far apart the limits are."""
        return self.high - self.low

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def quantile_z(level: float) -> float:
    """The two-sided normal quantile: 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + fraction(level, "level") / 2)


def wilson(successes: float, trials: float, *, level: float = 0.95) -> Interval:
    """Wilson's score interval (1927, JASA 22, 209): the proportions that a z test would not reject.

    >>> found = wilson(180, 1000)
    >>> round(found.low, 6), round(found.high, 6)
    (0.157427, 0.205022)
    """
    x, n = amount(successes, trials)
    z = quantile_z(level)
    p, shrink = x / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At 0 and n one limit is exactly the edge; rounding would leave it beside.
    low = 0.0 if x == 0 else max(0.0, middle - half)
    high = 1.0 if x == n else min(1.0, middle + half)
    return Interval(p, min(low, p), max(high, p), level)


def newcombe_difference(first: tuple[float, float], second: tuple[float, float], *, level: float = 0.95) -> Interval:
    """p1 - p2 of independent samples, each (successes, trials): Newcombe's hybrid score interval.

    Method 10 of Newcombe (1998, Statistics in Medicine 17, 873).
    """
    one, other = wilson(*first, level=level), wilson(*second, level=level)
    return _square_and_add(one, other, 0.0)


def newcombe_paired_difference(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Interval:
    """p1 - p2 on the same rows, 1 where each was right: Newcombe's hybrid score interval for paired proportions.

    Method 10 of Newcombe (1998, Statistics in Medicine 17, 2635): Wilson's limits squared and added, less what
    the rows share, with the phi coefficient corrected for continuity.
    """
    one, other = outcomes(first, "first"), outcomes(second, "second")
    same_length(first=one, second=other)
    n = float(one.size)
    both, only_first = float(np.sum(one * other)), float(np.sum(one * (1 - other)))
    only_second = float(np.sum((1 - one) * other))
    neither = n - both - only_first - only_second
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    phi = 0.0
    if margins > 0:
        cross = both * neither - only_first * only_second
        if cross > 0:
            cross = max(cross - n / 2, 0.0)
        phi = cross / math.sqrt(margins)
    return _square_and_add(wilson(both + only_first, n, level=level), wilson(both + only_second, n, level=level), phi)


def _square_and_add(one: Interval, other: Interval, correlation: float) -> Interval:
    difference = one.estimate - other.estimate
    down, up = one.estimate - one.low, one.high - one.estimate
    other_down, other_up = other.estimate - other.low, other.high - other.estimate
    below = math.sqrt(max(down**2 - 2 * correlation * down * other_up + other_up**2, 0.0))
    above = math.sqrt(max(up**2 - 2 * correlation * up * other_down + other_down**2, 0.0))
    return Interval(difference, difference - below, difference + above, one.level)


def mean_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Student's interval around the mean of at least two values."""
    array = finite(values, "values", at_least=2)
    special = scipy_special()
    error = float(array.std(ddof=1)) / math.sqrt(array.size)
    t = float(special.stdtrit(array.size - 1, 0.5 + fraction(level, "level") / 2))
    mean = float(array.mean())
    return Interval(mean, mean - t * error, mean + t * error, level)
