"""Too little learned, too much, and too good to be true; honest versions are left in peace."""

from __future__ import annotations

import numpy as np
import pytest
from scored import learned_subject, made_subject
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from salver.evaluation.data.fit import BaselineCheck, OverfitCheck
from salver.evaluation.data.label_noise import LabelNoiseCheck
from salver.evaluation.suites.sections import FitSettings
from salver.protocol.verdict import Verdict

X, Y = load_breast_cancer(return_X_y=True)
TABLE = {f"f{i}": X[:, i] for i in range(30)}
QUICK = FitSettings(learning_curve=False)


def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


class Shuffled(DecisionTreeClassifier):
    """A tree that learned labels that mean nothing."""

    def fit(self, x, y):
        return super().fit(x, np.random.default_rng(0).permutation(y))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [logistic, lambda: GradientBoostingClassifier(n_estimators=30)])
def test_honest_versions_pass(make, seed: int) -> None:
    whole = learned_subject(make(), TABLE, Y, seed)
    for check in (BaselineCheck(QUICK), OverfitCheck(QUICK), LabelNoiseCheck(QUICK)):
        found = check.run(whole)
        assert found.verdict is Verdict.SUCCESSFUL, (check.name, found.reasons)


@pytest.mark.parametrize("seed", range(3))
def test_a_version_that_learned_nothing_is_worse_than_a_simple_model(seed: int) -> None:
    found = BaselineCheck(QUICK).run(learned_subject(Shuffled(max_depth=2), TABLE, Y, seed))
    assert found.verdict is Verdict.FAILED
    assert "does better" in found.reasons[0]
    assert [row[0] for row in found.tables[0].rows] == ["arithmetic@1.0.0", "logistic regression", "forest"]


def test_a_version_that_saw_the_rows_is_too_good_to_be_taken_on_trust() -> None:
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(len(Y)) < 0.15, 1 - Y, Y)  # no honest version has fewer than 15 % errors
    held = rng.permutation(len(Y))[:228]
    rest = np.setdiff1d(np.arange(len(Y)), held)
    by_heart = KNeighborsClassifier(1).fit(X, noisy)

    def model(rows):
        return by_heart.predict_proba(np.column_stack([rows.column(f"f{i}") for i in range(30)]))[:, 1]

    whole = made_subject(
        {n: c[held] for n, c in TABLE.items()},
        noisy[held],
        model,
        training=({n: c[rest] for n, c in TABLE.items()}, noisy[rest]),
    )
    found = BaselineCheck(QUICK).run(whole)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reasons[0].startswith("too good to be taken on trust: 0 of 228 rows are wrong")
    # By the gap alone it is not found out: it knows both sides by heart.
    assert OverfitCheck(QUICK).run(whole).verdict is Verdict.SUCCESSFUL


@pytest.mark.parametrize("seed", range(3))
def test_a_version_that_learned_by_heart_has_a_gap(seed: int) -> None:
    noisy = np.where(np.random.default_rng(seed).random(len(Y)) < 0.25, 1 - Y, Y)
    whole = learned_subject(DecisionTreeClassifier(random_state=0), TABLE, noisy, seed)
    found = OverfitCheck(QUICK).run(whole)
    assert found.verdict is Verdict.FAILED
    assert found.numbers["accuracy in training"] == 1.0
    assert "if those are its training rows: it does not say" in found.reasons


def test_without_training_rows_simple_models_answer_by_folds_and_the_gap_is_unknown() -> None:
    model = logistic().fit(X, Y)
    whole = made_subject(
        TABLE, Y, lambda rows: model.predict_proba(np.column_stack([rows.column(n) for n in TABLE]))[:, 1]
    )
    found = BaselineCheck(QUICK).run(whole)
    assert (found.verdict, found.numbers["trained_on"]) == (Verdict.SUCCESSFUL, 0)
    assert OverfitCheck(QUICK).run(whole).verdict is Verdict.INCONCLUSIVE
    few = made_subject({"x": np.arange(10.0)}, np.arange(10) % 2, lambda rows: np.full(len(rows), 0.5))
    assert BaselineCheck(QUICK).run(few).verdict is Verdict.INCONCLUSIVE


def test_the_learning_curve_is_shown_with_a_hint() -> None:
    found = BaselineCheck(FitSettings()).run(learned_subject(logistic(), TABLE, Y))
    assert found.reasons[-1].startswith("hint: from 239 to 341 rows a simple model gains")
    assert found.plots[0].series[1].x[-1] == 341.0
    assert len(found.tables[1].rows) == 5


def test_a_regression_is_judged_by_its_errors() -> None:
    x, y = load_diabetes(return_X_y=True)
    columns = {f"f{i}": x[:, i] for i in range(10)}
    held, rest = slice(0, 200), slice(200, 442)
    training = ({n: c[rest] for n, c in columns.items()}, y[rest])
    here = {n: c[held] for n, c in columns.items()}
    known = {tuple(row): value for row, value in zip(x, y, strict=True)}

    def of(model):
        return made_subject(here, y[held], model, regression=True, training=training)

    fair = of(lambda rows: 152 + 950 * rows.numbers("f2") + 450 * rows.numbers("f8"))
    assert BaselineCheck(QUICK).run(fair).verdict in (Verdict.SUCCESSFUL, Verdict.INCONCLUSIVE)
    assert OverfitCheck(QUICK).run(fair).verdict is Verdict.SUCCESSFUL
    useless = BaselineCheck(QUICK).run(of(lambda rows: np.full(len(rows), 300.0)))
    assert useless.verdict is Verdict.FAILED
    heart = of(lambda rows: np.array([known[tuple(r)] for r in np.column_stack([rows.column(n) for n in columns])]))
    found = BaselineCheck(QUICK).run(heart)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "too good to be taken on trust: the mean error is 0" in found.reasons[0]
    train_only = of(
        lambda rows: np.where(
            np.isin(rows.numbers("f0") + rows.numbers("f2"), (x[rest, 0] + x[rest, 2])),
            [known.get(tuple(r), 0) for r in np.column_stack([rows.column(n) for n in columns])],
            150.0,
        )
    )
    assert OverfitCheck(QUICK).run(train_only).verdict is Verdict.FAILED


def test_labels_that_were_turned_look_wrong() -> None:
    rng = np.random.default_rng(0)
    turned = rng.choice(len(Y), 40, replace=False)
    noisy = Y.copy()
    noisy[turned] = 1 - noisy[turned]
    whole = made_subject(TABLE, noisy, lambda rows: np.full(len(rows), 0.5))
    found = LabelNoiseCheck(FitSettings(label_noise_at_most=0.03)).run(whole)
    assert found.verdict is Verdict.FAILED
    assert 30 <= found.numbers["suspects"] <= 60
    shown = {row[0] for row in found.tables[0].rows}
    assert len(shown & set(turned.tolist())) >= 9
    clean = made_subject(TABLE, Y, lambda rows: np.full(len(rows), 0.5))
    assert LabelNoiseCheck(FitSettings(label_noise_at_most=0.05)).run(clean).verdict is Verdict.SUCCESSFUL
    few = made_subject({"x": np.arange(10.0)}, np.arange(10) % 2, lambda rows: np.full(len(rows), 0.5))
    assert LabelNoiseCheck(FitSettings(label_noise_at_most=0.05)).run(few).verdict is Verdict.INCONCLUSIVE
    assert LabelNoiseCheck(QUICK).run(few).verdict is Verdict.SUCCESSFUL


def test_a_value_far_from_what_its_row_says_looks_wrong() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    y = 3 * x + rng.normal(0, 0.1, 300)
    y[7] += 20
    found = LabelNoiseCheck(QUICK).run(made_subject({"x": x}, y, lambda rows: 3 * rows.numbers("x"), regression=True))
    assert found.tables[0].rows[0][0] == 7
