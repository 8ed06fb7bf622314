from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from salver.config import Settings
from salver.processes.order import Order
from salver.processes.places import Places
from salver.processes.siblings import Siblings, StandIn
from salver.telemetry.counts import Picture, write_counts
from salver.telemetry.metrics import Metrics
from salver.testing import eventually


class Doors:
    """Records what is asked of an acceptor."""

    def __init__(self) -> None:
        self.state = "at rest"

    def start(self) -> None:
        self.state = "accepts"

    def rest(self) -> None:
        self.state = "at rest"

    def let_go(self) -> None:
        self.state = "closed"


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order("home", str(tmp_path), Settings(), (-1, -1, -1), (), -1, -1, -1, supervisor_pid=1)


@pytest.fixture
def places(order) -> Places:
    return Places(order.places_path, 3)


async def stand_in(places: Places, doors: dict[int, Any]) -> StandIn:
    standing = StandIn(places, [1, 2], lambda slot: [doors.setdefault(slot, Doors())])
    standing.start()
    return standing


async def test_it_accepts_for_those_who_are_away_until_they_are_back(places) -> None:
    doors: dict[int, Any] = {}
    places.take(2)
    standing = await stand_in(places, doors)
    await eventually(lambda: doors[1].state == "accepts")
    assert doors[2].state == "at rest"
    places.leave(2)
    places.take(1)
    await eventually(lambda: (doors[1].state, doors[2].state) == ("at rest", "accepts"))
    assert standing.leave() == []
    assert (doors[1].state, doors[2].state) == ("closed", "closed")


async def test_when_all_leave_it_keeps_what_nobody_else_accepts_from_and_takes_no_more(places) -> None:
    doors: dict[int, Any] = {}
    places.take(2)
    standing = await stand_in(places, doors)
    await eventually(lambda: doors[1].state == "accepts")
    places.close_all()
    places.leave(2)
    standing._look()
    assert doors[2].state == "at rest"
    assert standing.leave() == [doors[1]]
    assert (doors[1].state, doors[2].state) == ("accepts", "closed")


def counted(successes: int) -> Picture:
    metrics = Metrics()
    metrics.version("e", "1.0.0").successes = successes
    metrics.connections = 5
    return Picture(metrics)


async def test_of_one_that_does_not_answer_what_it_left_counts_but_not_what_it_had(order) -> None:
    write_counts(order.of(1).counts_path, counted(3).bytes())
    told, nothing = await Siblings(order).pictures()
    assert told.metrics.version("e", "1.0.0").successes == 3
    assert (told.metrics.connections, nothing.metrics.versions) == (0, {})


@pytest.mark.parametrize("answer", [b"HTTP/1.1 500 Oh\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nnonsense", b""])
async def test_what_is_no_answer_counts_as_none(order, answer) -> None:
    write_counts(order.of(1).counts_path, counted(3).bytes())

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(talk, order.of(1).server_socket)
    told, _ = await Siblings(order).pictures()
    assert told.metrics.version("e", "1.0.0").successes == 3
    server.close()
    await server.wait_closed()


async def test_one_that_answers_is_asked(order) -> None:
    write_counts(order.of(1).counts_path, counted(3).bytes())
    live = b"HTTP/1.1 200 OK\r\n\r\n" + counted(4).bytes()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(live)
        writer.close()

    server = await asyncio.start_unix_server(talk, order.of(1).server_socket)
    told, _ = await Siblings(order).pictures()
    assert (told.metrics.version("e", "1.0.0").successes, told.metrics.connections) == (4, 5)
    server.close()
    await server.wait_closed()
