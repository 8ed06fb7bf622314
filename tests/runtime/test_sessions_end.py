from __future__ import annotations

import asyncio

import pytest
from tests.runtime.asking import code_of, turn
from tests.runtime.stepping import Stepping, refused, sum_of

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature
from salver.runtime.sessions import pools_of
from salver.testing import FREE_WIDTH, ManualClock, eventually, make_manifest

GONE = SalverError("NOT_READY", "the version was taken away", "retry")


def another(clock: ManualClock, before: Stepping, signature: Signature | None = None) -> Stepping:
    manifest = make_manifest(kind="sequence", idempotent=False, version="2.0.0")
    if signature is not None:
        manifest = make_manifest(kind="sequence", idempotent=False, version="2.0.0", signature=signature)
    after = Stepping(clock, manifest)
    after.sessions.succeed(before.sessions)
    return after


async def both(old: Stepping, new: Stepping, answer: asyncio.Future) -> tuple[str, float]:
    await old.settle()
    await new.settle()
    return answer.result().version, sum_of(answer)


async def test_sessions_of_a_replaced_version_go_on_there_and_new_ones_begin_on_the_new(clock: ManualClock) -> None:
    old = Stepping(clock)
    await old.step("a", 1, start=True)
    await old.step("b", 1, start=True)
    new = another(clock, old)
    draining = asyncio.ensure_future(old.sessions.drain(30.0))
    assert await both(old, new, new.send("c", 1, start=True)) == ("2.0.0", 1)
    assert await both(old, new, new.send("a", 2)) == ("1.0.0", 3)
    assert await both(old, new, new.send("b", 5, start=True)) == ("2.0.0", 5)
    assert (old.sessions.open, new.sessions.open) == (1, 2)
    assert not draining.done()
    assert await both(old, new, new.send("a", 4, end=True)) == ("1.0.0", 7)
    assert await draining
    assert refused(new.send, "a", 1) == "SESSION_UNKNOWN"
    assert await both(old, new, new.send("b", 6)) == ("2.0.0", 11)
    assert (old.sessions.open, new.sessions.open) == (0, 2)


async def test_sessions_that_do_not_end_in_time_are_lost(clock: ManualClock) -> None:
    old = Stepping(clock, session_idle_s=0.1)
    await old.step("a", 1, start=True)
    new = another(clock, old)
    assert await old.sessions.drain(0.05)
    assert refused(new.send, "a", 1) == "SESSION_LOST"
    assert await new.step("a", 1, start=True) == 1


async def test_an_undeployed_version_waits_for_what_runs_and_not_for_sessions(clock: ManualClock) -> None:
    old = Stepping(clock)
    await old.step("a", 1, start=True)
    last, behind = old.send("a", 2), old.send("a", 4)
    await turn()
    draining = asyncio.ensure_future(old.sessions.drain(30.0))
    await turn()
    assert not draining.done()
    await old.settle()
    assert await draining
    assert (sum_of(last), code_of(behind)) == (3, "SESSION_LOST")


async def test_where_steps_are_not_alike_the_sessions_of_the_old_version_are_lost(clock: ManualClock) -> None:
    old = Stepping(clock)
    await old.step("a", 1, start=True)
    new = another(clock, old, FREE_WIDTH)
    assert refused(new.send, "a", 1) == "SESSION_LOST"
    assert await asyncio.wait_for(old.sessions.drain(30.0), 5)


async def test_only_the_version_before_is_kept_for_its_sessions(clock: ManualClock) -> None:
    oldest = Stepping(clock)
    await oldest.step("a", 1, start=True)
    old = another(clock, oldest)
    await old.step("b", 1, start=True)
    draining = asyncio.ensure_future(oldest.sessions.drain(30.0))
    await turn()
    new = another(clock, old)
    assert refused(new.send, "a", 1) == "SESSION_LOST"
    assert await asyncio.wait_for(draining, 5)
    assert await both(old, new, new.send("b", 2)) == ("2.0.0", 3)


async def test_stopping_answers_everything(clock: ManualClock) -> None:
    one = Stepping(clock, replicas=2)
    await one.step("a", 1, start=True)
    answers = [one.send("a", 2), one.send("a", 4), one.send("b", 1, start=True)]
    await turn()
    await one.sessions.stop(GONE)
    await eventually(lambda: all(answer.done() for answer in answers))
    assert [code_of(answer) for answer in answers] == ["NOT_READY", "SESSION_LOST", "NOT_READY"]
    assert all(replica.stopped for replica in one.replicas)
    assert (one.sessions.waiting, one.sessions.running, one.sessions.open) == (0, 0, 0)


async def test_an_answer_that_cannot_be_written_costs_the_session_and_those_sent_ahead(clock: ManualClock) -> None:
    one = Stepping(clock)
    await one.step("a", 1, start=True)
    answers = [one.send("a", value) for value in (2, 3, 4)]
    await turn()
    one.replicas[0].finish()
    await answers[0]
    # Now its door finds that it cannot write it, while the next runs already.
    answers[0].result().unwritten()
    assert refused(one.send, "a", 5) == "SESSION_LOST"
    await one.settle()
    for answer in answers[1:]:
        with pytest.raises(SalverError, match="the answer to a step could not be written") as caught:
            answer.result()
        assert caught.value.code == "SESSION_LOST"
    assert one.models[0].batches == [[1], [2], [3]]
    assert (one.metrics.successes, one.metrics.failures) == (2, {"SESSION_LOST": 2})
    assert await one.step("a", 7, start=True) == 7


async def test_a_step_that_begins_anew_does_not_mind_that_the_one_before_was_not_written(clock: ManualClock) -> None:
    one = Stepping(clock)
    await one.step("a", 1, start=True)
    first, second = one.send("a", 2), one.send("a", 3, start=True)
    await turn()
    one.replicas[0].finish()
    (await first).unwritten()
    await one.settle()
    assert sum_of(second) == 3
    assert await one.step("a", 4) == 7


async def test_it_looks_like_one_pool(clock: ManualClock) -> None:
    one = Stepping(clock, replicas=2, max_queue=5)
    assert one.sessions.available
    assert list(one.sessions.replicas) == one.replicas
    assert [pool.spec.max_queue for pool in pools_of(one.sessions)] == [3, 3]
    assert pools_of(None) == ()
    assert pools_of(one.sessions.pools[0]) == (one.sessions.pools[0],)
    assert (one.sessions.batch_limit, one.sessions.counts_cost) == (256, False)
    assert one.sessions.curve is one.sessions.pools[0].curve
    for replica in one.replicas:
        replica.die()
    assert not one.sessions.available
