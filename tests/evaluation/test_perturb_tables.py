"""Changes of tables: what they touch, what they leave, and that a seed decides everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from salver.evaluation.behaviour.perturb_tables import TABLE_CHANGES, Change, Spread, spreads_of
from salver.evaluation.subject.rows import Rows

NUMBERS = np.array([1.0, 2.0, np.nan, 4.0, 10.0])
SPREAD = Spread(2.0, 1.0, 10.0)


def changed(name: str, column: np.ndarray, amount: float = 0.5, **more) -> np.ndarray:
    return TABLE_CHANGES[name](column, Change(amount, spread=SPREAD, **more), np.random.default_rng(1))


def test_spreads_leave_out_what_is_missing_and_are_zero_for_text() -> None:
    text = np.array(["a", None, "b", "c", "d"], dtype=object)
    found = spreads_of(Rows({"x": NUMBERS, "t": text}), ("x", "t"))
    assert (found["x"].low, found["x"].high) == (1.0, 10.0)
    assert found["x"].deviation == pytest.approx(np.nanstd(NUMBERS))
    assert found["t"] == Spread(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "amount", "expected"),
    [
        ("scale", 10.0, [10.0, 20.0, np.nan, 40.0, 100.0]),
        ("add", 3.0, [4.0, 5.0, np.nan, 7.0, 13.0]),
        ("shift", 0.5, [2.0, 3.0, np.nan, 5.0, 11.0]),
        ("quantised", 1.5, [0.0, 3.0, np.nan, 3.0, 9.0]),
    ],
)
def test_a_change_without_chance_is_what_it_says(name: str, amount: float, expected: list[float]) -> None:
    np.testing.assert_allclose(changed(name, NUMBERS, amount), expected)


def test_values_beyond_the_range_are_beyond_by_as_many_ranges() -> None:
    found = changed("out_of_range", NUMBERS, 2.0)
    assert set(found) <= {1.0 - 18.0, 10.0 + 18.0}
    assert len(set(found)) == 2


def test_noise_has_the_asked_spread_and_keeps_missing_cells() -> None:
    column = np.append(np.zeros(20_000), np.nan)
    found = changed("noise", column, 0.25)
    assert np.isnan(found[-1])
    assert found[:-1].std() == pytest.approx(0.5, rel=0.03)


def test_an_integer_column_stays_one_where_it_is_measured_less_well() -> None:
    column = np.arange(50)
    for name in ("noise", "quantised", "shift", "out_of_range"):
        assert changed(name, column, 1.0).dtype == column.dtype, name


def test_emptied_cells_are_none_in_text_and_nan_in_numbers() -> None:
    numbers, text = np.arange(1000), np.array(["x"] * 1000, dtype=object)
    assert np.isnan(changed("missing", numbers, 0.3)).mean() == pytest.approx(0.3, abs=0.05)
    emptied = [value is None for value in changed("missing", text, 0.3)]
    assert np.mean(emptied) == pytest.approx(0.3, abs=0.05)
    assert text[0] == "x"
    assert "None" not in set(map(str, text))


def test_swapped_values_go_round_and_others_stay() -> None:
    text = np.array(["f", "m", None, "x"], dtype=object)
    assert changed("swap", text, values=("f", "m")).tolist() == ["m", "f", None, "x"]
    assert changed("swap", np.array([0, 1, 2, 3]), values=(0, 1, 2)).tolist() == [1, 2, 0, 3]


@settings(max_examples=30, deadline=None)
@given(
    column=hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e6, 1e6)),
    seed=st.integers(0, 2**31),
    name=st.sampled_from(["noise", "quantised", "permute", "missing", "shift", "out_of_range", "scale"]),
)
def test_one_seed_makes_one_change_and_the_rows_given_stay_as_they_were(column, seed, name) -> None:
    before, change = column.copy(), Change(0.3, spread=Spread(float(column.std()), column.min(), column.max()))
    one, other = (TABLE_CHANGES[name](column, change, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(column, before)
    assert len(one) == len(column)
    if name == "permute":
        np.testing.assert_array_equal(np.sort(one), np.sort(column))
