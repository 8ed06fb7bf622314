"""Splits follow production, and what is evaluated was not trained on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from subjects import make_subject

from salver.evaluation.subject.rows import Rows
from salver.evaluation.subject.splits import SplitCheck, split_digest, split_rows, training_of
from salver.evaluation.subject.subject import Training
from salver.evaluation.suites.suite import SplitSettings
from salver.protocol.description import DataReference, Description
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict


def sides(settings: SplitSettings, **columns) -> tuple[np.ndarray, np.ndarray]:
    return split_rows(Rows({name: np.array(values) for name, values in columns.items()}), settings, "y")


@given(st.lists(st.integers(0, 20), min_size=10, max_size=60).filter(lambda days: len(set(days)) > 4))
def test_no_moment_is_on_both_sides_of_a_temporal_split(days: list[int]) -> None:
    train, test = sides(SplitSettings("temporal", "day", 0.3), day=days, y=days)
    assert sorted([*train, *test]) == list(range(len(days)))
    assert max(days[index] for index in train) < min(days[index] for index in test)


@given(st.lists(st.integers(0, 12), min_size=20, max_size=60).filter(lambda groups: len(set(groups)) > 5))
def test_no_group_is_on_both_sides_of_a_grouped_split(groups: list[int]) -> None:
    train, test = sides(SplitSettings("grouped", "who", 0.3), who=groups, y=groups)
    assert sorted([*train, *test]) == list(range(len(groups)))
    assert not {groups[index] for index in train} & {groups[index] for index in test}


def test_a_stratified_split_keeps_the_proportions_and_is_the_same_each_time() -> None:
    target = [0] * 90 + [1] * 10
    train, test = sides(SplitSettings("stratified", test_ratio=0.2), y=target)
    assert [sum(target[index] for index in side) for side in (train, test)] == [8, 2]
    again = sides(SplitSettings("stratified", test_ratio=0.2), y=target)
    np.testing.assert_array_equal(test, again[1])
    other = sides(SplitSettings("stratified", test_ratio=0.2, seed=1), y=target)
    assert test.tolist() != other[1].tolist()


def test_without_a_split_all_rows_are_evaluated() -> None:
    train, test = sides(SplitSettings(), y=[1, 2, 3])
    assert (train.tolist(), test.tolist()) == ([], [0, 1, 2])


@pytest.mark.parametrize(
    ("settings", "columns", "message"),
    [
        (SplitSettings("temporal", "day"), {"day": [1.0] * 5, "y": [1] * 5}, "leaves 5 rows to train on and 0"),
        (SplitSettings("stratified"), {"y": [0, 0, 0, 0, 1]}, "split 'stratified'"),
        (SplitSettings("grouped", "nobody"), {"y": [0, 1]}, "no column 'nobody'"),
    ],
)
def test_a_split_that_cannot_be_is_refused(settings: SplitSettings, columns: dict, message: str) -> None:
    with pytest.raises(SalverError, match=message):
        sides(settings, **columns)


SPLIT = SplitSettings("stratified")
THIS = split_digest(SPLIT)


@pytest.mark.parametrize(
    ("settings", "training", "verdict", "reason"),
    [
        (SPLIT, Training(), Verdict.SUCCESSFUL, "does not say what it was trained on"),
        (SPLIT, Training("d2"), Verdict.SUCCESSFUL, "trained on another file"),
        (SPLIT, Training("d1"), Verdict.INCONCLUSIVE, "does not say on which rows"),
        (SPLIT, Training("d1", THIS), Verdict.SUCCESSFUL, "the other side of this split"),
        (SPLIT, Training("d1", "another"), Verdict.FAILED, "by another split"),
        (SplitSettings(), Training("d1"), Verdict.FAILED, "trained on this very file"),
    ],
)
def test_rows_that_a_version_was_trained_on_do_not_count(
    settings: SplitSettings, training: Training, verdict: Verdict, reason: str
) -> None:
    subject = make_subject(target=[0, 1], labels=[0, 1], training=training)
    result = SplitCheck(settings, must_be_known=False).run(subject)
    assert result.verdict is verdict
    assert any(reason in each for each in result.reasons)


def test_a_suite_may_insist_on_knowing_the_training_rows() -> None:
    subject = make_subject(target=[0, 1], labels=[0, 1])
    assert SplitCheck(SPLIT, must_be_known=True).run(subject).verdict is Verdict.INCONCLUSIVE


def test_sides_that_share_a_group_or_a_moment_fail() -> None:
    columns = {"who": np.array(["a", "b"], dtype=object), "day": np.array([5.0, 6.0])}
    others = Rows({"who": np.array(["b"], dtype=object), "day": np.array([5.0])})
    subject = make_subject(target=[0, 1], labels=[0, 1], columns=columns, others=others)
    grouped = SplitCheck(SplitSettings("grouped", "who"), must_be_known=False).run(subject)
    assert (grouped.verdict, grouped.reasons[0]) == (Verdict.FAILED, "1 values of 'who' are on both sides")
    assert SplitCheck(SplitSettings("temporal", "day"), must_be_known=False).run(subject).verdict is Verdict.FAILED


def test_the_training_rows_are_those_of_the_description() -> None:
    said = Description(training_data=DataReference(digest="sha256:d1"), extra={"training_split": THIS})
    assert training_of(said) == Training("d1", THIS)
    assert training_of(Description()) == Training()
