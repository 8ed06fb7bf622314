from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from salver.protocol.errors import SalverError
from salver.stats.intervals import (
    Interval,
    mean_interval,
    newcombe_difference,
    newcombe_paired_difference,
    wilson,
)

tallies = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([0.8, 0.9, 0.95, 0.99])


def test_wilsons_interval_of_180_in_1000_is_the_reference() -> None:
    found = wilson(180, 1000)
    assert (found.low, found.high) == pytest.approx((0.157427, 0.205022), abs=5e-7)


@given(tallies, levels)
@settings(deadline=None)
def test_statsmodels_agrees_on_single_proportions(tally: tuple[int, int], level: float) -> None:
    found = wilson(*tally, level=level)
    low, high = proportion_confint(*tally, alpha=1 - level, method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@given(tally=tallies, level=levels)
def test_an_interval_holds_its_estimate_and_is_never_a_point(tally: tuple[int, int], level: float) -> None:
    found = wilson(*tally, level=level)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.estimate in found
    assert found.width > 0


@given(tally=tallies)
def test_success_and_failure_mirror_each_other(tally: tuple[int, int]) -> None:
    x, n = tally
    there, back = wilson(x, n), wilson(n - x, n)
    assert (there.low, there.high) == pytest.approx((1 - back.high, 1 - back.low), abs=1e-9)


def test_intervals_cover_what_they_say() -> None:
    """Exact coverage, summed over all outcomes; the level is kept on average."""
    n, covered = 60, []
    intervals = [wilson(x, n) for x in range(n + 1)]
    for p in np.linspace(0.05, 0.95, 37):
        mass = scipy_stats.binom.pmf(np.arange(n + 1), n, p)
        covered.append(sum(m for m, one in zip(mass, intervals, strict=True) if p in one))
    assert min(covered) >= 0.93
    assert np.mean(covered) >= 0.945


def test_newcombes_difference_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 873, table II, method 10: 56/70 - 48/80.
    found = newcombe_difference((56, 70), (48, 80))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@given(tallies, tallies)
@settings(deadline=None)
def test_statsmodels_agrees_on_the_difference(first: tuple[int, int], second: tuple[int, int]) -> None:
    found = newcombe_difference(first, second)
    expected = confint_proportions_2indep(*first, *second, method="newcomb", compare="diff")
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)


def pairs(both: int, first: int, second: int, neither: int) -> tuple[list[int], list[int]]:
    return [1] * (both + first) + [0] * (second + neither), [1] * both + [0] * first + [1] * second + [0] * neither


def test_newcombes_paired_difference_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 2635, table III, method 10: 36, 12, 2, 0.
    found = newcombe_paired_difference(*pairs(36, 12, 2, 0))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-5)


def test_what_the_rows_share_narrows_the_paired_difference() -> None:
    # Worked by hand: 20 * 16 - 12 * 2 = 296 less 50 / 2 is 271; over sqrt(32 * 18 * 22 * 28) phi is .454956.
    found, first, second = newcombe_paired_difference(*pairs(20, 12, 2, 16)), wilson(32, 50), wilson(22, 50)
    down, up = first.estimate - first.low, second.high - second.estimate
    below = (down**2 - 2 * 0.454956 * down * up + up**2) ** 0.5
    assert found.low == pytest.approx(0.2 - below, abs=1e-6)
    assert found.width < newcombe_difference((32, 50), (22, 50)).width


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(any))
def test_the_paired_difference_turns_its_sign_with_the_models(table: tuple[int, int, int, int]) -> None:
    first, second = pairs(*table)
    there, back = newcombe_paired_difference(first, second), newcombe_paired_difference(second, first)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert there.estimate in there
    assert -1 <= there.low <= there.high <= 1


def test_two_perfect_models_on_few_rows_are_not_known_to_be_alike() -> None:
    found = newcombe_paired_difference([1] * 20, [1] * 20)
    assert (found.low, found.high) == pytest.approx((-0.1611, 0.1611), abs=5e-5)


def test_the_interval_of_a_mean_is_scipys() -> None:
    values = np.random.default_rng(3).normal(5, 2, 40)
    found = mean_interval(values, level=0.9)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("tally", [(3, 2), (-1, 4), (0, 0), (1, float("nan")), (1, float("inf"))])
def test_what_is_no_proportion_is_refused(tally: tuple[float, float]) -> None:
    with pytest.raises(SalverError, match="is no proportion"):
        wilson(*tally)


def test_other_bad_input_is_refused() -> None:
    with pytest.raises(SalverError, match="level is 95"):
        wilson(1, 2, level=95)
    with pytest.raises(SalverError, match="1 values; give at least 2"):
        mean_interval([1.0])
    with pytest.raises(SalverError, match="different numbers of rows: first 2, second 1"):
        newcombe_paired_difference([1, 0], [1])
    with pytest.raises(SalverError, match="other than 0 and 1"):
        newcombe_paired_difference([2, 0], [1, 1])


def test_an_interval_knows_what_is_inside() -> None:
    assert 0.5 in Interval(0.5, 0.4, 0.6)
    assert 0.7 not in Interval(0.5, 0.4, 0.6)
