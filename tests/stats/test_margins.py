from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.weightstats import ttost_paired

from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict
from salver.stats.intervals import Interval, mean_interval, newcombe_paired_difference, wilson
from salver.stats.margins import Relation, compare, judge_bound

limits = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted)
margins = st.floats(0, 0.5)
SUCCESSFUL, FAILED, INCONCLUSIVE = Verdict.SUCCESSFUL, Verdict.FAILED, Verdict.INCONCLUSIVE
OPPOSITE = {
    Relation.BETTER: Relation.WORSE,
    Relation.WORSE: Relation.BETTER,
    Relation.EQUIVALENT: Relation.EQUIVALENT,
    Relation.INCONCLUSIVE: Relation.INCONCLUSIVE,
}


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high)


@pytest.mark.parametrize(
    ("low", "high", "relation", "not_worse"),
    [
        (0.02, 0.04, Relation.BETTER, SUCCESSFUL),
        (0.001, 0.04, Relation.INCONCLUSIVE, SUCCESSFUL),
        (0.001, 0.009, Relation.EQUIVALENT, SUCCESSFUL),
        (-0.009, 0.009, Relation.EQUIVALENT, SUCCESSFUL),
        (-0.009, 0.04, Relation.INCONCLUSIVE, SUCCESSFUL),
        (-0.02, 0.02, Relation.INCONCLUSIVE, INCONCLUSIVE),
        (-0.02, -0.001, Relation.INCONCLUSIVE, INCONCLUSIVE),
        (-0.04, -0.02, Relation.WORSE, FAILED),
    ],
)
def test_a_margin_of_a_hundredth_tells_what_matters(
    low: float, high: float, relation: Relation, not_worse: Verdict
) -> None:
    found = compare(interval(low, high), 0.01)
    assert (found.relation, found.not_worse) == (relation, not_worse)


@given(limits, margins)
def test_the_models_are_interchangeable_and_so_are_gains_and_losses(ends: list[float], margin: float) -> None:
    there = compare(interval(*ends), margin)
    back = compare(interval(-ends[1], -ends[0]), margin)
    loss = compare(interval(*ends), margin, higher_is_better=False)
    assert back.relation is OPPOSITE[there.relation]
    assert loss == back


@given(limits, margins, margins)
def test_a_larger_margin_finds_fewer_differences(ends: list[float], one: float, other: float) -> None:
    strict, loose = (compare(interval(*ends), margin) for margin in sorted((one, other)))
    if strict.relation is Relation.EQUIVALENT:
        assert loose.relation is Relation.EQUIVALENT
    if loose.relation in (Relation.BETTER, Relation.WORSE):
        assert strict.relation is loose.relation


def test_without_a_margin_any_sure_difference_matters() -> None:
    assert compare(interval(0.001, 0.002), 0).relation is Relation.BETTER
    assert compare(interval(-0.002, -0.001), 0).relation is Relation.WORSE
    assert compare(interval(-0.001, 0.001), 0).relation is Relation.INCONCLUSIVE


def test_few_rows_neither_pass_by_luck_nor_fail_by_it() -> None:
    assert judge_bound("accuracy", wilson(20, 20), at_least=0.9).verdict is INCONCLUSIVE
    assert judge_bound("accuracy", wilson(4, 5), at_least=0.9).verdict is INCONCLUSIVE
    assert judge_bound("accuracy", wilson(990, 1000), at_least=0.9).verdict is SUCCESSFUL
    assert judge_bound("accuracy", wilson(600, 1000), at_least=0.9).verdict is FAILED
    few = newcombe_paired_difference([1] * 20, [1] * 20)
    assert compare(few, 0.01).not_worse is INCONCLUSIVE


@pytest.mark.parametrize("first_is_better", [0.0, 0.4])
def test_statsmodels_agrees_that_equivalent_is_two_one_sided_tests(first_is_better: float) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        first, second = rng.normal(first_is_better, 1, 40), rng.normal(0, 1, 40)
        found = compare(mean_interval(first - second, level=0.9), 0.5).relation
        assert (found is Relation.EQUIVALENT) == (ttost_paired(first, second, -0.5, 0.5)[0] <= 0.05)


def test_a_bound_from_above_is_the_mirror() -> None:
    assert judge_bound("ece", interval(0.01, 0.03), at_most=0.05).verdict is SUCCESSFUL
    assert judge_bound("ece", interval(0.01, 0.06), at_most=0.05).verdict is INCONCLUSIVE
    failed = judge_bound("ece", interval(0.06, 0.08), at_most=0.05)
    assert failed.verdict is FAILED
    assert failed.reasons == ("ece 0.07 [0.06, 0.08], wanted at most 0.05",)


def test_bad_input_is_refused() -> None:
    with pytest.raises(SalverError, match="margin is -1"):
        compare(interval(0, 1), -1)
    with pytest.raises(SalverError, match="margin is nan"):
        compare(interval(0, 1), float("nan"))
    with pytest.raises(SalverError, match="auc has no bound"):
        judge_bound("auc", interval(0, 1))
    with pytest.raises(SalverError, match="auc has two bounds"):
        judge_bound("auc", interval(0, 1), at_least=0, at_most=1)
