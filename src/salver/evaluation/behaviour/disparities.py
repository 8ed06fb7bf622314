"""Rates of groups, and how far apart they are: point values from fairlearn, intervals by drawing the rows again.

A disparity is the largest difference (or the smallest ratio) between any two groups. Redrawing that as one number
would find a difference where there is none, because the largest of several chance differences is never 0. So
each pair of groups has its own interval: the disparity is surely below the largest upper end (some pair is the
largest), and surely above the largest lower end after Bonferroni's correction for the number of pairs and their two
directions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from salver.evaluation.subject.rows import Array
from salver.evaluation.suites.sections import Disparity
from salver.protocol.errors import SalverError
from salver.stats.intervals import Interval

__all__ = ["DISPARITIES", "RATES", "GroupRates", "Outcomes", "disparity", "draw_rates", "group_rates"]

DISPARITIES: Final[dict[Disparity, tuple[str, ...]]] = {
    "demographic_parity_difference": ("selection_rate",),
    "demographic_parity_ratio": ("selection_rate",),
    "equalized_odds_difference": ("true_positive_rate", "false_positive_rate"),
    "equal_opportunity_difference": ("true_positive_rate",),
    "accuracy_difference": ("accuracy",),
    "false_positive_rate_difference": ("false_positive_rate",),
    "false_negative_rate_difference": ("false_negative_rate",),
}
"""The rates of which each disparity is the worst."""
RATES: Final = ("selection_rate", "accuracy", "true_positive_rate", "false_positive_rate", "false_negative_rate")
_MOST_DRAWS: Final = 20_000
_DRAWS_IN_TAIL: Final = 20


@dataclass(frozen=True)
class Outcomes:
    """What is true and what was said of each row, 1 for the favourable class, and whether the label was right."""

    truth: Array
    said: Array
    right: Array

    def counted(self, rate: str) -> tuple[Array, Array]:
        """Of a rate which rows are counted, and which of those for it."""
        everything = np.ones(len(self.truth), dtype=bool)
        positive = self.truth == 1
        of = {
            "selection_rate": (everything, self.said == 1),
            "accuracy": (everything, self.right == 1),
            "true_positive_rate": (positive, self.said == 1),
            "false_positive_rate": (~positive, self.said == 1),
            "false_negative_rate": (positive, self.said == 0),
        }
        counted, hit = of[rate]
        return counted, hit & counted


@dataclass(frozen=True)
class GroupRates:
    """A rate in each group that is large enough for it, with draws of it."""

    rate: str
    groups: tuple[str, ...]
    values: Array
    draws: Array
    """Draws by groups."""


def group_rates(outcomes: Outcomes, groups: Array, names: Sequence[str]) -> dict[str, list[float]]:
    """Every rate of every group, in the order of the names, as fairlearn's MetricFrame computes them.

    Raises UNSUPPORTED without fairlearn.
    """
    try:
        from fairlearn import metrics  # noqa: PLC0415 - an extra, and heavy
    except ImportError:
        raise SalverError("UNSUPPORTED", "fairness needs fairlearn", "pip install 'salver[evaluation]'") from None
    rated: dict[str, Any] = {
        "selection_rate": metrics.selection_rate,
        "true_positive_rate": metrics.true_positive_rate,
        "false_positive_rate": metrics.false_positive_rate,
        "false_negative_rate": metrics.false_negative_rate,
    }
    frame = metrics.MetricFrame(
        metrics=rated, y_true=outcomes.truth, y_pred=outcomes.said, sensitive_features=groups
    ).by_group
    right = metrics.MetricFrame(
        metrics=metrics.mean_prediction, y_true=outcomes.truth, y_pred=outcomes.right, sensitive_features=groups
    ).by_group
    order = range(len(names))
    found = {name: [float(frame[name][group]) for group in order] for name in rated}
    return found | {"accuracy": [float(right[group]) for group in order]}


def draw_rates(
    outcomes: Outcomes, groups: Array, names: Sequence[str], rate: str, *,
    clusters: Array | None, min_support: int, resamples: int, tail: float, rng: np.random.Generator,
) -> GroupRates:  # fmt: skip
    """A rate of each group that has `min_support` rows for it, and draws of it.

    The rows of each group are weighted again by the Bayesian bootstrap (Rubin 1981, Annals of Statistics 9, 130),
    half a row of either kind added, so that a group without an exception keeps room for one; of rates that is a
    beta distribution. Rows of one cluster, as a patient's in a grouped split, are drawn together.
    `tail` is the probability that will be cut off: there are enough draws beyond it.
    """
    counted, hit = outcomes.counted(rate)
    trials = np.bincount(groups[counted], minlength=len(names))
    hits = np.bincount(groups[hit], minlength=len(names))
    kept = np.flatnonzero(trials >= min_support)
    pairs = max(len(kept) * (len(kept) - 1) // 2, 1)
    draws = int(min(max(resamples, 2 * _DRAWS_IN_TAIL * pairs / tail), _MOST_DRAWS))
    values = hits[kept] / np.maximum(trials[kept], 1)
    if clusters is None:
        drawn = rng.beta(hits[kept] + 0.5, trials[kept] - hits[kept] + 0.5, (draws, len(kept)))
    else:
        drawn = _of_clusters(groups, kept, counted, hit, clusters, resamples, rng)
    return GroupRates(rate, tuple(names[int(index)] for index in kept), values, drawn)


def _of_clusters(
    groups: Array, kept: Array, counted: Array, hit: Array, clusters: Array, draws: int, rng: np.random.Generator
) -> Array:
    count = int(clusters.max()) + 1
    table = np.zeros((2, count, len(kept)))
    for index, group in enumerate(kept):
        table[0, :, index] = np.bincount(clusters[hit & (groups == group)], minlength=count)
        table[1, :, index] = np.bincount(clusters[counted & (groups == group)], minlength=count)
    weights = rng.multinomial(count, np.full(count, 1 / count), draws).astype(np.float64)
    hits, trials = weights @ table[0] + 0.5, weights @ table[1] + 1
    rates: Array = hits / trials
    return rates


def disparity(name: Disparity, rates: Sequence[GroupRates], confidence: float) -> tuple[Interval, str]:
    """The disparity with its one-sided bounds, and the two groups that are furthest apart.

    REQUIRES that each rate has at least two groups.
    """
    is_ratio = name.endswith("_ratio")
    pairs = [(rate, one, other) for rate in rates for one, other in itertools.combinations(range(len(rate.groups)), 2)]
    tail = (1 - confidence) / (2 * len(pairs))  # either group of a pair may be the one ahead
    found = [_of_pair(rate, one, other, (tail, 1 - confidence), is_ratio) for rate, one, other in pairs]
    estimates = [each[0] for each in found]
    worst = int(np.argmin(estimates) if is_ratio else np.argmax(estimates))
    rate, one, other = pairs[worst]
    named = f"{rate.groups[one]} ({rate.values[one]:.3g}) and {rate.groups[other]} ({rate.values[other]:.3g})"
    choose = min if is_ratio else max
    low, high = choose(each[1] for each in found), choose(each[2] for each in found)
    estimate = estimates[worst]
    return Interval(estimate, min(low, estimate), max(high, estimate), 2 * confidence - 1), named


def _of_pair(
    rate: GroupRates, one: int, other: int, tails: tuple[float, float], is_ratio: bool
) -> tuple[float, float, float]:
    """The distance of two groups, and its bounds; the end by which a bound is broken is the corrected one."""
    corrected, plain = tails
    if is_ratio:
        larger = max(rate.values[one], rate.values[other])
        estimate = float(min(rate.values[one], rate.values[other]) / larger) if larger > 0 else 1.0
        ratio = rate.draws[:, one] / rate.draws[:, other]
        least, most = np.quantile(ratio, (plain, 1 - plain))
        surely_least, surely_most = np.quantile(ratio, (corrected, 1 - corrected))
        farthest = float(min(least, 1 / most))
        nearest = surely_most if surely_most < 1 else 1 / surely_least if surely_least > 1 else 1.0
        return estimate, farthest, float(nearest)
    estimate = float(abs(rate.values[one] - rate.values[other]))
    difference = rate.draws[:, one] - rate.draws[:, other]
    wide, narrow = np.quantile(difference, (corrected, 1 - corrected)), np.quantile(difference, (plain, 1 - plain))
    nearest = max(wide[0], -wide[1], 0.0)
    return estimate, float(nearest), float(max(abs(narrow[0]), abs(narrow[1])))
