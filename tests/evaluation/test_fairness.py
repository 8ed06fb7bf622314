"""Fairness of groups: unfair versions fail, fair ones do not, small groups are inconclusive."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from subjects import make_subject

from salver.evaluation.behaviour.fairness import FairnessCheck
from salver.evaluation.suites.sections import FairnessSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict


def subject(rows: int = 2000, hurt: float = 0.0, seed: int = 0, groups: str = "fm", share: float = 0.5, **more):
    rng = np.random.default_rng(seed)
    sex = rng.choice(list(groups), rows, p=[share, *[(1 - share) / (len(groups) - 1)] * (len(groups) - 1)])
    y = rng.integers(0, 2, rows)
    labels = np.where(rng.random(rows) < 0.8 - hurt * (sex == groups[0]), y, 1 - y)
    columns = {"sex": sex.astype(object), "age": rng.uniform(20, 80, rows)}
    return make_subject(target=y, labels=labels, columns=columns, seed=seed, **more)


def run(whole, **settings):
    return FairnessCheck.of(FairnessSettings(**({"columns": ("sex",)} | settings)))[0].run(whole)


BOUND = {"at_most": {"accuracy_difference": 0.1}}


def test_a_version_that_errs_more_for_one_group_fails_and_a_fair_one_passes() -> None:
    found = run(subject(hurt=0.3), **BOUND)
    assert found.verdict is Verdict.FAILED
    assert "sex = f" in found.reasons[0]
    assert [row[0] for row in found.tables[0].rows] == ["sex = f", "sex = m"]
    assert run(subject(), **BOUND).verdict is Verdict.SUCCESSFUL


def test_a_fair_version_is_hardly_ever_failed_and_an_unfair_one_hardly_ever_passed() -> None:
    tight = {"at_most": {"accuracy_difference": 0.02, "demographic_parity_difference": 0.02}}
    fair = Counter(str(run(subject(300, seed=seed, groups="fmx"), **tight).verdict) for seed in range(40))
    assert fair["failed"] <= 4
    unfair = Counter(str(run(subject(300, hurt=0.3, seed=seed, groups="fmx"), **BOUND).verdict) for seed in range(40))
    assert unfair["successful"] == 0
    assert unfair["failed"] >= 30


def test_every_disparity_can_have_a_bound() -> None:
    at_most = dict.fromkeys(
        ("demographic_parity_difference", "equalized_odds_difference", "equal_opportunity_difference",
         "false_positive_rate_difference", "false_negative_rate_difference", "accuracy_difference"), 0.15,
    )  # fmt: skip
    found = run(subject(4000), at_most=at_most, at_least={"demographic_parity_ratio": 0.8})
    assert (found.verdict, len(found.reasons)) == (Verdict.SUCCESSFUL, 7)
    broken = run(subject(4000, hurt=0.35), at_most=at_most, at_least={"demographic_parity_ratio": 0.8})
    assert broken.verdict is Verdict.FAILED


def test_a_small_group_is_inconclusive_even_where_the_others_are_fair() -> None:
    found = run(subject(groups="xfm", share=0.005), **BOUND)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert any("fewer than 30 rows for accuracy of sex = x" in reason for reason in found.reasons)
    lonely = run(subject(40, share=0.9), **BOUND)
    assert lonely.verdict is Verdict.INCONCLUSIVE
    assert "fewer than two groups have 30 rows" in lonely.reasons[0]
    alone = run(make_subject(target=[0, 1], labels=[0, 1], columns={"sex": np.array(["f", "f"], dtype=object)}))
    assert alone.reasons == ("all rows are of one group: sex = f",)


def test_without_bounds_it_reports() -> None:
    found = run(subject(hurt=0.4))
    assert found.verdict is Verdict.SUCCESSFUL
    assert "reported only" in found.reasons[0]
    assert found.numbers["accuracy_difference"] > 0.3
    assert len(found.plots[0].series) == 2


def test_a_harm_to_the_meeting_of_two_groups_shows_in_the_intersection() -> None:
    rng = np.random.default_rng(0)
    rows = 4000
    sex, race = rng.integers(0, 2, rows), rng.integers(0, 2, rows)
    y = rng.integers(0, 2, rows)
    # Of each column alone the two groups err alike.
    labels = np.where(rng.random(rows) < 0.9 - 0.3 * (sex == race), y, 1 - y)
    whole = make_subject(target=y, labels=labels, columns={"sex": sex, "race": race})
    checks = FairnessCheck.of(FairnessSettings(columns=("sex", "race"), intersections=True, **BOUND))
    found = {each.name: each.run(whole).verdict for each in checks}
    assert found == {
        "fairness sex": Verdict.SUCCESSFUL,
        "fairness race": Verdict.SUCCESSFUL,
        "fairness sex and race": Verdict.FAILED,
    }


def test_of_more_classes_one_is_favourable_and_named() -> None:
    rng = np.random.default_rng(0)
    y, sex = rng.integers(0, 3, 900), rng.choice(["f", "m"], 900).astype(object)
    labels = np.where(sex == "f", 2, y)
    whole = make_subject(target=y, labels=labels, classes=("a", "b", "c"), columns={"sex": sex})
    bound = {"at_most": {"demographic_parity_difference": 0.1}}
    with pytest.raises(SalverError, match="which class is favourable"):
        run(whole, **bound)
    with pytest.raises(SalverError, match="there are a, b, c"):
        run(whole, favourable="d", **bound)
    assert run(whole, favourable="c", **bound).verdict is Verdict.FAILED


def test_a_regression_and_a_column_of_names_are_refused() -> None:
    with pytest.raises(SalverError, match="a regression has none"):
        run(make_subject(target=[0.0, 1.0], values=[0.0, 1.0], columns={"sex": np.array([0, 1])}))
    named = np.array([f"n{i}" for i in range(100)], dtype=object)
    with pytest.raises(SalverError, match="more than 30 groups"):
        run(make_subject(target=np.arange(100) % 2, labels=np.arange(100) % 2, columns={"sex": named}))
