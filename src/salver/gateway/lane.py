"""One client connection of the data listener: bytes in, replies out, in order, under limits.

llhttp (through httptools) reads HTTP/1.1 strictly; what it would buffer without end or leave
to its user - header sizes, repeated and contradicting headers, paces, stalls - is held here.
One request of a connection is answered at a time; the few that a client may send ahead wait.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

import httptools

from salver.gateway.exchange import Exchange
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.gateway.gateway import Gateway

__all__ = ["Lane"]

_ONCE: Final = frozenset(
    {
        b"host",
        b"content-type",
        b"content-encoding",
        b"content-length",
        b"transfer-encoding",
        b"authorization",
        b"inference-header-content-length",
    }
)
"""Headers whose repetition would let two readers of the request see two different requests."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Phase(enum.Enum):
    IDLE = enum.auto()
    HEADERS = enum.auto()
    BODY = enum.auto()
    CLOSING = enum.auto()
    """A final reply is or will be sent; what else comes is thrown away."""


class Lane(asyncio.Protocol):
    """A connection. Times that only serve timeouts of a second and more come from `gateway.now_s`."""

    __slots__ = (
        "_answering",
        "_body",
        "_body_bytes",
        "_chunked",
        "_expects",
        "_header_bytes",
        "_headers",
        "_parser",
        "_phase",
        "_since_s",
        "_stalled_s",
        "_target",
        "_transport",
        "_waiting",
        "gateway",
    )

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._phase = _Phase.IDLE
        self._since_s = gateway.now_s
        self._stalled_s: float | None = None
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._chunked = False
        self._expects = False
        self._answering: Exchange | None = None
        self._waiting: deque[tuple[Exchange, SalverError | None]] = deque()

    # The connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client is there."""
        # uvloop's transports satisfy asyncio.Transport without being subclasses of it.
        self._transport = cast("asyncio.Transport", transport)
        self.gateway.lanes.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the client is gone."""
        del exc
        self.gateway.lanes.discard(self)
        self.gateway.inflight_bytes -= self._body_bytes
        self._body_bytes = 0
        self._transport = None
        if self._answering is not None:
            self.gateway.inflight_bytes -= len(self._answering.body)
            self._answering.abandon()
            self._answering = None
        for exchange, _ in self._waiting:
            self.gateway.inflight_bytes -= len(exchange.body)
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes from the client."""
        if self._phase is _Phase.CLOSING:
            return
        if self._phase is _Phase.IDLE:
            self._since_s = self.gateway.now_s
            self._phase = _Phase.HEADERS
            self._header_bytes = 0
        if self._phase is _Phase.HEADERS:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(SalverError("UNSUPPORTED", "this server does not change protocols on a connection"))
        except httptools.HttpParserCallbackError as error:
            # Raised by our own callbacks below, on purpose or by a fault of ours.
            cause = error.__context__
            if not isinstance(cause, SalverError):
                self.gateway.fault(cause or error)
                cause = SalverError("INTERNAL", "the request could not be read")
            self._refuse(cause)
        except httptools.HttpParserError as error:
            self._refuse(SalverError("BAD_HTTP", f"this is no HTTP/1.1 request: {error}"))
        else:
            # Headers still incomplete: the parser holds them, and would hold any amount.
            if self._phase is _Phase.HEADERS and self._header_bytes > self.gateway.limits.header_bytes:
                self._refuse(self._headers_too_large())

    def pause_writing(self) -> None:
        """asyncio: the client does not read."""
        self._stalled_s = self.gateway.now_s
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """asyncio: the client reads again."""
        self._stalled_s = None
        if self._transport is not None:
            self._transport.resume_reading()

    # What llhttp found.

    def on_url(self, url: bytes) -> None:
        """httptools: (a part of) the request target."""
        self._phase = _Phase.HEADERS
        self._target += url
        if len(self._target) > self.gateway.limits.uri_bytes:
            raise SalverError("URI_TOO_LONG", f"the request target exceeds {self.gateway.limits.uri_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        name = name.lower()
        headers = self._headers
        if name in headers:
            if name in _ONCE:
                raise SalverError("BAD_HTTP", f"the header {name.decode('latin-1')!r} stands twice in the request")
            value = b"%b, %b" % (headers[name], value)
        elif len(headers) >= self.gateway.limits.headers:
            raise SalverError("HEADERS_TOO_LARGE", f"more than {self.gateway.limits.headers} headers")
        headers[name] = value

    def on_headers_complete(self) -> None:
        """httptools: the headers are whole; refuse here what need not be read further."""
        headers, limits = self._headers, self.gateway.limits
        if self._header_bytes > limits.header_bytes and self._measure_headers() > limits.header_bytes:
            raise self._headers_too_large()
        if b"host" not in headers and self._parser.get_http_version() == "1.1":
            raise SalverError("BAD_HTTP", "the request has no Host header")
        if b"transfer-encoding" in headers and (
            headers[b"transfer-encoding"].lower() != b"chunked" or self._parser.get_http_version() != "1.1"
        ):
            raise SalverError("BAD_HTTP", "the only transfer coding is chunked, in HTTP/1.1")
        declared = headers.get(b"content-length")
        self._chunked = declared is None
        if declared is not None:
            self._check_body(int(declared))
        if b"expect" in headers:
            if headers[b"expect"].lower() != b"100-continue":
                raise SalverError("BAD_HTTP", "the only expectation is 100-continue")
            self._expects = True
            if self._transport is not None and self._answering is None and not self._waiting:
                self._transport.write(_CONTINUE)
        self._phase = _Phase.BODY

    def on_body(self, body: bytes) -> None:
        """httptools: (a part of) the body, without chunk framing."""
        if self._chunked:
            self._check_body(self._body_bytes + len(body))
        self._body_bytes += len(body)
        self.gateway.inflight_bytes += len(body)
        self._body.append(body)

    def on_message_complete(self) -> None:
        """httptools: the request is whole."""
        parser, gateway = self._parser, self.gateway
        exchange = Exchange(
            self, parser.get_method().decode(), self._target, self._headers, gateway.clock.monotonic_s()
        )
        body = self._body
        exchange.body = body[0] if len(body) == 1 else b"".join(body)
        exchange.keep_alive = parser.should_keep_alive() and not gateway.draining
        self._target = b""
        self._headers = {}
        self._body = []
        self._body_bytes = 0
        self._header_bytes = 0
        self._phase = _Phase.IDLE
        self._since_s = gateway.now_s
        if self._answering is None:
            self._answering = exchange
            gateway.begin(exchange)
            return
        if len(self._waiting) >= gateway.limits.pipelined:
            gateway.inflight_bytes -= len(exchange.body)
            exchange.body = b""
            raise SalverError(
                "TOO_MANY_PIPELINED",
                f"more than {gateway.limits.pipelined} requests wait on this connection",
                "read the answers before sending more",
            )
        self._waiting.append((exchange, None))

    def _check_body(self, size: int) -> None:
        limits = self.gateway.limits
        if size > limits.body_bytes:
            raise SalverError(
                "BODY_TOO_LARGE", f"the body has {size} bytes or more; at most {limits.body_bytes} may come"
            )
        if self.gateway.inflight_bytes + size - self._body_bytes > limits.inflight_bytes:
            raise SalverError(
                "QUEUE_FULL", f"the bodies in flight would exceed {limits.inflight_bytes} bytes", "retry later"
            )

    def _measure_headers(self) -> int:
        # A read may hold more than the headers, so what came together is measured exactly.
        return len(self._target) + sum(len(name) + len(value) + 4 for name, value in self._headers.items())

    def _headers_too_large(self) -> SalverError:
        return SalverError(
            "HEADERS_TOO_LARGE", f"request line and headers exceed {self.gateway.limits.header_bytes} bytes"
        )

    # Replies.

    def _refuse(self, error: SalverError) -> None:
        """Answer what cannot be read on, after the replies that are still owed, and close."""
        self._phase = _Phase.CLOSING
        self.gateway.inflight_bytes -= self._body_bytes
        self._body_bytes = 0
        self._body = []
        self._since_s = self.gateway.now_s
        exchange = Exchange(self, "", self._target, {}, self._since_s)
        exchange.id = self.gateway.next_id()
        if self._answering is None:
            self._answering = exchange
            exchange.refuse(error, close=True)
        else:
            self._waiting.append((exchange, error))

    def send(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """Write the reply of the exchange being answered and begin the next one."""
        transport = self._transport
        if transport is None:
            return
        assert exchange is self._answering
        transport.write(head + body if len(body) < 65536 else head)
        if len(body) >= 65536:
            transport.write(body)
        self.gateway.inflight_bytes -= len(exchange.body)
        self._answering = None
        if not exchange.keep_alive:
            self._finish()
        elif self._waiting:
            self._begin_next()

    def _begin_next(self) -> None:
        exchange, error = self._waiting.popleft()
        self._answering = exchange
        if error is None:
            self.gateway.begin(exchange)
        else:
            exchange.refuse(error, close=True)

    def _finish(self) -> None:
        """Close after a last reply: at once, or after a pause while more of a refused request comes."""
        assert self._transport is not None
        for exchange, _ in self._waiting:
            self.gateway.inflight_bytes -= len(exchange.body)
        self._waiting.clear()
        unread = self._phase is not _Phase.IDLE
        self._phase = _Phase.CLOSING
        self._since_s = self.gateway.now_s
        if unread and self._transport.can_write_eof():
            # Closing with unread bytes would reset the connection under the reply.
            self._transport.write_eof()
        else:
            self._transport.close()

    def sweep(self, now_s: float) -> None:
        """Close the connection if it is too slow, stalled or idle for too long."""
        transport, limits = self._transport, self.gateway.limits
        if transport is None:
            return
        waited_s = now_s - self._since_s
        if self._stalled_s is not None:
            if now_s - self._stalled_s > limits.write_stall_s:
                transport.abort()
        elif self._phase is _Phase.CLOSING:
            if waited_s > limits.linger_s and self._answering is None:
                transport.abort()
        elif self._phase is _Phase.HEADERS:
            if waited_s > limits.header_timeout_s:
                self._refuse(
                    SalverError("REQUEST_TIMEOUT", f"the headers did not end within {limits.header_timeout_s:g} s")
                )
        elif self._phase is _Phase.BODY:
            late_s = waited_s - limits.body_grace_s
            if late_s > 0 and self._body_bytes < late_s * limits.body_bytes_per_s:
                self._refuse(
                    SalverError(
                        "REQUEST_TIMEOUT", f"the body came slower than {limits.body_bytes_per_s:g} bytes a second"
                    )
                )
        elif self._answering is None and waited_s > limits.keep_alive_s:
            transport.close()

    def drain(self) -> None:
        """Close as soon as nothing is owed to the client."""
        if self._answering is not None:
            self._answering.keep_alive = False
        elif self._phase is _Phase.IDLE and self._transport is not None:
            self._transport.close()

    @property
    def owes(self) -> bool:
        """Whether a reply is being computed, or a request is on its way in."""
        return self._answering is not None or self._phase in (_Phase.HEADERS, _Phase.BODY)
