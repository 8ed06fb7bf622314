"""Gateways on real sockets, on an event loop of their own thread."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import uvloop
from tests.gateway.wire import RawClient, Reply, eventually, request

from salver.app import DataPlane
from salver.gateway.acceptor import Acceptor
from salver.gateway.gateway import Gateway
from salver.gateway.limits import Limits
from salver.protocol.request import BatchOutputs, Request, Response

Serve = Callable[..., "Served"]
ORDINARY = Limits(body_bytes=4 * 2**20, inflight_bytes=16 * 2**20)
IMPATIENT = Limits(
    header_timeout_s=0.3,
    body_grace_s=0.3,
    body_bytes_per_s=20_000.0,
    keep_alive_s=0.5,
    write_stall_s=0.4,
    linger_s=0.1,
)
"""Of a server that waits for nobody."""


class Layered:
    """A service made of a coroutine function, as fallback or shadow would be."""

    def __init__(self, act: Callable[[Request], Awaitable[Response]], *, available: bool = True) -> None:
        self.act = act
        self.available = available

    def __call__(self, request: Request) -> Awaitable[Response]:
        return self.act(request)


class HeldService:
    """A model that answers when the test says so; `Y` is as wide as the test says."""

    available = True

    def __init__(self) -> None:
        self.asked: list[tuple[Request, asyncio.Future[Response]]] = []
        self.width = 1

    def __call__(self, request: Request) -> asyncio.Future[Response]:
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.asked.append((request, answer))
        return answer

    def answer_one(self, waits: tuple[tuple[str, float], ...] = ()) -> None:
        request, answer = self.asked.pop(0)
        if not answer.done():
            values = np.full((request.rows, self.width), 0.5, np.float32)
            batch = BatchOutputs({"Y": values}, request.rows, compute_s=0.5, placement="thread")
            answer.set_result(Response("held", "1.0.0", batch, 0, request.rows, queue_s=0.25, waits=waits))


class LoopThread:
    """One event loop for all servers."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.problems: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.problems.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, act: Callable[[], Any]) -> Any:
        """Call `act`, or await what it returns, on the loop."""

        async def on_loop() -> Any:
            found = act()
            return await found if asyncio.iscoroutine(found) or asyncio.isfuture(found) else found

        return asyncio.run_coroutine_threadsafe(on_loop(), self.loop).result(30)

    def stop(self) -> None:
        self.run(self.loop.shutdown_default_executor)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Served:
    """A gateway behind a port of this machine."""

    def __init__(
        self, thread: LoopThread, gateway: Gateway, tls: ssl.SSLContext | None = None, **acceptor: Any
    ) -> None:
        self.thread, self.gateway = thread, gateway
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.acceptor: Acceptor = thread.run(lambda: Acceptor(self.listener, gateway, tls, **acceptor))
        self.plane: DataPlane | None = None
        self.held = HeldService()
        self.clients: list[RawClient] = []
        self._stopped = False
        thread.run(self.acceptor.start)
        thread.run(self._tick)

    def _tick(self) -> None:
        self.gateway.sweep()
        if not self._stopped:
            self.thread.loop.call_later(0.02, self._tick)

    def connect(self, *, receive_bytes: int | None = None) -> RawClient:
        connection = socket.socket()
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client = RawClient(connection)
        self.clients.append(client)
        connection.connect(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def ask(self, data: bytes) -> Reply:
        """Send on a fresh connection, read one reply, and go."""
        client = self.connect()
        try:
            return client.ask(data)
        finally:
            client.close()

    def get(self, path: str, *headers: str) -> Reply:
        return self.ask(request("GET", path, headers=headers))

    def post(self, path: str, body: bytes, *headers: str) -> Reply:
        return self.ask(request("POST", path, body, headers))

    def infer(self, body: object, *headers: str, model: str = "toy") -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.post(f"/v2/models/{model}/infer", data, *headers)

    def answer_held(self, count: int = 1, **how: Any) -> None:
        """Wait for `count` requests to the held model and answer them; `how` as for `answer_one`."""
        for _ in range(count):
            eventually(lambda: self.held.asked)
            self.thread.run(functools.partial(self.held.answer_one, **how))

    def is_quiet(self) -> bool:
        return not self.gateway.lanes and self.gateway.inflight_bytes == 0

    def settle(self) -> None:
        """Hang up on the server and wait until it holds nothing any more."""
        for client in self.clients:
            client.close()
        self.clients.clear()
        eventually(self.is_quiet)
        self.held.asked.clear()
        self.held.width = 1

    def stop(self) -> None:
        self.settle()
        self._stopped = True
        if self.listener.fileno() >= 0:
            self.thread.run(self.acceptor.stop)
        if self.plane is not None:
            self.plane.stop()
            self.thread.run(lambda: self.plane.jobs.close(0.0))
            self.thread.run(lambda: self.plane.host.close(5.0))
