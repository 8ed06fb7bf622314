from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from salver.testing import ManualClock, ManualLoop


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def run(clock: ManualClock) -> Callable[[Callable[[ManualLoop], Awaitable[None]]], None]:
    """Runs a coroutine function on a loop whose time is `clock`, and in which no callback may raise."""
    faults: list[dict[str, Any]] = []

    def start(body: Callable[[ManualLoop], Awaitable[None]]) -> None:
        async def whole() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, ManualLoop)
            await body(loop)

        with asyncio.Runner(loop_factory=lambda: ManualLoop(clock)) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))
            runner.run(whole())
        assert faults == [], "a callback of the event loop raised"

    return start
