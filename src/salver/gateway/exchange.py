"""One HTTP request on the data listener and the one reply it gets."""

from __future__ import annotations

import math
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec

from salver.gateway.negotiation import check_accept
from salver.protocol.errors import SalverError
from salver.protocol.request import Response
from salver.protocol.usage import ANYBODY

__all__ = ["JSON", "TIMING_HEADER", "Exchange", "Refusal", "pause_of", "plain_refusal", "refusal_timing"]

JSON: Final = b"application/json"
TIMING_HEADER: Final = b"x-salver-timing"
"""Asks why the answer took as long as it did, like the parameter `salver_timing`."""
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_RETRY_LATER: Final = frozenset(
    {
        "QUEUE_FULL",
        "OVERLOADED",
        "TOO_MANY_CONNECTIONS",
        "TOO_MANY_GUESSES",
        "NOT_READY",
        "WORKER_LOST",
        "CONTROL_UNAVAILABLE",
    }
)
_LAST: Final = b"connection: close\r\n"
_NO_PARAMS: Final[Mapping[str, str]] = {}
_REPLY_JSON: Final = msgspec.json.Encoder()


def pause_of(error: SalverError) -> float | None:
    """Seconds after which asking again makes sense, a second where nobody knows; None where it makes none."""
    if error.code not in _RETRY_LATER:
        return None
    return 1.0 if error.retry_after_s is None else error.retry_after_s


def refusal_timing(asked: Any) -> Sequence[tuple[bytes, bytes]]:
    """How long it took to refuse a request or call, if every answer says so or a header asks."""
    gateway = asked.lane.gateway
    if not gateway.tells_timing and TIMING_HEADER not in asked.headers:
        return ()
    return ((b"server-timing", b"total;dur=%.3f" % ((gateway.clock.monotonic_s() - asked.received_s) * 1e3)),)


class Refusal(NamedTuple):
    """An error as one protocol writes it."""

    status: int
    content_type: bytes
    body: bytes


def plain_refusal(error: SalverError) -> Refusal:
    """What the Open Inference Protocol says, and every other that does not say otherwise."""
    return Refusal(error.http, JSON, _REPLY_JSON.encode({"error": str(error)}))


def _shape_of(route: Any, error: SalverError) -> Callable[[SalverError], Refusal]:
    """How an error is written: as its route's protocol does, or where no route takes it, as itself says."""
    return getattr(error, "refusal", plain_refusal) if route is None else route.refusal


class Exchange(msgspec.Struct, eq=False):
    """A request on its way in or read whole, and its place in the order of replies on its connection.

    Exactly one of `reply`, `refuse` and `fail` is called, once; when the client has gone meanwhile the
    reply is dropped. `pending` is what the exchange waits for, cancelled when the client goes.
    A struct because one is made for every request and that costs a third of a plain object.
    """

    lane: Any
    """The connection: a `Lane`, which knows this class and not the other way round."""
    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    """By name in lower case."""
    keep_alive: bool = True
    received_s: float = 0.0
    body: bytes = b""
    """Whoever has taken from it what is needed sets it to nothing, so that it is not held twice."""
    body_bytes: int = 0
    """What this request is counted with in the gateway's `inflight_bytes` until it is answered."""
    connection: bytes = b""
    """A header line about the connection, for clients that need to be told."""
    id: bytes = b""
    tenant: str = ""
    """On whose behalf, by the token; empty without one."""
    client: str = ANYBODY
    """Whose token it was."""
    endpoint: str | None = None
    route: Any = None
    """The `HttpRoute` it was resolved to."""
    params: Mapping[str, str] = _NO_PARAMS
    pending: Future[Any] | None = None
    response: Response | None = None
    """What the model answered, for the access log and for clients that ask how long it took."""
    answered: bool = False
    also: bytes = b""
    """Header lines that the answer has whatever it is."""

    def add_header(self, name: bytes, value: bytes) -> None:
        """Add a header to the answer, whatever that will be; REQUIRES a value without line breaks."""
        self.also += b"%b: %b\r\n" % (name, value)

    def reply(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: bytes = JSON,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Answer the request."""
        if self.answered:
            return
        self.answered = True
        lane = self.lane
        gateway = lane.gateway
        if gateway.draining and lane.is_last:
            self.keep_alive = False
        if status == 200 and content_type is JSON and not headers and self.keep_alive and not self.also:
            # The form almost every reply has, its beginning written twice a second.
            head = b"%b%d\r\nx-request-id: %b\r\n%b\r\n" % (gateway.ok_head, len(body), self.id, self.connection)
        else:
            head = b"%bdate: %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b%b%b\r\n" % (
                _STATUS_LINES[status],
                gateway.date,
                content_type,
                len(body),
                self.id,
                b"".join([b"%b: %b\r\n" % header for header in headers]),
                self.also,
                self.connection if self.keep_alive else _LAST,
            )
        if gateway.access.takes(status):
            gateway.observe(self, status)
        lane.send(self, head, b"" if self.method == b"HEAD" else body)

    def reply_json(self, value: object, *, status: int = 200) -> None:
        """Answer with `value` as JSON; raises NOT_ACCEPTABLE if the client rules that out."""
        if b"accept" in self.headers:
            check_accept(self.headers[b"accept"], JSON)
        self.reply(_REPLY_JSON.encode(value), status=status)

    def refuse(
        self,
        error: SalverError,
        *,
        close: bool = False,
        counted: bool = False,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Answer with an error of the catalogue.

        `close` when the rest of the stream makes no sense, `counted` when the metrics have the
        error already because the request had reached a version.
        """
        if self.answered:
            return
        if close:
            self.keep_alive = False
        told = [(b"x-salver-error", error.code.encode()), *headers, *refusal_timing(self)]
        pause_s = pause_of(error)
        if pause_s is not None:
            # Whole seconds, as RFC 9110 has them.
            told.append((b"retry-after", b"%d" % max(1, math.ceil(pause_s))))
        if error.code == "UNAUTHENTICATED":
            told.append((b"www-authenticate", b"Bearer"))
        if not counted:
            self.lane.gateway.refused(self.endpoint, error)
        status, content_type, body = _shape_of(self.route, error)(error)
        self.reply(body, status=status, content_type=content_type, headers=told)

    def fail(self, error: BaseException, *, close: bool = False, counted: bool = False) -> None:
        """Answer with what was raised: an error of the catalogue, or else a fault of ours, which is logged.

        Never raises; `close` and `counted` as in `refuse`.
        """
        if isinstance(error, SalverError):
            self.refuse(error, close=close, counted=counted)
        else:
            self.refuse(self.lane.gateway.fault(error), close=close)

    def abandon(self) -> None:
        """The client has gone: what has not started for it must not start."""
        self.answered = True
        if self.pending is not None:
            self.pending.cancel()
