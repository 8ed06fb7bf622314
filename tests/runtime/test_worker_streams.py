"""Streams on real workers: in turn, as fast as they are read, ended by whoever ends them."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal

import numpy as np
import pytest
from tests.runtime.streaming import PREDICTING, WIDE, notes, open_stream, streaming, values_of
from tests.runtime.workers import serving

from salver.protocol.errors import SalverError
from salver.runtime.streams import StreamingPool
from salver.testing import eventually, make_request


async def code_of(stream):
    with pytest.raises(SalverError) as raised:
        await values_of(stream)
    return raised.value.code


async def test_chunks_come_in_order_then_the_end_and_the_generator_is_done(store):
    async with serving(store, streaming(store)) as one:
        assert await values_of(open_stream(one, 20)) == list(range(20))
        assert notes(store) == ["begun 20", "closed 20"]
        assert len(one.pool.streams[0]) == 0
        # Without `predict` the parts are joined.
        assert not one.pool.predicts
        response = await StreamingPool(one.pool)(make_request([[3, 3], [0, 0]]))
        assert response.array("text").tolist() == [[b"<0><1><2>"], [b"<0><1><2>"]]


async def test_open_streams_are_stepped_in_turn(store):
    async with serving(store, streaming(store, 'self.note(f"{count}:{n}")')) as one:
        first, second = open_stream(one, 6), open_stream(one, 5)
        assert (await values_of(first), await values_of(second)) == (list(range(6)), list(range(5)))
        steps = [line[0] for line in notes(store) if ":" in line]
        # From where there are two, and as long as there are two.
        both = steps[steps.index("5") : len(steps) - steps[::-1].index("6")]
        assert all(one != other for one, other in itertools.pairwise(both))
        assert len(both) > 1


async def test_a_chunk_too_large_for_its_worker_ends_its_stream_and_not_the_worker(store):
    chunk = '{"y": np.broadcast_to(np.zeros(1, np.float32), (2**40,)), "text": np.array([["a"]], object)}'
    async with serving(store, streaming(store, chunk=chunk)) as one:
        pid = one.pid
        assert await code_of(open_stream(one, 1)) == "BAD_MODEL_OUTPUT"
        assert await values_of(open_stream(one, 0)) == []
        assert one.pid == pid


async def test_a_slow_reader_pauses_its_model_and_nobody_elses(store):
    async with serving(store, streaming(store, 'self.note(f"{count}:{n}")')) as one:
        slow = open_stream(one, 1000)
        await anext(slow)
        assert await values_of(open_stream(one, 100)) == list(range(100))
        assert len([line for line in notes(store) if line.startswith("1000:")]) == 8
        assert [(await anext(slow)).array("y")[0, 0] for _ in range(50)] == list(range(1, 51))
        slow.close()
        await eventually(lambda: "closed 1000" in notes(store))


async def test_an_exception_ends_its_stream_and_nothing_else(store):
    async with serving(store, streaming(store, 'if n == 2: raise ValueError("secret")')) as one:
        other = open_stream(one, 2)
        stream = open_stream(one, 5)
        assert [(await anext(stream)).array("y")[0, 0] for _ in range(2)] == [0, 1]
        assert await code_of(stream) == "MODEL_ERROR"
        assert await values_of(other) == [0, 1]
        assert "closed 5" in notes(store)


@pytest.mark.parametrize("chunk", ['{"y": x}', "None", '{"y": 1j * x, "text": x}', '{"y": x[:, :1], "text": x[:, :1]}'])
async def test_a_chunk_that_is_none_ends_its_stream(store, chunk):
    async with serving(store, streaming(store, chunk=chunk)) as one:
        assert await code_of(open_stream(one, 5)) == "BAD_MODEL_OUTPUT"
        await eventually(lambda: "closed 5" in notes(store))


async def test_batches_run_between_the_steps(store):
    async with serving(store, streaming(store, "time.sleep(0.002)", more=PREDICTING)) as one:
        stream = open_stream(one, 10_000)
        read = asyncio.ensure_future(values_of(stream))
        for value in range(5):
            response = await StreamingPool(one.pool)(make_request([[value, value]]))
            assert response.array("text")[0, 0] == b"predicted"
        assert not read.done()
        read.cancel()
        await eventually(lambda: "closed 10000" in notes(store))


async def test_streams_get_on_while_batch_follows_batch(store):
    async with serving(store, streaming(store, more=PREDICTING), max_batch=1) as one:
        asked = [StreamingPool(one.pool)(make_request([[1, 1]])) for _ in range(200)]
        assert await values_of(open_stream(one, 50)) == list(range(50))
        assert not asked[-1].done()
        await asyncio.gather(*asked)


async def test_a_killed_worker_ends_its_streams_and_the_next_one_serves(store):
    async with serving(store, streaming(store)) as one:
        stream = open_stream(one, 10_000)
        await anext(stream)
        os.kill(one.pid, signal.SIGKILL)
        assert await code_of(stream) == "WORKER_LOST"
        await eventually(lambda: one.pool.streams[0].accepts)
        assert await values_of(open_stream(one, 3)) == [0, 1, 2]


async def test_a_model_that_hangs_in_a_step_is_replaced(store):
    async with serving(store, streaming(store, "if n == 3: time.sleep(60)"), hang_s=0.3) as one:
        pid = one.pid
        assert await code_of(open_stream(one, 10)) == "MODEL_HUNG"
        await eventually(lambda: one.pool.streams[0].accepts)
        assert one.pid != pid
        assert await values_of(open_stream(one, 2)) == [0, 1]


async def test_a_version_that_is_taken_away_ends_its_streams_in_order(store):
    async with serving(store, streaming(store)) as one:
        stream = open_stream(one, 10_000)
        await anext(stream)
        await one.pool.stop(SalverError("NOT_READY", "taken away"))
        assert await code_of(stream) == "NOT_READY"
        assert notes(store)[-1] == "closed 10000"


async def test_large_chunks_of_several_streams_are_not_mixed_up(store):
    # Each larger than what goes through the socket, and more at a time than the shared memory holds.
    chunk = '{"y": np.full((len(x), 60_000), 1000 * count + n, np.float32)}'
    async with serving(store, streaming(store, chunk=chunk, signature=WIDE)) as one:

        async def read(count):
            stream = open_stream(one, count)
            arrays = [response.array("y") async for response in stream]
            stream.close()
            return arrays

        for count, arrays in zip((20, 21, 22), await asyncio.gather(*map(read, (20, 21, 22))), strict=True):
            assert len(arrays) == count
            assert all((array == np.float32(1000 * count + n)).all() for n, array in enumerate(arrays))


async def test_a_large_request_can_be_streamed(store):
    async with serving(store, streaming(store, signature=WIDE, chunk='{"y": x}'), max_batch=100_000) as one:
        rows = np.full((50_000, 2), 2.0, np.float32)
        stream = StreamingPool(one.pool).open_stream(make_request(rows))
        assert [response.array("y").shape async for response in stream] == [(50_000, 2)] * 2
