"""Slices: what is worse is found, what is not is not, however many are looked at."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from subjects import make_subject

from salver.evaluation.metrics.slices import SliceCheck, find_slices
from salver.evaluation.subject.cutting import cut_column
from salver.evaluation.subject.rows import Rows
from salver.evaluation.suites.suite import SliceSettings, WhereSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict

SEARCH = SliceSettings(discover=True, min_support=30, max_gap=0.0)


def drawn_rows(rng: np.random.Generator, count: int = 600) -> dict[str, np.ndarray]:
    return {
        "age": rng.normal(50, 12, count),
        "income": rng.lognormal(3, 1, count),
        "visits": rng.integers(0, 4, count),
        "city": np.array(["north", "south", "east"], dtype=object)[rng.integers(0, 3, count)],
        "smoker": rng.random(count) < 0.3,
    }


@pytest.mark.parametrize("is_binary", [True, False])
def test_where_no_slice_is_worse_any_is_reported_no_more_often_than_the_level(is_binary: bool) -> None:
    rng, runs, alarms = np.random.default_rng(11), 120, 0
    for _ in range(runs):
        columns = drawn_rows(rng)
        losses = (rng.random(600) < 0.15).astype(float) if is_binary else rng.exponential(1.0, 600)
        found = find_slices(Rows(columns), losses, SEARCH, list(columns))
        assert len(found) > 80
        alarms += any(each.adjusted_p <= SEARCH.level for each in found)
    # 120 draws with probability 0.05 exceed 12 with probability 0.008.
    assert alarms <= 12


def test_without_the_correction_it_would_be_reported_nearly_always() -> None:
    rng, alarms = np.random.default_rng(12), 0
    for _ in range(20):
        columns = drawn_rows(rng)
        found = find_slices(Rows(columns), (rng.random(600) < 0.15).astype(float), SEARCH, list(columns))
        alarms += any(each.p_value <= SEARCH.level for each in found)
    assert alarms >= 15


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_planted_slice_of_two_columns_is_found_and_named(task: str) -> None:
    rng = np.random.default_rng(3)
    columns = drawn_rows(rng, 3000)
    planted = (columns["city"] == "south") & columns["smoker"]
    if task == "classification":
        target = rng.integers(0, 2, 3000)
        labels = np.where(rng.random(3000) < np.where(planted, 0.5, 0.05), 1 - target, target)
        subject = make_subject(target=target, labels=labels, columns=columns)
    else:
        target = rng.normal(size=3000)
        values = target + rng.normal(size=3000) * np.where(planted, 4.0, 0.5)
        subject = make_subject(target=target, values=values, columns=columns)
    result = SliceCheck(SliceSettings(discover=True)).run(subject)
    assert result.verdict is Verdict.FAILED
    assert result.reasons[0].startswith("city = south and smoker = 1: mean loss ")
    assert result.tables[0].rows[0][0] == "city = south and smoker = 1"
    assert result.plots[0].series[0].names[-1] == "city = south and smoker = 1"


def test_a_slice_of_one_column_is_not_reported_again_by_its_parts() -> None:
    rng = np.random.default_rng(4)
    columns = drawn_rows(rng, 2000)
    target = np.zeros(2000, dtype=int)
    labels = ((columns["city"] == "south") & (np.arange(2000) % 2 == 0)).astype(int)
    result = SliceCheck(SliceSettings(discover=True)).run(make_subject(target=target, labels=labels, columns=columns))
    assert result.reasons[0].startswith("city = south: mean loss ") or "city = south and" in result.reasons[0]
    bad = [row[0] for row in result.tables[0].rows if row[-1] == "yes"]
    assert "city = south" in bad
    losses = {row[0]: row[2] for row in result.tables[0].rows}
    assert all(losses[name] > losses["city = south"] for name in bad if "city = south and" in name)


def test_a_gap_too_small_to_matter_fails_nothing_however_certain() -> None:
    rng, count = np.random.default_rng(5), 40_000
    group = rng.integers(0, 2, count)
    labels = (rng.random(count) < np.where(group == 1, 0.12, 0.10)).astype(int)
    subject = make_subject(target=np.zeros(count, int), labels=labels, columns={"group": group})
    result = SliceCheck(SliceSettings(columns=("group",), max_gap=0.05)).run(subject)
    assert result.verdict is Verdict.SUCCESSFUL
    assert result.tables[0].rows[0][6] < 0.001
    assert SliceCheck(SliceSettings(columns=("group",), max_gap=0.01)).run(subject).verdict is Verdict.FAILED


def test_p_values_are_those_of_scipy() -> None:
    rng = np.random.default_rng(6)
    columns = {"group": rng.integers(0, 3, 400)}
    wrong = (rng.random(400) < 0.2).astype(float)
    for each in find_slices(Rows(columns), wrong, SliceSettings(columns=("group",)), []):
        inside = columns["group"] == int(each.name[-1])
        table = [[wrong[inside].sum(), (1 - wrong[inside]).sum()], [wrong[~inside].sum(), (1 - wrong[~inside]).sum()]]
        assert each.p_value == pytest.approx(scipy.stats.fisher_exact(table, "greater").pvalue, rel=1e-9)
    losses = np.round(rng.exponential(1.0, 400), 1)  # with ties
    for each in find_slices(Rows(columns), losses, SliceSettings(columns=("group",)), []):
        inside = columns["group"] == int(each.name[-1])
        expected = scipy.stats.mannwhitneyu(losses[inside], losses[~inside], alternative="greater", method="asymptotic")
        assert each.p_value == pytest.approx(expected.pvalue, rel=1e-9)
        assert (each.rows, each.gap) == (inside.sum(), pytest.approx(losses[inside].mean() - losses[~inside].mean()))


def test_a_declared_slice_with_too_few_rows_is_inconclusive() -> None:
    where = (WhereSettings("the old", "age", at_least=90.0), WhereSettings("the south", "city", equals="south"))
    columns = drawn_rows(np.random.default_rng(7))
    result = SliceCheck(SliceSettings(where=where)).run(
        make_subject(target=np.zeros(600, int), labels=np.zeros(600, int), columns=columns)
    )
    assert (result.verdict, result.reasons) == (
        Verdict.INCONCLUSIVE,
        ("slices with fewer than 30 rows: 'the old'",),
    )


def test_rows_without_any_loss_have_no_bad_slice() -> None:
    columns = drawn_rows(np.random.default_rng(8))
    subject = make_subject(target=np.zeros(600, int), labels=np.zeros(600, int), columns=columns)
    assert SliceCheck(SliceSettings(discover=True)).run(subject).verdict is Verdict.SUCCESSFUL
    still = make_subject(target=np.ones(600), values=np.ones(600), columns=columns)
    assert SliceCheck(SliceSettings(discover=True)).run(still).verdict is Verdict.SUCCESSFUL


def test_columns_are_cut_by_quantiles_or_values_and_missing_ones_are_a_slice() -> None:
    ages = np.array([10.0, 20, 30, 40, 50, 60, 70, np.nan])
    cells = cut_column(Rows({"age": ages}), "age", 2)
    assert cells.names == ("age < 40", "age >= 40", "age = missing")
    assert cells.codes.tolist() == [0, 0, 0, 1, 1, 1, 1, 2]
    names = np.array(["b", None, "a", "b"], dtype=object)
    cells = cut_column(Rows({"who": names}), "who", 4)
    assert [cells.names[code] for code in cells.codes] == ["who = b", "who = missing", "who = a", "who = b"]


def test_a_column_of_many_values_gives_slices_of_its_most_frequent_ones_only() -> None:
    text = np.array([f"id{index}" for index in range(500)] + ["often"] * 9, dtype=object)
    cells = cut_column(Rows({"id": text}), "id", 4)
    assert len(cells.names) == 50
    assert "id = often" in cells.names
    assert (cells.codes == -1).sum() == 500 - 49


def test_a_range_of_text_is_refused_by_name() -> None:
    settings = SliceSettings(where=(WhereSettings("odd", "city", below=3.0),))
    columns = drawn_rows(np.random.default_rng(9))
    with pytest.raises(SalverError, match="slice 'odd' is a range of 'city', which holds no numbers"):
        find_slices(Rows(columns), np.zeros(600), settings, [])
