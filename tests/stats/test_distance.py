from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from salver.protocol.errors import SalverError
from salver.stats.distance import (
    category_counts,
    chi_square,
    population_stability,
    psi,
    psi_threshold,
)

QUINTILES, SEEN = [20, 20, 20, 20, 20], [10, 15, 20, 25, 30]
tables = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=2, max_size=12)


def test_the_stability_index_gives_the_reference_values() -> None:
    assert psi([1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4]) == pytest.approx(0.228217, abs=5e-7)
    assert psi(QUINTILES, SEEN) == pytest.approx(0.135403, abs=5e-7)


def test_without_drift_the_index_follows_its_law() -> None:
    """Ten bins, 1000 rows on either side: mean .0180 and 95 % below .0338, simulated .0179 and .0340."""
    rng = np.random.default_rng(0)
    first, second = (rng.multinomial(1000, [0.1] * 10, size=4000) for _ in range(2))
    found = np.array([psi(one, other) for one, other in zip(first, second, strict=True)])
    threshold = psi_threshold(10, 1000, 1000)
    assert threshold == pytest.approx(0.0338, abs=5e-5)
    assert found.mean() == pytest.approx(0.0180, abs=0.0005)
    assert np.quantile(found, 0.95) == pytest.approx(0.0340, abs=0.0012)
    assert np.mean(found > threshold) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("rows", [200, 2000])
def test_samples_without_drift_pass_the_threshold_as_rarely_as_it_says(rows: int) -> None:
    rng = np.random.default_rng(rows)
    hits = tenth = 0
    for _ in range(1000):
        found = population_stability(rng.normal(size=rows), rng.normal(size=rows))
        assert (found.psi > found.threshold) == (found.p_value < 0.05)
        hits += found.psi > found.threshold
        tenth += found.psi > 0.1
    # Bins at the reference's own quantiles cost a little; the tolerance is 3.5 standard errors.
    assert hits / 1000 == pytest.approx(0.055, abs=0.025)
    assert (tenth / 1000 > 0.2) == (rows == 200)  # the customary 0.10 cries wolf on 200 rows


def test_the_threshold_sees_a_small_shift_that_a_tenth_does_not() -> None:
    rng = np.random.default_rng(1)
    found = population_stability(rng.normal(size=20_000), rng.normal(0.1, 1, 20_000))
    assert found.threshold < found.psi < 0.1
    assert found.p_value < 1e-6


def test_bins_follow_the_reference_and_hold_every_row() -> None:
    rng = np.random.default_rng(2)
    found = population_stability(rng.normal(size=1000), rng.normal(50, 1, 300))
    assert found.reference_counts == (100,) * 10
    assert found.current_counts == (0,) * 9 + (300,)
    assert np.isfinite(found.psi)


def test_columns_of_few_values_have_as_many_bins() -> None:
    found = population_stability([0, 1] * 50, [0, 1] * 30)
    assert (found.reference_counts, found.current_counts, found.psi) == ((50, 50), (30, 30), 0)
    mostly = population_stability([0] * 3 + [1] * 97, [0] * 40 + [1] * 60)
    assert mostly.reference_counts == (3, 97)
    assert mostly.psi > mostly.threshold
    mostly_zero = population_stability([0] * 97 + [1] * 3, [0] * 60 + [1] * 40)
    assert mostly_zero.reference_counts == (97, 3)


@given(tables)
def test_the_index_is_symmetric_and_0_only_for_the_same(table: list[tuple[int, int]]) -> None:
    first, second = np.array(table).T
    shares = first / first.sum(), second / second.sum()
    divergences = scipy_stats.entropy(*shares) + scipy_stats.entropy(*shares[::-1])
    assert psi(first, second) == pytest.approx(divergences, abs=1e-12)
    assert psi(first, second) == pytest.approx(psi(second, first), abs=1e-12)
    assert psi(first, second) >= 0
    assert psi(first, 3 * first) == pytest.approx(0, abs=1e-12)


@given(tables)
@settings(deadline=None)
def test_scipy_agrees_on_tables(table: list[tuple[int, int]]) -> None:
    first, second = np.array(table, float).T
    found, expected = chi_square(first, second), scipy_stats.chi2_contingency([first, second], correction=False)
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.degrees_of_freedom == expected.dof
    assert found.cramers_v == pytest.approx(
        scipy_stats.contingency.association(np.array([first, second], int), method="cramer", correction=False)
    )
    assert found.least_expected == pytest.approx(expected.expected_freq.min())


def test_categories_are_counted_side_by_side() -> None:
    names, first, second = category_counts(["b", "a", "b"], ["c", "b"])
    assert (names, first.tolist(), second.tolist()) == (("a", "b", "c"), [1, 2, 0], [0, 1, 1])
    assert chi_square([10, 0], [0, 10]).cramers_v == pytest.approx(1)
    assert chi_square([1, 2, 0], [0, 1, 1]).degrees_of_freedom == 2
    assert chi_square([5, 5, 0], [5, 5, 0]).degrees_of_freedom == 1


def test_bad_input_is_refused() -> None:
    with pytest.raises(SalverError, match="1 of 2 bins are empty in one sample; give smoothing"):
        psi([5, 0], [5, 5])
    assert psi([5, 0], [5, 5], smoothing=0.5) > 0
    with pytest.raises(SalverError, match="reference 2, current 3"):
        psi([1, 2], [1, 2, 3])
    with pytest.raises(SalverError, match="negative count"):
        psi([1, -2], [1, 2])
    with pytest.raises(SalverError, match="smoothing by -1"):
        psi([1, 2], [1, 2], smoothing=-1)
    with pytest.raises(SalverError, match="1 bins"):
        population_stability([1, 2], [1], bins=1)
    with pytest.raises(SalverError, match="the reference is 3 throughout; compare the column by its categories"):
        population_stability([3, 3], [1])
    with pytest.raises(SalverError, match="0 and 5 rows"):
        psi_threshold(10, 0, 5)
    with pytest.raises(SalverError, match="both samples hold one category"):
        chi_square([3, 0], [4, 0])
    with pytest.raises(SalverError, match="samples of 0 and 1 values"):
        category_counts([], ["a"])
    with pytest.raises(SalverError, match="NaN"):
        population_stability([1, float("nan")], [2])
