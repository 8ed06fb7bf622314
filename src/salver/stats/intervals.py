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

from salver.stats.checked import amount, finite, fraction, outcomes, refusal, same_length
from salver.stats.libraries import scipy_special

__all__ = [
    "Interval",
    "beta_interval",
    "clopper_pearson",
    "mean_interval",
    "newcombe_difference",
    "newcombe_paired_difference",
    "probability_second_greater",
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


def clopper_pearson(successes: float, trials: float, *, level: float = 0.95) -> Interval:
    """The exact interval of Clopper and Pearson (1934, Biometrika 26, 404): covers at least `level`, often more."""
    x, n = amount(successes, trials)
    special, tail = scipy_special(), (1 - fraction(level, "level")) / 2
    low = 0.0 if x == 0 else float(special.betaincinv(x, n - x + 1, tail))
    high = 1.0 if x == n else float(special.betaincinv(x + 1, n - x, 1 - tail))
    return Interval(x / n, low, high, level)


def beta_interval(
    successes: float, trials: float, *, prior: tuple[float, float] = (0.5, 0.5), level: float = 0.95
) -> Interval:
    """The equal-tailed credible interval of a proportion, by default with Jeffreys' prior; the estimate is the mean.

    The limits at 0 and `trials` successes are set to the edges (Brown, Cai and DasGupta 2001, Statistical
    Science 16, 101, section 4.1.2), where the posterior is highest.
    """
    x, n = amount(successes, trials)
    if min(prior) <= 0:
        raise refusal(f"the prior is {prior}", "give two numbers above 0")
    a, b = x + prior[0], n - x + prior[1]
    special, tail = scipy_special(), (1 - fraction(level, "level")) / 2
    low = 0.0 if x == 0 else float(special.betaincinv(a, b, tail))
    high = 1.0 if x == n else float(special.betaincinv(a, b, 1 - tail))
    return Interval(a / (a + b), low, high, level)


def probability_second_greater(
    first: tuple[int, int], second: tuple[int, int], *, prior: tuple[float, float] = (1.0, 1.0)
) -> float:
    """P(p2 > p1) of two proportions, given (successes, trials) of each, under independent beta priors.

    Integrates the first's density times the second's survival function by Gauss-Legendre quadrature over the
    angle whose squared sine is the proportion, cut ten standard deviations about either mean.

    >>> round(probability_second_greater((150, 1000), (180, 1000)), 5)
    0.96451
    """
    special = scipy_special()
    (x1, n1), (x2, n2) = amount(*first), amount(*second)
    if min(prior) <= 0:
        raise refusal(f"the prior is {prior}", "give two numbers above 0")
    a, b, c, d = x1 + prior[0], n1 - x1 + prior[1], x2 + prior[0], n2 - x2 + prior[1]
    middles = [(math.asin(math.sqrt(e / (e + f))), 5 / math.sqrt(e + f)) for e, f in ((a, b), (c, d))]
    cuts = np.unique(np.clip([0, math.pi / 2, *(m + side * w for m, w in middles for side in (-1, 1))], 0, math.pi / 2))
    nodes, weights = np.polynomial.legendre.leggauss(200)
    half = np.diff(cuts)[:, None] / 2
    angle = (cuts[:-1, None] + half * (nodes + 1)).ravel()
    sine, cosine = np.sin(angle), np.cos(angle)
    log_density = (2 * a - 1) * np.log(sine) + (2 * b - 1) * np.log(cosine) - special.betaln(a, b)
    mass = (half * weights).ravel() * 2 * np.exp(log_density)
    return float(np.sum(mass * special.betainc(d, c, cosine**2)) / np.sum(mass))


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
