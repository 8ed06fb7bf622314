from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from salver.runtime.curve import Line
from salver.scaling.optimum import Worth, best_batch, worth_of

LINE = Line(0.010, 0.001)


def utility(line: Line, worth: Worth, rows: int) -> float:
    seconds = max(line.seconds(rows), 1e-9)
    return rows / seconds * worth.throughput - 2 * seconds * worth.latency


@given(st.floats(0, 0.1), st.floats(0, 0.01), st.floats(-10, 1000), st.floats(-100, 1e6), st.integers(1, 300))
@settings(max_examples=50)
@example(0.0, 0.0, 1.0, 0.0, 50)
@example(0.01, 0.001, 0.0, 0.0, 50)
def test_it_is_the_best_that_trying_every_size_finds(
    a_s: float, b_s: float, throughput: float, latency: float, most: int
) -> None:
    line, worth = Line(a_s, b_s), Worth(throughput, latency)
    best = best_batch(line, worth, most)
    tried = max(utility(line, worth, rows) for rows in range(1, most + 1))
    assert 1 <= best.rows <= most
    assert best.utility == pytest.approx(tried, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("worth", "rows"),
    [
        (Worth(1.0, 0.0), 256),  # latency costs nothing
        (Worth(0.0, 1.0), 1),  # throughput is worth nothing
        (Worth(1.0, 4000.0), 25),
        (Worth(1.0, 1e9), 1),
    ],
)
def test_the_best_batch_grows_with_what_throughput_is_worth(worth: Worth, rows: int) -> None:
    assert best_batch(LINE, worth, 256).rows == rows


def test_the_optimum_says_what_it_gives() -> None:
    best = best_batch(LINE, Worth(1.0, 4000.0), 256)
    assert best.throughput_per_s == pytest.approx(25 / 0.035)
    assert best.latency_s == pytest.approx(0.070)
    assert best.utility == pytest.approx(best.throughput_per_s - 4000 * best.latency_s)


def test_of_equals_the_smallest_is_best_and_a_huge_range_costs_no_time() -> None:
    assert best_batch(Line(0.0, 0.001), Worth(1.0, 0.0), 2**50).rows in (1, 2**50)
    assert best_batch(Line(0.0, 0.001), Worth(1.0, 1.0), 2**50).rows == 1


def test_at_the_target_the_latency_has_eaten_up_all_that_throughput_is_worth() -> None:
    worth = worth_of(LINE, 0.1, 64)
    assert worth.latency * 0.1 == pytest.approx(64 / LINE.seconds(64))
    assert worth_of(Line(0.0, 0.0), 0.1, 64) == (1.0, 10.0)


def test_no_batch_is_not_an_optimum() -> None:
    with pytest.raises(ValueError, match="at most 0 rows"):
        best_batch(LINE, Worth(1.0, 1.0), 0)
