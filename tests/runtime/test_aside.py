from __future__ import annotations

import asyncio
import threading

import pytest

from salver.runtime.aside import run_aside
from salver.testing import eventually

NAME = "salver test aside"


async def test_what_the_work_returns_or_raises_is_passed_on() -> None:
    discarded: list[int] = []
    assert await run_aside(lambda: 1, discarded.append, NAME) == 1
    with pytest.raises(ZeroDivisionError):
        await run_aside(lambda: 1 // 0, discarded.append, NAME)
    assert discarded == []


async def test_a_result_that_comes_after_its_waiter_left_is_discarded_beside_the_loop() -> None:
    go, discarded = threading.Event(), []
    waiting = asyncio.ensure_future(
        run_aside(lambda: go.wait(30), lambda _: discarded.append(threading.current_thread()), NAME)
    )
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.set()
    await eventually(lambda: discarded)
    assert discarded[0] is not threading.main_thread()


async def test_a_result_that_its_waiter_has_not_taken_when_it_leaves_is_discarded_once() -> None:
    discarded: list[int] = []
    waiting = asyncio.ensure_future(run_aside(lambda: 1, discarded.append, NAME))
    await asyncio.sleep(0)
    for thread in threading.enumerate():
        if thread.name == NAME:
            thread.join()
    # The loop knows of the result; it is told to give it to the waiter, and then that the waiter leaves.
    asyncio.get_running_loop().call_soon(waiting.cancel)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await eventually(lambda: discarded == [1])


async def test_after_its_waiter_left_a_failure_is_nobodys() -> None:
    go, discarded = threading.Event(), []

    def fail() -> None:
        go.wait(30)
        raise ValueError

    waiting = asyncio.ensure_future(run_aside(fail, discarded.append, NAME))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.set()
    await eventually(lambda: not any(thread.name == NAME for thread in threading.enumerate()))
    await asyncio.sleep(0)
    assert discarded == []
