"""When a client asks again: the rule, the budget, and both clients against servers that fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client.fakes import CLOSE, CONFIG, GOOD, HOLD, METADATA, refusal, reply, serving

from salver.client import NO_RETRIES, CallError, Retries
from salver.client.address import read_url
from salver.client.asking import Asking
from salver.client.dialect import Pause, Reply, Transmit
from salver.client.oip_http import OipHttp
from salver.client.retries import RetryBudget, pause_before_retry
from salver.protocol.errors import CATALOGUE, SalverError
from salver.testing import ManualClock

AT_ONCE = Retries(first_s=0.0)
DOWN = CallError("NOT_READY", "no", may_have_run=False)


class Fixed:
    """A source of random numbers that gives one."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


def pause(attempt: int, error: SalverError = DOWN, left_s: float = 100.0, drawn: float = 1.0, **rule):
    return pause_before_retry(Retries(**rule), attempt, error, left_s, Fixed(drawn))


# The rule.


def test_only_what_is_unavailable_is_asked_again():
    repeated = {code for code in CATALOGUE if pause(1, CallError(code, "", may_have_run=False)) is not None}
    assert repeated == {code for code, row in CATALOGUE.items() if row.grpc == "UNAVAILABLE"}
    assert repeated >= {"NOT_READY", "WORKER_LOST", "OVERLOADED"}
    assert not repeated & {"QUEUE_FULL", "INTERNAL", "DEADLINE_EXCEEDED", "MODEL_ERROR", "WRONG_SHAPE"}
    assert pause(1, SalverError("NOT_READY", "said by no server")) is None


def test_an_overload_is_asked_again_by_choice_only():
    for code in ("QUEUE_FULL", "TOO_MANY_CONNECTIONS"):
        error = CallError(code, "", may_have_run=False, retry_after_s=1.0)
        assert pause(1, error) is None
        assert pause(1, error, drawn=0.0, overload=True) == 1.0
    assert pause(1, CallError("TOO_MANY_GUESSES", "", may_have_run=False), overload=True) is None


def test_waits_double_up_to_their_bound_and_are_drawn_from_zero():
    assert [pause(attempt, attempts=9) for attempt in range(1, 9)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert pause(3, drawn=0.0) == 0.0
    assert pause(3, drawn=0.25) == 0.05


def test_what_a_server_says_is_waited_besides():
    assert pause(1, CallError("NOT_READY", "", may_have_run=False, retry_after_s=3.0), drawn=0.5) == 3.025


def test_attempts_end_and_no_wait_goes_beyond_the_deadline():
    assert pause(3) is not None
    assert pause(4) is None
    assert pause(1, attempts=1) is None
    assert pause(1, left_s=0.05) is None
    assert pause(1, left_s=0.051) == 0.05


@pytest.mark.parametrize(
    "rule",
    [
        {"attempts": 0},
        {"first_s": -1.0},
        {"first_s": 3.0},
        {"longest_s": float("inf")},
        {"budget_ratio": 2.0},
        {"budget_reserve": -1.0},
        {"first_s": float("nan")},
    ],
)
def test_a_rule_that_is_none_is_refused(rule):
    with pytest.raises(SalverError, match=next(iter(rule))) as caught:
        Retries(**rule)
    assert caught.value.code == "INVALID_SETTING"


# The budget.


@given(st.lists(st.booleans(), max_size=300), st.sampled_from([0.0, 0.1, 0.25, 1.0]), st.integers(0, 20))
def test_retries_never_exceed_the_reserve_and_the_share_of_requests(steps, ratio, reserve):
    budget = RetryBudget(ratio, reserve)
    requests = retries = 0
    for is_request in steps:
        if is_request:
            budget.earn()
            requests += 1
        else:
            retries += budget.spend()
        assert retries <= reserve + ratio * requests + 1e-6


def test_a_server_that_always_fails_gets_a_tenth_more_requests_and_no_more():
    clock = ManualClock()
    asking = Asking(OipHttp(read_url("http://x"), None), 30.0, Retries(), clock, np.random.default_rng(0))
    sent = 0
    for _ in range(1000):
        done, _ = drive(asking, clock, asking.models(), *[Reply(503, {"x-salver-error": "NOT_READY"}, b"{}")] * 4)
        sent += [what for what, _ in done].count("send")
    assert 1100 <= sent <= 1110


def test_ten_tenths_are_one_retry():
    budget = RetryBudget(0.1, 1)
    assert budget.spend()
    for _ in range(10):
        assert not budget.spend()
        budget.earn()
    assert budget.spend()


# Flows, on a clock that a test turns.


def drive(asking: Asking, clock: ManualClock, flow, *replies: Reply | SalverError):
    """What a flow does, as far as it goes: seconds it was given or waited."""
    done = []
    left = list(replies)
    step = next(flow)
    while True:
        if isinstance(step, Pause):
            done.append(("wait", round(step.seconds, 6)))
            clock.advance(step.seconds)
            step = flow.send(None)
            continue
        assert isinstance(step, Transmit)
        done.append(("send", round(step.left_s, 6)))
        said = left.pop(0)
        clock.advance(1.0)
        try:
            step = flow.throw(said) if isinstance(said, SalverError) else flow.send(said)
        except StopIteration as end:
            return done, end.value
        except SalverError as error:
            return done, error.code


def asking_with(clock: ManualClock, drawn: float = 0.5, **rule) -> Asking:
    return Asking(OipHttp(read_url("http://x"), None), 10.0, Retries(**rule), clock, Fixed(drawn))


BUSY = Reply(503, {"x-salver-error": "NOT_READY", "retry-after": "2"}, b"{}")
NAMES = Reply(200, {}, b'{"models":[]}')


def test_each_attempt_has_the_time_that_is_left():
    clock = ManualClock()
    asking = asking_with(clock)
    done, names = drive(asking, clock, asking.models(), BUSY, BUSY, NAMES)
    assert names == []
    assert done == [("send", 10.0), ("wait", 2.025), ("send", 6.975), ("wait", 2.05), ("send", 3.925)]


def test_nobody_waits_for_a_retry_that_the_deadline_forbids():
    clock = ManualClock()
    asking = asking_with(clock)
    late = Reply(503, {"x-salver-error": "NOT_READY", "retry-after": "9"}, b"{}")
    assert drive(asking, clock, asking.models(), late) == ([("send", 10.0)], "NOT_READY")


def test_a_flow_without_time_sends_nothing():
    clock = ManualClock()
    asking = asking_with(clock)
    flow = asking.models()
    next(flow)
    clock.advance(10.0)
    with pytest.raises(CallError) as caught:
        flow.throw(DOWN)
    assert caught.value.code == "NOT_READY"


# Both clients against servers that fail.


def test_a_refused_request_is_sent_again_until_it_is_answered(kind):
    down = refusal("NOT_READY")
    with serving(down, reply(METADATA), down, down, GOOD) as fake, kind(fake.url, retries=AT_ONCE) as client:
        assert client.predict("m", [[1.0]])["y"].tolist() == [[0.0, 0.0]]


def test_the_last_refusal_is_told_with_when_to_come_back(kind):
    with (
        serving(refusal("NOT_READY", "503 Service Unavailable", "retry-after: 7")) as fake,
        kind(fake.url, timeout_s=1.0) as client,
        pytest.raises(CallError) as caught,
    ):
        client.models()
    assert (caught.value.code, caught.value.retry_after_s) == ("NOT_READY", 7.0)


def test_a_connection_that_breaks_is_asked_about_before_the_model_runs_twice(kind):
    told = [reply(CONFIG % b"true"), reply(CONFIG % b"false")]
    with serving(reply(METADATA), CLOSE, told[0], CLOSE, GOOD) as fake, kind(fake.url, retries=AT_ONCE) as client:
        client.predict("m", [[1.0]])
    assert [asked.line.split()[1] for asked in fake.asked][2] == "/v2/models/m/config"
    with (
        serving(reply(METADATA), CLOSE, told[1]) as fake,
        kind(fake.url, retries=AT_ONCE) as client,
        pytest.raises(CallError, match="broke"),
    ):
        client.predict("m", [[1.0]])


def test_who_knows_better_says_whether_a_model_may_run_twice(kind):
    yes, no = Retries(first_s=0.0, idempotent=True), Retries(first_s=0.0, idempotent=False)
    with serving(reply(METADATA), CLOSE, GOOD) as fake, kind(fake.url, retries=yes) as client:
        client.predict("m", [[1.0]])
    for lost in (CLOSE, refusal("WORKER_LOST"), reply(b"<html>", "502 Bad Gateway")):
        with (
            serving(reply(METADATA), lost) as fake,
            kind(fake.url, retries=no) as client,
            pytest.raises(CallError) as caught,
        ):
            client.predict("m", [[1.0]])
        assert caught.value.may_have_run
    with serving(reply(METADATA), refusal("NOT_READY"), GOOD) as fake, kind(fake.url, retries=no) as client:
        client.predict("m", [[1.0]])


def test_what_a_server_does_not_declare_runs_once(kind):
    with (
        serving(reply(METADATA), CLOSE, refusal("NOT_FOUND", "404 Not Found")) as fake,
        kind(fake.url, retries=AT_ONCE) as client,
        pytest.raises(CallError, match="broke"),
    ):
        client.predict("m", [[1.0]])
    assert len(fake.asked) == 3


def test_a_deadline_that_passed_is_not_asked_again(kind):
    with (
        serving(HOLD) as fake,
        kind(fake.url, timeout_s=0.05, retries=AT_ONCE) as client,
        pytest.raises(CallError) as caught,
    ):
        client.models()
    assert (caught.value.code, len(fake.asked)) == ("DEADLINE_EXCEEDED", 1)


def test_without_retries_every_failure_is_told_at_once(kind):
    with serving(refusal("NOT_READY")) as fake, kind(fake.url, retries=NO_RETRIES) as client, pytest.raises(CallError):
        client.models()


def test_a_question_whether_a_server_is_ready_is_asked_once(kind):
    with serving(refusal("NOT_READY")) as fake, kind(fake.url, retries=AT_ONCE) as client:
        assert not client.is_ready()
