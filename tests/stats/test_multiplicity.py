from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from salver.protocol.errors import SalverError
from salver.stats.multiplicity import METHODS, adjust, sidak_level

# Benjamini and Hochberg 1995, section 3.2.
P_1995 = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
P_1995 += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
ADJUSTED_1995 = [0.0015, 0.0030, 0.0095, 0.035625, 0.0603, 0.063857, 0.063857, 0.0645, 0.0765, 0.486]
ADJUSTED_1995 += [0.581182, 0.714875, 0.753231, 0.813214, 1.0]

STATSMODELS = {
    "holm": "holm",
    "bonferroni": "bonferroni",
    "sidak": "sidak",
    "benjamini-hochberg": "fdr_bh",
    "benjamini-yekutieli": "fdr_by",
}
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=30)
methods = st.sampled_from(list(METHODS))


@pytest.mark.parametrize(
    ("method", "rejections"),
    [("benjamini-hochberg", 4), ("bonferroni", 3), ("holm", 3), ("benjamini-yekutieli", 3)],
)
def test_the_data_of_1995_give_the_published_rejections(method: str, rejections: int) -> None:
    found = adjust(P_1995, method)
    assert found.rejections == rejections
    assert found.rejected == (True,) * rejections + (False,) * (15 - rejections)


def test_the_data_of_1995_give_the_published_adjusted_values() -> None:
    assert adjust(P_1995, "benjamini-hochberg").p_values == pytest.approx(ADJUSTED_1995, abs=5e-7)


@given(p_values, methods)
@settings(deadline=None, max_examples=40)
def test_statsmodels_agrees(found: list[float], method: str) -> None:
    with np.errstate(all="ignore"):
        expected = multipletests(found, method=STATSMODELS[method])[1]
    assert adjust(found, method).p_values == pytest.approx(expected, abs=1e-12)


@given(p_values, methods)
def test_adjusting_keeps_the_order_and_only_makes_larger(found: list[float], method: str) -> None:
    adjusted = np.array(adjust(found, method).p_values)
    assert np.all(adjusted >= np.array(found) - 1e-15)
    assert np.all(adjusted <= 1)
    assert np.all(np.diff(adjusted[np.argsort(found)]) >= 0)


@given(p_values, methods, st.randoms(use_true_random=False))
def test_the_order_of_the_tests_does_not_matter(found: list[float], method: str, shuffler) -> None:
    places = list(range(len(found)))
    shuffler.shuffle(places)
    adjusted = adjust(found, method).p_values
    assert adjust([found[place] for place in places], method).p_values == tuple(adjusted[place] for place in places)


@given(p_values)
def test_holm_finds_no_less_than_bonferroni(found: list[float]) -> None:
    assert adjust(found, "holm").rejections >= adjust(found, "bonferroni").rejections


@pytest.mark.parametrize("method", ["holm", "bonferroni", "sidak", "benjamini-hochberg"])
def test_without_any_effect_few_families_have_a_finding(method: str) -> None:
    rng = np.random.default_rng(1)
    hits = sum(adjust(rng.random(20), method).rejections > 0 for _ in range(4000))
    assert hits / 4000 == pytest.approx(0.05, abs=0.012)  # 3.5 standard errors


def test_sidaks_level_is_the_published_one() -> None:
    assert sidak_level(10) == pytest.approx(0.0051162, abs=5e-8)
    assert sidak_level(1) == pytest.approx(0.05)


@pytest.mark.parametrize("bad", [[], [0.1, float("nan")], [1.1], [-0.1], ["x"], [[0.1]]])
def test_what_is_no_row_of_p_values_is_refused(bad: list[object]) -> None:
    with pytest.raises(SalverError) as refused:
        adjust(bad)  # type: ignore[arg-type]
    assert refused.value.code == "INVALID_PARAMETER"
    assert refused.value.remedy


def test_unknown_methods_and_levels_are_refused() -> None:
    with pytest.raises(SalverError, match="no method 'hochberg'"):
        adjust([0.1], "hochberg")
    with pytest.raises(SalverError, match="level is 1"):
        adjust([0.1], level=1)
    with pytest.raises(SalverError, match="0 tests"):
        sidak_level(0)
