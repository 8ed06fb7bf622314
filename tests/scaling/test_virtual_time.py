from __future__ import annotations

import asyncio

import pytest

from salver.scaling.virtual_time import VirtualClock, VirtualLoop


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def loop(clock):
    made = VirtualLoop(clock)
    yield made
    made.close()


def test_time_passes_as_soon_as_nothing_is_left_to_do(loop, clock) -> None:
    async def act() -> list[float]:
        seen = [clock.monotonic_s()]
        for seconds in (0.5, 3600.0, 86_400.0 * 30):
            await asyncio.sleep(seconds)
            seen.append(clock.monotonic_s())
        return seen

    assert loop.run_until_complete(act()) == pytest.approx([0.0, 0.5, 3600.5, 3600.5 + 86_400 * 30])


def test_what_is_due_at_several_times_happens_in_their_order_each_at_its_own(loop, clock) -> None:
    happened = []

    async def act() -> None:
        done = asyncio.Event()
        for at_s in (0.3, 0.1, 0.2, 0.1):
            loop.call_at(at_s, lambda at_s=at_s: happened.append((at_s, clock.now_s)))
        loop.call_at(0.4, done.set)
        await done.wait()

    loop.run_until_complete(act())
    assert [at_s for at_s, _ in happened] == [0.1, 0.1, 0.2, 0.3]
    assert [now_s for _, now_s in happened] == pytest.approx([0.1, 0.1, 0.2, 0.3])


def test_computing_takes_no_time(loop, clock) -> None:
    async def act() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return clock.wall_s()

    assert loop.run_until_complete(act()) == 0.0


def test_waiting_for_what_no_time_brings_is_a_fault_and_not_a_standstill(loop) -> None:
    async def act() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="no time brings"):
        loop.run_until_complete(act())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.call_later(0, loop.stop)
    loop.run_forever()
