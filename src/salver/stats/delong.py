"""Areas under the ROC curve with intervals, and DeLong's test whether two on the same rows differ.

DeLong, DeLong and Clarke-Pearson (1988, Biometrics 44, 837) by the algorithm of Sun and Xu (2014, IEEE Signal
Processing Letters 21, 1389): O(n log n) by midranks instead of comparing every pair.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from salver.stats.checked import Floats, finite, refusal, same_length, two_classes
from salver.stats.intervals import Interval, quantile_z

__all__ = ["AucDifference", "area_under_curve", "auc_interval", "compare_aucs"]


class AucDifference(msgspec.Struct, frozen=True):
    """Two areas under the curve on the same rows; `difference` is first less second.

    `correlation` is that of the two estimates; None where the rows do not show it.
    """

    first: Interval
    second: Interval
    difference: Interval
    standard_error: float
    correlation: float | None
    z: float
    p_value: float


def auc_interval(labels: ArrayLike, scores: ArrayLike, *, level: float = 0.95) -> Interval:
    """The area under the ROC curve with its interval; at least two rows of each class.

    DeLong's variance on the logit scale, which keeps the interval within 0 and 1 (Pepe 2003, The Statistical
    Evaluation of Medical Tests, section 5.2.4). Where the rows show no variance (a perfect ranking, say),
    Newcombe's score interval instead, so that few rows never look certain.
    """
    areas, covariance, sizes = _areas(labels, [scores])
    return _around(float(areas[0]), float(covariance[0, 0]), sizes, level)


def compare_aucs(labels: ArrayLike, first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> AucDifference:
    """DeLong's test of two rankings of the same rows; at least two rows of each class.

    Where the difference shows no variance though the scores differ (two perfect rankings, say), the interval
    is that of squared and added single intervals (Newcombe 1998, method 10) without credit for what the
    rows share, and the test follows from it.
    """
    areas, covariance, sizes = _areas(labels, [first, second])
    one = _around(float(areas[0]), float(covariance[0, 0]), sizes, level)
    other = _around(float(areas[1]), float(covariance[1, 1]), sizes, level)
    difference, z_level = float(areas[0] - areas[1]), quantile_z(level)
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    spread = math.sqrt(float(covariance[0, 0] * covariance[1, 1]))
    correlation = float(covariance[0, 1]) / spread if spread > 0 else None
    same = np.array_equal(np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64))
    if variance > 1e-15 or same:
        error = 0.0 if same else math.sqrt(variance)
        interval = Interval(difference, difference - z_level * error, difference + z_level * error, level)
    else:
        below = math.hypot(one.estimate - one.low, other.high - other.estimate)
        above = math.hypot(one.high - one.estimate, other.estimate - other.low)
        interval = Interval(difference, difference - below, difference + above, level)
        error = (below if difference > 0 else above) / z_level
    z = difference / error if error > 0 else 0.0
    return AucDifference(one, other, interval, error, correlation, z, 2 * NormalDist().cdf(-abs(z)))


def _areas(labels: ArrayLike, rankings: list[ArrayLike]) -> tuple[Floats, Floats, tuple[int, int]]:
    """Areas, their covariance matrix (Sun and Xu, algorithm 2), and the numbers of positives and negatives."""
    truth = two_classes(labels)
    positive = truth == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if min(m, n) < 2:
        raise refusal(f"{m} labels are 1 and {n} are 0", "give at least two rows of each class")
    above, below = np.empty((len(rankings), m)), np.empty((len(rankings), n))
    for row, ranking in enumerate(rankings):
        scores = finite(ranking, "scores")
        same_length(labels=truth, scores=scores)
        ranks = _midranks(scores)
        above[row] = (ranks[positive] - _midranks(scores[positive])) / n
        below[row] = 1 - (ranks[~positive] - _midranks(scores[~positive])) / m
    covariance = np.atleast_2d(np.cov(above)) / m + np.atleast_2d(np.cov(below)) / n
    return above.mean(axis=1), covariance, (m, n)


def area_under_curve(positive: NDArray[np.bool_], scores: Floats) -> float:
    """The area alone, by the rank sum of Mann and Whitney; both classes have to occur, which is not checked."""
    m = int(np.count_nonzero(positive))
    n = positive.size - m
    return (float(_midranks(scores)[positive].sum()) - m * (m + 1) / 2) / (m * n)


def _midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _around(area: float, variance: float, sizes: tuple[int, int], level: float) -> Interval:
    z = quantile_z(level)
    if variance <= 1e-15 or not 0 < area < 1:
        return _newcombe(area, sizes, z, level)
    logit = math.log(area / (1 - area))
    half = z * math.sqrt(variance) / (area * (1 - area))
    low, high = _expit(logit - half), _expit(logit + half)
    return Interval(area, min(low, area), max(high, area), level)


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _newcombe(area: float, sizes: tuple[int, int], z: float, level: float) -> Interval:
    """Method 5 of Newcombe (2006, Statistics in Medicine 25, 559): the areas that a z test would not reject.

    Hanley and McNeil's variance at the hypothetical area, with (m + n) / 2 - 1 for both m - 1 and n - 1.
    """
    m, n = sizes
    half = (m + n) / 2 - 1

    def beyond(theta: float) -> bool:
        spread = 1 + half * (1 - theta) / (2 - theta) + half * theta / (1 + theta)
        return abs(area - theta) > z * math.sqrt(theta * (1 - theta) * spread / (m * n))

    def limit(edge: float) -> float:
        outside, inside = edge, area
        for _ in range(60):
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if beyond(middle) else (outside, middle)
        return inside

    return Interval(area, 0.0 if area == 0 else limit(0.0), 1.0 if area == 1 else limit(1.0), level)
