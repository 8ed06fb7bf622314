from __future__ import annotations

import msgspec
import pytest

from salver.protocol.tables import Placement
from salver.runtime.curve import INLINE_BELOW_S, Measured, ServiceCurve, choose_placement
from salver.runtime.worker_replica import restart_delay_s

B = INLINE_BELOW_S


@pytest.mark.parametrize(
    ("predicted_s", "current", "chosen"),
    [
        (None, Placement.INLINE, Placement.THREAD),  # nothing measured: nothing is promised to the loop
        (None, Placement.THREAD, Placement.THREAD),
        (0.5 * B, Placement.INLINE, Placement.INLINE),
        (0.5 * B, Placement.THREAD, Placement.INLINE),
        (0.9 * B, Placement.INLINE, Placement.INLINE),  # inside the hysteresis each stays where it is
        (0.9 * B, Placement.THREAD, Placement.THREAD),
        (1.1 * B, Placement.INLINE, Placement.INLINE),
        (1.1 * B, Placement.THREAD, Placement.THREAD),
        (1.3 * B, Placement.INLINE, Placement.THREAD),
        (1.3 * B, Placement.THREAD, Placement.THREAD),
    ],
)
def test_the_placement_follows_the_predicted_time_with_hysteresis(predicted_s, current, chosen) -> None:
    assert choose_placement(predicted_s, current) is chosen


@pytest.mark.parametrize(
    ("measured", "rows", "predicted_s"),
    [
        ({}, 1, None),
        ({1: 0.001}, 1, 0.001),
        ({1: 0.001}, 8, 0.008),  # a larger batch than any measured: scaled, on the long side
        ({8: 0.004}, 2, 0.004),  # a smaller one: as it is
        ({1: 0.001, 8: 0.002}, 4, 0.004),  # from the nearest smaller
        ({4: 0.001}, 7, 0.001),  # one bucket for 4 to 7 rows
    ],
)
def test_a_prediction_comes_from_the_nearest_measured_size(measured, rows, predicted_s) -> None:
    curve = ServiceCurve()
    for size, seconds in measured.items():
        curve.observe(size, seconds)
    assert curve.predict(rows) == predicted_s


def test_one_late_batch_does_not_look_like_a_slow_model() -> None:
    curve = ServiceCurve()
    curve.observe(1, 0.0001)
    curve.observe(1, 10.0)
    assert curve.predict(1) == pytest.approx(0.00012)
    assert curve.longest_s == 10.0


@pytest.mark.parametrize("first_s", [0.0001, 1e-9, 0.0])
def test_a_model_that_became_slow_is_seen_as_slow(first_s) -> None:
    curve = ServiceCurve()
    curve.observe(1, first_s)
    for _ in range(100):
        curve.observe(1, 0.01)
    assert curve.predict(1) == pytest.approx(0.01, rel=0.01)


def test_what_another_curve_measured_fills_gaps_and_replaces_nothing() -> None:
    curve = ServiceCurve()
    for _ in range(30):
        curve.observe(1, 0.004)
    curve.adopt(Measured({1: 0.001, 3: 0.002}, 0.003))
    assert curve.points() == {1: pytest.approx(0.004), 3: 0.002}
    assert curve.longest_s == 0.004
    curve.adopt(Measured({}, 9.0))
    assert curve.longest_s == 9.0


def test_a_curve_survives_the_journey() -> None:
    curve = ServiceCurve()
    for rows in (1, 2, 300):
        curve.observe(rows, rows / 1000)
    sent = msgspec.msgpack.encode(curve.freeze())
    other = ServiceCurve.of(msgspec.msgpack.decode(sent, type=Measured))
    assert (other.points(), other.longest_s) == (curve.points(), curve.longest_s)


def test_points_name_the_mean_rows_that_were_seen() -> None:
    curve = ServiceCurve()
    for rows in (1, 3, 2, 9, 256):
        curve.observe(rows, 0.5)
    assert curve.points() == {1: 0.5, 3: 0.5, 9: 0.5, 256: 0.5}
    for _ in range(100):
        curve.observe(2, 0.25)
    assert curve.points() == {1: 0.5, 2: pytest.approx(0.25), 9: 0.5, 256: 0.5}


@pytest.mark.parametrize(("a_s", "b_s"), [(0.01, 0.001), (0.0, 0.002), (0.005, 0.0)])
def test_a_line_is_found_where_there_is_one(a_s: float, b_s: float) -> None:
    curve = ServiceCurve()
    for rows in (1, 5, 20, 100):
        curve.observe(rows, a_s + b_s * rows)
    line = curve.line()
    assert line is not None
    assert (line.a_s, line.b_s) == (pytest.approx(a_s, abs=1e-9), pytest.approx(b_s, abs=1e-9))


def test_one_size_makes_no_line_and_neither_does_what_is_none() -> None:
    curve = ServiceCurve()
    curve.observe(4, 0.01)
    assert curve.line() is None
    for rows, seconds in ((1, 0.001), (16, 0.5), (200, 0.002)):
        curve.observe(rows, seconds)
    assert curve.line() is None


def test_neither_part_of_a_line_is_below_zero() -> None:
    falling, steep = ServiceCurve(), ServiceCurve()
    for rows, seconds in ((1, 0.012), (10, 0.010), (100, 0.009)):
        falling.observe(rows, seconds)
    for rows, seconds in ((4, 0.001), (8, 0.003), (16, 0.007)):
        steep.observe(rows, seconds)
    assert falling.line().b_s == 0 < falling.line().a_s
    assert steep.line() is None or steep.line().a_s == 0 < steep.line().b_s


def test_pauses_between_restarts_of_a_worker_grow_to_a_minute() -> None:
    assert [restart_delay_s(deaths) for deaths in range(1, 10)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
