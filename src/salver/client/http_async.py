"""HTTP/1.1 on an event loop."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, cast

from salver.client.address import Address
from salver.client.dialect import Question, Reply
from salver.client.errors import CallError
from salver.client.http_request import broken, is_quiet, late, refused_connection, write_request
from salver.client.http_response import BadResponseError, ResponseReader
from salver.clock import Clock
from salver.protocol.errors import SalverError

__all__ = ["AsyncHttpTransport"]

_IDLE_S: Final = 30.0
"""As in `http_sync`."""


class AsyncHttpTransport:
    """See `AsyncTransport`. At most `connections` are open; who finds all in use waits for one.

    Who cancels a call closes its connection, which tells the server that nobody waits any more.
    """

    def __init__(self, address: Address, tls: ssl.SSLContext | None, connections: int, clock: Clock) -> None:
        self._address = address
        self._tls = tls
        self._clock = clock
        self._room = asyncio.BoundedSemaphore(connections)
        self._idle: list[_Connection] = []
        self._closed = False

    async def exchange(self, question: Question, left_s: float) -> Reply:
        """Send a question on a connection that is free, or a new one."""
        if self._closed:
            raise SalverError("CONFLICT", "the client is closed", "make another one")
        problem = late(self._address, sent=False)
        try:
            async with asyncio.timeout(left_s if left_s < float("inf") else None), self._room:
                connection = self._take()
                if connection is None:
                    problem = refused_connection(self._address, TimeoutError())
                    connection = await self._connect()
                problem = late(self._address, sent=True)
                return await self._exchange_on(connection, question)
        except TimeoutError:
            raise problem from None

    async def _exchange_on(self, connection: _Connection, question: Question) -> Reply:
        whole = False
        try:
            reply = await connection.exchange(write_request(question, self._address))
            whole = True
            return reply
        finally:
            # Also when the caller has gone: half an answer must not be there for the next.
            self._give_back(connection, whole=whole)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self._address),
                self._address.host,
                self._address.port,
                ssl=self._tls,
                server_hostname=self._address.host if self._tls is not None else None,
            )
        except TimeoutError as error:
            # The kernel's, not the caller's, which cancels.
            raise refused_connection(self._address, error) from None
        except OSError as error:
            raise refused_connection(self._address, error) from None
        return connection

    def _take(self) -> _Connection | None:
        oldest_s = self._clock.monotonic_s() - _IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.since_s >= oldest_s and connection.is_quiet():
                return connection
            connection.abort()
        return None

    def _give_back(self, connection: _Connection, *, whole: bool) -> None:
        if whole and connection.usable and not self._closed:
            connection.since_s = self._clock.monotonic_s()
            self._idle.append(connection)
        else:
            connection.abort()

    async def close(self) -> None:
        """Close the connections; those in use when they have their answers."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()
        # Closed sockets are gone after a turn of the loop; TLS takes one more.
        await asyncio.gather(*(connection.gone for connection in idle))


class _Connection(asyncio.BufferedProtocol):
    """A connection with at most one request on it."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._reader = ResponseReader()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.since_s = 0.0
        """When it was last used."""

    @property
    def usable(self) -> bool:
        """Whether it can take another request."""
        return self._transport is not None and not self._transport.is_closing() and self._reader.keep_alive

    def is_quiet(self) -> bool:
        """Whether the server has not closed it meanwhile, also if the loop has not been told yet."""
        return self.usable and is_quiet(cast("asyncio.Transport", self._transport).get_extra_info("socket").fileno())

    async def exchange(self, parts: list[bytes | memoryview]) -> Reply:
        """Send a request and wait for the reply. REQUIRES that it is usable, and that no other is on it."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        for part in parts:
            self._transport.write(part)
        try:
            return await self._answer
        finally:
            self._answer = None

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: connected."""
        # uvloop's transports satisfy asyncio.Transport without being subclasses of it.
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where bytes go."""
        del sizehint
        return self._reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: bytes came."""
        if self._answer is None:
            self.abort()  # what nobody asked for
            return
        try:
            reply = self._reader.received(nbytes)
        except BadResponseError as error:
            self.abort()
            self._fail(
                CallError("INTERNAL", f"{self._address.url} does not speak HTTP/1.1: {error}", may_have_run=True)
            )
            return
        if reply is not None:
            self._succeed(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._transport = None
        if not self.gone.done():
            self.gone.set_result(None)
        reply = self._reader.ended() if exc is None and self._answer is not None else None
        if reply is not None:
            self._reader.keep_alive = False
            self._succeed(reply)
        else:
            problem = exc or "closed before the answer was whole"
            self._fail(broken(self._address, problem, sent=True, understood=self._reader.understood))

    def _succeed(self, reply: Reply) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reply)

    def _fail(self, error: CallError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
