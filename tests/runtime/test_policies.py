from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from salver.protocol.tables import BatchPolicy
from salver.runtime.curve import Line
from salver.runtime.policies import Rules, Traffic, hold_until_s, worth_waiting_rows
from salver.runtime.queue import Bounds, Gathering

INF = float("inf")
GO = -INF
TIMEOUT = Rules(BatchPolicy.TIMEOUT, 0.005)
HYBRID = Rules(BatchPolicy.HYBRID, 0.005, min_batch=4)
PREDICTIVE = Rules(BatchPolicy.PREDICTIVE)
DEFERRED = Rules(BatchPolicy.DEFERRED)
LINE = Line(0.010, 0.001)
DENSE = Traffic(gap_s=0.001, last_s=20.0)


def waits(rows: int = 3, cost: int = 3, *, oldest_s: float = 10.0) -> Gathering:
    return Gathering(rows, cost, oldest_s, INF)


@pytest.mark.parametrize(
    ("rules", "gathered", "latest_s", "until_s"),
    [
        (Rules(), waits(), 39.0, GO),
        (TIMEOUT, waits(), 39.0, 10.005),
        (TIMEOUT, waits(), 10.002, 10.002),  # one must be answered earlier
        (TIMEOUT, waits(), INF, 10.005),
        (TIMEOUT, waits(8), 39.0, GO),  # full
        (HYBRID, waits(3), 39.0, 10.005),
        (HYBRID, waits(4), 39.0, GO),
        (HYBRID, waits(3), 9.0, 9.0),
        (DEFERRED, waits(), 39.0, 39.0),
        (DEFERRED, waits(8), 39.0, GO),
        (PREDICTIVE, waits(4), 39.0, 20.0 + 0.006 / 5),
        (PREDICTIVE, waits(5), 39.0, GO),
        (PREDICTIVE, waits(4), 20.0005, 20.0005),
        (Rules(BatchPolicy.PREDICTIVE, 0.003), waits(4, oldest_s=19.998), 39.0, 20.001),
        (Rules(BatchPolicy.PREDICTIVE, 0.003), waits(4, oldest_s=19.999), 39.0, 20.0 + 0.006 / 5),
    ],
)
def test_until_when_a_batch_is_held(rules: Rules, gathered: Gathering, latest_s: float, until_s: float) -> None:
    assert hold_until_s(rules, gathered, Bounds(8), latest_s, LINE, DENSE) == pytest.approx(until_s)


@pytest.mark.parametrize("policy", list(BatchPolicy))
@pytest.mark.parametrize(
    ("gathered", "bounds"),
    [(waits(8), Bounds(8)), (waits(9), Bounds(8)), (waits(2, cost=10), Bounds(8, 10)), (waits(2, 50), Bounds(8, 10))],
)
def test_a_full_batch_is_held_by_no_policy(policy: BatchPolicy, gathered: Gathering, bounds: Bounds) -> None:
    assert hold_until_s(Rules(policy, 1.0, min_batch=100), gathered, bounds, INF, LINE, DENSE) == GO


@given(
    st.sampled_from(BatchPolicy),
    st.floats(0, 10),
    st.integers(1, 10),
    st.integers(1, 20),
    st.floats(0, 1000),
    st.floats(0, 2000),
    st.floats(1e-6, 1),
    st.floats(0, 0.1),
    st.floats(0, INF),
)
def test_none_is_held_past_its_latest_start(policy, max_wait_s, least, rows, oldest_s, latest_s, a_s, b_s, gap_s):
    rules = Rules(policy, max_wait_s, least)
    traffic = Traffic(gap_s, oldest_s)
    until_s = hold_until_s(rules, Gathering(rows, rows, oldest_s, INF), Bounds(16), latest_s, Line(a_s, b_s), traffic)
    assert until_s <= latest_s


@given(st.integers(1, 50), st.floats(0, 0.1), st.floats(0, 0.01), st.floats(0, 0.2))
def test_waiting_for_one_more_is_worth_it_where_the_sum_of_all_latencies_says_so(
    rows: int, a_s: float, b_s: float, gap_s: float
) -> None:
    """Each possibility written out: n wait now, one more comes after a gap, and nobody afterwards."""
    line = Line(a_s, b_s)
    go = rows * line.seconds(rows) + max(0.0, line.seconds(rows) - gap_s) + line.seconds(1)
    wait = rows * (gap_s + line.seconds(rows + 1)) + line.seconds(rows + 1)
    assume(abs(go - wait) > 1e-9)
    assert (rows < worth_waiting_rows(line, gap_s)) == (wait < go)


@given(st.integers(1, 20), st.floats(1e-4, 0.1), st.floats(0, 0.01), st.floats(0, 0.05))
def test_when_arrivals_stop_the_wait_ends_where_a_gap_so_long_would_not_have_been_worth_it(rows, a_s, b_s, gap_s):
    line = Line(a_s, b_s)
    assume(rows < worth_waiting_rows(line, gap_s))
    until_s = hold_until_s(PREDICTIVE, waits(rows), Bounds(64), INF, line, Traffic(gap_s, 0.0))
    assert gap_s <= until_s + 1e-12
    assert until_s <= a_s
    assert rows >= worth_waiting_rows(line, until_s + 1e-9) - 1e-6


@pytest.mark.parametrize(
    ("line", "traffic"), [(None, DENSE), (LINE, None), (LINE, Traffic(INF, 20.0)), (LINE, Traffic(INF, INF))]
)
def test_without_a_curve_or_a_rate_nothing_is_predicted_and_nobody_waits(
    line: Line | None, traffic: Traffic | None
) -> None:
    assert hold_until_s(PREDICTIVE, waits(1), Bounds(8), 39.0, line, traffic) == GO
