from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from salver.telemetry.logs import AccessSample, configure_logs, log_event
from salver.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def written(clock) -> Callable[[], list[Any]]:
    stream = io.StringIO()
    configure_logs("server", stream=stream, clock=clock)
    return lambda: [json.loads(line) for line in stream.getvalue().split("\n") if line]


def test_an_event_goes_to_what_is_standard_error_when_it_happens(clock) -> None:
    with io.StringIO() as earlier, contextlib.redirect_stderr(earlier):
        configure_logs("server", clock=clock)
    with contextlib.redirect_stderr(io.StringIO()) as now:
        log_event("serving")
    assert json.loads(now.getvalue())["event"] == "serving"


def test_an_event_is_one_line_of_json_with_its_fields(written) -> None:
    log_event("serving", version="a@1", seconds=0.5, none=None)
    assert written() == [
        {
            "at_s": 1_700_000_000.0,
            "level": "info",
            "role": "server",
            "event": "serving",
            "version": "a@1",
            "seconds": 0.5,
            "none": None,
        }
    ]


@pytest.mark.parametrize("value", ['x\n{"event":"forged"}', "\x1b[31m", "\u2028", '"', "ü"])
def test_nobody_forges_a_line(written, value) -> None:
    log_event("refused", said=value)
    (line,) = written()
    assert (line["event"], line["said"]) == ("refused", value)


def test_an_exception_comes_with_its_trace_and_objects_as_they_are_shown(written) -> None:
    log_event("fault", level=logging.ERROR, error=ValueError("boom"), thing={1, 2}, path=object)
    (line,) = written()
    assert line["level"] == "error"
    assert "ValueError: boom" in line["exception"]


@pytest.mark.parametrize("value", ["\ud800", b"\xff", float("nan"), {"a": object()}, 10**30, {(1, 2): 3}])
def test_whatever_a_field_holds_a_line_is_written(written, value, capsys) -> None:
    log_event("odd", value=value)
    (line,) = written()
    assert line["event"] == "odd"
    assert "Logging error" not in capsys.readouterr().err


def test_of_one_event_twenty_are_written_in_a_second_and_the_rest_is_counted(written, clock) -> None:
    for number in range(50):
        log_event("storm", number=number)
    log_event("other")
    assert [line["event"] for line in written()].count("storm") == 20
    assert written()[-1]["event"] == "other"
    clock.advance(1.0)
    log_event("storm", number=50)
    assert written()[-1]["suppressed_before"] == 30


def test_below_the_level_nothing_is_written(written) -> None:
    log_event("detail", level=logging.DEBUG)
    assert written() == []


def test_a_sample_takes_every_nth_and_every_failure_of_the_server() -> None:
    sample = AccessSample(3)
    assert [sample.takes(200) for _ in range(6)] == [False, False, True] * 2
    assert [sample.takes(status) for status in (500, 503)] == [True, True]
    none = AccessSample(0)
    assert not any(none.takes(status) for status in (200, 404) * 10)
    assert none.takes(500)
