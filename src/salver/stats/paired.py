"""Tests of two models on the same rows: what one gets right where the other does not.

Rows that both answer alike say nothing about the difference, and a test that forgets the pairing drowns it in
the difficulty of the rows. Differences are first less second everywhere. For areas under the curve see
`delong`, for intervals of any metric `bootstrap`.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from salver.stats.bootstrap import MetricFunction
from salver.stats.checked import outcomes, paired, refusal, same_length
from salver.stats.intervals import Interval, newcombe_paired_difference
from salver.stats.libraries import scipy_special, scipy_stats

__all__ = ["McNemar", "PairedTest", "cohen_d_paired", "mcnemar", "permutation_test", "wilcoxon"]


class McNemar(msgspec.Struct, frozen=True):
    """McNemar's tests of two proportions on the same rows.

    `mid_p` is the one to use: it keeps to the level nearly always and finds more than the exact test, which
    is conservative, while the corrected chi-square is still more so (Fagerland, Lydersen and Laake 2013, BMC
    Medical Research Methodology 13:91).
    """

    rows: int
    only_first: int
    only_second: int
    difference: Interval
    exact_p: float
    mid_p: float
    chi_square: float
    chi_square_p: float


class PairedTest(msgspec.Struct, frozen=True):
    """One test of paired numbers: `difference` is the mean of first less second, or that of the metric."""

    test: str
    rows: int
    difference: float
    statistic: float
    p_value: float


def mcnemar(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> McNemar:
    """McNemar (1947, Psychometrika 12, 153) on rows that are 1 where each model was right and 0 where wrong.

    Exact: twice the smaller binomial tail of the rows that only one got right. Mid-p: half the probability
    of the observed table less on each side. Chi-square: with Edwards' continuity correction. Without such rows
    every p is 1.
    """
    one, other = outcomes(first, "first"), outcomes(second, "second")
    same_length(first=one, second=other)
    b, c = int(np.sum(one > other)), int(np.sum(one < other))
    difference = newcombe_paired_difference(one, other, level=level)
    exact = mid = chi_square_p = 1.0
    chi_square, n = 0.0, b + c
    if n:
        special, least = scipy_special(), min(b, c)
        exact = min(1.0, 2 * float(special.bdtr(least, n, 0.5)))
        point = math.exp(math.lgamma(n + 1) - math.lgamma(b + 1) - math.lgamma(c + 1) - n * math.log(2))
        mid = 1 - point / 2 if b == c else exact - point
        chi_square = max(abs(b - c) - 1, 0) ** 2 / n
        chi_square_p = math.erfc(math.sqrt(chi_square / 2))
    return McNemar(one.size, b, c, difference, exact, mid, chi_square, chi_square_p)


def wilcoxon(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """Wilcoxon's signed-rank test (1945, Biometrics Bulletin 1, 80) as scipy does it; rows without difference drop.

    Exact where there are few rows and no ties. The p-value is 1 when no row differs.
    """
    one, other = paired(first, second)
    differences = one - other
    mean = float(differences.mean())
    telling = differences[differences != 0]
    if telling.size == 0:
        return PairedTest("wilcoxon", one.size, mean, 0.0, 1.0)
    found = scipy_stats().wilcoxon(telling)
    return PairedTest("wilcoxon", one.size, mean, float(found.statistic), float(found.pvalue))


def cohen_d_paired(first: ArrayLike, second: ArrayLike) -> float:
    """Cohen's d of pairs: the mean difference in standard deviations of the differences (d_z; 1988, eq. 2.3.5)."""
    one, other = paired(first, second, at_least=2)
    differences = one - other
    deviation = float(differences.std(ddof=1))
    if deviation == 0:
        raise refusal("the differences have no variance", "give the difference itself instead of a standardised one")
    return float(differences.mean()) / deviation


def permutation_test(
    metric: MetricFunction,
    truth: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    rng: np.random.Generator,
    *,
    permutations: int = 2000,
) -> PairedTest:
    """Whether metric(first) - metric(second) is more than swapping the two models' answers row by row makes.

    Pitman's test for pairs with random swaps: p is (1 + swaps that differ at least as much) / (1 + swaps),
    which is valid at any number of them (Phipson and Smyth 2010, SAGMB 9:39). It holds exactly where the models'
    answers are interchangeable, so labels and calibrated probabilities suit; raw scores on different scales do
    not. The metric must exist on all rows.
    """
    expected, one, other = np.asarray(truth), np.asarray(first), np.asarray(second)
    if not len(expected) == len(one) == len(other) > 0 or one.shape != other.shape:
        raise refusal(
            f"truth {list(expected.shape)}, first {list(one.shape)} and second {list(other.shape)} do not pair",
            "give the same rows to all",
        )
    if not 100 <= permutations <= 100_000:
        raise refusal(f"{permutations} permutations", "give 100 to 100000")
    observed = metric(expected, one) - metric(expected, other)
    if math.isnan(observed):
        raise refusal("the metric is undefined on these rows", "give rows of every class, without NaN")
    # Sums in another order differ in their last digits; that is no larger difference.
    bar = abs(observed) * (1 - 1e-9) - 1e-15
    extreme = 0
    for _ in range(permutations):
        swapped = _swapped(one, other, rng)
        extreme += abs(metric(expected, swapped[0]) - metric(expected, swapped[1])) >= bar
    p_value = (1 + extreme) / (1 + permutations)
    return PairedTest("permutation", len(expected), observed, observed, p_value)


def _swapped(one: NDArray[Any], other: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    swap = (rng.random(len(one)) < 0.5).reshape((-1,) + (1,) * (one.ndim - 1))
    return np.where(swap, other, one), np.where(swap, one, other)
