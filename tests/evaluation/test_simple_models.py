"""Simple models learn from any columns, and answer only rows they have not seen."""

from __future__ import annotations

import numpy as np
import pytest

from salver.evaluation.data.simple_models import cross_fitted, folds, is_prose, simple_models
from salver.evaluation.subject.predictions import Task, Truth
from salver.evaluation.subject.rows import Rows
from salver.protocol.errors import SalverError


def mixed(count: int = 120):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, count)
    ward = np.where(y == 1, rng.choice(["a", "b"], count), rng.choice(["b", "c"], count)).astype(object)
    ward[0] = None
    gap = np.where(rng.random(count) < 0.2, np.nan, rng.normal(size=count) + y)
    when = np.array(["2026-01-01"] * count, dtype="datetime64[s]") + np.arange(count)
    return Rows({"ward": ward, "gap": gap, "when": when, "whole": rng.integers(0, 5, count)}), Truth(
        Task.BINARY, y, ("0", "1")
    )


def test_gaps_categories_times_and_unknown_values_are_no_obstacle() -> None:
    rows, truth = mixed()
    for model in simple_models(rows, tuple(rows.columns), Task.BINARY, 0):
        said = cross_fitted(model, rows, truth, 0)
        assert said.probabilities is not None
        np.testing.assert_allclose(said.probabilities.sum(axis=1), 1)
        assert (said.labels == truth.target).mean() > 0.7
        other = np.array(["never seen"] * 120, dtype=object)
        assert np.isfinite(model.predict(rows.replaced(ward=other), truth).probabilities).all()


def test_prose_is_read_and_codes_are_compared() -> None:
    texts = np.array([f"{'fine' if i % 2 else 'awful'} day number {i}" for i in range(120)], dtype=object)
    assert is_prose(texts)
    assert not is_prose(np.array([f"c{i}" for i in range(120)], dtype=object))
    rows, truth = Rows({"text": texts, "n": np.arange(120.0)}), Truth(Task.BINARY, np.arange(120) % 2, ("0", "1"))
    (model,) = simple_models(rows, ("text", "n"), Task.BINARY, 0)
    assert (cross_fitted(model, rows, truth, 0).labels == truth.target).mean() > 0.95


@pytest.mark.parametrize("task", [Task.BINARY, Task.REGRESSION])
def test_each_row_is_answered_once_by_a_model_that_has_not_seen_it(task: Task) -> None:
    target = np.arange(50) % 2 if task is Task.BINARY else np.arange(50.0)
    seen = []
    for learned, answered in folds(Truth(task, target, ("0", "1")), 0):
        assert not set(learned) & set(answered)
        seen += answered.tolist()
    assert sorted(seen) == list(range(50))
    groups = np.repeat(np.arange(10), 5)
    for learned, answered in folds(Truth(task, target, ("0", "1")), 0, groups):
        assert not set(groups[learned]) & set(groups[answered])


def test_a_class_of_one_row_cannot_be_learned_and_answered() -> None:
    with pytest.raises(SalverError, match="a class has 1 row"):
        list(folds(Truth(Task.BINARY, np.array([0, 0, 0, 1]), ("0", "1")), 0))
