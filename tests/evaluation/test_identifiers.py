"""Columns that name rows, and columns that came too late."""

from __future__ import annotations

import numpy as np
import pytest
from scored import made_subject
from sklearn.datasets import load_breast_cancer, load_digits

from salver.evaluation.data.identifiers import IdentifierCheck, LateCheck
from salver.evaluation.suites.sections import LeakageSettings
from salver.protocol.verdict import Verdict

N = 200
RNG = np.random.default_rng(0)


def subject(features=None, **columns):
    count = len(next(iter(columns.values())))
    return made_subject(columns, np.arange(count) % 2, lambda rows: np.full(len(rows), 0.5), features=features)


def run(whole, **settings):
    return IdentifierCheck(LeakageSettings(**settings)).run(whole)


@pytest.mark.parametrize(
    ("name", "column", "why"),
    [
        ("row", np.arange(N), "counts the rows through"),
        ("row", RNG.permutation(N) + 1000.0, "counts the rows through"),
        ("customer_id", RNG.choice(10**9, N, replace=False), "is called an identifier"),
        ("patientId", RNG.choice(10**9, N, replace=False), "is called an identifier"),
        ("who", np.array([f"c-{i:05}" for i in RNG.choice(10**5, N, replace=False)], dtype=object), "different codes"),
    ],
)
def test_a_column_that_names_rows_is_found(name: str, column: np.ndarray, why: str) -> None:
    found = run(subject(x=RNG.normal(size=N), **{name: column}))
    assert found.verdict is Verdict.FAILED
    assert why in found.reasons[0]
    assert run(subject(x=RNG.normal(size=N), **{name: column}), allow=(name,)).verdict is Verdict.SUCCESSFUL


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("measured", RNG.normal(size=N)),
        ("income", RNG.integers(10_000, 900_000, N)),
        ("ward_id", RNG.integers(0, 8, N)),
        ("age", RNG.integers(18, 90, N)),
        ("text", np.array([f"number {i} was nice" for i in range(N)], dtype=object)),
        ("surname", np.array([chr(97 + i % 26) * 3 + chr(97 + i // 26) * 4 for i in range(N)], dtype=object)),
        ("empty", np.full(N, np.nan)),
    ],
)
def test_a_column_that_describes_is_none(name: str, column: np.ndarray) -> None:
    assert run(subject(x=RNG.normal(size=N), **{name: column})).verdict is Verdict.SUCCESSFUL


@pytest.mark.parametrize("load", [load_breast_cancer, load_digits])
def test_real_data_has_none(load) -> None:
    x, _ = load(return_X_y=True)
    assert run(subject(**{f"f{i}": x[:, i] for i in range(x.shape[1])})).verdict is Verdict.SUCCESSFUL


def test_an_identifier_that_the_version_does_not_see_harms_nobody() -> None:
    assert run(subject(features=("x",), x=RNG.normal(size=N), row=np.arange(N))).verdict is Verdict.SUCCESSFUL
    assert run(subject(row=np.arange(20))).verdict is Verdict.INCONCLUSIVE


def test_a_value_known_after_the_moment_of_the_prediction_is_late() -> None:
    decided = np.array(["2026-01-02", "2026-01-02"] * 30, dtype=object)
    early = np.array(["2026-01-01", "2026-01-02"] * 30, dtype=object)
    late = np.array(["2026-01-01", "2026-01-05"] * 30, dtype=object)
    columns = {
        "income": RNG.normal(size=60),
        "defaulted": RNG.normal(size=60),
        "decided": decided,
        "early": early,
        "late": late,
    }
    settings = LeakageSettings(decided_at="decided", known_at={"income": "early", "defaulted": "late"})
    found = LateCheck(settings).run(subject(features=("income", "defaulted"), **columns))
    assert (found.verdict, found.reasons) == (
        Verdict.FAILED,
        ("'defaulted' was known after 'decided' in 30 of 60 rows",),
    )
    assert LateCheck(settings).run(subject(features=("income",), **columns)).verdict is Verdict.SUCCESSFUL
