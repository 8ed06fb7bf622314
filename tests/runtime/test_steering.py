from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.runtime.curve import Line, Measured, ServiceCurve
from salver.runtime.steering import SteeredLimit, largest_within


@pytest.mark.parametrize(
    ("line", "slo_s", "limit"),
    [
        (Line(0.010, 0.002), 0.100, 17),  # two of 44 ms, and a tenth of 100 ms to spare
        (Line(0.010, 0.002), 0.110, 19),
        (Line(0.0, 0.001), 0.100, 45),
        (Line(0.010, 0.0), 0.100, 64),  # any size takes the same time
        (Line(0.001, 0.0001), 10.0, 64),
        (Line(0.080, 0.002), 0.100, 1),  # not even two of one row fit
        (Line(0.045, 0.001), 0.100, 22),  # two of one row would: half of what a single batch may hold instead
    ],
)
def test_the_limit_is_the_largest_batch_of_which_two_fit(line: Line, slo_s: float, limit: int) -> None:
    assert largest_within(line, slo_s, 64) == limit


@given(st.floats(0, 0.2), st.floats(0, 0.01), st.floats(0.001, 1), st.integers(1, 300))
def test_it_is_what_trying_every_size_finds(a_s: float, b_s: float, slo_s: float, most: int) -> None:
    line = Line(a_s, b_s)
    pair, single = (
        max([n for n in range(1, most + 1) if batches * line.seconds(n) <= 0.9 * slo_s], default=1)
        for batches in (2, 1)
    )
    found = largest_within(line, slo_s, most)
    assert abs(found - pair) <= 1 or abs(found - single // 2) <= 1
    assert found >= pair - 1


@pytest.mark.parametrize(("a_s", "answered"), [(0.01, False), (0.05, True)])
def test_batches_are_larger_than_two_that_fit_only_where_those_would_waste_more_than_half(a_s, answered) -> None:
    line = Line(a_s, 0.001)
    pair = int((0.045 - a_s) / 0.001) if a_s < 0.045 else 1
    assert (largest_within(line, 0.1, 256) > pair + 1) == answered


def test_expectations_that_were_wrong_leave_less_room_and_those_that_hold_give_it_back() -> None:
    limit = feeling(0.1)
    assert limit.budget_s == 0.1
    limit.answered(4, 0.11)
    assert limit.budget_s == pytest.approx(0.09)
    for _ in range(100):
        limit.answered(4, 0.2)
    assert limit.budget_s == pytest.approx(0.03)
    for _ in range(400):
        limit.answered(4, 0.05)
    assert limit.budget_s == 0.1


def feeling(slo_s: float = 0.1, most: int = 64) -> SteeredLimit:
    return SteeredLimit(ServiceCurve(), slo_s, most)


def test_without_an_objective_the_limit_is_what_the_deployment_allows() -> None:
    limit = feeling(0.0)
    limit.answered(64, 99.0)
    assert limit.size() == 64


def test_where_no_line_fits_the_limit_grows_by_one_with_each_full_batch_in_time() -> None:
    limit = feeling()
    sizes = []
    for _ in range(5):
        sizes.append(limit.size())
        limit.answered(limit.size(), 0.05)
    assert sizes == [1, 2, 3, 4, 5]


def test_a_batch_smaller_than_the_limit_says_nothing_of_larger_ones() -> None:
    limit = feeling()
    for _ in range(9):
        limit.answered(limit.size(), 0.05)
    for _ in range(100):
        limit.answered(9, 0.05)
    assert limit.size() == 10


def test_the_limit_shrinks_by_a_tenth_when_answers_are_late_but_never_below_one() -> None:
    limit = feeling()
    for _ in range(19):
        limit.answered(limit.size(), 0.05)
    assert limit.size() == 20
    limit.answered(20, 0.2)
    assert limit.size() == 18
    limit.answered(5, 0.2)
    assert limit.size() == 4, "so small a batch was late: then a larger one would be, too"
    for _ in range(100):
        limit.answered(1, 0.2)
    assert limit.size() == 1


def test_the_limit_grows_to_what_the_deployment_allows_and_by_as_much_as_a_request_costs() -> None:
    limit = feeling(most=100)
    sizes = []
    for _ in range(5):
        limit.answered(max(30, limit.size()), 0.05, step=30.0)
        sizes.append(limit.size())
    assert sizes == [60, 90, 100, 100, 100]


def test_a_line_takes_over_as_soon_as_there_is_one_and_follows_what_is_measured() -> None:
    curve = ServiceCurve()
    limit = SteeredLimit(curve, 0.1, 64)
    assert limit.size() == 1
    curve.adopt(Measured({1: 0.012, 32: 0.074}))
    assert limit.size() == 17
    for _ in range(200):
        curve.observe(1, 0.006)
        curve.observe(32, 0.037)
    assert limit.size() == pytest.approx(40, abs=1)
    for _ in range(200):
        curve.observe(1, 0.024)
        curve.observe(32, 0.148)
    assert limit.size() == pytest.approx(6, abs=1)
