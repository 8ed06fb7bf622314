"""The data sheet: counted from the file, held against the profile, and silent about nobody's names."""

from __future__ import annotations

import msgspec
import numpy as np
import pandas as pd
import pytest
from tests.cards.facts import fact

from salver.cards.drift import measure_drift
from salver.cards.sheet import ANSWERS, data_sheet
from salver.cards.table_facts import measure_table
from salver.protocol.profile import Profile
from salver.protocol.signature import Signature, TensorSpec

NOW_S = 1_700_000_000.0


def text(*values):
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    age = rng.normal(40, 10, 300)
    age[:6] = np.nan
    return {
        "age": age,
        "children": rng.integers(0, 4, 300),
        "name": text(*(f"person {index}" for index in range(300))),
        "town": text(*(["here"] * 200 + ["there"] * 97 + ["only once", None, None])),
        "bought": np.array([0, 1, 1] * 100),
    }


def test_columns_are_measured_as_pandas_does_it(columns) -> None:
    facts = measure_table(columns, "rows.csv", "d1", "bought")
    frame = pd.DataFrame(columns)
    age, told = facts.column("age"), frame["age"]
    assert (age.kind, age.missing, age.distinct) == ("number", 6, told.nunique())
    assert (age.low, age.high, age.mean) == pytest.approx((told.min(), told.max(), told.mean()))
    assert age.std == pytest.approx(told.std(ddof=0))
    assert age.quantiles == pytest.approx(told.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).tolist())
    assert facts.column("town").missing == 2
    assert facts.column("bought").categories == (("1", 200), ("0", 100))


def test_values_that_hardly_anybody_shares_are_not_named(columns) -> None:
    facts = measure_table(columns, "rows.csv", "d1")
    assert facts.column("name").categories == ()
    assert facts.column("town").categories == (("here", 200), ("there", 97))
    sheet = msgspec.json.encode(data_sheet(None, facts, NOW_S, columns)).decode()
    assert "person 7" not in sheet
    assert "only once" not in sheet


def test_duplicates_are_rows_that_are_alike_in_every_column() -> None:
    columns = {"a": np.array([1.0, 1.0, np.nan, np.nan, 1.0]), "b": text("x", "x", None, None, "y")}
    facts = measure_table(columns, "rows.csv", "d1")
    assert facts.duplicates == int(pd.DataFrame(columns).duplicated().sum()) == 2


def profile_of(rows):
    signature = Signature((TensorSpec("x", "FP32", (-1, 2), labels=("a", "b")),), ())
    return Profile.measure(rows, signature), signature


def test_a_feature_that_moved_is_found_and_the_others_are_not() -> None:
    rng = np.random.default_rng(0)
    profile, signature = profile_of(rng.normal(0, 1, (1000, 2)))
    moved = {"b": rng.normal(1, 1, 400), "a": rng.normal(0, 1, 400), "y": np.zeros(400)}
    found = {each.feature: each for each in measure_drift(profile, signature, moved, "y")}
    assert {name: each.differs for name, each in found.items()} == {"a": False, "b": True}
    assert found["b"].shift == pytest.approx(1.0, abs=0.15)


def test_rows_like_the_training_data_hardly_ever_differ() -> None:
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(100):
        profile, signature = profile_of(rng.normal(0, 1, (200, 2)))
        rows = rng.normal(0, 1, (50, 2))
        false += any(each.differs for each in measure_drift(profile, signature, {"a": rows[:, 0], "b": rows[:, 1]}))
    assert false <= 11, "beyond 11 of 100 the chance is below 1 % at the level 0.05"


@pytest.mark.parametrize("value", [3.0, 4.0])
def test_a_constant_feature_differs_as_soon_as_it_moves(value) -> None:
    profile, signature = profile_of(np.full((50, 2), 3.0))
    (a, b) = measure_drift(profile, signature, {"a": np.full(20, value), "b": np.full(20, 3.0)})
    assert (a.differs, b.differs) == (value != 3.0, False)


def test_columns_that_are_no_features_give_no_drift(columns, desk) -> None:
    page = desk.dossier(desk.register()).page
    facts = measure_table(columns, "rows.csv", "d1", "bought")
    sheet = data_sheet(page, facts, NOW_S, {"town": columns["town"]})
    assert sheet.sections[1].tables[-1].title.endswith("cannot be told")


def test_the_sheet_of_a_version_comes_from_its_profile_and_description(desk) -> None:
    version = desk.register()
    desk.describe(version, training_data={"name": "scans", "digest": "ab" * 32, "rows": 900})
    sheet = data_sheet(desk.dossier(version).page, None, NOW_S)
    assert fact(sheet, "How many rows are there?").value == "900, as stated"
    assert fact(sheet, "What has it been used for?").value == f"to train digits@{version}"
    assert fact(sheet, "SHA-256, as stated").value == "ab" * 32
    assert fact(sheet, "Are there duplicates?").stated is False
    assert len(sheet.sections[1].tables[0].rows) == 2


def test_every_question_can_be_answered_and_else_is_not_stated(desk) -> None:
    version = desk.register()
    page = desk.dossier(version).page
    for _, question in ANSWERS.values():
        assert fact(data_sheet(page, None, NOW_S), question).value == "not stated"
    desk.describe(version, extra={key: f"answer to {key}" for key in ANSWERS})
    sheet = data_sheet(desk.dossier(version).page, None, NOW_S)
    for key, (_, question) in ANSWERS.items():
        assert fact(sheet, question).value == f"answer to {key}"


def test_a_file_that_is_not_the_one_it_was_trained_on_is_a_warning(desk, columns) -> None:
    version = desk.register()
    desk.describe(version, training_data={"name": "scans", "digest": "ab" * 32})
    page = desk.dossier(version).page
    other, same = (measure_table(columns, "rows.csv", digest, "bought") for digest in ("cd" * 32, "ab" * 32))
    assert data_sheet(page, other, NOW_S, columns).warnings
    assert fact(data_sheet(page, other, NOW_S, columns), "What has it been used for?").stated is False
    assert data_sheet(page, same, NOW_S, columns).warnings == ()
