"""One HTTP request on the data listener and the one reply it gets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec

from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.gateway.lane import Lane
    from salver.gateway.routes import Route

__all__ = ["Exchange"]

JSON: Final = b"application/json"
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_RETRY_LATER: Final = frozenset({"QUEUE_FULL", "TOO_MANY_CONNECTIONS", "NOT_READY", "WORKER_LOST"})


class Exchange:
    """A request that was read whole, and its place in the order of replies on its connection.

    Exactly one of `reply` and `refuse` is called, once; when the client has gone meanwhile the
    reply is dropped. `pending` is what the exchange waits for, cancelled when the client goes.
    """

    __slots__ = (
        "answered",
        "body",
        "endpoint",
        "headers",
        "id",
        "keep_alive",
        "lane",
        "method",
        "params",
        "pending",
        "received_s",
        "route",
        "target",
    )

    def __init__(self, lane: Lane, method: str, target: bytes, headers: dict[bytes, bytes], received_s: float) -> None:
        self.lane = lane
        self.method = method
        self.target = target
        self.headers = headers
        self.received_s = received_s
        self.body = b""
        self.keep_alive = True
        self.id = b""
        self.endpoint: str | None = None
        self.route: Route | None = None
        self.params: Mapping[str, str] = {}
        self.pending: asyncio.Future[Any] | None = None
        self.answered = False

    def reply(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: bytes = JSON,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """Answer the request."""
        if self.answered:
            return
        self.answered = True
        gateway = self.lane.gateway
        extra = b"".join([b"%b: %b\r\n" % header for header in headers]) if headers else b""
        if not self.keep_alive:
            extra += b"connection: close\r\n"
        head = b"%bdate: %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n" % (
            _STATUS_LINES[status],
            gateway.date,
            content_type,
            len(body),
            self.id,
            extra,
        )
        gateway.observe(self, status)
        self.lane.send(self, head, b"" if self.method == "HEAD" else body)

    def reply_json(self, value: object, *, status: int = 200) -> None:
        """Answer with `value` as JSON."""
        self.reply(msgspec.json.encode(value), status=status)

    def refuse(self, error: SalverError, *, close: bool = False) -> None:
        """Answer with an error of the catalogue; `close` when the rest of the stream makes no sense."""
        if self.answered:
            return
        if close:
            self.keep_alive = False
        headers = [(b"x-salver-error", error.code.encode())]
        if error.code in _RETRY_LATER:
            headers.append((b"retry-after", b"1"))
        if error.code == "UNAUTHENTICATED":
            headers.append((b"www-authenticate", b"Bearer"))
        self.lane.gateway.refused(self.endpoint, error)
        self.reply(msgspec.json.encode({"error": str(error)}), status=error.http, headers=headers)

    def abandon(self) -> None:
        """The client has gone: what has not started for it must not start."""
        self.answered = True
        if self.pending is not None:
            self.pending.cancel()
