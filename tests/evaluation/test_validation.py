"""Data against profile, reference and schema: drift that matters is seen, noise is not."""

from __future__ import annotations

import numpy as np
import pytest
from subjects import make_subject

from salver.evaluation.data.drift import column_drifts, kind_of
from salver.evaluation.data.validation import DataCheck, broken_rules
from salver.evaluation.subject.given import Given
from salver.evaluation.subject.rows import Rows
from salver.evaluation.suites.service_sections import DataSettings
from salver.protocol.errors import SalverError
from salver.protocol.profile import Profile
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.verdict import Verdict
from salver.testing import make_manifest

SIGNATURE = Signature((TensorSpec("x", "FP64", (-1, 2)),), (TensorSpec("y", "FP64", (-1,)),))


def text(values) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def looked_at(columns, *, trained=None, others=None, settings=None, features=None):
    """The check of these columns; `trained` are the rows of the profile, `others` the other side of the split."""
    features = tuple(features or columns)
    subject = make_subject(
        target=np.zeros(len(next(iter(columns.values()))), dtype=int),
        labels=np.zeros(len(next(iter(columns.values()))), dtype=int),
        columns=columns,
        others=Rows(others or {}),
        given=Given(),
    )
    profile = None if trained is None else Profile.measure(np.column_stack(list(trained.values())), SIGNATURE)
    subject.asked.manifest = make_manifest(signature=SIGNATURE, profile=profile)
    subject.asked.mapping.features = features
    subject.asked.mapping.columns = {"x": features}
    return DataCheck(settings or DataSettings()).run(subject)


def normal(seed, count=400, mean=0.0):
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(mean, 1.0, count), "b": rng.normal(size=count)}


def test_rows_like_those_of_training_pass_and_each_comparison_counts() -> None:
    found = looked_at(normal(1), trained=normal(0), others=normal(2))
    assert found.verdict is Verdict.SUCCESSFUL, found.reasons
    assert [table.title for table in found.tables] == ["Against the profile", "Against the reference rows"]


def test_without_drift_hardly_any_data_is_accused() -> None:
    accused = sum(
        looked_at(normal(2 * seed), others=normal(2 * seed + 1)).verdict is Verdict.FAILED for seed in range(100)
    )
    assert accused <= 5  # the level is 0.01


def test_many_columns_of_few_rows_are_not_accused_by_an_index_that_is_large_by_chance() -> None:
    rng = np.random.default_rng(7)
    accused = 0
    for _ in range(40):
        now, before = ({f"c{index}": rng.normal(size=60) for index in range(10)} for _ in range(2))
        found = looked_at(now, others=before)
        assert found.numbers["largest_psi"] > 0.1
        accused += found.verdict is Verdict.FAILED
    assert accused <= 2


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (normal(1, mean=1.0), "mean moved, in standard deviations"),
        ({"a": np.where(np.arange(400) % 5 == 0, 9.0, 0.0), "b": normal(1)["b"]}, "outside the range"),
        ({"a": np.where(np.arange(400) % 5 == 0, -9.0, 2.0), "b": normal(1)["b"]}, "outside the range"),
        ({"a": np.where(np.arange(400) % 5 == 0, np.nan, normal(1)["a"]), "b": normal(1)["b"]}, "missing values"),
    ],
)
def test_what_the_profile_does_not_know_fails_and_is_named(rows, said) -> None:
    found = looked_at(rows, trained=normal(0))
    assert found.verdict is Verdict.FAILED
    assert said in str(found.reasons)
    assert "a: " in found.reasons[0]


def test_few_rows_are_inconclusive_both_ways() -> None:
    few = {name: column[:20] for name, column in normal(1).items()}
    assert looked_at(few, trained=normal(0)).verdict is Verdict.INCONCLUSIVE
    assert "too few to compare" in str(looked_at(few, others=normal(0)).reasons)


def test_a_distribution_that_moved_fails_with_its_calibrated_threshold() -> None:
    wide = {"a": normal(1)["a"] * 2, "b": normal(1)["b"]}
    found = looked_at(wide, others=normal(0))
    assert found.verdict is Verdict.FAILED
    assert found.reasons[0].startswith("a: PSI ")
    assert "without drift below" in found.reasons[0]
    assert looked_at(wide, others=normal(0), settings=DataSettings(psi_at_most=5.0)).verdict is Verdict.SUCCESSFUL


def test_categories_are_compared_by_their_shares_and_new_ones_are_counted() -> None:
    before = {"c": text(["x", "y"] * 200)}
    assert looked_at({"c": text(["x", "y"] * 100)}, others=before).verdict is Verdict.SUCCESSFUL
    assert "PSI" in str(looked_at({"c": text(["x"] * 190 + ["y"] * 10)}, others=before).reasons)
    assert looked_at({"c": text(["x", "y"] * 90 + ["z"] * 20)}, others=before).verdict is Verdict.FAILED


def test_a_category_that_became_free_text_fails_by_its_cardinality() -> None:
    found = looked_at({"c": text([f"name {index}" for index in range(200)])}, others={"c": text(["x", "y"] * 100)})
    assert found.verdict is Verdict.FAILED
    assert "holds text (200 different), and the reference categories (2)" in found.reasons[0]


def test_a_column_of_numbers_that_became_text_fails() -> None:
    found = looked_at({"a": text(["x", "y"] * 100)}, others={"a": normal(0)["a"]}, features=["a"])
    assert found.verdict is Verdict.FAILED
    assert "the reference numbers" in found.reasons[0]


def test_a_reference_without_the_column_fails() -> None:
    assert "the reference has no column b" in str(looked_at(normal(1), others={"a": normal(0)["a"]}).reasons)


def test_nothing_to_compare_with_is_inconclusive() -> None:
    found = looked_at(normal(1))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "there is nothing to compare with" in found.reasons[0]


def test_a_reference_in_a_file_takes_the_place_of_the_split(tmp_path) -> None:
    np.save(tmp_path / "train.npy", np.column_stack(list(normal(0).values())))
    rows = dict(zip("01", normal(1, mean=2.0).values(), strict=True))
    settings = DataSettings(reference=str(tmp_path / "train.npy"))
    assert looked_at(rows, others=rows, settings=settings).verdict is Verdict.FAILED
    assert looked_at(rows, others=rows).verdict is Verdict.SUCCESSFUL


def test_constant_columns_are_no_drift_and_no_error() -> None:
    same = {"a": np.ones(100), "b": np.full(100, np.nan)}
    assert looked_at(same, others={name: column.copy() for name, column in same.items()}).verdict is Verdict.SUCCESSFUL


def test_kinds_of_columns() -> None:
    times = np.array(["2026-03-01", "2026-03-02"], dtype="datetime64[ns]")
    kinds = [kind_of(each) for each in (np.arange(50), np.arange(50) % 3, np.array([True, False]), times)]
    assert kinds == ["numbers", "categories", "categories", "text"]
    assert column_drifts(Rows({"a": np.arange(3)}), Rows({"b": np.arange(3)}), ["a"]) == []


YAML = """
schema_type: dataframe
version: 0.24.0
columns:
  a:
    dtype: float64
    nullable: false
    checks:
      greater_than_or_equal_to: 0
"""
PYTHON = """
import pandera.pandas as pa

SCHEMA = pa.DataFrameSchema({"a": pa.Column(float, pa.Check(lambda column: column < 3, name="below three"))})
"""


@pytest.mark.parametrize(
    ("name", "schema", "values", "broken"),
    [
        ("s.yaml", YAML, [0.0, 1.0], []),
        ("s.yaml", YAML, [-1.0, -2.0, 1.0], [("greater_than_or_equal_to(0)", 2)]),
        ("s.yaml", YAML, [np.nan, 1.0], [("not_nullable", 1)]),
        ("s.json", '{"schema_type": "dataframe", "version": "0.24.0", "columns": {"b": {"dtype": "int64"}}}', [1.0],
         [("column_in_dataframe", 1)]),
        ("s.py", PYTHON, [1.0, 5.0], [("below three", 1)]),
    ],
)  # fmt: skip
def test_rows_are_held_against_a_schema_of_pandera(tmp_path, name, schema, values, broken) -> None:
    (tmp_path / name).write_text(schema)
    found = broken_rules(tmp_path / name, Rows({"a": np.array(values), "t": text(["x"] * len(values))}))
    assert [(each.rule, each.rows) for each in found] == broken


def test_a_schema_that_is_none_is_refused_and_a_broken_one_fails(tmp_path) -> None:
    (tmp_path / "s.yaml").write_text("columns: [")
    with pytest.raises(SalverError, match=r"schema 's\.yaml'"):
        broken_rules(tmp_path / "s.yaml", Rows({"a": np.ones(1)}))
    with pytest.raises(SalverError, match="there is no schema"):
        broken_rules(tmp_path / "none.yaml", Rows({"a": np.ones(1)}))
    (tmp_path / "s.yaml").write_text(YAML)
    found = looked_at(normal(1), settings=DataSettings(schema=str(tmp_path / "s.yaml")))
    assert found.verdict is Verdict.FAILED
    assert "a: greater_than_or_equal_to(0) is broken in" in found.reasons[0]
