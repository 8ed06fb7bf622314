from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import httptools
import pytest
import uvloop

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Echo:
    """A server with known delays. `answer(number)` gives the delay and the bytes of each answer in turn.

    `stall_after(n, seconds)` makes it pause once, as a garbage collection would: answers due
    meanwhile all come when the pause is over.
    """

    def __init__(self) -> None:
        self.answer: Callable[[int], tuple[float, bytes]] = lambda _: (0.0, OK)
        self.seen = 0
        self.requests: list[bytes] = []
        self.port = 0
        self._stall: tuple[int, float] | None = None
        self.stalled_until_s = 0.0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stall_after(self, requests: int, seconds: float) -> None:
        self._stall = (requests, seconds)

    def delay_s(self) -> tuple[float, bytes]:
        delay_s, answer = self.answer(self.seen)
        self.seen += 1
        now_s = self.loop.time()
        if self._stall is not None and self.seen > self._stall[0]:
            self.stalled_until_s = now_s + self._stall[1]
            self._stall = None
        return max(delay_s, self.stalled_until_s - now_s), answer

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        server = await self.loop.create_server(lambda: EchoProtocol(self), "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._done.wait()
        server.close()


class EchoProtocol(asyncio.Protocol):
    def __init__(self, echo: Echo) -> None:
        self.echo = echo
        self.parser = httptools.HttpRequestParser(self)
        self.raw = b""

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.raw += data
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        if len(self.echo.requests) < 10:
            self.echo.requests.append(self.raw)
        self.raw = b""
        delay_s, answer = self.echo.delay_s()
        if delay_s > 0:
            self.echo.loop.call_later(delay_s, self.write, answer)
        else:
            self.write(answer)

    def write(self, answer: bytes) -> None:
        self.transport.write(answer)
        if b"connection: close" in answer or answer.endswith(b"\x00"):
            self.transport.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    server.start()
    yield server
    server.stop()
