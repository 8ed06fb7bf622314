"""Servers that answer what a sound one never would, and count who asks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc

METADATA = (
    b'{"name":"m","versions":["1.0.0"],"platform":"p","inputs":[{"name":"X","datatype":"FP32","shape":[-1,1]}],'
    b'"outputs":[]}'
)
Y = b'{"model_version":"1.0.0","outputs":[{"name":"y","datatype":"%b","shape":[1,2],"parameters":{%b}}]}'
CLOSE, HOLD = b"close", b"hold"
"""Instead of an answer: close the connection, or say nothing."""


def reply(body: bytes, status: str = "200 OK", *headers: str, close: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, *(["connection: close"] if close else []), "", ""]).encode() + body


def answer(json: bytes, tail: bytes = b"", **options: Any) -> bytes:
    return reply(json + tail, "200 OK", f"inference-header-content-length: {len(json)}", **options)


GOOD = answer(Y % (b"FP32", b'"binary_data_size":8'), b"\0" * 8)
CONFIG = b'{"max_batch_size":8,"parameters":{"salver_idempotent":{"string_value":"%b"}}}'


def refusal(code: str, status: str = "503 Service Unavailable", *headers: str, close: bool = True) -> bytes:
    return reply(b'{"error":"no"}', status, f"x-salver-error: {code}", *headers, close=close)


class Asked(NamedTuple):
    """A request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int


class FakeHttp:
    """Gives `answers` in order, one for each request; keeps connections unless an answer says otherwise."""

    def __init__(self, answers: tuple[bytes, ...]) -> None:
        self.left = list(answers)
        self.asked: list[Asked] = []
        self.connections = 0
        self.gone = 0
        self.url = ""
        self._started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),))

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        try:
            while True:
                line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
                headers = dict(each.lower().split(": ", 1) for each in lines)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.asked.append(Asked(line, headers, body, number))
                said = self.left.pop(0)
                if said == HOLD:
                    await reader.read()
                    return
                if said == CLOSE:
                    return
                writer.write(said)
                await writer.drain()
                if b"connection: close" in said:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.gone += 1

    async def _main(self) -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._one, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        async with server:
            await self._done.wait()

    def start(self) -> None:
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()


@contextmanager
def serving(*answers: bytes) -> Iterator[FakeHttp]:
    """A server that gives `answers`, all of them."""
    fake = FakeHttp(answers)
    fake.start()
    try:
        yield fake
    finally:
        fake.stop()
    assert fake.left == []


class FakeGrpc:
    """Calls one of `answers` for each call to a method, in order: it returns a message or aborts."""

    def __init__(self, answers: dict[str, list[Any]]) -> None:
        self.left = answers
        self.asked: list[tuple[str, bytes, dict[str, str]]] = []
        self._threads = ThreadPoolExecutor(4)
        self._server = grpc.server(self._threads)
        self._server.add_generic_rpc_handlers((self,))
        self.url = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]

        def act(message: bytes, context: grpc.ServicerContext) -> bytes:
            self.asked.append((method, message, dict(context.invocation_metadata())))
            return self.left[method].pop(0)(context)

        return grpc.unary_unary_rpc_method_handler(act)

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()
        self._threads.shutdown()


@contextmanager
def serving_grpc(**answers: list[Any]) -> Iterator[FakeGrpc]:
    """A server of gRPC that gives `answers`, by the names of methods, all of them."""
    fake = FakeGrpc(answers)
    fake.start()
    try:
        yield fake
    finally:
        fake.stop()
    assert not any(fake.left.values())
