from __future__ import annotations

import asyncio
import random

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.asking import code_of, turn
from tests.runtime.stepping import LONG_S, Stepping, refused, sum_of

from salver.protocol.errors import SalverError
from salver.protocol.request import SequenceStep
from salver.testing import RAISES, ManualClock, eventually, make_request


async def test_a_session_goes_from_its_first_step_to_its_last(clock: ManualClock) -> None:
    one = Stepping(clock)
    assert refused(one.send, "a", 1) == "SESSION_UNKNOWN"
    assert [await one.step("a", 1, start=True), await one.step("a", 2), await one.step("a", 4, end=True)] == [1, 3, 7]
    assert refused(one.send, "a", 1) == "SESSION_UNKNOWN"
    assert (one.sessions.open, one.keepers[0].states, one.over()) == (0, 0, (1, 0, 0))
    assert await one.step("a", 5, start=True) == 5
    assert repr(one.sessions) == "<Sessions arithmetic@1.0.0 1 open on 1 replicas>"


async def test_steps_sent_at_once_run_in_order_one_at_a_time(clock: ManualClock) -> None:
    one = Stepping(clock)
    answers = [one.send("a", 2**step, start=not step) for step in range(8)]
    await turn()
    assert (one.sessions.waiting, one.sessions.running) == (7, 1)
    await one.settle()
    assert [sum_of(answer) for answer in answers] == [2.0 ** (step + 1) - 1 for step in range(8)]
    assert one.models[0].batches == [[2.0**step] for step in range(8)]


async def test_steps_of_different_sessions_share_a_batch(clock: ManualClock) -> None:
    one = Stepping(clock)
    for base in (1, 10):
        answers = [one.send(name, base, start=base == 1) for name in range(1, 5)]
        await one.settle()
        assert [sum_of(answer) for answer in answers] == [1 if base == 1 else 11] * 4
    assert [len(batch) for batch in one.models[0].batches] == [4, 4]


programs = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 9)), max_size=40)


@settings(max_examples=40, deadline=None)
@given(program=programs, replicas=st.integers(1, 3), seed=st.integers(0, 2**16))
def test_interleaved_sessions_answer_as_each_alone(program, replicas, seed) -> None:
    async def run() -> None:
        one, dice = Stepping(ManualClock(), replicas=replicas), random.Random(seed)
        sums: dict[str, int] = {}
        expected, answers = [], []
        for name, value in program:
            answers.append(one.send(name, value, start=name not in sums))
            sums[name] = sums.get(name, 0) + value
            expected.append(float(sums[name]))
            if dice.random() < 0.3:
                await turn()
            if dice.random() < 0.3:
                for replica in one.replicas:
                    if replica.batch is not None and dice.random() < 0.7:
                        replica.finish()
        await one.settle()
        assert [sum_of(answer) for answer in answers] == expected
        assert one.sessions.open == len(sums)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_a_first_step_begins_an_open_session_anew(clock: ManualClock) -> None:
    one = Stepping(clock)
    await one.step("a", 1, start=True)
    answers = [one.send("a", 2), one.send("a", 4, start=True), one.send("a", 8)]
    await one.settle()
    assert [sum_of(answer) for answer in answers] == [3, 4, 12]
    assert one.sessions.open == 1


async def test_a_session_of_one_step_needs_no_name(clock: ManualClock) -> None:
    one = Stepping(clock)
    answers = [one.send(None, value, start=True, end=True) for value in (1, 2)]
    await one.settle()
    assert [sum_of(answer) for answer in answers] == [1, 2]
    assert (one.sessions.open, one.keepers[0].states) == (0, 0)


async def test_integers_and_texts_are_different_names_and_tenants_have_names_of_their_own(clock: ManualClock) -> None:
    one = Stepping(clock)
    names = [(7, ""), ("7", ""), (7, "x"), ("7", "x")]
    for at, (name, tenant) in enumerate(names):
        assert await one.step(name, at + 1, start=True, tenant=tenant) == at + 1
    assert [await one.step(name, 10, tenant=tenant) for name, tenant in names] == [11, 12, 13, 14]
    assert refused(one.send, 7, 1, tenant="y") == "SESSION_UNKNOWN"
    assert await one.step("7", 1, end=True, tenant="x") == 15
    assert [await one.step(name, 100, tenant=tenant) for name, tenant in names[:3]] == [111, 112, 113]


async def test_sessions_begin_on_the_replica_that_has_fewest(clock: ManualClock) -> None:
    one = Stepping(clock, replicas=2)
    for name in range(1, 7):
        await one.step(name, 1, start=True, end=name == 2)
    assert [keeper.states for keeper in one.keepers] == [3, 2]


async def test_a_request_that_is_no_step_of_one_row_is_refused(clock: ManualClock) -> None:
    one = Stepping(clock)
    assert refused(one.sessions, make_request([[1, 1]])) == "INVALID_PARAMETER"
    with pytest.raises(SalverError, match="the request has 2 rows; a step of a session has one"):
        one.sessions(make_request([[1, 1]] * 2, sequence=SequenceStep("a", start=True)))
    assert one.sessions.open == 0


# Failures.


async def test_a_step_that_raises_fails_alone_and_its_session_goes_on_as_it_was(clock: ManualClock) -> None:
    one = Stepping(clock)
    first = [one.send(name, 1, start=True) for name in "abcd"]
    await one.settle()
    assert [sum_of(answer) for answer in first] == [1] * 4
    answers = [one.send(name, RAISES if name == "b" else 2) for name in "abcd"]
    await one.settle()
    assert code_of(answers.pop(1)) == "MODEL_ERROR"
    assert [sum_of(answer) for answer in answers] == [3] * 3
    assert [await one.step(name, 4) for name in "abcd"] == [7, 5, 7, 7]


async def test_what_waits_behind_a_failed_step_is_not_run_but_a_new_beginning_is(clock: ManualClock) -> None:
    one = Stepping(clock)
    await one.step("a", 1, start=True)
    answers = [one.send("a", RAISES), one.send("a", 2), one.send("a", 4, start=True), one.send("a", 8)]
    await one.settle()
    assert [code_of(answer) for answer in answers[:2]] == ["MODEL_ERROR", "STEP_SKIPPED"]
    assert [sum_of(answer) for answer in answers[2:]] == [4, 12]
    assert one.metrics.failures == {"MODEL_ERROR": 1, "STEP_SKIPPED": 1}


async def test_a_session_whose_first_step_failed_is_lost(clock: ManualClock) -> None:
    one = Stepping(clock)
    answers = [one.send("a", RAISES, start=True), one.send("a", 1), one.send("a", 2, start=True)]
    await one.settle()
    assert [code_of(answer) for answer in answers[:2]] == ["MODEL_ERROR", "SESSION_LOST"]
    assert str(answers[1].exception()) == (
        "session 'a' is lost: its first step failed with MODEL_ERROR; begin it again with sequence_start"
    )
    assert sum_of(answers[2]) == 2


async def test_what_waits_behind_the_last_step_has_no_session_unless_it_begins_one(clock: ManualClock) -> None:
    one = Stepping(clock)
    answers = [one.send("a", 1, start=True, end=True), one.send("a", 2), one.send("a", 4, start=True)]
    await one.settle()
    assert [sum_of(answers[0]), code_of(answers[1]), sum_of(answers[2])] == [1, "SESSION_UNKNOWN", 4]


async def test_a_step_whose_caller_leaves_before_it_runs_changes_nothing(clock: ManualClock) -> None:
    one = Stepping(clock)
    await one.step("a", 1, start=True)
    busy = one.send("b", 1, start=True)
    await turn()
    in_the_pool, in_the_line = one.send("a", 2), one.send("a", 4)
    behind = one.send("a", 8)
    in_the_pool.cancel()
    in_the_line.cancel()
    await one.settle()
    assert sum_of(busy) == 1
    assert code_of(behind) == "STEP_SKIPPED"
    assert await one.step("a", 16) == 17


async def test_a_step_that_ran_unheard_costs_the_session(clock: ManualClock) -> None:
    one = Stepping(clock)
    await one.step("a", 1, start=True)
    await one.step("b", 1, start=True)
    unheard = one.send("a", 2)
    await turn()
    unheard.cancel()
    await turn()
    answers = [one.send("a", 4), one.send("b", 4)]
    await one.settle()
    assert code_of(answers[0]) == "SESSION_LOST"
    assert "a step has run whose answer nobody had" in str(answers[0].exception())
    assert sum_of(answers[1]) == 5
    assert one.metrics.failures == {"SESSION_LOST": 1, "MODEL_ERROR": 0}
    assert await one.step("a", 1, start=True) == 1


async def test_a_deadline_that_passes_while_a_step_runs_leaves_the_session_in_doubt(clock: ManualClock) -> None:
    one = Stepping(clock)
    await one.step("a", 1, start=True)
    late = one.send("a", 2, deadline_s=clock.monotonic_s() + 0.5)
    await turn()
    clock.advance(0.6)
    await eventually(late.done)
    assert str(late.exception()) == "no answer after 0.600 s: its batch has computed for 0.600 s"
    after = one.send("a", 4)
    await one.settle()
    assert code_of(after) == "SESSION_LOST"


async def test_a_deadline_passes_in_the_line_too(clock: ManualClock) -> None:
    one = Stepping(clock)
    first = one.send("a", 1, start=True)
    late = one.send("a", 2, deadline_s=clock.monotonic_s() + 0.5)
    behind = one.send("a", 4)
    await turn()
    clock.advance(0.6)
    await eventually(late.done)
    assert (code_of(late), first.done(), behind.done()) == ("DEADLINE_EXCEEDED", False, False)
    assert str(late.exception()) == "no answer after 0.600 s: it waited for the step before it"
    await one.settle()
    assert (sum_of(first), code_of(behind)) == (1, "STEP_SKIPPED")
    assert await one.step("a", 8) == 9


async def test_an_answer_says_how_long_its_step_waited_for_the_one_before(clock: ManualClock) -> None:
    one = Stepping(clock)
    answers = [one.send("a", value, start=value == 1) for value in (1, 2, 3)]
    for _ in answers:
        await turn()
        clock.advance(0.25)
        one.replicas[0].finish()
        await turn()
    assert [answer.result().waits for answer in answers] == [(), (("turn", 0.25),), (("turn", 0.5),)]
    assert [answer.result().queue_s for answer in answers] == [0, 0, 0]


async def test_an_answer_that_contradicts_the_signature_costs_the_session(clock: ManualClock) -> None:
    one = Stepping(clock)
    await one.step("a", 1, start=True)
    one.models[0].wrong = True
    answer = one.send("a", 2)
    await one.settle()
    assert code_of(answer) == "BAD_MODEL_OUTPUT"
    assert refused(one.send, "a", 4) == "SESSION_LOST"


async def test_a_full_queue_refuses_a_step_and_the_session_goes_on(clock: ManualClock) -> None:
    one = Stepping(clock, max_queue=1)
    for name in "abc":
        await one.step(name, 1, start=True)
    running = one.send("a", 2)
    await turn()
    waiting = one.send("b", 2)
    assert refused(one.send, "c", 2) == "QUEUE_FULL"
    assert refused(one.send, "d", 2, start=True) == "QUEUE_FULL"
    assert refused(one.send, "d", 2) == "SESSION_LOST"
    await one.settle()
    assert [sum_of(running), sum_of(waiting), await one.step("c", 4)] == [3, 3, 5]


async def test_a_session_has_a_bounded_line(clock: ManualClock) -> None:
    one = Stepping(clock)
    answers = [one.send("a", 1, start=not step) for step in range(65)]
    assert refused(one.send, "a", 1) == "QUEUE_FULL"
    await one.settle()
    assert sum_of(answers[-1]) == 65


# Replicas that die.


async def test_when_a_worker_dies_its_sessions_are_lost_and_those_of_others_go_on(clock: ManualClock) -> None:
    one = Stepping(clock, replicas=2)
    for name in (1, 2, 3, 4):
        await one.step(name, 1, start=True)
    in_flight = one.send(1, 2)
    await turn()
    one.kill(0)
    await one.settle()
    assert code_of(in_flight) == "SESSION_LOST"
    assert refused(one.send, 3, 2) == "SESSION_LOST"
    assert refused(one.send, 3, 2) == "SESSION_LOST"
    assert [await one.step(name, 2) for name in (2, 4)] == [3, 3]
    assert await one.step(1, 5, start=True) == 5
    assert one.over() == (0, 0, 2)
    assert one.metrics.failures == {"SESSION_LOST": 1, "WORKER_LOST": 0}


async def test_the_first_step_of_a_session_may_be_sent_again_when_its_worker_died(clock: ManualClock) -> None:
    one = Stepping(clock)
    first = one.send("a", 1, start=True)
    await turn()
    one.kill(0)
    await one.settle()
    assert code_of(first) == "WORKER_LOST"
    assert refused(one.send, "a", 2) == "SESSION_LOST"


async def test_a_step_that_reaches_the_next_worker_is_told_that_its_state_is_gone(clock: ManualClock) -> None:
    one = Stepping(clock)
    await one.step("a", 1, start=True)
    busy = one.send("b", 1, start=True)
    await turn()
    queued = one.send("a", 2)
    one.kill(0)
    await one.settle()
    assert [code_of(busy), code_of(queued)] == ["WORKER_LOST", "SESSION_LOST"]


async def test_places_of_sessions_whose_worker_died_are_free_again(clock: ManualClock) -> None:
    one = Stepping(clock, max_sessions=2)
    for name in (1, 2):
        await one.step(name, 1, start=True)
    await eventually(lambda: one.sessions._table._shards[0].seen)
    one.kill(0)
    await eventually(lambda: one.sessions.open == 0)
    assert await one.step(3, 1, start=True) == 1
    assert refused(one.send, 1, 1) == "SESSION_LOST"


# Limits and time.


async def test_idle_sessions_expire_and_busy_ones_do_not(clock: ManualClock) -> None:
    one = Stepping(clock, session_idle_s=10.0)
    await one.step("idle", 1, start=True)
    await one.step("used", 1, start=True)
    clock.advance(6)
    assert await one.step("used", 2) == 3
    running = one.send("busy", 1, start=True)
    clock.advance(6)
    assert refused(one.send, "idle", 1) == "SESSION_LOST"
    with pytest.raises(SalverError, match="session 'idle' is lost: no step came for 10 s"):
        one.send("idle", 1)
    await one.settle()
    assert await one.step("used", 4) == 7
    clock.advance(60)
    await eventually(lambda: one.sessions.open == 0)
    assert sum_of(running) == 1
    assert one.over() == (0, 3, 0)


async def test_the_states_of_sessions_that_are_over_are_freed_by_later_steps(clock: ManualClock) -> None:
    one = Stepping(clock, session_idle_s=10.0)
    for name in range(1, 6):
        await one.step(name, 1, start=True)
    clock.advance(11)
    await eventually(lambda: one.sessions.open == 0)
    assert one.keepers[0].states == 5
    for _ in range(5):
        await one.step("new", 1, start=True)
    assert one.keepers[0].states == 1


async def test_a_session_that_is_computed_for_longer_than_it_may_be_idle_goes_on(clock: ManualClock) -> None:
    one = Stepping(clock, session_idle_s=10.0)
    await one.step("idle", 1, start=True)
    slow = one.send("slow", 1, start=True)
    await turn()
    clock.advance(11)
    await eventually(lambda: one.sessions.open == 1)
    await one.settle()
    assert [sum_of(slow), await one.step("slow", 2)] == [1, 3]


async def test_what_a_step_was_to_tell_is_told_by_the_next_if_it_never_ran(clock: ManualClock) -> None:
    one = Stepping(clock, session_idle_s=10.0)
    await one.step("a", 1, start=True)
    clock.advance(11)
    assert refused(one.send, "a", 1) == "SESSION_LOST"
    withdrawn = one.send("b", 1, start=True)
    withdrawn.cancel()
    await turn()
    for _ in range(2):
        await one.step("c", 1, start=True)
    assert one.keepers[0].states == 1


async def test_states_of_sessions_that_are_over_are_freed_whatever_becomes_of_those_after_them(
    clock: ManualClock,
) -> None:
    """Times of too many first steps whose callers leave in the queue, and then a calm time."""
    one = Stepping(clock, max_sessions=4, session_idle_s=10.0)
    for _ in range(5):
        for name in range(4):
            await one.step(name, 1, start=True)
        clock.advance(11)
        await eventually(lambda: one.sessions.open == 0)
        for name in range(12):
            withdrawn = one.send(name, 1, start=True)
            withdrawn.cancel()
            await turn()
        assert one.keepers[0].states <= 4
    for _ in range(10):
        await one.step("calm", 1, start=True)
        await one.step("calm", 1, end=True)
    assert one.keepers[0].states == 0
    assert len(one.sessions._table._shards[0].vacated) == 0


async def test_no_more_sessions_are_open_than_may_be(clock: ManualClock) -> None:
    one = Stepping(clock, max_sessions=2, session_idle_s=10.0, replicas=2)
    for name in (1, 2):
        await one.step(name, 1, start=True)
    with pytest.raises(SalverError, match="2 sessions of arithmetic are open, as many as may be") as caught:
        one.send(3, 1, start=True)
    assert caught.value.code == "TOO_MANY_SESSIONS"
    assert await one.step(1, 1, start=True) == 1  # an open one may begin anew
    await one.step(2, 1, end=True)
    assert await one.step(3, 1, start=True) == 1
    clock.advance(11)
    assert await one.step(4, 1, start=True) == 1


async def test_lost_sessions_are_forgotten_after_an_hour(clock: ManualClock) -> None:
    one = Stepping(clock, session_idle_s=10.0)
    await one.step("a", 1, start=True)
    clock.advance(11)
    assert refused(one.send, "a", 1) == "SESSION_LOST"
    clock.advance(3600)
    assert refused(one.send, "a", 1) == "SESSION_UNKNOWN"


async def test_only_the_last_lost_sessions_are_remembered(clock: ManualClock) -> None:
    one = Stepping(clock, max_sessions=5000, session_idle_s=10.0)
    for name in range(1, 4099):
        one.send(name, 1, start=True, end=False)
        await one.settle() if name % 512 == 0 else None
    await one.settle()
    clock.advance(LONG_S)
    await eventually(lambda: one.sessions.open == 0)
    assert [refused(one.send, name, 1) for name in (1, 2, 3, 4098)] == ["SESSION_UNKNOWN"] * 2 + ["SESSION_LOST"] * 2
