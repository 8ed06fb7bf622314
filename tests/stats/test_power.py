from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.power import NormalIndPower, TTestIndPower

from salver.protocol.errors import SalverError
from salver.stats.effects import two_proportions
from salver.stats.paired import mcnemar
from salver.stats.power import (
    PROPORTION_FORMULAS,
    ProportionFormula,
    lehr_size,
    mcnemar_power,
    mcnemar_size,
    means_power,
    means_size,
    means_size_t,
    proportions_power,
    proportions_size,
)

shares = st.floats(0.01, 0.99)
formulas = st.sampled_from(PROPORTION_FORMULAS)


@pytest.mark.parametrize(
    ("pair", "sizes"),
    [
        ((0.15, 0.17), [5270.52, 5273.27, 5372.80, 5269.76]),
        ((0.10, 0.12), [3838.10, 3840.85, 3940.21, 3834.61]),
        ((0.05, 0.06), [8154.99, 8157.73, 8356.53, 8142.62]),
        ((0.20, 0.25), [1090.99, 1093.74, 1133.39, 1091.90]),
    ],
)
def test_sizes_for_proportions_are_the_reference_ones(pair: tuple[float, float], sizes: list[float]) -> None:
    assert PROPORTION_FORMULAS == ("unpooled", "pooled", "continuity", "arcsine")
    assert [proportions_size(*pair, formula=one) for one in PROPORTION_FORMULAS] == pytest.approx(sizes, abs=0.0051)


def test_whole_sizes_are_the_reference_ones() -> None:
    assert [math.ceil(proportions_size(0.15, 0.17, formula=one)) for one in ("unpooled", "pooled")] == [5271, 5274]
    pooled = [math.ceil(proportions_size(*pair)) for pair in ((0.10, 0.12), (0.05, 0.06), (0.20, 0.25))]
    assert pooled == [3841, 8158, 1094]


def test_sizes_for_a_power_of_90_percent_are_the_reference_ones() -> None:
    found = [proportions_size(0.15, 0.17, power=0.9, formula=one) for one in ("unpooled", "pooled")]
    assert found == pytest.approx([7055.7, 7058.9], abs=0.05)


@pytest.mark.parametrize(("effect", "exact", "whole", "by_t"), [(0.5, 62.79, 63, 64), (0.2, 392.44, 393, 394)])
def test_sizes_for_means_are_the_reference_ones(effect: float, exact: float, whole: int, by_t: int) -> None:
    assert means_size(effect) == pytest.approx(exact, abs=0.005)
    assert math.ceil(means_size(effect)) == whole
    assert means_size_t(effect) == means_size_t(-effect) == by_t


def test_lehrs_rule_is_the_reference_one() -> None:
    assert lehr_size(0.5) == 64


@given(shares, shares, formulas, st.floats(0.5, 0.99), st.sampled_from([0.01, 0.05, 0.1]))
def test_power_and_size_are_inverse(
    first: float, second: float, formula: ProportionFormula, power: float, alpha: float
) -> None:
    if abs(first - second) < 0.005:
        return
    size = proportions_size(first, second, alpha=alpha, power=power, formula=formula)
    if size >= 2:
        assert proportions_power(first, second, size, alpha=alpha, formula=formula) == pytest.approx(power, abs=1e-9)


@given(shares, shares, formulas)
def test_which_proportion_is_first_does_not_matter(first: float, second: float, formula: ProportionFormula) -> None:
    if abs(first - second) > 0.005:
        there, back = (proportions_size(*pair, formula=formula) for pair in ((first, second), (second, first)))
        assert there == pytest.approx(back)


@given(st.floats(0.05, 2), st.integers(3, 400))
@settings(deadline=None)
def test_statsmodels_agrees_on_means(effect: float, rows: int) -> None:
    expected = TTestIndPower().power(effect, rows, 0.05)
    # Where the power is 1 to every digit statsmodels may have none.
    assert means_power(effect, rows) == pytest.approx(1.0 if np.isnan(expected) else expected, abs=1e-7)
    size = means_size(effect)
    assert NormalIndPower().power(effect, size, 0.05) == pytest.approx(0.8, abs=1e-3)


@given(st.floats(0.1, 3))
@settings(deadline=None)
def test_the_t_tests_size_is_the_least_that_suffices(effect: float) -> None:
    rows = means_size_t(effect)
    assert means_power(effect, rows) >= 0.8
    if rows > 2:
        assert means_power(effect, rows - 1) < 0.8


def test_connors_size_worked_by_hand() -> None:
    # s = .30, d = .10: (1.959964 sqrt(.3) + .841621 sqrt(.29))^2 / .01
    assert mcnemar_size(0.2, 0.1) == pytest.approx((1.959964 * 0.3**0.5 + 0.841621 * 0.29**0.5) ** 2 / 0.01, rel=1e-5)
    assert math.ceil(mcnemar_size(0.2, 0.1)) == 234
    assert mcnemar_power(0.2, 0.1, mcnemar_size(0.2, 0.1)) == pytest.approx(0.8)
    assert mcnemar_size(0.1, 0.2) == mcnemar_size(0.2, 0.1)


def test_the_planned_size_finds_mcnemars_difference_as_often_as_planned() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.choice(3, size=(2000, 234), p=[0.2, 0.1, 0.7])
    hits = sum(mcnemar(one != 1, one != 0).mid_p <= 0.05 for one in kinds)
    assert hits / 2000 == pytest.approx(0.8, abs=0.04)  # 3.5 standard errors, and a discrete test


def test_the_planned_size_finds_the_difference_of_proportions_as_often_as_planned() -> None:
    rng = np.random.default_rng(1)
    n = math.ceil(proportions_size(0.20, 0.25))
    draws = zip(rng.binomial(n, 0.20, 4000), rng.binomial(n, 0.25, 4000), strict=True)
    hits = sum(two_proportions((a, n), (b, n)).p_value <= 0.05 for a, b in draws)
    assert hits / 4000 == pytest.approx(0.8, abs=0.025)


def test_bad_input_is_refused() -> None:
    with pytest.raises(SalverError, match=r"both proportions are 0\.1"):
        proportions_size(0.1, 0.1)
    with pytest.raises(SalverError, match="second proportion is 1"):
        proportions_power(0.1, 1, 100)
    for call in (
        lambda: proportions_size(0.1, 0.2, formula="exact"),  # type: ignore[arg-type]
        lambda: proportions_power(0.1, 0.2, 50, formula="exact"),  # type: ignore[arg-type]
    ):
        with pytest.raises(SalverError, match="no formula 'exact'; give one of unpooled"):
            call()
    with pytest.raises(SalverError, match="alpha is 5"):
        means_size(0.5, alpha=5)
    with pytest.raises(SalverError, match="effect is 0"):
        means_size_t(0)
    with pytest.raises(SalverError, match=r"takes 1\.57e"):
        means_size_t(1e-8)
    with pytest.raises(SalverError, match="1 rows"):
        means_power(0.5, 1)
    with pytest.raises(SalverError, match="two different shares"):
        mcnemar_size(0.1, 0.1)
