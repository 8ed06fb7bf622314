from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from salver.protocol.errors import SalverError
from salver.stats.bootstrap import bootstrap_difference, bootstrap_metric
from salver.stats.metrics import metric

METHODS = ["bca", "percentile"]


def mean_error(truth: np.ndarray, found: np.ndarray) -> float:
    return float(np.mean(np.abs(truth - found)))


def rmse(truth: np.ndarray, found: np.ndarray) -> float:
    return float(np.sqrt(np.mean((truth - found) ** 2)))


@pytest.mark.parametrize("method", METHODS)
def test_scipys_bootstrap_agrees(method: str) -> None:
    rng = np.random.default_rng(1)
    truth = rng.lognormal(size=80)
    found = truth + rng.normal(0, 0.5, 80) * truth
    ours = bootstrap_metric(rmse, truth, found, rng, resamples=8000, method=method)  # type: ignore[arg-type]
    theirs = scipy_stats.bootstrap(
        (truth, found), rmse, paired=True, vectorized=False, n_resamples=8000, rng=rng, method=method
    )
    limits = theirs.confidence_interval
    spread = limits.high - limits.low  # two independent sets of 8000 draws
    assert ours.interval.low == pytest.approx(limits.low, abs=0.05 * spread)
    assert ours.interval.high == pytest.approx(limits.high, abs=0.05 * spread)
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.05)


def test_percentiles_are_those_of_the_plain_bootstrap_digit_for_digit() -> None:
    truth, found = np.random.default_rng(1).normal(size=(2, 80))
    plain = np.random.default_rng(2)
    drawn = [np.abs(truth - found)[plain.integers(80, size=80)].mean() for _ in range(500)]
    ours = bootstrap_metric(mean_error, truth, found, np.random.default_rng(2), resamples=500, method="percentile")
    assert (ours.interval.low, ours.interval.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-14)


def test_bca_corrects_what_percentiles_get_wrong() -> None:
    """The variance of skewed values: percentiles lie too low, BCa moves up (Efron 1987, section 1)."""
    rng = np.random.default_rng(2)
    truth = rng.exponential(size=60)
    found = np.zeros(60)
    low = [
        bootstrap_metric(rmse, truth, found, np.random.default_rng(3), method=method).interval  # type: ignore[arg-type]
        for method in ("percentile", "bca")
    ]
    assert low[1].low > low[0].low
    assert low[1].high > low[0].high


def test_the_same_generator_gives_the_same_interval() -> None:
    truth, found = np.arange(30.0), np.arange(30.0) ** 1.1
    first, second = (bootstrap_metric(rmse, truth, found, np.random.default_rng(4)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("method", METHODS)
def test_equally_good_models_differ_hardly_more_often_than_the_level_says(method: str) -> None:
    """A/A of the mean absolute error, 200 pairs on 80 rows; the tolerance is 3.5 standard errors.

    The bootstrap is narrow on few rows: 1500 pairs with 200 draws gave 0.067 outside and 0.057 rejected, 4000
    with 1000 draws 0.060, where the t test has 0.051.
    """
    rng = np.random.default_rng(5)
    outside = rejected = 0
    for _ in range(200):
        truth = rng.normal(size=80)
        shared = truth + rng.normal(0, 0.5, 80)
        first, second = shared + rng.normal(0, 0.5, 80), shared + rng.normal(0, 0.5, 80)
        found = bootstrap_difference(mean_error, truth, first, second, rng, resamples=200, method=method)  # type: ignore[arg-type]
        outside += 0 not in found.interval
        rejected += found.p_value <= 0.05
    assert outside / 200 == pytest.approx(0.067, abs=0.062)
    assert rejected / 200 == pytest.approx(0.057, abs=0.058)


def test_the_difference_is_that_of_the_metric_and_turns_its_sign() -> None:
    rng = np.random.default_rng(6)
    truth = rng.normal(size=50)
    first, second = truth + rng.normal(size=50), truth + rng.normal(0, 2, 50)
    there = bootstrap_difference(rmse, truth, first, second, np.random.default_rng(7), method="percentile")
    back = bootstrap_difference(rmse, truth, second, first, np.random.default_rng(7), method="percentile")
    assert there.interval.estimate == pytest.approx(rmse(truth, first) - rmse(truth, second))
    assert (there.interval.low, there.interval.high) == pytest.approx((-back.interval.high, -back.interval.low))
    assert there.p_value == back.p_value


def test_a_model_does_not_differ_from_itself() -> None:
    truth = np.arange(20.0)
    found = bootstrap_difference(rmse, truth, truth + 1, truth + 1, np.random.default_rng(0))
    assert (found.interval.low, found.interval.high, found.p_value, found.standard_error) == (0, 0, 1, 0)


def test_groups_are_drawn_whole_and_widen_the_interval() -> None:
    rng = np.random.default_rng(8)
    groups = np.repeat(np.arange(20), 25)
    truth = np.zeros(500)
    found = np.repeat(rng.normal(size=20), 25) + rng.normal(0, 0.1, 500)

    def mean(_: np.ndarray, answers: np.ndarray) -> float:
        return float(answers.mean())

    alone = bootstrap_metric(mean, truth, found, rng)
    together = bootstrap_metric(mean, truth, found, rng, groups=groups)
    assert together.standard_error / alone.standard_error == pytest.approx(5, rel=0.25)  # sqrt(25)


def test_strata_keep_their_sizes() -> None:
    truth = np.array([1] * 3 + [0] * 40)
    seen = []

    def share(drawn: np.ndarray, _: np.ndarray) -> float:
        seen.append(int(drawn.sum()))
        return float(drawn.mean())

    bootstrap_metric(share, truth, truth, np.random.default_rng(0), method="percentile", strata=truth)
    assert set(seen) == {3}


def test_draws_without_the_rare_class_are_drawn_again_and_counted() -> None:
    truth = np.array([1] * 4 + [0] * 40)
    scores = np.random.default_rng(1).random(44)
    area = metric("roc_auc").measure
    found = bootstrap_metric(
        lambda t, s: area(t, s, classes=[0, 1]), truth, scores, np.random.default_rng(2), resamples=300
    )
    # (40/44)^44 of the draws hold no positive row.
    assert found.undefined / 300 == pytest.approx((40 / 44) ** 44, abs=0.02)
    assert found.resamples == 300


def test_a_metric_that_most_draws_lack_is_refused() -> None:
    truth = np.array([1] + [0] * 200)

    def needs_two(drawn: np.ndarray, _: np.ndarray) -> float:
        return 1.0 if drawn.sum() == 1 and len(np.unique(drawn)) == 2 else math.nan

    with pytest.raises(SalverError, match="undefined in most resamples; give more rows of the rarer class"):
        bootstrap_metric(needs_two, truth, truth, np.random.default_rng(0))


def test_other_faults_of_a_metric_come_through() -> None:
    def broken(*_: np.ndarray) -> float:
        raise SalverError("UNSUPPORTED", "no library")

    with pytest.raises(SalverError, match="no library"):
        bootstrap_metric(broken, [1, 0], [1, 0], np.random.default_rng(0))


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(SalverError, match="3 rows of truth but 2 of another"):
        bootstrap_metric(rmse, [1, 2, 3], [1, 2], rng)
    with pytest.raises(SalverError, match="there is 1 unit"):
        bootstrap_metric(rmse, [1, 2, 3], [1, 2, 3], rng, groups=["a"] * 3)
    with pytest.raises(SalverError, match="both groups and strata"):
        bootstrap_metric(rmse, [1, 2], [1, 2], rng, groups=[1, 2], strata=[1, 2])
    with pytest.raises(SalverError, match="7 resamples"):
        bootstrap_metric(rmse, [1, 2], [1, 2], rng, resamples=7)
    with pytest.raises(SalverError, match="no bootstrap method 'basic'"):
        bootstrap_metric(rmse, [1, 2], [1, 2], rng, method="basic")  # type: ignore[arg-type]
    with pytest.raises(SalverError, match="undefined on these rows"):
        bootstrap_metric(lambda *_: math.nan, [1, 2], [1, 2], rng)
