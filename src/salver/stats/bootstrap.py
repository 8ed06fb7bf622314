"""Intervals of any metric and of any metric's difference, by drawing the rows again.

Percentile and BCa intervals of Efron (1987, JASA 82, 171). Rows are drawn with replacement, both models' answers
together; with `groups`, whole groups are (rows of one patient are not independent); with `strata`, each stratum
keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from salver.protocol.errors import SalverError
from salver.stats.checked import Floats, fraction, refusal
from salver.stats.intervals import Interval

__all__ = ["BootstrapResult", "MetricFunction", "bootstrap_difference", "bootstrap_metric"]

MetricFunction: TypeAlias = Callable[[NDArray[Any], NDArray[Any]], float]
"""(truth, predicted) -> number; raises ValueError or SalverError, or gives NaN, where it is undefined."""

Rows: TypeAlias = NDArray[np.intp]
Method: TypeAlias = Literal["bca", "percentile"]

_BLOCKS: Final = 200  # the jackknife leaves out blocks when there are more rows: its skewness needs no more
_MOST_UNDEFINED_RATIO: Final = 0.5


class BootstrapResult(msgspec.Struct, frozen=True):
    """An interval from `resamples` draws.

    `p_value` is two-sided for the hypothesis that the statistic is 0, (1 + draws at or beyond 0) * 2 over
    (1 + draws); it is never below 2 / (1 + resamples). `undefined` counts the draws in which the metric did not
    exist (one class only) and which were drawn again: many of them say that there are too few rows. A
    `standard_error` of 0 says that no draw differed, and that the interval is no statement about new rows.
    """

    interval: Interval
    standard_error: float
    p_value: float
    resamples: int
    undefined: int
    method: Method


def bootstrap_metric(
    metric: MetricFunction,
    truth: ArrayLike,
    predicted: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    method: Method = "bca",
    groups: ArrayLike | None = None,
    strata: ArrayLike | None = None,
) -> BootstrapResult:
    """The interval of `metric` on these rows."""
    expected, answers = np.asarray(truth), np.asarray(predicted)
    units = _units(len(expected), (answers,), groups, strata)
    return _bootstrap(lambda rows: metric(expected[rows], answers[rows]), units, rng, resamples, level, method)


def bootstrap_difference(
    metric: MetricFunction,
    truth: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    method: Method = "bca",
    groups: ArrayLike | None = None,
    strata: ArrayLike | None = None,
) -> BootstrapResult:
    """The interval of metric(first) - metric(second), both on the same drawn rows each time."""
    expected, one, other = np.asarray(truth), np.asarray(first), np.asarray(second)
    units = _units(len(expected), (one, other), groups, strata)

    def difference(rows: Rows) -> float:
        drawn = expected[rows]
        return metric(drawn, one[rows]) - metric(drawn, other[rows])

    return _bootstrap(difference, units, rng, resamples, level, method)


class _Units(msgspec.Struct, frozen=True):
    """What is drawn: `members` of each unit, and the units of each stratum."""

    members: tuple[Rows, ...] | None  # None: every row is its own unit
    strata: tuple[Rows, ...]
    count: int

    def rows(self, chosen: Rows) -> Rows:
        if self.members is None:
            return chosen
        return np.concatenate([self.members[unit] for unit in chosen])

    def draw(self, rng: np.random.Generator) -> Rows:
        return self.rows(
            np.concatenate([stratum[rng.integers(len(stratum), size=len(stratum))] for stratum in self.strata])
        )


def _units(rows: int, answers: tuple[NDArray[Any], ...], groups: ArrayLike | None, strata: ArrayLike | None) -> _Units:
    for given in (*answers, *(np.asarray(one) for one in (groups, strata) if one is not None)):
        if given.ndim == 0 or len(given) != rows:
            raise refusal(
                f"{rows} rows of truth but {len(np.atleast_1d(given))} of another", "give the same rows to all"
            )
    if groups is not None and strata is not None:
        raise refusal("both groups and strata are given", "give one: a group may cross strata")
    members = None if groups is None else _split(np.asarray(groups))
    count = rows if members is None else len(members)
    if count < 2:
        raise refusal(f"there is {count} unit to draw from", "give at least 2 rows, or 2 groups")
    parts = (np.arange(count),) if strata is None else _split(np.asarray(strata))
    return _Units(members, parts, count)


def _split(values: NDArray[Any]) -> tuple[Rows, ...]:
    """The rows of each distinct value."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return tuple(np.split(np.argsort(place, kind="stable"), np.cumsum(counts)[:-1]))


def _bootstrap(
    statistic: Callable[[Rows], float],
    units: _Units,
    rng: np.random.Generator,
    resamples: int,
    level: float,
    method: Method,
) -> BootstrapResult:
    if not 100 <= resamples <= 100_000:
        raise refusal(f"{resamples} resamples", "give 100 to 100000")
    if method not in ("bca", "percentile"):
        raise refusal(f"no bootstrap method {method!r}", "give bca or percentile")
    estimate = _value(statistic, units.rows(np.arange(units.count)))
    if math.isnan(estimate):
        raise refusal("the metric is undefined on these rows", "give rows of every class, without NaN")
    drawn, undefined = _draws(statistic, units, rng, resamples)
    tail = (1 - fraction(level, "level")) / 2
    tails = (tail, 1 - tail)
    if method == "bca":
        tails = _bca_tails(drawn, estimate, _acceleration(statistic, units), tails)
    low, high = np.quantile(drawn, tails)
    interval = Interval(estimate, min(float(low), estimate), max(float(high), estimate), level)
    beyond = min(int(np.sum(drawn <= 0)), int(np.sum(drawn >= 0)))
    p_value = min(1.0, 2 * (1 + beyond) / (1 + resamples))
    return BootstrapResult(interval, float(drawn.std(ddof=1)), p_value, resamples, undefined, method)


def _draws(
    statistic: Callable[[Rows], float], units: _Units, rng: np.random.Generator, resamples: int
) -> tuple[Floats, int]:
    drawn = np.empty(resamples)
    done = undefined = 0
    while done < resamples:
        value = _value(statistic, units.draw(rng))
        if math.isnan(value):
            undefined += 1
            if undefined > _MOST_UNDEFINED_RATIO * resamples:
                raise refusal(
                    "the metric is undefined in most resamples", "give more rows of the rarer class, or strata"
                )
            continue
        drawn[done] = value
        done += 1
    return drawn, undefined


def _value(statistic: Callable[[Rows], float], rows: Rows) -> float:
    try:
        return float(statistic(rows))
    except (ValueError, SalverError) as error:
        if isinstance(error, SalverError) and error.code != "INVALID_PARAMETER":
            raise
        return math.nan


def _acceleration(statistic: Callable[[Rows], float], units: _Units) -> float:
    """Efron's eq. 6.6: a sixth of the skewness of the jackknife values."""
    every = np.arange(units.count)
    blocks = min(units.count, _BLOCKS)
    left_out = np.array([_value(statistic, units.rows(every[every % blocks != block])) for block in range(blocks)])
    left_out = left_out[~np.isnan(left_out)]
    if left_out.size < 2:
        return 0.0
    deviation = left_out.mean() - left_out
    spread = float(np.sum(deviation**2))
    return float(np.sum(deviation**3)) / (6 * spread**1.5) if spread > 1e-30 else 0.0


def _bca_tails(drawn: Floats, estimate: float, acceleration: float, tails: tuple[float, float]) -> tuple[float, float]:
    """Efron's eq. 3.8: where to cut, given the bias of the draws and the acceleration; ties count half."""
    normal = NormalDist()
    below = float(np.mean(drawn < estimate) + np.mean(drawn == estimate) / 2)
    if not 0 < below < 1:
        return tails
    bias = normal.inv_cdf(below)

    def moved(tail: float) -> float:
        shifted = bias + normal.inv_cdf(tail)
        scale = 1 - acceleration * shifted
        return normal.cdf(bias + shifted / scale) if scale > 0 else float(tail > 0.5)

    return moved(tails[0]), moved(tails[1])
