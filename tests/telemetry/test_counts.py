"""Counters of several processes: whatever is counted comes through, and adds."""

from __future__ import annotations

import inspect
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.stats.histogram import HistogramCounter
from salver.telemetry import counts
from salver.telemetry.counts import Picture, read_picture, take_over_counts, write_counts
from salver.telemetry.exposition import Gauges, render_metrics
from salver.telemetry.metrics import CacheCounts, Metrics, SessionCounts, VersionMetrics


def attributes(value: Any) -> list[str]:
    return list(getattr(type(value), "__slots__", None) or vars(value))


def fill(value: Any, number: int) -> Any:
    """Count something in every counter that there is, also in those that this test does not know."""
    for name in attributes(value):
        have = getattr(value, name)
        if isinstance(have, bool):
            setattr(value, name, True)
        elif isinstance(have, int | float):
            setattr(value, name, have + number)
        elif isinstance(have, HistogramCounter):
            have.add(0.001 * number)
        elif name == "versions":
            have["e", "1.0.0"] = fill(VersionMetrics(), number)
        elif name == "refusals":
            have["e", "QUEUE_FULL"] += number
        elif isinstance(have, Counter | defaultdict):
            have[number if name.startswith("batch") else "x"] += number
        elif isinstance(have, dict):
            have["x"] = (number, number, float(number)) if name == "backlogs" else number
        elif have is None:
            setattr(value, name, fill({"cache": CacheCounts, "sessions": SessionCounts}[name](), number))
        else:
            fill(have, number)
    return value


def drawn(picture: Picture) -> Any:
    return counts._drawn(picture.metrics)


def counted(number: int) -> Picture:
    return Picture(fill(Metrics(), number))


def test_every_counter_comes_through_as_it_is() -> None:
    picture = counted(3)
    again = read_picture(picture.bytes())
    assert drawn(again) == drawn(picture)
    assert again.bytes() == picture.bytes()
    # And is shown: nothing that is read back is of another type than what was counted.
    assert render_metrics(again.metrics, list) == render_metrics(picture.metrics, list)


def test_counters_add_and_what_all_see_alike_does_not() -> None:
    both = counted(3) + counted(4)
    version = both.metrics.versions["e", "1.0.0"]
    assert (version.successes, version.failures, version.batches) == (7, {"x": 7}, {3: 3, 4: 4})
    assert (sum(version.request_s.counts), version.request_s.total) == (2, pytest.approx(0.007))
    assert (version.last_success_wall_s, both.metrics.loop_lag_s) == (4.0, 4.0)
    assert (both.metrics.connections, both.metrics.connections_total) == (7, 7)
    assert (version.cache.hits, version.sessions.begun, both.metrics.refusals["e", "QUEUE_FULL"]) == (7, 7, 7)
    assert both.metrics.jobs.backlogs == {"x": (4, 4, 4.0)}
    assert both.metrics.jobs.deliveries == {"x": 4}
    assert both.metrics.insecure is True


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6))
def test_in_whatever_order_they_are_added_it_is_the_same(numbers: list[int]) -> None:
    forward = sum((counted(number) for number in numbers), Picture())
    backward = sum((read_picture(counted(number).bytes()) for number in reversed(numbers)), Picture())
    assert forward.metrics.versions["e", "1.0.0"].successes == sum(numbers)
    ours, theirs = (sorted(render_metrics(each.metrics, list).split(b"\n")) for each in (forward, backward))
    for one, other in zip(ours, theirs, strict=True):
        assert one.rpartition(b" ")[0] == other.rpartition(b" ")[0]


def test_adding_leaves_what_is_added_as_it_was() -> None:
    one, other = counted(3), counted(4)
    before = one.bytes(), other.bytes()
    _ = one + other
    assert (one.bytes(), other.bytes()) == before


def test_what_a_process_had_goes_with_it_and_what_it_counted_stays() -> None:
    left = counted(3).past()
    assert left.metrics.connections == 0
    assert left.metrics.loop_lag_s == 0
    assert left.metrics.jobs.backlogs == {}
    assert left.metrics.connections_total == 3
    assert left.metrics.versions["e", "1.0.0"].rows == 3


def test_gauges_add_and_an_endpoint_is_available_where_all_have_it() -> None:
    here = Picture(gauges=[Gauges("e", "1", 1, 1, 1, True, 2, (10, 1))])
    there = read_picture(
        Picture(gauges=[Gauges("e", "1", 2, 0, 1, False, 1, (5, 2)), Gauges("f", "1", 0, 0, 1, True)]).bytes()
    )
    rows = {row.endpoint: row for row in (here + there).gauges}
    assert rows["e"][:8] == ("e", "1", 3, 1, 2, False, 3, (15, 3))
    assert rows["f"].available
    assert rows["f"].cache is None


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x92\x81\xa1x\x01\x90", b"\x92\xc0\x90", b"\x90"])
def test_what_is_no_picture_is_refused(data) -> None:
    with pytest.raises(ValueError, match="no counters"):
        read_picture(data)


def test_a_successor_goes_on_counting_where_the_one_before_was(tmp_path) -> None:
    assert take_over_counts(tmp_path / "counts").bytes() == Picture().bytes()
    write_counts(tmp_path / "counts", counted(3).bytes())
    assert drawn(take_over_counts(tmp_path / "counts")) == drawn(counted(3).past())
    (tmp_path / "counts").write_bytes(b"half")
    assert take_over_counts(tmp_path / "counts").bytes() == Picture().bytes()
    write_counts(tmp_path / "none" / "counts", b"")  # no such directory, or a full disk: nothing happens
    assert [path.name for path in tmp_path.iterdir()] == ["counts"]


def test_every_class_of_counters_says_what_it_has() -> None:
    for kind in (VersionMetrics, CacheCounts, SessionCounts):
        assert set(kind.__slots__) == set(attributes(kind())), inspect.getsource(kind)
