"""What an answer says of its time: waiting for a replica, being held for a fuller batch, computing."""

from __future__ import annotations

import asyncio

import pytest
from tests.runtime.asking import ask, started, turn

from salver.runtime.pool import Pool
from salver.testing import HeldReplica, ManualClock, ManualLoop, make_manifest, make_spec

WAITS = {"policy": "timeout", "max_wait_s": 2.0, "max_batch": 3}


def spans(answer: asyncio.Future) -> tuple[float, float]:
    """Seconds in the queue, and held."""
    response = answer.result()
    return pytest.approx(response.queue_s, abs=1e-4), pytest.approx(response.hold_s, abs=1e-4)


@pytest.fixture
def timed(clock: ManualClock):
    """Run a test on a loop whose timers go by the clock."""

    def run(act) -> None:
        with asyncio.Runner(loop_factory=lambda: ManualLoop(clock)) as runner:
            runner.run(act(runner.get_loop()))

    return run


def test_time_in_which_a_replica_was_free_was_spent_on_a_fuller_batch(timed, clock, metrics) -> None:
    async def act(loop: ManualLoop) -> None:
        pool = Pool(make_spec(**WAITS), make_manifest(), metrics, clock)
        replica = HeldReplica(pool)
        await loop.turn(5.0)
        first = ask(pool, 1)
        await loop.turn(1.5)
        second = ask(pool, 2)
        await loop.turn(0.6)
        assert replica.batch is not None
        replica.finish()
        assert (spans(first), spans(second)) == ((0.0, 2.0), (0.0, 0.5))
        assert metrics.queue_s.total == pytest.approx(2.5, abs=1e-4)

    timed(act)


def test_time_in_which_it_was_busy_was_spent_in_the_queue(timed, clock, metrics) -> None:
    async def act(loop: ManualLoop) -> None:
        pool = Pool(make_spec(**WAITS), make_manifest(), metrics, clock)
        replica = HeldReplica(pool)
        for value in range(3):
            ask(pool, value)
        await loop.calm()
        early = ask(pool, 4)
        await loop.turn(1.25)
        replica.finish()
        await loop.turn(0.25)
        late = ask(pool, 5)
        await loop.turn(0.5)
        replica.finish()
        assert (spans(early), spans(late)) == ((1.25, 0.75), (0.0, 0.5))

    timed(act)


def test_whichever_replica_takes_a_batch_it_was_held_since_any_has_been_free(timed, clock, metrics) -> None:
    async def act(loop: ManualLoop) -> None:
        pool = Pool(make_spec(**WAITS), make_manifest(), metrics, clock)
        first, second = HeldReplica(pool), HeldReplica(pool)
        for value in range(3):
            ask(pool, value)
        await loop.calm()
        runs = first if first.batch else second
        held = ask(pool, 4)
        await loop.turn(1.75)
        runs.finish()
        await loop.turn(0.5)
        for replica in (first, second):
            if replica.batch:
                replica.finish()
        assert spans(held) == (0.0, 2.0)

    timed(act)


async def test_an_eager_batch_is_never_held(make_pool, clock) -> None:
    pool = make_pool(max_batch=2)
    replica = HeldReplica(pool)
    clock.advance(9.0)
    answers = [ask(pool, value) for value in range(3)]
    await started(replica)
    clock.advance(0.5)
    replica.finish()
    await turn()
    replica.finish()
    assert [spans(answer) for answer in answers] == [(0.0, 0.0), (0.0, 0.0), (0.5, 0.0)]
