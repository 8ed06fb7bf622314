from __future__ import annotations

from pathlib import Path

import pytest

from salver.processes.pulse import PulseWatch
from salver.runtime.recorder import FlightRecorder

STARTED_S = 1000.0


@pytest.fixture
def watch() -> PulseWatch:
    """One that has looked until now, four times a second."""
    made = PulseWatch(hang_s=10.0)
    look(made, STARTED_S, 20.0)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pulse"


def look(watch: PulseWatch, from_s: float, for_s: float) -> None:
    for turn in range(int(for_s * 4) + 1):
        watch.look(from_s + turn / 4)


def test_a_child_that_beats_is_well_and_one_that_has_stopped_is_hung(watch, path) -> None:
    FlightRecorder(path).beat(STARTED_S + 9)
    assert watch.hung_s(path, STARTED_S, STARTED_S + 19) is None
    assert watch.hung_s(path, STARTED_S, STARTED_S + 20) == 11


def test_a_child_has_longer_for_its_first_beat(watch, path) -> None:
    look(watch, STARTED_S + 20, 45)
    assert watch.hung_s(path, STARTED_S, STARTED_S + 60) is None
    assert watch.hung_s(path, STARTED_S, STARTED_S + 61) == 61
    # What its predecessor has left is no beat of its own.
    FlightRecorder(path).beat(STARTED_S - 1)
    assert watch.hung_s(path, STARTED_S, STARTED_S + 60) is None


def test_silence_counts_from_where_the_looks_go_on_after_a_gap(watch, path) -> None:
    FlightRecorder(path).beat(STARTED_S + 20)
    woke_s = STARTED_S + 3000
    watch.look(woke_s)
    assert watch.hung_s(path, STARTED_S, woke_s) is None
    look(watch, woke_s, 11)
    assert watch.hung_s(path, STARTED_S, woke_s + 10) is None
    assert watch.hung_s(path, STARTED_S, woke_s + 11) == 11


def test_a_short_delay_of_a_look_excuses_nobody(watch, path) -> None:
    FlightRecorder(path).beat(STARTED_S + 9)
    watch.look(STARTED_S + 21.5)
    assert watch.hung_s(path, STARTED_S, STARTED_S + 21.5) == 12.5
