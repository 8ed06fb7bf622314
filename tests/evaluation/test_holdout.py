"""Metrics on held-out rows: bounds held by intervals, versions compared in pairs."""

from __future__ import annotations

import numpy as np
import pytest
from subjects import make_subject

from salver.evaluation.metrics.holdout import MetricCheck
from salver.evaluation.subject.predictions import Predictions
from salver.evaluation.suites.suite import MetricSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict
from salver.stats.delong import compare_aucs
from salver.stats.intervals import wilson
from salver.stats.paired import mcnemar
from salver.stats.power import in_words, more_for_bound, more_for_share

RNG = np.random.default_rng(1)


def scores(count: int, separation: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, count)
    return target, 1 / (1 + np.exp(-(separation * (target - 0.5) + rng.normal(size=count))))


def judged(settings: MetricSettings, **subject):
    return MetricCheck(settings).run(make_subject(**subject))


@pytest.mark.parametrize("name", ["accuracy", "f1", "mcc", "balanced_accuracy", "roc_auc", "pr_auc"])
def test_a_few_perfect_rows_pass_nothing_by_luck(name: str) -> None:
    target = np.array([0, 1] * 6)
    few = judged(MetricSettings(name, at_least=0.95), target=target, probabilities=target * 0.98 + 0.01)
    assert few.verdict is Verdict.INCONCLUSIVE
    target = np.array([0, 1] * 400)
    many = judged(MetricSettings(name, at_least=0.95), target=target, probabilities=target * 0.98 + 0.01)
    assert many.verdict is Verdict.SUCCESSFUL
    assert many.numbers["value"] == pytest.approx(1.0)


@pytest.mark.parametrize(("bound", "verdict"), [(0.5, Verdict.SUCCESSFUL), (0.99, Verdict.FAILED)])
@pytest.mark.parametrize("name", ["accuracy", "roc_auc", "f1"])
def test_a_bound_far_away_is_told_from_the_interval(name: str, bound: float, verdict: Verdict) -> None:
    target, score = scores(400, 2.0)
    result = judged(MetricSettings(name, at_least=bound), target=target, probabilities=score)
    assert result.verdict is verdict
    assert result.numbers["low"] < result.numbers["value"] < result.numbers["high"]


def test_a_passed_bound_is_passed_wrongly_no_more_often_than_the_confidence_allows() -> None:
    rng, passed = np.random.default_rng(2), 0
    for _ in range(400):
        target = np.zeros(150, int)
        labels = (rng.random(150) > 0.9).astype(int)  # accuracy 0.9, exactly the bound
        passed += (
            judged(MetricSettings("accuracy", at_least=0.9), target=target, labels=labels).verdict is Verdict.SUCCESSFUL
        )
    # 5 % of 400 are 20; more than 33 have probability 0.002.
    assert passed <= 33


def test_a_worse_version_is_not_let_by_and_an_equal_one_is() -> None:
    target, good = scores(800, 3.0)
    _, bad = scores(800, 0.5)
    settings = MetricSettings("roc_auc", not_worse_than="production", margin=0.02)
    worse = judged(
        settings, target=target, probabilities=bad, rival=Predictions(good > 0.5, np.column_stack([1 - good, good]))
    )
    assert (worse.verdict, worse.numbers["relation"], worse.numbers["method"]) == (Verdict.FAILED, "worse", "DeLong")
    expected = compare_aucs(target, bad, good, level=0.9)
    assert worse.numbers["difference_low"] == pytest.approx(expected.difference.low)
    near = np.clip(good + RNG.normal(0, 0.01, 800), 0.001, 0.999)
    equal = judged(
        settings, target=target, probabilities=near, rival=Predictions(good > 0.5, np.column_stack([1 - good, good]))
    )
    assert (equal.verdict, equal.numbers["relation"]) == (Verdict.SUCCESSFUL, "equivalent")
    assert [series.name for series in equal.plots[0].series] == ["arithmetic@1.0.0", "arithmetic@0.9.0"]


def test_few_rows_do_not_show_that_a_version_is_no_worse() -> None:
    target, good = scores(30, 2.0)
    other = np.clip(good + np.random.default_rng(5).normal(0, 0.2, 30), 0.01, 0.99)
    rival = Predictions((other > 0.5).astype(int), np.column_stack([1 - other, other]))
    settings = MetricSettings("accuracy", not_worse_than="production", margin=0.01)
    result = judged(settings, target=target, probabilities=good, rival=rival)
    assert result.verdict is Verdict.INCONCLUSIVE
    expected = mcnemar((good > 0.5) == target, (other > 0.5) == target, level=0.9)
    assert result.numbers["p_value"] == expected.mid_p
    more = more_for_bound(expected.difference, -0.01, 30)
    assert more is not None
    assert result.numbers["difference_more_rows"] == more
    assert result.reasons[0].endswith(in_words(more))


def test_a_bound_that_is_not_decided_says_how_many_more_rows_would() -> None:
    target = np.array([0, 1] * 30)
    labels = np.concatenate([1 - target[:3], target[3:]])  # 57 of 60 are right
    found = judged(MetricSettings("accuracy", at_least=0.9), target=target, labels=labels)
    assert found.numbers["more_rows"] == more_for_share(wilson(57, 60, level=0.9), 0.9, 60) == 124
    assert found.reasons[0].endswith("wanted at least 0.9; about 130 more rows would decide")
    grouped = judged(
        MetricSettings("accuracy", at_least=0.9), target=target, labels=labels, groups=np.repeat(np.arange(12), 5)
    )
    assert grouped.numbers["more_rows"] not in (None, 124), "whole groups were drawn, which is no share of rows"
    decided = judged(MetricSettings("accuracy", at_least=0.5), target=target, labels=labels)
    assert "more_rows" not in decided.numbers


def test_lower_is_better_where_it_is() -> None:
    rng = np.random.default_rng(3)
    target = rng.normal(size=300)
    close, far = target + rng.normal(0, 0.1, 300), target + rng.normal(0, 0.5, 300)
    settings = MetricSettings("rmse", at_most=0.2, not_worse_than="production")
    better = judged(settings, target=target, values=close, rival=Predictions(values=far))
    assert (better.verdict, better.numbers["relation"], better.numbers["method"]) == (
        Verdict.SUCCESSFUL, "better", "paired bootstrap",
    )  # fmt: skip
    worse = judged(settings, target=target, values=far, rival=Predictions(values=close))
    assert (worse.verdict, worse.numbers["relation"]) == (Verdict.FAILED, "worse")


def test_with_nothing_in_production_the_first_version_may_come() -> None:
    target, score = scores(100, 3.0)
    result = judged(MetricSettings("roc_auc", not_worse_than="production"), target=target, probabilities=score)
    assert (result.verdict, result.reasons) == (
        Verdict.SUCCESSFUL,
        ("nothing to compare with: no version is in production",),
    )


def test_rows_of_one_group_are_no_independent_evidence() -> None:
    target, score = scores(40, 1.5)
    many, groups = np.repeat(target, 25), np.repeat(np.arange(40), 25)
    settings = MetricSettings("roc_auc", at_least=0.5)
    alone = judged(settings, target=many, probabilities=np.repeat(score, 25))
    grouped = judged(settings, target=many, probabilities=np.repeat(score, 25), groups=groups)
    width = {name: each.numbers["high"] - each.numbers["low"] for name, each in (("a", alone), ("g", grouped))}
    assert width["g"] > 3 * width["a"]


def test_several_classes_are_measured_and_confused() -> None:
    rng = np.random.default_rng(4)
    target = rng.integers(0, 3, 300)
    said = np.eye(3)[target] * 3 + rng.random((300, 3))
    said /= said.sum(axis=1, keepdims=True)
    more = {"target": target, "probabilities": said, "classes": ("a", "b", "c")}
    assert judged(MetricSettings("log_loss", at_most=1.0), **more).verdict is Verdict.SUCCESSFUL
    accuracy = judged(MetricSettings("accuracy", at_least=0.9), **more)
    assert accuracy.tables[0].columns == ("true", "said a", "said b", "said c")
    assert sum(sum(row[1:]) for row in accuracy.tables[0].rows) == 300


def test_a_metric_of_what_a_version_does_not_give_names_the_setting() -> None:
    with pytest.raises(SalverError, match=r"metric 'roc_auc' needs scores.*\[outputs\]"):
        judged(MetricSettings("roc_auc", at_least=0.9), target=[0, 1], labels=[0, 1])


def test_the_same_seed_gives_the_same_interval() -> None:
    target, score = scores(100, 2.0)
    one, other = (
        judged(MetricSettings("f1", at_least=0.5), target=target, probabilities=score).numbers for _ in range(2)
    )
    assert one == other
