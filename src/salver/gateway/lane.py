"""One client connection of the data listener: bytes in, replies out, in order, under limits.

One request of a connection is answered at a time; the few that a client may send ahead wait,
also while the client does not read. Whatever happens to the connection, each request that was
taken is either answered once or abandoned, and gives back the bytes it was counted with.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from salver.gateway.connection import Connection, bound_unsent
from salver.gateway.exchange import Exchange
from salver.gateway.reader import Phase, RequestReader
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.gateway.gateway import Gateway

__all__ = ["Lane"]

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_JOINED_BYTES: Final = 64 * 2**10
"""Up to here a reply is copied behind its head, which is cheaper than a second write."""
_LAST_CHANCE_S: Final = 0.2
"""At the end: how long a quiet connection is kept for a request that is on its way."""
_IDLE: Final = Phase.IDLE


class Lane(RequestReader):
    """A connection. Times that only serve timeouts of a second and more come from `gateway.now_s`."""

    __slots__ = (
        "_answering",
        "_half_closed",
        "_paced",
        "_quiet_s",
        "_refusal",
        "_room",
        "_waiting",
    )

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self._answering: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._refusal: SalverError | None = None
        """What is wrong with the last of those that wait: the stream could not be read further."""
        self._half_closed = False
        self._room: asyncio.Future[None] | None = None
        """What a reply of several parts waits for while the client does not read."""
        self._paced: tuple[Exchange, int, float] | None = None
        self._quiet_s: float | None = None

    # The connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client is there."""
        # uvloop's transports satisfy asyncio.Transport without being subclasses of it.
        self._transport = cast("asyncio.Transport", transport)
        self._since_s = self.gateway.now_s
        self.gateway.lanes.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the client is gone."""
        del exc
        self.phase = Phase.CLOSING
        self.gateway.lanes.discard(self)
        self._transport = None
        # It refers to this lane: without it both are freed at once, not when garbage is collected.
        self._parser = None
        if self._answering is not None:
            self._release(self._answering)
            self._answering.abandon()
            self._answering = None
        self._drop_unanswered()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes from the client."""
        if self.phase is Phase.CLOSING:
            return
        try:
            self._feed(data)
        except SalverError as error:
            self._refuse(error)

    def eof_received(self) -> bool:
        """asyncio: the client sends no more, because it has gone or because that was all.

        What it is owed is still answered. Whether anybody reads it is found out by sending the
        one thing that means nothing: from a client that has gone it brings a reset, see `sweep`.
        """
        transport = self._transport
        owed = self._waiting[-1] if self._waiting else self._answering
        if owed is None or transport is None or not transport.can_write_eof():
            return False
        owed.keep_alive = False
        self._half_closed = True
        self.phase = Phase.CLOSING
        self._drop_incoming()
        # To a client of HTTP/1.0 it would mean something. The parser knows, or has never been asked.
        if self._parser.get_http_version() != "1.0" and not owed.connection and self._stalled_s is None:
            transport.write(_CONTINUE)
        return True

    def resume_writing(self) -> None:
        """asyncio: the client reads again."""
        self._stalled_s = None
        self._since_s = self.gateway.now_s
        self._paced = None
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_read(self._transport):
            self._transport.resume_reading()
        if self._answering is None and self._waiting:
            self._begin_next()

    def _is_read(self, transport: asyncio.Transport) -> bool:
        return not self._half_closed and super()._is_read(transport)

    # Requests.

    def _take(self, exchange: Exchange) -> None:
        most = self.gateway.limits.pipelined
        if self._ahead > most + 1 or len(self._waiting) >= most:
            # Also where each was answered at once: a read may hold thousands, and others wait meanwhile.
            self._incoming = exchange
            raise SalverError(
                "TOO_MANY_PIPELINED",
                f"more than {most} requests were sent ahead on this connection",
                "read the answers before sending more",
            )
        if self._answering is None and self._stalled_s is None:
            self._answering = exchange
            self.gateway.begin(exchange)
        else:
            self._waiting.append(exchange)

    def _invite(self) -> None:
        if self._transport is not None and self._answering is None and not self._waiting:
            assert self._incoming is not None
            self.gateway.check_head(self._incoming)
            self._transport.write(_CONTINUE)

    def _refuse(self, error: SalverError) -> None:
        """Answer what cannot be read on, after the replies that are still owed, and close."""
        exchange = self._incoming or Exchange(self, b"", self._target, self._headers)
        self._incoming = None
        self._body = bytearray()
        self._release(exchange)
        exchange.body = b""
        self.phase = Phase.CLOSING
        self._since_s = self.gateway.now_s
        exchange.received_s = self._since_s
        if self._answering is None and not self._waiting:
            self._answering = exchange
            self.gateway.name(exchange)
            exchange.refuse(error, close=True)
        else:
            self._refusal = error
            self._waiting.append(exchange)

    # Replies.

    def expect_parts(self) -> None:
        """A reply of many parts begins: a client that does not read them is to be noticed soon."""
        bound_unsent(self._transport)

    async def send_part(self, exchange: Exchange, data: bytes) -> None:
        """Write a part of the reply of the exchange being answered, and wait until the client reads; `send` ends it.

        What the exchange has asked counts no longer: it is with the model.
        """
        if self._transport is not None:
            self._transport.write(data)
        if exchange.body_bytes:
            self._release(exchange)
        while self._stalled_s is not None and self._transport is not None:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def send(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """Write the reply of the exchange being answered, or the rest of it, and begin the next one."""
        transport = self._transport
        if transport is None:
            return
        assert exchange is self._answering
        if len(body) < _JOINED_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        if exchange.body_bytes:
            self._release(exchange)
        self._answering = None
        if not exchange.keep_alive:
            self._finish()
        elif self._waiting and self._stalled_s is None:
            self._begin_next()

    def _begin_next(self) -> None:
        exchange = self._answering = self._waiting.popleft()
        if self._refusal is None or self._waiting:
            self.gateway.begin(exchange)
        else:
            self.gateway.name(exchange)
            exchange.refuse(self._refusal, close=True)

    def _release(self, exchange: Exchange) -> None:
        self.gateway.inflight_bytes -= exchange.body_bytes
        exchange.body_bytes = 0

    def _drop_unanswered(self) -> None:
        """Forget the requests that were sent ahead and the one on its way in."""
        for exchange in self._waiting:
            self._release(exchange)
        self._waiting.clear()
        self._drop_incoming()

    def _drop_incoming(self) -> None:
        if self._incoming is not None:
            self._release(self._incoming)
            self._incoming = None
        self._body = bytearray()

    def _finish(self) -> None:
        """Close after a last reply: at once, or after a pause while more comes that nobody will read."""
        transport = self._transport
        assert transport is not None
        more_may_come = self.phase is not _IDLE or self.gateway.draining
        self._drop_unanswered()
        self.phase = Phase.CLOSING
        self._since_s = self.gateway.now_s
        if more_may_come and not self._half_closed and transport.can_write_eof():
            # Closing with unread bytes would reset the connection under the reply.
            transport.write_eof()
        else:
            transport.close()

    @property
    def is_encrypted(self) -> bool:
        """Whether the client has seen a certificate of this server."""
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is not None

    def hand_over(self, exchange: Exchange, head: bytes, other: Connection) -> None:
        """Answer an exchange for the last time, and leave the connection to another protocol."""
        transport = self._transport
        assert transport is not None
        assert exchange is self._answering
        self._release(exchange)
        self._answering = self._transport = self._parser = None
        self.gateway.lanes.discard(self)
        transport.write(head)
        transport.set_protocol(other)
        other.connection_made(transport)

    @property
    def is_last(self) -> bool:
        """Whether nothing has come behind the request being answered."""
        return not self._waiting and self.phase is not Phase.HEADERS and self.phase is not Phase.BODY

    # Time.

    def sweep(self, now_s: float) -> None:
        """Close the connection if it is too slow, stalled, idle for too long, or a departed client's."""
        transport, limits = self._transport, self.gateway.limits
        if transport is None:
            return
        waited_s = now_s - self._since_s
        if self._half_closed and _is_reset(transport):
            transport.abort()
        elif self._stalled_s is not None:
            self._sweep_stalled(transport, now_s)
        elif self.phase is Phase.CLOSING:
            self._sweep_closing(transport, waited_s)
        elif self.phase is Phase.HEADERS:
            if waited_s > limits.header_timeout_s:
                self._refuse(
                    SalverError("REQUEST_TIMEOUT", f"the headers did not end within {limits.header_timeout_s:g} s")
                )
        elif self.phase is Phase.BODY:
            self._sweep_body(now_s)
        elif self._answering is not None:
            self._since_s = now_s
        elif waited_s > limits.keep_alive_s:
            transport.close()

    def _sweep_closing(self, transport: asyncio.Transport, waited_s: float) -> None:
        """The end of a pause for the client to see why; a reply still on its way has longer."""
        limits = self.gateway.limits
        if self._answering is not None or waited_s <= limits.linger_s:
            return
        if not transport.get_write_buffer_size() or waited_s > limits.write_stall_s:
            transport.abort()

    def _sweep_body(self, now_s: float) -> None:
        """Refuse a body that comes too slowly, looked at stretch by stretch."""
        exchange, limits = self._incoming, self.gateway.limits
        assert exchange is not None
        if self._paced is None or self._paced[0] is not exchange:
            self._paced = (exchange, exchange.body_bytes, now_s)
            return
        _, bytes_before, began_s = self._paced
        if now_s - began_s < limits.body_grace_s:
            return
        if exchange.body_bytes - bytes_before < (now_s - began_s) * limits.body_bytes_per_s:
            self._paced = None
            self._refuse(
                SalverError("REQUEST_TIMEOUT", f"the body came slower than {limits.body_bytes_per_s:g} bytes a second")
            )
        else:
            self._paced = (exchange, exchange.body_bytes, now_s)

    def drain(self, now_s: float) -> None:
        """Close the connection once it has been quiet for a moment and nothing is owed to the client."""
        if self.phase is not _IDLE or self._answering is not None or self._transport is None:
            return
        if self._quiet_s is None:
            self._quiet_s = now_s
        elif now_s - self._quiet_s >= _LAST_CHANCE_S:
            self._transport.close()


def _is_reset(transport: asyncio.Transport) -> bool:
    # Nothing reads from a half-closed connection, so nobody else would see the reset.
    connection = transport.get_extra_info("socket")
    return connection is None or connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
