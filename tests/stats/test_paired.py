from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from salver.protocol.errors import SalverError
from salver.stats.paired import cohen_d_paired, mcnemar, permutation_test, wilcoxon

tables = st.tuples(*[st.integers(0, 60)] * 4).filter(any)
columns = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=40)


def rows(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    one = [1] * (both + first) + [0] * (second + neither)
    other = [1] * both + [0] * first + [1] * second + [0] * neither
    return np.array(one), np.array(other)


def accuracy(truth: np.ndarray, found: np.ndarray) -> float:
    return float(np.mean(truth == found))


@given(tables)
@settings(deadline=None)
def test_statsmodels_agrees_on_mcnemar(table: tuple[int, int, int, int]) -> None:
    both, first, second, neither = table
    found = mcnemar(*rows(*table))
    square = [[both, first], [second, neither]]
    assert (found.only_first, found.only_second, found.rows) == (first, second, sum(table))
    if first + second:
        assert found.exact_p == pytest.approx(statsmodels_mcnemar(square, exact=True).pvalue, abs=1e-12)
    if first != second:  # statsmodels corrects a difference of 0 as if it were 1
        corrected = statsmodels_mcnemar(square, exact=False, correction=True)
        assert found.chi_square == pytest.approx(corrected.statistic)
        assert found.chi_square_p == pytest.approx(corrected.pvalue)


def test_mcnemar_gives_the_published_values() -> None:
    # Fagerland, Lydersen and Laake 2013, table 1: airways before and after a transplantation.
    found = mcnemar(*rows(1, 1, 7, 12))
    assert found.exact_p == pytest.approx(0.0703, abs=5e-5)
    assert found.mid_p == pytest.approx(0.0391, abs=5e-5)
    assert found.chi_square_p == pytest.approx(0.0771, abs=5e-5)


@given(tables)
def test_mid_p_lies_below_exact_and_the_models_are_interchangeable(table: tuple[int, int, int, int]) -> None:
    first, second = rows(*table)
    there, back = mcnemar(first, second), mcnemar(second, first)
    assert there.mid_p <= there.exact_p <= 1
    assert there.mid_p > 0
    assert (there.exact_p, there.mid_p, there.chi_square_p) == pytest.approx(
        (back.exact_p, back.mid_p, back.chi_square_p)
    )


def test_wilcoxon_is_scipys_and_gives_the_published_value() -> None:
    # Hollander and Wolfe 1973, p. 29: depression scale before and after; V = 40, one-sided p = 0.01953.
    before = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    after = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
    found = wilcoxon(before, after)
    assert found.statistic == 45 - 40
    assert found.p_value == pytest.approx(2 * 0.01953, abs=1e-5)


@given(columns)
@settings(deadline=None, max_examples=10)  # scipy tries every sign of few rows with ties
def test_wilcoxon_does_not_care_which_model_is_first(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, float).T
    assert wilcoxon(first, second).p_value == pytest.approx(wilcoxon(second, first).p_value)


def test_cohens_d_is_the_mean_difference_in_standard_deviations() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 2, 30), rng.normal(0, 2, 30)
    assert cohen_d_paired(first, second) == pytest.approx(scipy_stats.ttest_rel(first, second).statistic / np.sqrt(30))


def test_models_that_never_differ_have_a_p_of_1() -> None:
    same = [1.0, 0.0, 1.0]
    assert wilcoxon(same, same).p_value == 1
    found = mcnemar(same, same)
    assert (found.exact_p, found.mid_p, found.chi_square_p, found.chi_square) == (1, 1, 1, 0)
    assert permutation_test(accuracy, [1, 0, 1], same, same, np.random.default_rng(0)).p_value == 1


def test_the_permutation_test_approaches_the_exact_sign_flips() -> None:
    # 10 rows only the first gets right and 2 only the second: p = exact binomial of 12.
    first, second = rows(5, 10, 2, 3)
    truth = np.ones_like(first)
    found = permutation_test(accuracy, truth, first, second, np.random.default_rng(0), permutations=20_000)
    assert found.difference == pytest.approx(0.4)
    assert found.p_value == pytest.approx(mcnemar(first, second).exact_p, abs=0.005)


def test_the_permutation_test_swaps_whole_rows_of_probabilities() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 60)
    first, second = rng.dirichlet([1, 1, 1], 60), np.eye(3)[truth] * 0.7 + 0.1

    def likelihood(wanted: np.ndarray, said: np.ndarray) -> float:
        assert np.allclose(said.sum(axis=1), 1)
        return float(np.log(said[np.arange(len(wanted)), wanted]).mean())

    assert permutation_test(likelihood, truth, first, second, rng, permutations=500).p_value < 0.01


def test_permutations_never_give_a_p_of_0() -> None:
    truth, wrong = np.ones(50), np.zeros(50)
    found = permutation_test(accuracy, truth, truth, wrong, np.random.default_rng(0), permutations=199)
    assert found.p_value == 1 / 200


def test_equally_good_models_are_told_apart_as_often_as_the_level_says() -> None:
    """A/A: 3000 pairs on 100 rows, right in 80 % each and together more often than by chance.

    Discrete tests stay below the level; the tolerances are 3.5 standard errors.
    """
    rng = np.random.default_rng(11)
    hits = dict.fromkeys(("exact", "mid", "chi_square", "t", "wilcoxon"), 0)
    for _ in range(3000):
        ease = rng.normal(1.2, 1, 100)
        first, second = ((ease + rng.normal(0, 1, 100) > 0).astype(float) for _ in range(2))
        found = mcnemar(first, second)
        hits["exact"] += found.exact_p <= 0.05
        hits["mid"] += found.mid_p <= 0.05
        hits["chi_square"] += found.chi_square_p <= 0.05
        losses = ease + rng.normal(size=100), ease + rng.normal(size=100)
        hits["wilcoxon"] += wilcoxon(*losses).p_value <= 0.05
    rates = {name: count / 3000 for name, count in hits.items()}
    assert 0.005 < rates["chi_square"] <= rates["exact"] <= rates["mid"]
    assert rates["exact"] <= 0.05
    assert rates["mid"] == pytest.approx(0.045, abs=0.019)
    assert rates["wilcoxon"] == pytest.approx(0.05, abs=0.014)


def test_the_permutation_test_keeps_its_level() -> None:
    rng = np.random.default_rng(12)
    hits = 0
    for _ in range(400):
        truth = rng.integers(0, 2, 60)
        first, second = (np.where(rng.random(60) < 0.7, truth, 1 - truth) for _ in range(2))
        hits += permutation_test(accuracy, truth, first, second, rng, permutations=199).p_value <= 0.05
    assert hits / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(SalverError, match="first 2, second 3"):
        mcnemar([1, 0], [1, 0, 1])
    with pytest.raises(SalverError, match="0 values"):
        mcnemar([], [])
    with pytest.raises(SalverError, match="NaN"):
        wilcoxon([1, float("nan")], [1, 2])
    with pytest.raises(SalverError, match="at least 2"):
        cohen_d_paired([1], [2])
    with pytest.raises(SalverError, match="no variance"):
        cohen_d_paired([1, 2], [2, 3])
    with pytest.raises(SalverError, match="do not pair"):
        permutation_test(accuracy, [1, 0], [1, 0], [1], rng)
    with pytest.raises(SalverError, match="5 permutations"):
        permutation_test(accuracy, [1, 0], [1, 0], [1, 1], rng, permutations=5)
    with pytest.raises(SalverError, match="undefined"):
        permutation_test(lambda *_: math.nan, [1, 0], [1, 0], [1, 1], rng)
