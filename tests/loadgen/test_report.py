from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.loadgen.plan import LoadPlan, Mode
from salver.loadgen.rendering import render_report
from salver.loadgen.report import Samples, summarise
from salver.loadgen.tally import TIMEOUT, Tally


def samples(values, capacity=10_000) -> Samples:
    kept = Samples(capacity, np.random.default_rng(0))
    for value in values:
        kept.add(value)
    return kept


def test_percentiles_are_values_that_occurred():
    latency, _, _ = summarise(samples(np.arange(1, 1001) / 1000), samples([]))
    assert (latency.p50_s, latency.p90_s, latency.p95_s, latency.p99_s, latency.p999_s, latency.max_s) == (
        0.5,
        0.9,
        0.95,
        0.99,
        0.999,
        1.0,
    )
    assert latency.mean_s == pytest.approx(0.5005)


def test_beyond_its_capacity_a_sample_stays_uniform_and_its_maximum_exact():
    kept = samples(range(100_000), capacity=2_000)
    values = kept.numpy()
    assert len(values) == 2_000
    assert not kept.exact
    assert kept.largest == 99_999
    # The mean of 2000 of them has a standard error of 645: five of those.
    assert abs(values.mean() - 49_999.5) < 3_227
    assert (values < 50_000).sum() == pytest.approx(1_000, abs=112)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_a_histogram_counts_every_value_once(values):
    latency, histogram, _ = summarise(samples(values), samples([]))
    assert sum(bucket.count for bucket in histogram) == len(values)
    assert histogram[-1].upto_s >= latency.max_s
    edges = [bucket.upto_s for bucket in histogram]
    assert edges == sorted(edges)


def tally(**changes) -> Tally:
    plan = LoadPlan("http://127.0.0.1:1", "/", **({"mode": Mode.OPEN, "rate_per_s": 10.0} | changes))
    made = Tally(plan, np.random.default_rng(0))
    made.from_s, made.end_s = 100.0, 110.0
    return made


def test_only_requests_meant_for_the_measured_seconds_are_counted():
    made = tally()
    for intended_s in (99.9, 100.0, 109.9, 110.0):
        made.left(intended_s)
        made.answered(intended_s, intended_s + 0.5, None)
    report = made.report(120.0, [99.0, 105.0], interrupted=False)
    assert (report.sent, report.ok, report.unanswered) == (2, 2, 1)
    # Begun at 109.9 is measured, but answered at 110.4 it is not part of the rate; the one of 99.9 is.
    assert report.achieved_rate_per_s == pytest.approx(0.2)
    assert report.measured_s == 10.0


def test_fast_refusals_do_not_flatter_the_latency_and_given_up_requests_weigh_on_it():
    made = tally()
    made.answered(101.0, 103.0, None)
    made.answered(101.0, 101.001, "429 QUEUE_FULL")
    made.gave_up(101.0, 107.0, TIMEOUT)
    made.gave_up(101.0, 101.002, "CONNECTION_LOST")
    report = made.report(110.0, [], interrupted=False)
    assert report.latency.mean_s == pytest.approx(4.0)
    assert (report.ok, report.failed) == (1, 3)


def test_an_interrupted_run_measures_what_it_had():
    made = tally()
    made.answered(100.5, 101.0, None)
    report = made.report(102.0, [], interrupted=True)
    assert report.measured_s == 2.0
    assert report.achieved_rate_per_s == 0.5


def test_a_run_interrupted_before_it_began_reports_zeros():
    made = tally()
    made.from_s = made.end_s = float("inf")
    report = made.report(5.0, [], interrupted=True)
    assert (report.measured_s, report.achieved_rate_per_s, report.latency) == (0.0, 0.0, None)
    assert "interrupted" in render_report(report)


def test_a_generator_that_falls_behind_says_so():
    made = tally()
    made.due(101.0, 101.5)
    report = made.report(110.0, [], interrupted=False)
    assert report.lateness.max_s == 0.5
    assert any("fell behind" in note for note in report.notes)


def test_the_text_fits_its_width_and_shows_every_bucket():
    made = tally(mode=Mode.CLOSED)
    for number in range(1, 2000):
        made.left(101.0)
        made.answered(101.0, 101.0 + 0.00001 * number, None)
    made.answered(101.0, 101.0, "429 QUEUE_FULL")
    report = made.report(110.0, [], interrupted=False)
    text = render_report(report, width=60)
    lines = text.splitlines()
    assert max(map(len, lines[-25:])) <= 60
    assert sum("≤" in line for line in lines) == 20
    assert "429 QUEUE_FULL: 1" in text
    assert "█" in text
    assert "p99.9 20 ms" in text
    assert msgspec.json.encode(report)


def test_small_buckets_are_seen_beside_large_ones():
    made = tally()
    for _ in range(10_000):
        made.answered(101.0, 101.001, None)
    made.answered(101.0, 102.0, None)
    bars = [line for line in render_report(made.report(110.0, [], interrupted=False)).splitlines() if "≤" in line]
    assert bars[-1].endswith("▏")
    assert bars[0].endswith("█")
