"""Columns that give the answer away are found; strong honest ones are not."""

from __future__ import annotations

import numpy as np
import pytest
from scored import learned_subject, made_subject
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from salver.evaluation.data.target_leakage import TargetLeakageCheck
from salver.evaluation.suites.sections import LeakageSettings
from salver.protocol.verdict import Verdict

X, Y = load_breast_cancer(return_X_y=True)
CLEAN = {name.replace(" ", "_"): X[:, i] for i, name in enumerate(load_breast_cancer().feature_names)}


def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def run(whole, **settings):
    return TargetLeakageCheck(LeakageSettings(**settings)).run(whole)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ratio", [0.15, 0.4])
@pytest.mark.parametrize("make", [logistic, lambda: GradientBoostingClassifier(n_estimators=20)])
def test_clean_versions_are_not_accused(make, seed: int, ratio: float) -> None:
    found = run(learned_subject(make(), CLEAN, Y, seed, ratio))
    assert found.verdict is Verdict.SUCCESSFUL, found.reasons


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [logistic, lambda: DecisionTreeClassifier(max_depth=3)])
def test_a_column_made_of_the_target_is_found_in_any_version(make, seed: int) -> None:
    biopsy = Y + np.random.default_rng(seed).normal(0, 0.15, len(Y))
    found = run(learned_subject(make(), CLEAN | {"biopsy": biopsy}, Y, seed))
    assert found.verdict is Verdict.FAILED
    assert found.reasons[0].startswith("'biopsy' alone predicts the target: AUC")
    assert found.tables[0].rows[0][0] == "biopsy"
    assert found.plots[0].series[0].names[-1] == "biopsy"


def test_a_column_that_was_looked_at_may_stay() -> None:
    biopsy = Y + np.random.default_rng(0).normal(0, 0.15, len(Y))
    whole = learned_subject(logistic(), CLEAN | {"biopsy": biopsy}, Y)
    assert run(whole, allow=("biopsy",)).verdict is Verdict.SUCCESSFUL


def test_a_form_that_is_filled_in_only_for_the_sick_says_who_is_sick() -> None:
    rng = np.random.default_rng(0)
    stage = np.where(Y == 0, rng.integers(1, 4, len(Y)), np.nan)
    whole = made_subject(
        {**{name: CLEAN[name] for name in ("mean_radius", "mean_texture")}, "stage": stage}, Y,
        lambda rows: 1 / (1 + np.exp(rows.numbers("mean_radius") - 15)),
    )  # fmt: skip
    found = run(whole)
    assert found.verdict is Verdict.FAILED
    assert any("'stage is missing' alone" in reason for reason in found.reasons)


def test_a_category_that_names_the_target_is_found_and_one_of_many_rare_values_is_not() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 600)
    columns = {
        "x": rng.normal(size=600) + y,
        "z": rng.normal(size=600) + y,
        "outcome": np.where(y == 1, "closed", "open").astype(object),
        "city": rng.choice([f"c{i}" for i in range(300)], 600).astype(object),
    }
    model = lambda rows: 1 / (1 + np.exp(1 - rows.numbers("x") - rows.numbers("z")))  # noqa: E731
    found = run(made_subject(columns, y, model))
    assert (found.verdict, found.tables[0].rows[0][0]) == (Verdict.FAILED, "outcome")
    reached = {row[0]: row[1] for row in found.tables[0].rows}
    assert reached["city"] < 0.6
    del columns["outcome"]
    assert run(made_subject(columns, y, model)).verdict is Verdict.SUCCESSFUL


@pytest.mark.parametrize("load", [load_iris, load_wine, load_digits])
def test_more_classes_clean_and_leaky(load) -> None:
    x, y = load(return_X_y=True)
    x, y = x[:600], y[:600]
    columns = {f"f{i}": x[:, i] for i in range(min(x.shape[1], 12))}
    classes = tuple(map(str, range(int(y.max()) + 1)))
    spread = np.eye(len(classes))
    model = lambda rows: np.tile(spread.mean(axis=0), (len(rows), 1))  # noqa: E731
    found = run(made_subject(columns, y, model, classes=classes))
    assert found.verdict is Verdict.SUCCESSFUL, found.reasons
    found = run(made_subject({**columns, "code": y * 3.0 + 1}, y, model, classes=classes))
    assert (found.verdict, found.tables[0].rows[0][0]) == (Verdict.FAILED, "code")


def test_a_regression_clean_and_leaky() -> None:
    x, y = load_diabetes(return_X_y=True)
    columns = {f"f{i}": x[:, i] for i in range(10)}
    model = lambda rows: 152 + 900 * rows.numbers("f2")  # noqa: E731
    assert run(made_subject(columns, y, model, regression=True)).verdict is Verdict.SUCCESSFUL
    leaky = {**columns, "bill": y * 10 + np.random.default_rng(0).normal(0, 10, len(y))}
    found = run(made_subject(leaky, y, model, regression=True))
    assert found.verdict is Verdict.FAILED
    assert "'bill' alone predicts the target: R2" in found.reasons[0]


def test_a_version_that_owes_all_to_one_column_is_inconclusive_until_someone_looked() -> None:
    whole = learned_subject(DecisionTreeClassifier(max_depth=1, random_state=0), CLEAN, Y)
    found = run(whole)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "of its skill: see whether that is known when one predicts" in found.reasons[0]
    column = found.reasons[0].split("'")[1]
    assert run(whole, allow=(column,)).verdict is Verdict.SUCCESSFUL


def test_few_rows_are_inconclusive() -> None:
    whole = made_subject({"x": np.arange(40.0)}, np.arange(40) % 2, lambda rows: np.full(len(rows), 0.5))
    assert run(whole).verdict is Verdict.INCONCLUSIVE
    tidy = made_subject({"x": np.arange(40) % 2 + 0.0}, np.arange(40) % 2, lambda rows: np.full(len(rows), 0.5))
    found = run(tidy, min_rows=20)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reasons[0].endswith("too few rows to be sure")
