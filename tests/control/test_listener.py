"""Clients that keep the control listener waiting, on real sockets and a clock that the test turns."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from salver.control.listener import ControlLimits, ControlServer
from salver.testing import ManualLoop, eventually

LIMITS = ControlLimits(connections=4)
GET = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


class Client:
    """One connection; what has come is in `got`, and `over` says that it has ended."""

    def __init__(self, loop: ManualLoop, port: int) -> None:
        self._loop = loop
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setblocking(False)
        self.got = b""
        self.over = False

    async def send(self, data: bytes) -> None:
        self._socket.send(data)
        await self._loop.calm()

    def look(self) -> bool:
        """Read what there is; whether the connection is over."""
        with contextlib.suppress(BlockingIOError):
            while not self.over:
                data = b""
                with contextlib.suppress(ConnectionResetError):
                    data = self._socket.recv(1 << 20)
                self.got += data
                self.over = not data
        return self.over

    async def ends(self) -> None:
        await eventually(self.look)

    async def answer(self) -> int:
        """The status of the next answer, which is taken away."""
        await eventually(lambda: self.look() or b"\r\n\r\n" in self.got)
        head, _, self.got = self.got.partition(b"\r\n\r\n")
        return int(head.split()[1])

    def close(self) -> None:
        self._socket.close()


class Served:
    """A control server with two small pages, and its clients."""

    def __init__(self, loop: ManualLoop, limits: ControlLimits) -> None:
        self.loop = loop
        self.gone: list[str] = []
        pages = [Route("/live", self._live), Route("/echo", self._echo, methods=["POST"]), Route("/much", self._much)]
        self.server = ControlServer(Starlette(routes=pages), limits)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.clients: list[Client] = []

    async def _live(self, _: Request) -> Response:
        return PlainTextResponse("live")

    async def _echo(self, request: Request) -> Response:
        try:
            return PlainTextResponse(str(len(await request.body())))
        except ClientDisconnect:
            self.gone.append("echo")
            return Response(status_code=400)

    async def _much(self, _: Request) -> Response:
        return PlainTextResponse(b"x" * (32 << 20))

    async def open(self) -> None:
        self.server.config.load()
        await self.server.startup([self._listener])
        assert self.server.started

    def client(self) -> Client:
        self.clients.append(Client(self.loop, self._listener.getsockname()[1]))
        return self.clients[-1]

    @property
    def open_connections(self) -> int:
        return len(self.server.server_state.connections)

    async def connects(self, count: int) -> None:
        await eventually(lambda: self.open_connections == count)

    async def close(self) -> None:
        for client in self.clients:
            client.close()
        for each in self.server.servers:
            each.close()
        self._listener.close()
        await self.connects(0)
        await asyncio.gather(*self.server.server_state.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def serving(loop: ManualLoop, limits: ControlLimits = LIMITS) -> AsyncIterator[Served]:
    served = Served(loop, limits)
    await served.open()
    try:
        yield served
    finally:
        await served.close()


@pytest.mark.parametrize("later", [False, True])
def test_a_head_that_is_never_complete_has_its_time_and_each_byte_gives_it_no_more(run, later) -> None:
    async def body(loop: ManualLoop) -> None:
        async with serving(loop) as served:
            client = served.client()
            if later:
                await client.send(GET)
                assert await client.answer() == 200
                client.look()
                client.got = b""
            await client.send(b"GET /live HTTP/1.1\r\n")
            for _ in range(9):
                await loop.turn(1.0)
                await client.send(b"x: y\r\n")
            assert not client.look()
            await loop.turn(1.01)
            await client.ends()
            head, _, said = client.got.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408 ")
            assert b"x-salver-error: REQUEST_TIMEOUT" in head
            assert "headers" in json.loads(said)["message"]
            await served.connects(0)

    run(body)


def test_who_never_says_anything_is_let_go(run) -> None:
    async def body(loop: ManualLoop) -> None:
        async with serving(loop) as served:
            silent = [served.client() for _ in range(4)]
            await served.connects(4)
            await loop.turn(10.0)
            for client in silent:
                await client.ends()
            await served.connects(0)

    run(body)


def test_a_new_connection_gets_the_place_of_the_one_that_waited_longest_for_nothing(run) -> None:
    async def body(loop: ManualLoop) -> None:
        async with serving(loop) as served:
            silent = []
            for count in range(1, 5):
                silent.append(served.client())
                await silent[-1].send(b"GET /")
                await served.connects(count)
                await loop.turn(0.1)
            for turn in range(3):
                client = served.client()
                await client.send(GET)
                assert await client.answer() == 200
                await silent[turn].ends()
                assert served.open_connections == 4
            assert not silent[3].look()

    run(body)


def test_a_request_that_is_being_received_keeps_its_place(run) -> None:
    async def body(loop: ManualLoop) -> None:
        async with serving(loop) as served:
            busy = [served.client() for _ in range(4)]
            for client in busy:
                await client.send(POST % 10)
            await served.connects(4)
            more = served.client()
            await more.send(GET)
            assert await more.answer() == 503
            for client in busy:
                await client.send(b"0123456789")
                assert await client.answer() == 200

    run(body)


def test_a_body_that_comes_too_slowly_is_refused_and_nobody_goes_on_reading_it(run) -> None:
    async def body(loop: ManualLoop) -> None:
        async with serving(loop) as served:
            slow, fast = served.client(), served.client()
            await slow.send(POST % 100_000 + b"x" * 100)
            await fast.send(POST % 100_000 + b"x" * 20_000)
            await loop.turn(5.0)
            await slow.ends()
            assert slow.got.startswith(b"HTTP/1.1 408 ")
            assert b"1024 bytes a second" in slow.got
            assert served.gone == ["echo"]
            assert not fast.look()
            await loop.turn(5.0)
            await fast.send(b"x" * 80_000)
            assert await fast.answer() == 200

    run(body)


def test_a_client_that_does_not_read_its_answer_is_let_go(run) -> None:
    async def body(loop: ManualLoop) -> None:
        async with serving(loop) as served:
            client = served.client()
            await client.send(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await served.connects(1)
            await loop.turn(29.0)
            assert served.open_connections == 1
            await loop.turn(1.01)
            await served.connects(0)

    run(body)


def test_a_quiet_connection_is_closed_after_its_answer(run) -> None:
    async def body(loop: ManualLoop) -> None:
        async with serving(loop) as served:
            client = served.client()
            for _ in range(3):
                await client.send(GET)
                assert await client.answer() == 200
                client.got = b""
                await loop.turn(4.0)
            await loop.turn(1.01)
            await client.ends()

    run(body)


def test_an_address_that_a_client_writes_itself_is_not_believed(run) -> None:
    async def body(loop: ManualLoop) -> None:
        seen: list[str] = []

        async def who(request: Request) -> Response:
            seen.append(request.client.host)
            return PlainTextResponse("")

        async with serving(loop) as served:
            served.server.config.loaded_app.routes.append(Route("/who", who))
            client = served.client()
            await client.send(b"GET /who HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 10.1.2.3\r\n\r\n")
            assert await client.answer() == 200
        assert seen == ["127.0.0.1"]

    run(body)
