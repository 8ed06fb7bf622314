"""How many rows or users a comparison needs, and what it can find with those it has.

Sizes are per arm (or pairs, for McNemar), two-sided, as exact real numbers where the formula gives one; round
up with `math.ceil`. Every function says which formula it is, because four of them give four answers.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final, Literal, TypeAlias

from salver.stats.checked import fraction, refusal
from salver.stats.effects import cohen_h
from salver.stats.libraries import scipy_special

__all__ = [
    "PROPORTION_FORMULAS",
    "ProportionFormula",
    "lehr_size",
    "mcnemar_power",
    "mcnemar_size",
    "means_power",
    "means_size",
    "means_size_t",
    "proportions_power",
    "proportions_size",
]

ProportionFormula: TypeAlias = Literal["unpooled", "pooled", "continuity", "arcsine"]
PROPORTION_FORMULAS: Final[tuple[ProportionFormula, ...]] = ("unpooled", "pooled", "continuity", "arcsine")

_NORMAL: Final = NormalDist()
_MOST_ROWS: Final = 10**9


def proportions_size(
    first: float, second: float, *, alpha: float = 0.05, power: float = 0.8, formula: ProportionFormula = "pooled"
) -> float:
    """Rows per arm to find `second` where `first` was, by a two-sided z test at `alpha`.

    `unpooled`: each arm's own variance. `pooled`: Fleiss, Levin and Paik (2003, Statistical Methods for Rates
    and Proportions, eq. 4.14), the variance under the null hypothesis pooled; the default, as it plans
    the test that `effects.two_proportions` does. `continuity`: the same, corrected (eq. 4.16, after Casagrande,
    Pike and Smith 1978); plans exact tests. `arcsine`: Cohen's h (1988, section 6.4).

    >>> [math.ceil(proportions_size(0.15, 0.17, formula=each)) for each in PROPORTION_FORMULAS]
    [5271, 5274, 5373, 5270]
    """
    _check_proportions(first, second)
    z_alpha, z_beta = _z(alpha, power)
    gap, own = abs(second - first), first * (1 - first) + second * (1 - second)
    middle = (first + second) / 2
    if formula == "unpooled":
        return (z_alpha + z_beta) ** 2 * own / gap**2
    if formula == "arcsine":
        return 2 * ((z_alpha + z_beta) / cohen_h(first, second)) ** 2
    pooled = (z_alpha * math.sqrt(2 * middle * (1 - middle)) + z_beta * math.sqrt(own)) ** 2 / gap**2
    if formula == "pooled":
        return pooled
    if formula == "continuity":
        return pooled / 4 * (1 + math.sqrt(1 + 4 / (pooled * gap))) ** 2
    raise refusal(f"no formula {formula!r}", f"give one of {', '.join(PROPORTION_FORMULAS)}")


def proportions_power(
    first: float, second: float, rows: float, *, alpha: float = 0.05, formula: ProportionFormula = "pooled"
) -> float:
    """The chance to find the difference with `rows` per arm: `proportions_size` solved for the power."""
    _check_proportions(first, second)
    _check_rows(rows)
    z_alpha = _NORMAL.inv_cdf(1 - fraction(alpha, "alpha") / 2)
    gap, own = abs(second - first), first * (1 - first) + second * (1 - second)
    middle = (first + second) / 2
    if formula == "unpooled":
        return _NORMAL.cdf(gap * math.sqrt(rows / own) - z_alpha)
    if formula == "arcsine":
        return _NORMAL.cdf(abs(cohen_h(first, second)) * math.sqrt(rows / 2) - z_alpha)
    if formula == "continuity":
        # The corrected size is (sqrt(m) + sqrt(m + 4 / gap))^2 / 4 of the uncorrected m; this is its inverse.
        rows = max(math.sqrt(rows) - 1 / (gap * math.sqrt(rows)), 0.0) ** 2
    elif formula != "pooled":
        raise refusal(f"no formula {formula!r}", f"give one of {', '.join(PROPORTION_FORMULAS)}")
    distance = gap * math.sqrt(rows) - z_alpha * math.sqrt(2 * middle * (1 - middle))
    return _NORMAL.cdf(distance / math.sqrt(own))


def means_size(effect: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Rows per arm to find a difference of `effect` standard deviations, with known variance: 2 (z + z)^2 / d^2."""
    _check_effect(effect)
    return 2 * (sum(_z(alpha, power)) / effect) ** 2


def lehr_size(effect: float) -> float:
    """Lehr's rule of thumb, 16 / d^2, for alpha 0.05 and power 0.8 (1992, Statistics in Medicine 11, 1099)."""
    _check_effect(effect)
    return 16 / effect**2


def means_size_t(effect: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Rows per arm for Student's t test: the least whole number whose `means_power` reaches `power`.

    >>> means_size_t(0.5), means_size_t(0.2)
    (64, 394)
    """
    start = means_size(effect, alpha=alpha, power=power)
    if start > _MOST_ROWS:
        raise refusal(f"an effect of {effect:g} takes {start:.3g} rows", "look for a larger effect")
    rows = max(2, math.floor(start))  # the t test never needs fewer than the z test
    while means_power(effect, rows, alpha=alpha) < power:
        rows += 1
    return rows


def means_power(effect: float, rows: float, *, alpha: float = 0.05) -> float:
    """The power of the two-sided two-sample t test with `rows` per arm, by the noncentral t distribution."""
    _check_effect(effect)
    _check_rows(rows)
    special, freedom = scipy_special(), 2 * rows - 2
    shift = abs(effect) * math.sqrt(rows / 2)
    bar = float(special.stdtrit(freedom, 1 - fraction(alpha, "alpha") / 2))
    # The far tail adds less than the last digit of nctdtr once the shift is clear of 0.
    far = float(special.nctdtr(freedom, shift, -bar)) if shift < 5 else 0.0
    return 1 - float(special.nctdtr(freedom, shift, bar)) + far


def mcnemar_size(only_first: float, only_second: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Pairs that McNemar's test needs, given the shares of rows that only the first or the second gets right.

    Connor (1987, Biometrics 43, 207): (z_alpha sqrt(s) + z_beta sqrt(s - d^2))^2 / d^2, with s their
    sum and d their difference.
    """
    discordant, gap = _check_discordant(only_first, only_second)
    z_alpha, z_beta = _z(alpha, power)
    return (z_alpha * math.sqrt(discordant) + z_beta * math.sqrt(discordant - gap**2)) ** 2 / gap**2


def mcnemar_power(only_first: float, only_second: float, pairs: float, *, alpha: float = 0.05) -> float:
    """The power of McNemar's test with `pairs`: `mcnemar_size` solved for the power."""
    discordant, gap = _check_discordant(only_first, only_second)
    _check_rows(pairs)
    z_alpha = _NORMAL.inv_cdf(1 - fraction(alpha, "alpha") / 2)
    spread = math.sqrt(discordant - gap**2)
    distance = gap * math.sqrt(pairs) - z_alpha * math.sqrt(discordant)
    return _NORMAL.cdf(distance / spread) if spread > 0 else float(distance > 0)


def _z(alpha: float, power: float) -> tuple[float, float]:
    return _NORMAL.inv_cdf(1 - fraction(alpha, "alpha") / 2), _NORMAL.inv_cdf(fraction(power, "power"))


def _check_proportions(first: float, second: float) -> None:
    fraction(first, "the first proportion")
    fraction(second, "the second proportion")
    if first == second:
        raise refusal(f"both proportions are {first:g}", "give the difference to find")


def _check_effect(effect: float) -> None:
    if not (math.isfinite(effect) and effect != 0):
        raise refusal(f"the effect is {effect:g}", "give the difference to find, in standard deviations")


def _check_rows(rows: float) -> None:
    if not 2 <= rows <= _MOST_ROWS:
        raise refusal(f"{rows:g} rows", f"give 2 to {_MOST_ROWS}")


def _check_discordant(only_first: float, only_second: float) -> tuple[float, float]:
    discordant, gap = only_first + only_second, abs(only_first - only_second)
    if min(only_first, only_second) < 0 or not 0 < discordant <= 1 or gap == 0:
        raise refusal(f"shares {only_first:g} and {only_second:g}", "give two different shares whose sum is at most 1")
    return discordant, gap
