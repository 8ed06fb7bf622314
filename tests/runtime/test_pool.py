from __future__ import annotations

import asyncio

import pytest
from tests.runtime.asking import ONE_LOOK_S, answer_of, ask, assert_settled, code_of, rows_of, started, turn

from salver.protocol.errors import SalverError
from salver.testing import HeldReplica, eventually, make_manifest

# The departed caller.


async def test_a_departed_caller_does_not_strand_its_batch(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    first, leaver, last = ask(pool, 1), ask(pool, 2), ask(pool, 3)
    assert rows_of(await started(replica)) == [1, 2, 3]
    leaver.cancel()
    replica.finish()
    assert (await first).array("y").tolist() == [[3, 3]]
    assert (await last).array("y").tolist() == [[7, 7]]
    assert leaver.cancelled()
    assert_settled(pool)


async def test_a_caller_that_departs_while_it_waits_is_not_in_the_batch(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    running = ask(pool, 0)
    await started(replica)
    first, leaver, last = ask(pool, 1), ask(pool, 2), ask(pool, 3)
    leaver.cancel()
    replica.finish()
    assert rows_of(await started(replica)) == [1, 3]
    replica.finish()
    await asyncio.gather(running, first, last)
    assert (answer_of(first), answer_of(last)) == ([[3, 3]], [[7, 7]])
    assert_settled(pool)


async def test_when_all_callers_depart_nothing_runs(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    for future in [ask(pool, 1), ask(pool, 2)]:
        future.cancel()
    await turn()
    assert replica.started == []
    assert_settled(pool)


async def test_departed_callers_make_room_in_a_full_queue(make_pool, clock) -> None:
    pool = make_pool(max_queue=3)
    replica = HeldReplica(pool)
    running = ask(pool, 0)
    await started(replica)
    leavers = [ask(pool, 1), ask(pool, 2), ask(pool, 3)]
    for future in leavers:
        future.cancel()
    clock.advance(1.0)
    stays = ask(pool, 4)
    replica.finish()
    assert rows_of(await started(replica)) == [4]
    replica.finish()
    await asyncio.gather(running, stays)


async def test_departed_callers_do_not_keep_a_pool_from_draining(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    running = ask(pool, 0)
    await started(replica)
    ask(pool, 1).cancel()
    drained = asyncio.ensure_future(pool.drain(5.0))
    await turn()
    replica.finish()
    assert await drained
    assert running.done()


async def test_a_success_that_nobody_received_is_not_counted(make_pool, metrics) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    stays, leaver = ask(pool, 1), ask(pool, 2)
    await started(replica)
    leaver.cancel()
    replica.finish()
    await stays
    assert (metrics.successes, metrics.rows, metrics.request_s.freeze().count) == (1, 2, 1)


# Deadlines.


async def test_an_expired_request_never_starts(make_pool, clock) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    running = ask(pool, 0)
    await started(replica)
    late = ask(pool, 1, deadline_s=clock.monotonic_s() + 1.0)
    patient = ask(pool, 2)
    clock.advance(1.0)
    # Before anybody looked at deadlines the replica is free again.
    replica.finish()
    assert rows_of(await started(replica)) == [2]
    assert code_of(late) == "DEADLINE_EXCEEDED"
    replica.finish()
    await asyncio.gather(running, patient)


async def test_a_waiting_request_hears_of_its_deadline_while_the_model_is_busy(make_pool, clock, metrics) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    running = ask(pool, 0)
    await started(replica)
    late = ask(pool, 1, deadline_s=clock.monotonic_s() + 1.0, received_s=clock.monotonic_s())
    clock.advance(1.0)
    with pytest.raises(SalverError, match=r"no answer after 1\.000 s: it was still queued") as raised:
        await asyncio.wait_for(late, ONE_LOOK_S)
    assert raised.value.code == "DEADLINE_EXCEEDED"
    assert metrics.failures == {"DEADLINE_EXCEEDED": 1}
    assert not running.done()
    replica.finish()
    await running
    assert len(replica.started) == 1


async def test_a_running_request_hears_of_its_deadline_too(make_pool, clock) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    late = ask(pool, 1, deadline_s=clock.monotonic_s() + 0.5)
    mate = ask(pool, 2)
    await started(replica)
    clock.advance(0.5)
    with pytest.raises(SalverError):
        await asyncio.wait_for(late, ONE_LOOK_S)
    replica.finish()
    assert (await mate).array("y").tolist() == [[5, 5]]


async def test_a_later_request_with_an_earlier_deadline_expires_first(make_pool, clock) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    running = ask(pool, 0)
    await started(replica)
    patient = ask(pool, 1, deadline_s=clock.monotonic_s() + 9.0)
    hasty = ask(pool, 2, deadline_s=clock.monotonic_s() + 1.0)
    clock.advance(2.0)
    with pytest.raises(SalverError):
        await asyncio.wait_for(hasty, ONE_LOOK_S)
    assert not patient.done()
    clock.advance(8.0)
    with pytest.raises(SalverError):
        await asyncio.wait_for(patient, ONE_LOOK_S)
    replica.finish()
    await running


async def test_expired_requests_are_answered_without_any_replica(make_pool, clock) -> None:
    pool = make_pool()
    late = ask(pool, 1, deadline_s=clock.monotonic_s() + 1.0)
    clock.advance(1.0)
    with pytest.raises(SalverError):
        await asyncio.wait_for(late, ONE_LOOK_S)
    clock.advance(1.0)
    await eventually(lambda: pool.waiting == 0)


# The end.


async def test_draining_waits_for_what_is_queued_and_running(make_pool) -> None:
    pool = make_pool(max_batch=1)
    replica = HeldReplica(pool)
    futures = [ask(pool, 1), ask(pool, 2)]
    drained = asyncio.ensure_future(pool.drain(10.0))
    for _ in futures:
        await started(replica)
        assert not drained.done()
        replica.finish()
        await turn()
    assert await drained
    await asyncio.gather(*futures)


async def test_draining_says_when_it_took_too_long(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    future = ask(pool, 1)
    await started(replica)
    assert not await pool.drain(0.01)
    replica.finish()
    await future


async def test_stopping_answers_whatever_is_left(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    running = ask(pool, 1)
    await started(replica)
    waiting = ask(pool, 2)
    await pool.stop(SalverError("NOT_READY", "taken away"))
    assert [code_of(future) for future in (running, waiting)] == ["NOT_READY"] * 2
    assert replica.stopped
    with pytest.raises(SalverError, match="taken away"):
        ask(pool, 3)
    assert_settled(pool)


async def test_an_answer_names_the_version_and_how_long_it_waited_and_ran(make_pool, clock) -> None:
    pool = make_pool(make_manifest(version="2.1.0"))
    replica = HeldReplica(pool)
    first = ask(pool, 0)
    await started(replica)
    second = ask(pool, 1)
    clock.advance(0.25)
    replica.finish(seconds=0.25)
    await started(replica)
    replica.finish(seconds=0.5)
    response = await second
    assert (response.model, response.version) == ("arithmetic", "2.1.0")
    assert (response.queue_s, response.batch.compute_s) == (0.25, 0.5)
    assert (await first).queue_s == 0
    assert pool.curve.predict(1) is not None
