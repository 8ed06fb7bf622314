"""Disparities: fairlearn's numbers, with intervals that find what is there and nothing that is not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from fairlearn import metrics as fairlearn

from salver.evaluation.behaviour.disparities import DISPARITIES, Outcomes, disparity, draw_rates, group_rates


def outcomes(seed: int, rows: int = 600, hurt: float = 0.0) -> tuple[Outcomes, np.ndarray]:
    """Answers right four times of five; of group 0, which is a third, less often by `hurt`."""
    rng = np.random.default_rng(seed)
    groups, truth = rng.integers(0, 3, rows), rng.integers(0, 2, rows)
    said = np.where(rng.random(rows) < 0.8 - hurt * (groups == 0), truth, 1 - truth)
    return Outcomes(truth, said, (said == truth).astype(int)), groups


def found(name, seed: int, *, clusters=None, min_support: int = 30, **more):
    seen, groups = outcomes(seed, **more)
    rates = [
        draw_rates(
            seen, groups, ("a", "b", "c"), rate, clusters=clusters, min_support=min_support, resamples=500,
            tail=0.05, rng=np.random.default_rng(seed),
        )
        for rate in DISPARITIES[name]
    ]  # fmt: skip
    return disparity(name, rates, 0.95)


THEIRS = {
    "demographic_parity_difference": fairlearn.demographic_parity_difference,
    "demographic_parity_ratio": fairlearn.demographic_parity_ratio,
    "equalized_odds_difference": fairlearn.equalized_odds_difference,
    "equal_opportunity_difference": fairlearn.equal_opportunity_difference,
    "accuracy_difference": fairlearn.accuracy_score_difference,
    "false_positive_rate_difference": fairlearn.false_positive_rate_difference,
    "false_negative_rate_difference": fairlearn.false_negative_rate_difference,
}


@pytest.mark.parametrize("name", list(DISPARITIES))
def test_estimates_are_fairlearns(name) -> None:
    for seed in range(5):
        seen, groups = outcomes(seed, hurt=0.1)
        interval, _ = found(name, seed, hurt=0.1)
        theirs = THEIRS[name](seen.truth, seen.said, sensitive_features=groups)
        assert interval.estimate == pytest.approx(theirs)
        assert interval.low <= interval.estimate <= interval.high


def test_rates_by_group_are_counted() -> None:
    seen, groups = outcomes(1)
    rates = group_rates(seen, groups, ("a", "b", "c"))
    mine = groups == 1
    assert rates["accuracy"][1] == pytest.approx(seen.right[mine].mean())
    assert rates["selection_rate"][1] == pytest.approx(seen.said[mine].mean())
    assert rates["false_negative_rate"][1] == pytest.approx(1 - seen.said[mine & (seen.truth == 1)].mean())


def test_a_group_without_a_positive_row_has_no_rate_and_no_warning() -> None:
    seen, groups = outcomes(2)
    truth = np.where(groups == 2, 0, seen.truth)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rates = group_rates(Outcomes(truth, seen.said, seen.right), groups, ("a", "b", "c"))
    assert len(rates["true_positive_rate"]) == 3


def test_the_ends_hold_as_often_as_they_say() -> None:
    """True difference 0 and 0.2: the low end must not exceed it, nor the high end fall below, beyond one in twenty."""
    for hurt in (0.0, 0.2):
        ends = [found("accuracy_difference", seed, hurt=hurt)[0] for seed in range(200)]
        # 0.05 of 200 is 10; 18 and more has probability 0.01.
        assert sum(each.low > hurt for each in ends) < 18
        assert sum(each.high < hurt for each in ends) < 18


@pytest.mark.parametrize("right", [0, 1])
def test_groups_that_always_or_never_err_keep_an_interval(right: int) -> None:
    groups, truth = np.repeat([0, 1], 40), np.tile([0, 1], 40)
    seen = Outcomes(truth, truth, np.full(80, right))
    rates = draw_rates(
        seen, groups, ("a", "b"), "accuracy", clusters=None, min_support=30, resamples=500, tail=0.05,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    interval, _ = disparity("accuracy_difference", [rates], 0.95)
    assert (interval.estimate, interval.low) == (0.0, 0.0)
    assert 0.02 < interval.high < 0.1


def test_rows_of_one_cluster_count_less() -> None:
    """The same rows five times over are no more evidence than once."""
    seen, groups = outcomes(3, rows=120)
    many = Outcomes(*(np.repeat(each, 5) for each in (seen.truth, seen.said, seen.right)))
    wide = np.repeat(np.arange(120), 5)
    common = {"min_support": 10, "resamples": 1000, "tail": 0.05}
    width = {}
    for name, clusters in (("apart", None), ("together", wide)):
        rates = draw_rates(
            many,
            np.repeat(groups, 5),
            ("a", "b", "c"),
            "accuracy",
            clusters=clusters,
            rng=np.random.default_rng(0),
            **common,
        )
        width[name] = disparity("accuracy_difference", [rates], 0.95)[0].width
    assert width["together"] > 1.5 * width["apart"]
