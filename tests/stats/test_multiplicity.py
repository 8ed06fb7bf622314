from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from salver.protocol.errors import SalverError
from salver.stats.multiplicity import holm

# Benjamini and Hochberg 1995, section 3.2.
P_1995 = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
P_1995 += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def test_the_data_of_1995_give_the_published_rejections() -> None:
    assert [p <= 0.05 for p in holm(P_1995)] == [True] * 3 + [False] * 12


@given(p_values)
@settings(deadline=None, max_examples=40)
def test_statsmodels_agrees(found: list[float]) -> None:
    assert holm(found) == pytest.approx(multipletests(found, method="holm")[1], abs=1e-12)


@given(p_values)
def test_adjusting_keeps_the_order_and_only_makes_larger(found: list[float]) -> None:
    adjusted = np.array(holm(found))
    assert np.all(adjusted >= np.array(found) - 1e-15)
    assert np.all(adjusted <= 1)
    assert np.all(np.diff(adjusted[np.argsort(found)]) >= 0)


@given(p_values, st.randoms(use_true_random=False))
def test_the_order_of_the_tests_does_not_matter(found: list[float], shuffler) -> None:
    places = list(range(len(found)))
    shuffler.shuffle(places)
    adjusted = holm(found)
    assert holm([found[place] for place in places]) == tuple(adjusted[place] for place in places)


def test_without_any_effect_few_families_have_a_finding() -> None:
    rng = np.random.default_rng(1)
    hits = sum(min(holm(rng.random(20))) <= 0.05 for _ in range(4000))
    assert hits / 4000 == pytest.approx(0.05, abs=0.012)  # 3.5 standard errors


@pytest.mark.parametrize("bad", [[], [0.1, float("nan")], [1.1], [-0.1], ["x"], [[0.1]]])
def test_what_is_no_row_of_p_values_is_refused(bad: list[object]) -> None:
    with pytest.raises(SalverError) as refused:
        holm(bad)  # type: ignore[arg-type]
    assert refused.value.code == "INVALID_PARAMETER"
    assert refused.value.remedy
