"""How large a difference is, beside whether it is there: sizes of effects, and tests of two proportions.

Proportions are given as (successes, trials) of independent samples; on the same rows see `paired`.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from salver.stats.checked import amount, counts, finite, refusal, same_length
from salver.stats.intervals import Interval, newcombe_difference, quantile_z
from salver.stats.libraries import scipy_special

__all__ = [
    "SampleRatio",
    "TwoProportions",
    "cohen_d",
    "cohen_d_paired",
    "cohen_h",
    "odds_ratio",
    "relative_risk",
    "sample_ratio",
    "two_proportions",
]


class TwoProportions(msgspec.Struct, frozen=True):
    """A z test of two independent proportions; `difference` is second less first."""

    first: float
    second: float
    difference: Interval
    z: float
    p_value: float


class SampleRatio(msgspec.Struct, frozen=True):
    """Whether counts have the shares that were meant."""

    chi_square: float
    degrees_of_freedom: int
    p_value: float


def two_proportions(first: tuple[float, float], second: tuple[float, float], *, level: float = 0.95) -> TwoProportions:
    """The pooled two-sided z test, and the risk difference p2 - p1 with Newcombe's interval.

    >>> found = two_proportions((150, 1000), (180, 1000))
    >>> round(found.z, 5), round(found.p_value, 6)
    (1.80726, 0.070721)
    """
    (x1, n1), (x2, n2) = amount(*first), amount(*second)
    pooled = (x1 + x2) / (n1 + n2)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
    z = (x2 / n2 - x1 / n1) / error if error > 0 else 0.0
    p_value = math.erfc(abs(z) / math.sqrt(2))
    return TwoProportions(x1 / n1, x2 / n2, newcombe_difference(second, first, level=level), z, p_value)


def sample_ratio(seen: ArrayLike, shares: ArrayLike | None = None) -> SampleRatio:
    """Pearson's chi-square test that `seen` counts follow `shares`, equal ones by default.

    A small p-value says that the split is broken, whatever the metrics say (Fabijan et al. 2019, KDD).

    >>> found = sample_ratio([821_588, 815_482])
    >>> round(found.chi_square, 3), f"{found.p_value:.1e}"
    (22.774, '1.8e-06')
    """
    found = counts(seen, "seen")
    wanted = np.ones_like(found) if shares is None else finite(shares, "shares")
    same_length(seen=found, shares=wanted)
    if found.size < 2 or wanted.min() <= 0:
        raise refusal("the shares leave nothing to compare", "give two counts or more, and shares above 0")
    expected = found.sum() * wanted / wanted.sum()
    chi_square = float(np.sum((found - expected) ** 2 / expected))
    freedom = found.size - 1
    return SampleRatio(chi_square, freedom, float(scipy_special().chdtrc(freedom, chi_square)))


def cohen_h(first: float, second: float) -> float:
    """Cohen's h = 2 asin(sqrt(p2)) - 2 asin(sqrt(p1)) (1988, Statistical Power Analysis, eq. 6.2.1).

    >>> round(cohen_h(0.15, 0.17), 5)
    0.05458
    """
    if not (0 <= first <= 1 and 0 <= second <= 1):
        raise refusal(f"{first:g} and {second:g} are no two proportions", "give numbers from 0 to 1")
    return 2 * math.asin(math.sqrt(second)) - 2 * math.asin(math.sqrt(first))


def cohen_d(first: ArrayLike, second: ArrayLike) -> float:
    """Cohen's d of independent samples: the difference first - second in pooled standard deviations.

    Cohen (1988), eq. 2.5.1 with n - 1. Samples without any variance are refused.
    """
    one, other = finite(first, "first", at_least=2), finite(second, "second", at_least=2)
    freedom = one.size + other.size - 2
    pooled = ((one.size - 1) * one.var(ddof=1) + (other.size - 1) * other.var(ddof=1)) / freedom
    return _standardised(float(one.mean() - other.mean()), math.sqrt(float(pooled)))


def cohen_d_paired(first: ArrayLike, second: ArrayLike) -> float:
    """Cohen's d of pairs: the mean difference in standard deviations of the differences (d_z; 1988, eq. 2.3.5)."""
    one, other = finite(first, "first", at_least=2), finite(second, "second", at_least=2)
    same_length(first=one, second=other)
    differences = one - other
    return _standardised(float(differences.mean()), float(differences.std(ddof=1)))


def _standardised(difference: float, deviation: float) -> float:
    if deviation == 0:
        raise refusal("the values have no variance", "give the difference itself instead of a standardised one")
    return difference / deviation


def odds_ratio(first: tuple[float, float], second: tuple[float, float], *, level: float = 0.95) -> Interval:
    """The odds of the second sample over those of the first, with Woolf's logit interval.

    With an empty cell, one half is added to each (Haldane 1956, Anscombe 1956), to the estimate as well.
    """
    (x1, n1), (x2, n2) = amount(*first), amount(*second)
    cells = np.array([x2, n2 - x2, x1, n1 - x1])
    if cells.min() == 0:
        cells = cells + 0.5
    log_ratio = math.log(cells[0] * cells[3] / (cells[1] * cells[2]))
    return _log_interval(log_ratio, math.sqrt(float(np.sum(1 / cells))), level)


def relative_risk(first: tuple[float, float], second: tuple[float, float], *, level: float = 0.95) -> Interval:
    """The second proportion over the first, with the log interval of Katz et al. (1978, Biometrics 34, 469).

    With no success in a sample, one half is added to the successes and one to the trials of both.
    """
    (x1, n1), (x2, n2) = amount(*first), amount(*second)
    if min(x1, x2) == 0:
        x1, n1, x2, n2 = x1 + 0.5, n1 + 1, x2 + 0.5, n2 + 1
    error = math.sqrt(max(1 / x1 - 1 / n1 + 1 / x2 - 1 / n2, 0.0))
    return _log_interval(math.log(x2 / n2 / (x1 / n1)), error, level)


def _log_interval(log_estimate: float, error: float, level: float) -> Interval:
    half = quantile_z(level) * error
    return Interval(math.exp(log_estimate), math.exp(log_estimate - half), math.exp(log_estimate + half), level)
