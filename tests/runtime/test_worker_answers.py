"""Whose answer it is: copies of a worker, kept inputs, answers that nobody asked for."""

from __future__ import annotations

import asyncio

import numpy as np
from tests.runtime.workers import free, serving

from salver.protocol.frames import SHARED_ABOVE_BYTES
from salver.testing import make_request

FORKS = """
if (x == 9).any() and os.fork() == 0:
    threading.Event().wait(0.3)
    return {'y': x * 0 - 666}
if (x > 99).any():
    threading.Event().wait(0.1)
"""
KEEPS = """
kept = getattr(self, 'kept', x)
self.kept = x
x = kept
"""
SPEAKS_OUT_OF_TURN = """
if (x == 9).any():
    import gc, socket
    from salver.protocol.frames import FrameKind, ProblemHeader, pack_frame
    for one in gc.get_objects():
        if isinstance(one, socket.socket):
            one.sendall(pack_frame(FrameKind.RAISED, ProblemHeader(1, 'not asked')))
"""


async def test_a_forked_copy_of_a_worker_never_answers_for_it(store) -> None:
    async with serving(store, free(store, FORKS)) as one:
        assert await one.answer(9) == 19
        answers = [await one.answer(value) for value in range(100, 110)]
        assert answers == [2 * value + 1 for value in range(100, 110)]


async def test_what_a_model_keeps_of_its_inputs_stays_as_it_was(store) -> None:
    rows = SHARED_ABOVE_BYTES // 8 + 1  # of two numbers of four bytes
    async with serving(store, free(store, KEEPS), max_batch=2 * rows) as one:
        firsts = []
        for value in (1.0, 2.0, 3.0):
            answer = await one.pool(make_request(np.full((rows, 2), value).tolist()))
            firsts.append(answer.array("y")[0, 0].item())
        assert firsts == [3, 3, 5]


async def test_a_worker_that_answers_what_nobody_asked_is_replaced(store) -> None:
    async with serving(store, free(store, SPEAKS_OUT_OF_TURN)) as one:
        assert await one.answer(1) == 3
        first = one.pid
        results = await asyncio.gather(one.answer(9), one.answer(2), return_exceptions=True)
        assert results[1] == 5 or isinstance(results[1], Exception)
        assert await one.answer(3) == 7
        assert one.pid != first
