from __future__ import annotations

import asyncio
import threading

import pytest
from tests.registry.promoting import person

from salver.control.waiting import Watch
from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec
from salver.runtime.status import EndpointStatus, LoadState
from salver.testing import ManualLoop, eventually


def doing(endpoint: str, state: LoadState, generation: int) -> EndpointStatus:
    return EndpointStatus(
        endpoint=endpoint,
        state=state,
        required=True,
        wanted="m@1.0.0",
        serving=None,
        available=True,
        code=None,
        problem=None,
        placement=None,
        replicas=1,
        waiting=0,
        running=0,
        workers=(),
        restarts=0,
        generation=generation,
        curve={},
    )


def spec(endpoint: str, generation: int = 1) -> DeploymentSpec:
    return DeploymentSpec(endpoint, "m", "1.0.0", generation=generation)


class Server:
    """What a server says, looked at from threads."""

    def __init__(self, *endpoints: EndpointStatus) -> None:
        self.says: list[EndpointStatus] = list(endpoints)
        self.looks = 0
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    def __call__(self) -> tuple[EndpointStatus, ...]:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.looks += 1
            return tuple(self.says)
        finally:
            with self._lock:
                self.at_once -= 1


def test_all_who_wait_are_served_by_one_look_and_nobody_looks_when_nobody_waits(run) -> None:
    async def body(loop: ManualLoop) -> None:
        server = Server(doing("e", LoadState.LOADING, 1))
        watch = Watch(server)
        waiting = [loop.create_task(watch.reached(spec("e"), 100.0)) for _ in range(50)]
        await eventually(lambda: server.looks == 1)
        assert not any(each.done() for each in waiting)
        server.says = [doing("e", LoadState.READY, 1)]

        async def all_served() -> None:
            while not all(each.done() for each in waiting):
                await loop.turn(0.05)
                await loop.pause()

        await asyncio.wait_for(loop.create_task(all_served()), None)
        assert {each.result().state for each in waiting} == {LoadState.READY}
        assert server.most_at_once == 1
        await loop.turn(0.1)
        looks = server.looks
        await loop.turn(10.0)
        assert server.looks == looks <= 4

    run(body)


@pytest.mark.parametrize(
    ("says", "reached"),
    [
        (doing("e", LoadState.FAILED, 2), True),
        (doing("e", LoadState.READY, 3), True),
        (doing("e", LoadState.READY, 1), False),
        (doing("other", LoadState.READY, 2), False),
        (doing("e", LoadState.LOADING, 2), False),
    ],
)
def test_reached_is_what_is_wanted_or_later_and_decided(run, says, reached) -> None:
    async def body(loop: ManualLoop) -> None:
        server = Server(says)
        waiting = loop.create_task(Watch(server).reached(spec("e", 2), 1.0))
        await eventually(lambda: server.looks > 0)
        if not reached:
            await loop.turn(1.01)
        assert await waiting == (says if reached else None)

    run(body)


def test_a_look_that_fails_is_looked_again(run) -> None:
    async def body(loop: ManualLoop) -> None:
        said: list[object] = []

        def look() -> tuple[EndpointStatus, ...]:
            said.append(None)
            if len(said) == 1:
                raise OSError("gone")
            return (doing("e", LoadState.READY, 1),)

        waiting = loop.create_task(Watch(look).reached(spec("e"), 100.0))
        await eventually(lambda: said)
        while not waiting.done():
            await loop.turn(0.05)
            await loop.pause()
        assert waiting.result().state is LoadState.READY

    run(body)


def test_places_are_bounded_and_come_back(run) -> None:
    async def body(_: ManualLoop) -> None:
        watch, ann, ben = Watch(Server(), most=2), person("ann"), person("ben")
        with watch.place(ann):
            with watch.place(ben), pytest.raises(SalverError, match="2 requests that wait") as refused:
                watch.place(ann).__enter__()
            assert refused.value.code == "QUEUE_FULL"
            with watch.place(ben):
                pass

    run(body)
