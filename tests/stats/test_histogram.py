from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.stats.histogram import LATENCY_BOUNDS_S, Histogram, HistogramCounter

values = st.lists(st.floats(0, 100), max_size=50)


@given(values, values)
def test_the_sum_of_two_summaries_is_the_summary_of_both(first: list[float], second: list[float]) -> None:
    merged, whole = Histogram.of(first) + Histogram.of(second), Histogram.of(first + second)
    assert merged.counts == whole.counts
    assert merged.total == pytest.approx(whole.total)
    assert merged.count == len(first) + len(second)


@given(st.lists(st.floats(50e-6, 26), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_is_at_most_one_bucket_too_high_and_never_too_low(found: list[float], q: float) -> None:
    exact = sorted(found)[max(0, math.ceil(q * len(found)) - 1)]
    assert exact <= Histogram.of(found).quantile(q) <= max(2 * exact, LATENCY_BOUNDS_S[0])


@pytest.mark.parametrize(("value", "bucket"), [(0, 0), (50e-6, 0), (51e-6, 1), (100e-6, 1), (1000, 20)])
def test_a_border_belongs_to_the_bucket_below(value: float, bucket: int) -> None:
    assert Histogram.of([value]).counts[bucket] == 1


def test_nothing_has_no_quantile_and_too_much_an_infinite_one() -> None:
    assert math.isnan(Histogram.of([]).quantile(0.5))
    assert Histogram.of([1e9]).quantile(0.5) == math.inf


def test_different_bounds_do_not_add() -> None:
    with pytest.raises(ValueError, match="different bounds"):
        Histogram.of([1]) + Histogram.of([1], (1.0, 2.0))


def test_a_frozen_summary_does_not_follow_its_counter() -> None:
    counter = HistogramCounter()
    counter.add(1.0)
    frozen = counter.freeze()
    counter.add(2.0)
    assert (frozen.count, frozen.total) == (1, 1.0)
