"""One request after another out of a stream of bytes, under limits.

llhttp (through httptools) reads HTTP/1.1 strictly; what it would buffer without end or leave
to its user is held here: sizes of targets, headers and bodies, repeated and contradicting
headers, versions, trailers, endless chunk framing. Every refusal is raised as a `SalverError`.
"""

from __future__ import annotations

import enum
import re
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final

import httptools

from salver.gateway.connection import Connection
from salver.gateway.exchange import Exchange
from salver.gateway.heads import KnownHead
from salver.gateway.websocket.handshake import lift_token
from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.gateway.gateway import Gateway

__all__ = ["Phase", "RequestReader"]

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
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]*)(?::[0-9]*)?")
"""RFC 9110 section 7.2: uri-host [":" port]; empty where the target has no authority."""
_HEARD_OUT_BYTES: Final = 256 * 2**10
"""A body that has more is refused before it is whole, if its head is enough for that."""
_HEARD: Final = frozenset({b"connection", b"upgrade", b"http2-settings", b"expect"})
"""What has had its effect when a request is read a second time: the offer, and the invitation to send the body."""
_REMEMBERED_HOSTS: Final = 64
_KEPT_ALIVE: Final = b"connection: keep-alive\r\n"
"""What a client of HTTP/1.0 that asked for it must be told."""
_LENGTH_DIGITS: Final = 18
_CHUNK_FRAMING_BYTES: Final = 14
"""The length in hexadecimal and two CRLFs that a chunk needs at most; more is padding."""


class Phase(enum.Enum):
    """What the next byte of a connection belongs to."""

    IDLE = enum.auto()
    HEADERS = enum.auto()
    BODY = enum.auto()
    CLOSING = enum.auto()
    """A final reply is or will be sent; what else comes is thrown away."""


# An attribute of an enum costs as much as a call, and these are looked at several times a request.
_IDLE: Final = Phase.IDLE
_HEADERS: Final = Phase.HEADERS
_BODY: Final = Phase.BODY
_CLOSING: Final = Phase.CLOSING


class RequestReader(Connection):
    """The reading half of a connection: what llhttp finds becomes exchanges.

    `phase` tells where the stream stands. `_incoming` is the request whose headers are whole and
    whose body is coming; its bytes are in `gateway.inflight_bytes` from the moment they come.
    """

    __slots__ = (
        "_ahead",
        "_body",
        "_chunks",
        "_declined",
        "_framed_bytes",
        "_header_bytes",
        "_headers",
        "_incoming",
        "_lasting",
        "_parser",
        "_read_bytes",
        "_repeats",
        "_since_s",
        "_target",
        "_whole",
        "phase",
    )

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self.phase = _IDLE
        self._since_s = gateway.now_s
        """When the present phase began, or the present stretch of a body."""
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._repeats = 0
        self._header_bytes = 0
        """Of this request's target and headers, what came in reads of its own."""
        self._read_bytes = 0
        self._incoming: Exchange | None = None
        self._lasting = True
        """Whether the last request left the connection open for another."""
        self._whole: Exchange | None = None
        """The last request of the present read that was read whole."""
        self._ahead = 0
        """How many requests the present read has brought to their end."""
        self._body = bytearray()
        """A body that comes in more than one part, while it comes."""
        self._chunks = 0
        """Of a chunked body, one more than have begun; else 0."""
        self._framed_bytes = 0
        """All that came since the headers of a chunked body: it and its framing."""
        self._declined = False
        """Whether the request on its way in offers another protocol, see `_decline`."""
        self._parser: Any = httptools.HttpRequestParser(self)

    @abstractmethod
    def _take(self, exchange: Exchange) -> None:
        """A request is whole."""

    def _feed(self, data: bytes) -> None:
        """Read on; raises SalverError where the stream cannot or must not be read further."""
        size = self._read_bytes = len(data)
        idle = self.phase is _IDLE
        if idle:
            known = self.gateway.heads.find(data) if self._lasting else None
            if known is not None:
                self._take_known(*known)
                return
            self._since_s = self.gateway.now_s
            self.phase = _HEADERS
            self._header_bytes = size
        elif self.phase is _HEADERS:
            self._header_bytes += size
        else:
            self._framed_bytes += size
        self._ahead = 0
        read_bytes = self._parse(data)
        if read_bytes is not None:
            self._decline(memoryview(data)[read_bytes:])
            self._whole = None
        whole, self._whole = self._whole, None
        if self.phase is not _IDLE:
            self._check_growth()
        elif idle and whole is not None:
            self.gateway.heads.learn(data, whole)

    def _take_known(self, head: KnownHead, body: bytes) -> None:
        """A read that is one request with a head read before: what `on_headers_complete` and on would find."""
        gateway = self.gateway
        self._since_s = gateway.now_s
        size = head.body_bytes
        exchange = Exchange(
            self, head.method, head.target, head.headers, True, gateway.clock.monotonic_s(), body, size, head.connection
        )
        gateway.inflight_bytes += size
        if gateway.inflight_bytes > gateway.limits.inflight_bytes:
            self._incoming = exchange
            self._check_body(size, gateway.inflight_bytes)
        self._take(exchange)

    def _decline(self, rest: memoryview) -> None:
        """Read on as before behind a request that offered another protocol, where llhttp stops.

        RFC 9110 section 7.8 lets us ignore the offer, which some clients make with their first
        request whatever it is. llhttp has not read its body: a new parser is given the request
        again without the offer.
        """
        while self.phase is not _CLOSING:
            exchange, self._incoming = self._incoming, None
            if exchange is None:
                raise SalverError("UNSUPPORTED", "this server opens no tunnels")
            if self._is_for_websocket(exchange):
                self._incoming = exchange
                self._take_offer(exchange, rest)
                return
            self._parser = httptools.HttpRequestParser(self)
            self._chunks = self._repeats = 0
            self._declined = False
            self.phase = _HEADERS
            kept = [b"%b: %b\r\n" % pair for pair in exchange.headers.items() if pair[0] not in _HEARD]
            if not exchange.keep_alive:
                kept.append(b"connection: close\r\n")
            self._parse(b"%b %b HTTP/1.1\r\n%b\r\n" % (exchange.method, exchange.target, b"".join(kept)))
            read_bytes = self._parse(rest)
            if read_bytes is None:
                return
            rest = rest[read_bytes:]

    def _is_for_websocket(self, exchange: Exchange) -> bool:
        if exchange.method != b"GET" or exchange.headers[b"upgrade"].lower() != b"websocket":
            return False
        try:
            return self.gateway.routes.resolve(exchange.method, exchange.target).route.upgrades
        except SalverError:
            return False

    def _take_offer(self, exchange: Exchange, rest: memoryview) -> None:
        """The last request that is read here: what comes behind it is not HTTP, or nothing if it is refused."""
        headers = exchange.headers
        if rest or headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
            raise SalverError("BAD_HTTP", "something follows the offer of WebSocket before that was taken")
        lift_token(headers)
        self._incoming = None
        exchange.keep_alive = False
        exchange.received_s = self.gateway.clock.monotonic_s()
        self.phase = _CLOSING
        self._take(exchange)

    def _parse(self, data: bytes | memoryview) -> int | None:
        """Let llhttp read; where a request offers another protocol, how many bytes it took before it stopped.

        No exception is being handled when a callback of ours raises: Python would put that one
        in the place where httptools left ours, and `_explain` would not find it.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as pause:
            return int(pause.args[0])
        except httptools.HttpParserError as error:
            self._explain(error)
        return None

    def _explain(self, error: Exception) -> None:
        """What httptools raised, as an error of the catalogue."""
        if self.phase is _CLOSING:
            return
        if not isinstance(error, httptools.HttpParserCallbackError):
            raise SalverError("BAD_HTTP", f"this is no HTTP/1.1 request: {error}")
        # Raised by our own callbacks below, on purpose or by a fault of ours.
        cause = error.__context__
        if isinstance(cause, SalverError):
            raise cause
        self.gateway.fault(cause or error)
        raise SalverError("INTERNAL", "the request could not be read")

    def _check_growth(self) -> None:
        """Refuse what the parser would hold or skip without end: headers, chunk framing, trailers."""
        limit = self.gateway.limits.header_bytes
        if self.phase is _HEADERS:
            if self._header_bytes > limit:
                raise self._too_large()
        elif self.phase is _BODY and self._chunks:
            assert self._incoming is not None
            needed = self._incoming.body_bytes + self._chunks * _CHUNK_FRAMING_BYTES + self._read_bytes
            if self._framed_bytes - needed > limit:
                raise SalverError("BAD_HTTP", f"chunk extensions and trailers exceed {limit} bytes")

    # What llhttp found.

    def on_message_begin(self) -> None:
        """httptools: the first byte of a request, in a read of its own or behind another."""
        if self.phase is not _HEADERS:
            if self.phase is _CLOSING:
                raise SalverError("BAD_HTTP", "the connection is being closed")
            self.phase = _HEADERS
            self._since_s = self.gateway.now_s
            self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """httptools: (a part of) the request target."""
        self._target = self._target + url if self._target else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header, or one trailer, which goes unread."""
        name = name.lower()
        headers = self._headers
        if name in headers:
            if name in _ONCE:
                raise SalverError("BAD_HTTP", f"the header {name.decode('latin-1')!r} stands twice in the request")
            value = b"%b, %b" % (headers[name], value)
            self._repeats += 1
        headers[name] = value

    def on_headers_complete(self) -> None:
        """httptools: the headers are whole; refuse here what need not be read further."""
        gateway, headers, parser = self.gateway, self._headers, self._parser
        limits = gateway.limits
        if self._read_bytes > gateway.unmeasured_bytes or self._header_bytes > gateway.unmeasured_bytes:
            self._measure()
        if len(headers) + self._repeats > limits.headers:
            raise SalverError("HEADERS_TOO_LARGE", f"more than {limits.headers} headers")
        keep_alive = parser.should_keep_alive()
        # What follows is an error of this request, which is answered with its id.
        self._incoming = Exchange(self, parser.get_method(), self._target, headers, keep_alive)
        self._target = b""
        self._headers = {}
        self.phase = _BODY
        if b"connection" in headers or not keep_alive:
            self._check_connection(self._incoming)
        if headers.get(b"host") not in gateway.hosts:
            self._check_host(headers)
        declared = headers.get(b"content-length")
        if declared is None:
            if b"transfer-encoding" in headers:
                self._check_coding(headers)
        elif len(declared) > _LENGTH_DIGITS:
            raise SalverError("BAD_HTTP", f"Content-Length has {len(declared)} digits")
        elif (size := int(declared)) > limits.body_bytes or gateway.inflight_bytes + size > limits.inflight_bytes:
            self._check_body(size, gateway.inflight_bytes + size)
        if b"expect" in headers:
            self._expected(headers[b"expect"])

    def on_chunk_header(self) -> None:
        """httptools: a chunk begins."""
        self._chunks += 1

    def on_body(self, body: bytes) -> None:
        """httptools: (a part of) the body, without chunk framing."""
        exchange, gateway = self._incoming, self.gateway
        assert exchange is not None
        size = len(body)
        if exchange.body_bytes:
            if exchange.route is None and exchange.body_bytes + size > _HEARD_OUT_BYTES:
                # Whoever would be refused whatever the body is shall not fill the memory with it.
                gateway.check_head(exchange)
            if not self._body:
                self._body += exchange.body
                exchange.body = b""
            self._body += body
        else:
            exchange.body = body
        gateway.inflight_bytes += size
        size = exchange.body_bytes = exchange.body_bytes + size
        if size > gateway.limits.body_bytes or gateway.inflight_bytes > gateway.limits.inflight_bytes:
            self._check_body(size, gateway.inflight_bytes)

    def on_message_complete(self) -> None:
        """httptools: the request is whole."""
        exchange = self._incoming
        assert exchange is not None
        if self._declined:
            return
        if self._body:
            exchange.body = bytes(self._body)
            self._body = bytearray()
        if self._chunks or self._repeats:
            self._chunks = self._repeats = self._framed_bytes = 0
            self._headers = {}
        self._incoming = None
        self.phase = _IDLE
        self._whole = exchange
        self._ahead += 1
        self._lasting = exchange.keep_alive
        exchange.received_s = self.gateway.clock.monotonic_s()
        self._take(exchange)

    # What is looked at only where something is out of the ordinary.

    def _check_connection(self, exchange: Exchange) -> None:
        version = self._parser.get_http_version()
        if version not in _VERSIONS:
            raise SalverError("BAD_HTTP", f"this is HTTP/{version}", "speak HTTP/1.1")
        if version == "1.0":
            # Written only to those that stay; to all it tells that they know no chunks.
            exchange.connection = _KEPT_ALIVE
        if b"upgrade" in exchange.headers and self._parser.should_upgrade():
            if version != "1.1":
                raise SalverError("BAD_HTTP", f"HTTP/{version} offers no other protocols")
            self._declined = exchange.method != b"CONNECT"

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host")
        if host is None:
            if self._parser.get_http_version() == "1.1":
                raise SalverError("BAD_HTTP", "the request has no Host header")
            return
        if not _HOST.fullmatch(host):
            raise SalverError("BAD_HTTP", f"the Host header {host[:80].decode('latin-1')!r} names no host")
        if len(host) <= 255 and len(self.gateway.hosts) < _REMEMBERED_HOSTS:
            self.gateway.hosts.add(host)

    def _check_coding(self, headers: dict[bytes, bytes]) -> None:
        if headers[b"transfer-encoding"].lower() != b"chunked" or self._parser.get_http_version() != "1.1":
            raise SalverError("BAD_HTTP", "the only transfer coding is chunked, in HTTP/1.1")
        self._framed_bytes = 0
        self._chunks = 1

    def _check_body(self, size: int, inflight_bytes: int) -> None:
        limits = self.gateway.limits
        if size > limits.body_bytes:
            raise SalverError(
                "BODY_TOO_LARGE", f"the body has {size} bytes or more; at most {limits.body_bytes} may come"
            )
        raise SalverError(
            "QUEUE_FULL",
            f"the bodies in flight would have {inflight_bytes} bytes; at most {limits.inflight_bytes} may be",
            "retry later",
        )

    def _expected(self, expectation: bytes) -> None:
        if self._parser.get_http_version() != "1.1":
            return
        if expectation.lower() != b"100-continue":
            raise SalverError(
                "BAD_HTTP",
                f"the request expects {expectation[:40].decode('latin-1')!r}",
                "the only expectation met is 100-continue",
            )
        self._invite()

    @abstractmethod
    def _invite(self) -> None:
        """The client waits for leave to send its body; raises SalverError where it need not."""

    def _measure(self) -> None:
        # A read may hold more than the headers of one request, so what came together is counted.
        limits = self.gateway.limits
        size = len(self._target) + sum(len(name) + len(value) + 4 for name, value in self._headers.items())
        if len(self._target) > limits.uri_bytes or size > limits.header_bytes:
            raise self._too_large()

    def _too_large(self) -> SalverError:
        limits = self.gateway.limits
        if len(self._target) > limits.uri_bytes:
            return SalverError("URI_TOO_LONG", f"the request target exceeds {limits.uri_bytes} bytes")
        return SalverError("HEADERS_TOO_LARGE", f"request line and headers exceed {limits.header_bytes} bytes")
