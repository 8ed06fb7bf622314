"""Planned rows decide as often as they were planned to: simulated, with intervals as comparisons have them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.power import NormalIndPower

from salver.protocol.verdict import Verdict
from salver.stats.intervals import Interval, mean_interval, quantile_z, wilson
from salver.stats.margins import Relation, compare, judge_bound
from salver.stats.paired import mcnemar
from salver.stats.power import POWER, in_words, more_for_bound, more_for_relation, more_for_share

LEVEL = 0.9
DRAWS = 2000
ERROR = 3.5 * math.sqrt(POWER * (1 - POWER) / DRAWS)


def around(estimate: float, deviation: float, rows: int) -> Interval:
    """The interval that so many rows have where all is as expected."""
    half = quantile_z(LEVEL) * deviation / math.sqrt(rows)
    return Interval(estimate, estimate - half, estimate + half, LEVEL)


def pairs(gain: float, discordant: float, rows: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows that both models got right or wrong, drawn `DRAWS` times."""
    only = (discordant + gain) / 2, (discordant - gain) / 2
    kinds = np.random.default_rng(seed).choice(3, size=(DRAWS, rows), p=[*only, 1 - sum(only)])
    return [(one != 1, one != 0) for one in kinds]


@pytest.mark.parametrize("bound", [-0.1, 0.5])
def test_a_mean_clears_its_bound_as_often_as_planned(bound: float) -> None:
    rows = 40
    total = rows + (more_for_bound(around(0.2, 1.0, rows), bound, rows) or 0)
    assert total > rows
    drawn = np.random.default_rng(0).normal(0.2, 1.0, (DRAWS, total))
    wanted = Verdict.SUCCESSFUL if bound < 0.2 else Verdict.FAILED
    hits = [judge_bound("m", mean_interval(one, level=LEVEL), at_least=bound).verdict is wanted for one in drawn]
    assert np.mean(hits) == pytest.approx(POWER, abs=ERROR)


@pytest.mark.parametrize(("share", "bound"), [(0.93, 0.9), (0.87, 0.9), (0.02, 0.05)])
def test_a_share_clears_its_bound_as_often_as_planned(share: float, bound: float) -> None:
    rows = 100
    found = wilson(share * rows, rows, level=LEVEL)
    total = rows + (more_for_share(found, bound, rows) or 0)
    counts = np.random.default_rng(1).binomial(total, share, DRAWS)
    intervals = [wilson(int(one), total, level=LEVEL) for one in counts]
    hits = [one.low >= bound if share > bound else one.high < bound for one in intervals]
    assert np.mean(hits) == pytest.approx(POWER, abs=ERROR + 0.03), "counts are whole, so the chance moves in steps"


@pytest.mark.parametrize(("gain", "relation"), [(0.08, Relation.BETTER), (-0.08, Relation.WORSE)])
def test_a_difference_that_matters_is_found_as_often_as_planned(gain: float, relation: Relation) -> None:
    rows, margin = 100, 0.03
    deviation = math.sqrt(0.16 - gain**2)
    total = rows + (more_for_relation(around(gain, deviation, rows), margin, rows, p_value=0.045, level=0.05) or 0)
    found = [mcnemar(*pair, level=LEVEL) for pair in pairs(gain, 0.16, total, 2)]
    hits = [compare(one.difference, margin).relation is relation and one.mid_p <= 0.05 for one in found]
    assert np.mean(hits) == pytest.approx(POWER, abs=ERROR + 0.02), "Newcombe's interval is a little wider"


def test_where_the_correction_asks_most_a_difference_is_found_as_often_as_planned() -> None:
    rows, gain, level = 150, 0.06, 0.05 / 8
    deviation = math.sqrt(0.16 - gain**2)
    z = gain * math.sqrt(rows) / deviation
    p_value = math.erfc(z / math.sqrt(2))
    total = rows + (more_for_relation(around(gain, deviation, rows), 0.0, rows, p_value=p_value, level=level) or 0)
    hits = [mcnemar(*pair).mid_p <= level for pair in pairs(gain, 0.16, total, 3)]
    assert np.mean(hits) == pytest.approx(POWER, abs=ERROR + 0.02)


@pytest.mark.parametrize("gain", [0.0, 0.012, -0.012])
def test_equivalence_is_shown_at_least_as_often_as_planned(gain: float) -> None:
    rows, margin = 200, 0.03
    deviation = math.sqrt(0.1 - gain**2)
    total = rows + (more_for_relation(around(gain, deviation, rows), margin, rows, p_value=1.0, level=0.05) or 0)
    found = [mcnemar(*pair, level=LEVEL) for pair in pairs(gain, 0.1, total, 4)]
    share = np.mean([compare(one.difference, margin).relation is Relation.EQUIVALENT for one in found])
    assert share >= POWER - ERROR - 0.02
    if gain == 0:
        assert share == pytest.approx(POWER, abs=ERROR + 0.02)


def test_statsmodels_plans_the_same_number() -> None:
    rows, gain = 50, 0.3
    p_value = math.erfc(gain * math.sqrt(rows) / math.sqrt(2))
    more = more_for_relation(around(gain, 1.0, rows), 0.0, rows, p_value=p_value, level=0.01)
    assert more is not None
    # One sample is two of which the second is without error: ratio 0.
    planned = NormalIndPower(ddof=0).solve_power(gain, alpha=0.01, power=POWER, ratio=0)
    assert rows + more == math.ceil(planned)


@given(st.floats(-1, 1), st.floats(0.01, 1), st.floats(0, 0.5), st.integers(10, 10_000))
def test_whatever_is_undecided_takes_more_rows_or_has_no_number(
    gain: float, deviation: float, margin: float, rows: int
) -> None:
    interval = around(gain, deviation, rows)
    p_value = math.erfc(abs(gain) * math.sqrt(rows) / deviation / math.sqrt(2))
    more = more_for_relation(interval, margin, rows, p_value=p_value, level=0.05)
    relation = compare(interval, margin).relation
    if relation is Relation.INCONCLUSIVE and more is not None:
        assert more >= rows, "with so many one would decide in half of the cases at best"
    if margin in interval:
        bound = more_for_bound(interval, margin, rows)
        assert bound is None or bound > 0


def test_an_estimate_on_the_border_has_no_number() -> None:
    assert more_for_bound(Interval(0.9, 0.8, 0.95), 0.9, 100) is None
    assert more_for_share(wilson(90, 100), 0.9, 100) is None
    assert more_for_relation(Interval(0.01, -0.1, 0.1), 0.01, 100, p_value=0.5, level=0.05) is None
    assert more_for_relation(Interval(0.02, -0.1, 0.1), 0.01, 100, p_value=1.0, level=0.05) is None
    assert more_for_bound(Interval(0.9, 0.8, 0.95), 0.9000001, 100) is None, "beyond a thousand million rows"


def test_words_round_up_and_name_the_unit() -> None:
    assert in_words(7, "cases") == "; about 7 more cases would decide"
    assert in_words(100_001) == "; about 110,000 more rows would decide"
