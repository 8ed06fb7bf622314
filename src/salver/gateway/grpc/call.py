"""One gRPC call and the one answer it gets."""

from __future__ import annotations

import asyncio
import functools
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote

from salver.gateway.exchange import pause_of, refusal_timing
from salver.gateway.gateway import Gateway
from salver.gateway.grpc.compression import is_compressed, open_compressed
from salver.gateway.grpc.headers import Head, encode_headers, literal
from salver.gateway.pace import Stretch
from salver.protocol.errors import SalverError
from salver.protocol.request import Response
from salver.protocol.usage import ANYBODY
from salver.security.access import Operation

__all__ = ["MESSAGE_HEAD", "STATUS_NUMBERS", "UNKNOWN_METHOD", "Call", "Method"]

STATUS_NUMBERS: Final = {
    "OK": 0,
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "DATA_LOSS": 15,
    "UNAUTHENTICATED": 16,
}
MESSAGE_HEAD: Final = struct.Struct(">BI")
"""Before each message: whether it is compressed, and its length."""
_BEGIN: Final = encode_headers(
    [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", b"identity,deflate,gzip"),
    ]
)
_HTTP_OK: Final = 200
_OK: Final = literal(b"grpc-status", b"0")
_SAFE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_NO_PARAMS: Final[Mapping[str, str]] = {}
_LONGEST_MESSAGE: Final = 1000
"""Characters of an error: even percent-encoded they fit the smallest frame there is."""


class Method(NamedTuple):
    """One gRPC method.

    `open` must answer the call, now or later; it may raise SalverError, which refuses the call.
    """

    template: str
    """The path: /package.Service/Method."""
    operation: Operation | None
    open: Callable[[Call], None]
    streaming: bool = False
    """Whether `open` is called before any message has come, and reads them from a `Stream`."""


def _refuse_unknown(call: Call) -> None:
    raise SalverError("METHOD_NOT_ALLOWED", f"there is no method {call.target[:200].decode('latin-1')}")


UNKNOWN_METHOD: Final = Method("?", None, _refuse_unknown, streaming=True)
"""Refused before any message has come: who knows how many there would be."""


class CallLane(Protocol):
    """The connection of a call, as far as the call knows it."""

    gateway: Gateway

    @property
    def peer(self) -> str | None:
        """The address of the client."""

    def send(self, call: Call, data: bytes, ending: bytes | None) -> None:
        """Send a part of the answer, as fast as the client takes it; with `ending` it is the last."""

    def end(self, call: Call, block: bytes) -> None:
        """End a call with headers alone."""

    def give_back(self, call: Call, size: int) -> None:
        """So many bytes of a stream have been taken: they no longer count, and as many may come."""


class Call:
    """A call on its way in or under way.

    Exactly one of `reply`, `refuse` and `finish` takes effect; when the client has gone
    meanwhile nothing is sent. It has what the gateway needs of an `Exchange`. `pending` is what
    the call waits for, cancelled when the client goes or the call is refused.
    """

    __slots__ = (
        "also",
        "answered",
        "arrived",
        "begun",
        "body",
        "body_bytes",
        "buffer",
        "client",
        "coming",
        "ending",
        "endpoint",
        "going",
        "half_closed",
        "head",
        "headers",
        "id",
        "lane",
        "method",
        "owed",
        "params",
        "pending",
        "received_s",
        "response",
        "room",
        "route",
        "send_window",
        "sent_bytes",
        "stream_id",
        "target",
        "tenant",
        "unsent",
        "window",
    )

    def __init__(
        self, lane: CallLane, stream_id: int, head: Head, route: Method, received_s: float, half_closed: bool
    ) -> None:
        self.lane = lane
        self.stream_id = stream_id
        self.head = head
        self.headers = head.headers
        self.method = head.method
        self.target = head.path
        self.route = route
        self.received_s = received_s
        self.coming: Stretch | None = None
        """The pace of a message that is not whole yet."""
        self.half_closed = half_closed
        """Whether the client has sent all."""
        self.body = b""
        """The message, once it is whole."""
        self.body_bytes = 0
        """What this call is counted with in the gateway's `inflight_bytes` until it is answered."""
        self.buffer: bytes | bytearray = b""
        """What has come and was not taken as a message yet."""
        self.window = 0
        """Bytes that the client may still send."""
        self.send_window = 0
        """Bytes that we may still send."""
        self.unsent: memoryview | None = None
        """The rest of an answer that does not fit the windows."""
        self.sent_bytes = 0
        """Of answers that did not fit the windows at once."""
        self.going: Stretch | None = None
        """The pace at which the windows take them."""
        self.ending: bytes | None = None
        """The header block that follows it."""
        self.arrived: asyncio.Future[None] | None = None
        """What a stream waits for that has taken all messages."""
        self.room: asyncio.Future[None] | None = None
        """What a stream waits for whose answer does not fit the windows."""
        self.owed = 0
        """Messages of a stream that were taken and not answered yet."""
        self.begun = False
        """Whether the headers of the answer have been sent."""
        self.answered = False
        self.also = b""
        """Headers of the answer beside those that all have."""
        self.id = b""
        self.tenant = ""
        self.client = ANYBODY
        self.endpoint: str | None = None
        self.params = _NO_PARAMS
        self.pending: asyncio.Future[Any] | None = None
        self.response: Response | None = None
        """What the model answered, for the access log."""

    # The question.

    def take(self, data: bytes) -> None:
        """Data came."""
        if not self.buffer:
            # Nearly always the one whole message.
            self.buffer = data
        else:
            if isinstance(self.buffer, bytes):
                self.buffer = bytearray(self.buffer)
            self.buffer += data
        if self.route.streaming:
            _wake(self.arrived)
        elif len(self.buffer) >= MESSAGE_HEAD.size:
            self._check_length()

    def _check_length(self) -> None:
        """Refuse at its beginning what will be too long."""
        _, size = MESSAGE_HEAD.unpack_from(self.buffer)
        most = self.lane.gateway.limits.body_bytes
        if size > most:
            self.refuse(SalverError("BODY_TOO_LARGE", f"the message has {size} bytes; at most {most} are taken"))

    def wants_more(self) -> bool:
        """Whether the next message is not whole yet, and not too long."""
        have = len(self.buffer)
        if have < MESSAGE_HEAD.size:
            return True
        size: int = MESSAGE_HEAD.unpack_from(self.buffer)[1]
        return have < MESSAGE_HEAD.size + size and size <= self.lane.gateway.limits.body_bytes

    @property
    def is_quiet(self) -> bool:
        """Whether it is a stream in which neither side waits for the other."""
        return self.route.streaming and not self.buffer and self.owed <= 0 and self.unsent is None

    def take_end(self) -> None:
        """The client has sent all. The message of a unary call is whole: begin it."""
        if self.route.streaming:
            _wake(self.arrived)
            return
        try:
            compressed, self.body = self._only_message()
        except SalverError as error:
            self.refuse(error)
            return
        self.buffer = b""
        open_ = functools.partial(open_compressed, self.route.open) if compressed else self.route.open
        try:
            open_(self)
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            self.fail(error)

    def _only_message(self) -> tuple[bool, bytes]:
        buffer = self.buffer
        if len(buffer) < MESSAGE_HEAD.size:
            raise SalverError("BAD_MESSAGE", f"the call ends after {len(buffer)} bytes, before its message")
        flag, size = MESSAGE_HEAD.unpack_from(buffer)
        have = len(buffer) - MESSAGE_HEAD.size
        if have != size:
            problem = "ends in the middle of its message" if have < size else "has more than one message"
            raise SalverError("BAD_MESSAGE", f"the call {problem}: {size} bytes were announced and {have} came")
        return is_compressed(flag, self.headers), bytes(buffer[MESSAGE_HEAD.size :])

    @property
    def timeout_s(self) -> float:
        """Seconds that the client gives this call; infinite if it does not say."""
        return self.head.timeout_s

    # The answer.

    def reply(self, message: bytes, trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Answer with one message and status OK."""
        if self.answered:
            return
        self.answered = True
        lane = self.lane
        if lane.gateway.access.takes(_HTTP_OK):
            lane.gateway.observe(self, _HTTP_OK)
        ending = _OK + encode_headers(trailers) if trailers else _OK
        lane.send(self, MESSAGE_HEAD.pack(0, len(message)) + message, ending)

    def finish(self) -> None:
        """End a stream of answers with status OK."""
        if self.answered:
            return
        self.answered = True
        self.lane.end(self, _OK if self.begun else self.head_block() + _OK)

    def head_block(self) -> bytes:
        """The headers of an answer."""
        return b"%b%b%b" % (_BEGIN, literal(b"x-request-id", self.id), self.also) if self.id else _BEGIN + self.also

    def add_header(self, name: bytes, value: bytes) -> None:
        """Add to the headers of the answer, if they are not on their way yet."""
        self.also += literal(name, value)

    def refuse(
        self,
        error: SalverError,
        *,
        counted: bool = False,
        headers: Sequence[tuple[bytes, bytes]] = (),
        close: bool = False,
    ) -> None:
        """Answer with an error of the catalogue; `counted` when the metrics have it already."""
        del close
        if self.answered:
            return
        self.answered = True
        gateway = self.lane.gateway
        if not counted:
            gateway.refused(self.endpoint, error)
        if gateway.access.takes(error.http):
            gateway.observe(self, error.http)
        if not self.id:
            gateway.name(self)
        block = encode_headers(
            [
                (b"grpc-status", b"%d" % STATUS_NUMBERS[error.grpc]),
                (b"grpc-message", quote(str(error)[:_LONGEST_MESSAGE], safe=_SAFE).encode()),
                (b"x-salver-error", error.code.encode()),
                *_pause(error),
                *refusal_timing(self),
                *headers,
            ]
        )
        self.lane.end(self, block if self.begun else self.head_block() + block)
        if self.pending is not None:
            # A stream that is refused from outside must not go on; to others this does nothing.
            self.pending.cancel()

    def fail(self, error: BaseException, *, close: bool = False, counted: bool = False) -> None:
        """Answer with what was raised: an error of the catalogue, or else a fault of ours, which is logged."""
        if isinstance(error, SalverError):
            self.refuse(error, close=close, counted=counted)
        else:
            self.refuse(self.lane.gateway.fault(error), close=close)

    def abandon(self) -> None:
        """The client has gone: what has not started for it must not start."""
        self.answered = True
        if self.pending is not None:
            self.pending.cancel()

    def drained(self) -> None:
        """The windows have taken all that was sent."""
        _wake(self.room)


def _pause(error: SalverError) -> Sequence[tuple[bytes, bytes]]:
    """When to ask again: for clients with a retry policy of gRPC (gRFC A6), and in words of HTTP for others."""
    pause_s = pause_of(error)
    if pause_s is None:
        return ()
    return (
        (b"grpc-retry-pushback-ms", b"%d" % max(1, math.ceil(pause_s * 1e3))),
        (b"retry-after", b"%d" % max(1, math.ceil(pause_s))),
    )


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
