"""Streams and their service, with a worker that says what the test says and a clock that the test turns."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tests.runtime.streaming import STREAMS, Replica, values_of

from salver.protocol.errors import SalverError
from salver.protocol.frames import FrameKind
from salver.runtime.streams import StreamingPool, layer_streams
from salver.testing import eventually, make_request

LOST = SalverError("WORKER_LOST", "the worker died")


@pytest.fixture
def make(make_pool, clock):
    """A pool of a version that streams and its first replica."""

    def made(**spec):
        return Replica(make_pool(STREAMS, **spec), clock)

    return made


async def failure_of(stream):
    with pytest.raises(SalverError) as raised:
        await values_of(stream)
    return raised.value.code


async def test_a_stream_has_credit_for_a_few_chunks_and_gets_more_as_they_are_taken(make):
    one = make()
    stream = one.open()
    assert one.port.granted == [(1, 8)]
    for n in range(8):
        one.chunk(1, n)
    assert one.port.granted == [(1, 8)]
    assert [(await anext(stream)).array("y")[0, 0] for _ in range(4)] == [0, 1, 2, 3]
    assert one.port.granted == [(1, 8), (1, 4)]
    stream.close()


@pytest.mark.parametrize("number", [1, 2])
async def test_a_worker_that_sends_what_nobody_asked_for_is_not_trusted(make, number):
    one = make()
    one.open()
    for _ in range(8):
        one.chunk(1)
    with pytest.raises(ValueError, match="nobody asked for"):
        one.chunk(number)


async def test_a_worker_that_ends_what_is_not_open_is_not_trusted(make):
    one = make()
    with pytest.raises(ValueError, match="not open"):
        one.streams.ended(7, FrameKind.ENDED, "")


async def test_a_whole_stream_is_one_success(make, metrics, clock):
    one = make()
    stream = one.open(received_s=clock.monotonic_s())
    clock.advance(0.25)
    one.chunk(1)
    clock.advance(0.5)
    one.chunk(1)
    one.streams.ended(1, FrameKind.ENDED, "")
    assert len(await values_of(stream)) == 2
    assert (metrics.successes, metrics.rows, metrics.request_s.total) == (1, 1, 0.75)
    counted = metrics.streams
    assert (counted.opened, counted.chunks, counted.cancelled, counted.first_chunk_s.total) == (1, 2, 0, 0.25)
    assert one.port.cancelled == []


async def test_what_came_before_an_error_is_still_read(make, metrics):
    one = make()
    stream = one.open()
    one.chunk(1, 5)
    one.streams.ended(1, FrameKind.STREAM_RAISED, "ValueError: secret")
    assert (await anext(stream)).array("y")[0, 0] == 5
    with pytest.raises(SalverError) as raised:
        await anext(stream)
    assert raised.value.code == "MODEL_ERROR"
    assert "secret" not in str(raised.value)
    assert metrics.failures == {"MODEL_ERROR": 1}


async def test_a_stream_that_refuses_its_input_ends_with_the_models_words(make, metrics):
    one = make()
    stream = one.open()
    one.streams.ended(1, FrameKind.STREAM_RAISED, "BadInputError: too long", "too long")
    with pytest.raises(SalverError) as raised:
        await anext(stream)
    assert (raised.value.code, str(raised.value)) == ("BAD_INPUT", "too long")
    assert metrics.failures == {"BAD_INPUT": 1}


async def test_a_chunk_that_contradicts_the_signature_ends_its_stream(make, metrics):
    one = make()
    stream = one.open()
    one.chunk(1, y=np.zeros((3, 1), np.float32))
    assert one.port.cancelled == [1]
    # The worker does not know yet.
    one.chunk(1)
    one.streams.ended(1, FrameKind.ENDED, "")
    assert await failure_of(stream) == "BAD_MODEL_OUTPUT"
    assert metrics.failures == {"BAD_MODEL_OUTPUT": 1}
    assert metrics.streams.cancelled == 0


async def test_a_closed_stream_is_cancelled_once(make, metrics):
    one = make()
    stream = one.open()
    one.chunk(1)
    stream.close()
    stream.close()
    assert one.port.cancelled == [1]
    assert metrics.streams.cancelled == 1
    one.chunk(1)
    one.streams.ended(1, FrameKind.ENDED, "")
    assert (metrics.successes, metrics.failures) == (0, {})
    assert await values_of(stream) == []


async def test_a_deadline_ends_a_stream_and_its_caller_hears_of_it(make, clock, metrics):
    one = make()
    stream = one.open(deadline_s=clock.monotonic_s() + 2.0)
    waiting = asyncio.ensure_future(anext(stream))
    clock.advance(1.9)
    one.streams._look()
    assert one.port.cancelled == []
    clock.advance(0.2)
    one.streams._look()
    with pytest.raises(SalverError, match="had no end"):
        await waiting
    assert one.port.cancelled == [1]
    assert metrics.failures == {"DEADLINE_EXCEEDED": 1}


def let_pass(one, clock, seconds):
    """Time in which the event loop turns."""
    for _ in range(int(seconds / 0.5)):
        clock.advance(0.5)
        one.streams._look()


async def test_a_step_that_does_not_return_hangs(make, clock, metrics):
    one = make(hang_s=3.0)
    first, second = one.open(), one.open()
    let_pass(one, clock, 2.5)
    one.chunk(1)
    let_pass(one, clock, 3.0)
    assert one.given_up == 0
    let_pass(one, clock, 0.5)
    assert one.given_up == 1
    assert await failure_of(second) == "MODEL_HUNG"
    assert (await anext(first)).array("y")[0, 0] == 0
    assert await failure_of(first) == "MODEL_HUNG"
    assert metrics.failures == {"MODEL_HUNG": 2}
    assert not one.streams.accepts


async def test_a_large_chunk_on_its_way_is_no_hang(make, clock):
    one = make(hang_s=3.0)
    one.open()
    for _ in range(4):
        let_pass(one, clock, 2.5)
        one.streams.arriving()
    assert one.given_up == 0
    let_pass(one, clock, 3.5)
    assert one.given_up == 1


async def test_a_caller_who_does_not_read_is_no_hang(make, clock):
    one = make(hang_s=3.0)
    stream = one.open()
    for _ in range(8):
        one.chunk(1)
    let_pass(one, clock, 20.0)
    assert one.given_up == 0
    stream.close()
    # But a generator that does not let itself be closed is.
    let_pass(one, clock, 3.5)
    assert one.given_up == 1


async def test_while_a_batch_runs_it_is_the_batch_that_is_watched(make, clock):
    one = make(hang_s=3.0)
    one.open()
    one.busy = True
    let_pass(one, clock, 20.0)
    one.busy = False
    let_pass(one, clock, 3.0)
    assert one.given_up == 0
    let_pass(one, clock, 0.5)
    assert one.given_up == 1


async def test_a_loop_that_stood_still_is_no_hang(make, clock):
    one = make(hang_s=3.0)
    one.open()
    clock.advance(50.0)
    one.streams._look()
    assert one.given_up == 0


@pytest.mark.parametrize(("longest_s", "limit_s"), [(0.0, 30.0), (0.1, 5.0), (4.0, 12.0)])
async def test_how_long_a_step_may_take_follows_from_the_longest(make, longest_s, limit_s):
    one = make()
    one.streams._longest_s = longest_s
    assert one.streams._hang_limit_s() == limit_s


async def test_a_lost_worker_ends_its_streams_and_no_others(make, clock):
    one = make()
    other = Replica(one.pool, clock)
    first, second = one.open(), one.open()
    assert (one.port.opened, other.port.opened) == ([1], [1])
    one.streams.lost(LOST)
    assert await failure_of(first) == "WORKER_LOST"
    other.chunk(1, 3)
    other.streams.ended(1, FrameKind.ENDED, "")
    assert await values_of(second) == [3]
    # What the dead one had still said is heard by nobody.
    one.chunk(1)
    one.streams.ended(1, FrameKind.ENDED, "")


async def test_a_stream_goes_to_the_replica_with_fewest_and_is_refused_when_all_are_full(make, clock):
    one = make(max_streams=2)
    other = Replica(one.pool, clock)
    opened = [one.open() for _ in range(4)]
    assert (len(one.streams), len(other.streams)) == (2, 2)
    with pytest.raises(SalverError, match="2 streams are open on each replica") as raised:
        one.open()
    assert raised.value.code == "QUEUE_FULL"
    opened[0].close()
    # Its generator may still be closing.
    with pytest.raises(SalverError):
        one.open()
    one.streams.ended(1, FrameKind.ENDED, "")
    one.open()


async def test_who_cannot_be_answered_is_refused_at_once(make, clock):
    one = make(max_batch=1)
    service = StreamingPool(one.pool)
    for code, request in (
        ("TOO_MANY_ROWS", make_request([[1, 1], [2, 2]])),
        ("DEADLINE_EXCEEDED", make_request([[1, 1]], deadline_s=clock.monotonic_s())),
    ):
        with pytest.raises(SalverError) as raised:
            service.open_stream(request)
        assert raised.value.code == code
    one.streams.suspend()
    with pytest.raises(SalverError) as raised:
        one.open()
    assert raised.value.code == "NOT_READY"
    one.pool.unavailable(SalverError("NOT_READY", "the workers died too often"))
    with pytest.raises(SalverError, match="died too often"):
        one.open()
    assert one.port.opened == []


async def test_draining_waits_for_streams_that_are_open(make):
    one = make()
    stream = one.open()
    draining = asyncio.ensure_future(one.pool.drain(10.0))
    one.chunk(1)
    await anext(stream)
    assert not draining.done()
    one.streams.ended(1, FrameKind.ENDED, "")
    assert await draining
    assert await values_of(stream) == []


async def test_a_drain_that_takes_too_long_gives_up(make):
    one = make()
    one.open()
    assert not await one.pool.drain(0.01)


class TestJoined:
    """One answer out of what is streamed, for who asks for one."""

    async def ask(self, one, *chunks):
        one.pool.predicts = False
        answer = StreamingPool(one.pool)(make_request([[1, 1]]))
        await eventually(lambda: one.port.opened)
        for value, text in chunks:
            one.chunk(1, value, text)
        one.streams.ended(1, FrameKind.ENDED, "")
        return await answer

    async def test_text_is_joined_and_of_numbers_the_last_counts(self, make):
        response = await self.ask(make(), (1, "a "), (2, "b "), (3, "ç"))
        assert response.array("text").tolist() == [["a b ç".encode()]]
        assert response.array("y").tolist() == [[3]]
        assert (response.batch.placement, response.stop) == ("process", 1)

    async def test_no_chunk_is_no_answer(self, make):
        with pytest.raises(SalverError, match="before its first chunk"):
            await self.ask(make())

    async def test_a_version_that_predicts_is_asked_for_a_prediction(self, make):
        one = make()
        asked = StreamingPool(one.pool)(make_request([[1, 1]]))
        assert one.pool.waiting == 1
        asked.cancel()

    async def test_a_caller_that_leaves_at_once_closes_the_stream(self, make, metrics):
        one = make()
        one.pool.predicts = False
        asyncio.ensure_future(StreamingPool(one.pool)(make_request([[1, 1]]))).cancel()
        await eventually(lambda: one.port.cancelled == [1])
        assert metrics.streams.cancelled == 1

    async def test_a_refusal_comes_before_anything_is_awaited(self, make):
        one = make()
        one.pool.predicts = False
        one.streams.suspend()
        with pytest.raises(SalverError):
            StreamingPool(one.pool)(make_request([[1, 1]]))


async def test_a_pool_keeps_the_service_of_its_streams_while_it_is_there(make, make_pool):
    streaming, other, plain = make().pool, make().pool, make_pool()
    before = layer_streams([streaming, other, plain], {})
    assert before.keys() == {streaming, other}
    assert layer_streams([streaming, plain], before) == {streaming: before[streaming]}
