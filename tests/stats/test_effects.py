from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import Table2x2
from statsmodels.stats.proportion import proportion_effectsize, proportions_ztest

from salver.protocol.errors import SalverError
from salver.stats.effects import (
    cohen_d,
    cohen_d_paired,
    cohen_h,
    odds_ratio,
    relative_risk,
    sample_ratio,
    two_proportions,
)

tallies = st.integers(2, 500).flatmap(lambda n: st.tuples(st.integers(1, n - 1), st.just(n)))


def test_two_proportions_give_the_reference_values() -> None:
    found = two_proportions((150, 1000), (180, 1000))
    assert found.z == pytest.approx(1.80726, abs=5e-6)
    assert found.p_value == pytest.approx(0.070721, abs=5e-7)
    assert found.difference.estimate == pytest.approx(0.03)
    assert found.difference.low < 0 < found.difference.high


def test_an_unequal_split_gives_the_reference_value() -> None:
    found = sample_ratio([821_588, 815_482])
    assert found.chi_square == pytest.approx(22.774, abs=5e-4)
    assert found.p_value == pytest.approx(1.8e-6, abs=5e-8)
    assert sample_ratio([900, 100], [9, 1]).p_value == 1


@given(tallies, tallies)
@settings(deadline=None)
def test_statsmodels_agrees(first: tuple[int, int], second: tuple[int, int]) -> None:
    (x1, n1), (x2, n2) = first, second
    z, p_value = proportions_ztest([x2, x1], [n2, n1])
    found = two_proportions(first, second)
    assert (found.z, found.p_value) == pytest.approx((z, p_value), abs=1e-9)
    table = Table2x2([[x2, n2 - x2], [x1, n1 - x1]])
    for ours, estimate, limits in (
        (odds_ratio(first, second), table.oddsratio, table.oddsratio_confint()),
        (relative_risk(first, second), table.riskratio, table.riskratio_confint()),
    ):
        assert (ours.estimate, ours.low, ours.high) == pytest.approx((estimate, *limits), rel=1e-9)
        assert ours.estimate in ours
    assert cohen_h(x1 / n1, x2 / n2) == pytest.approx(proportion_effectsize(x2 / n2, x1 / n1), abs=1e-12)


@given(tallies, tallies)
def test_ratios_of_swapped_samples_are_inverse(first: tuple[int, int], second: tuple[int, int]) -> None:
    for ratio in (odds_ratio, relative_risk):
        there, back = ratio(first, second), ratio(second, first)
        assert (there.low, there.high) == pytest.approx((1 / back.high, 1 / back.low), rel=1e-9)


def test_cohens_h_gives_the_reference_value() -> None:
    assert cohen_h(0.15, 0.17) == pytest.approx(0.05458, abs=5e-6)


def test_empty_cells_give_wide_intervals_and_no_fault() -> None:
    for ratio in (odds_ratio, relative_risk):
        found = ratio((0, 20), (5, 20))
        assert found.low > 0
        assert found.high > 100
        assert ratio((0, 20), (0, 20)).estimate == pytest.approx(1)
    assert odds_ratio((20, 20), (20, 20)).estimate == pytest.approx(1)
    assert relative_risk((20, 20), (20, 20)).estimate == 1
    assert two_proportions((0, 10), (0, 10)).p_value == 1


def test_cohens_d_is_the_difference_in_standard_deviations() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 2, 30), rng.normal(0, 2, 50)
    t = scipy_stats.ttest_ind(first, second).statistic
    assert cohen_d(first, second) == pytest.approx(t * np.sqrt(1 / 30 + 1 / 50))
    paired_t = scipy_stats.ttest_rel(first, second[:30]).statistic
    assert cohen_d_paired(first, second[:30]) == pytest.approx(paired_t / np.sqrt(30))


def test_bad_input_is_refused() -> None:
    with pytest.raises(SalverError, match="5 of 4 is no proportion"):
        two_proportions((5, 4), (1, 4))
    with pytest.raises(SalverError, match="no variance"):
        cohen_d([1, 1], [2, 2])
    with pytest.raises(SalverError, match="at least 2"):
        cohen_d([1], [2, 3])
    with pytest.raises(SalverError, match="first 2, second 3"):
        cohen_d_paired([1, 2], [1, 2, 3])
    with pytest.raises(SalverError, match="no two proportions"):
        cohen_h(1.5, 0)
    with pytest.raises(SalverError, match="leave nothing to compare"):
        sample_ratio([5])
    with pytest.raises(SalverError, match="leave nothing to compare"):
        sample_ratio([5, 5], [1, 0])
    with pytest.raises(SalverError, match="none above zero"):
        sample_ratio([0, 0])
