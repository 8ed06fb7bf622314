"""One HTTP/1.1 connection of a load generator: a request out, an answer in, nothing else."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, Protocol, cast

import httptools

__all__ = ["Connection", "Owner", "ReadingConnection"]

_HEAD_BYTES: Final = 16 * 2**10
_CODE: Final = b"\r\nx-salver-error:"
_CLIENT_ERROR: Final = 400
_LONGEST_WORDS: Final = 300


class Owner(Protocol):
    """Who sends through a connection and hears what came of it."""

    def answered(self, connection: Connection, problem: str | None) -> None:
        """The answer is there; `problem` is None for success, else "STATUS" or "STATUS CODE"."""

    def lost(self, connection: Connection, problem: str | None) -> None:
        """The connection is gone; `problem` names what that did to its request, None without one."""


class Connection(asyncio.Protocol):
    """A keep-alive connection with at most one request on it.

    Answers must have a length or be chunked: one that ends with its connection counts as
    broken. Error codes are read from the first 16 KiB of an answer only.
    """

    __slots__ = (
        "_complete",
        "_keep",
        "_owner",
        "_parser",
        "_reason",
        "_received",
        "_transport",
        "busy",
        "intended_s",
        "number",
        "used",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._complete = 0
        self._keep = True
        self._reason: str | None = None
        self.busy = False
        self.used = False
        """Whether it has brought an answer."""
        self.intended_s = 0.0
        self.number = 0
        """Of the request on the way, among those of the plan."""

    @property
    def closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    def send(self, request: bytes, number: int, intended_s: float) -> None:
        """Send a request that was meant to leave at `intended_s`. REQUIRES that none is on the way."""
        self.number = number
        self.intended_s = intended_s
        self.busy = True
        self._received = b""
        # `lost` has been or will be called for a connection that closes meanwhile.
        if self._transport is not None:
            self._transport.write(request)

    def abort(self, reason: str | None) -> None:
        """Close at once; `lost` follows, with `reason` for the request on the way."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: connected."""
        # uvloop's transports satisfy asyncio.Transport without being subclasses of it.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """asyncio: (a part of) an answer."""
        if len(self._received) < _HEAD_BYTES:
            self._received = self._received + data if self._received else data
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort("BAD_HTTP")
            return
        complete = self._complete
        if complete:
            self._complete = 0
            if complete > 1 or not self.busy:
                self.abort("BAD_HTTP")  # answers that nobody asked for
                return
            self._finish()

    def on_message_complete(self) -> None:
        """httptools: the answer is whole."""
        self._complete += 1
        self._keep = self._parser.should_keep_alive()  # known only here: the parser then starts afresh

    def _finish(self) -> None:
        self.busy = False
        self.used = True
        status = self._parser.get_status_code()
        if not self._keep and self._transport is not None:
            self._transport.close()
        self._owner.answered(self, None if status < _CLIENT_ERROR else self._problem(status))

    def _problem(self, status: int) -> str:
        head = self._received[:_HEAD_BYTES].partition(b"\r\n\r\n")[0].lower()
        code = head.partition(_CODE)[2].partition(b"\r\n")[0].strip().upper()
        return f"{status} {code.decode('latin-1')}"[:80].strip()

    def said(self) -> str:
        """What the error that came last says in words, as far as that is known; bounded."""
        text = self._received[:_HEAD_BYTES].partition(b"\r\n\r\n")[2].decode(errors="replace")
        try:
            told = json.loads(text)
            error = told.get("error", told.get("message", text))
            text = error.get("message", text) if isinstance(error, dict) else error
        except (ValueError, AttributeError):
            pass  # not as JSON, or more than was kept
        return " ".join(str(text).split())[:_LONGEST_WORDS]

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        del exc
        self._transport = None
        problem = (self._reason or "CONNECTION_LOST") if self.busy else None
        self.busy = False
        self._owner.lost(self, problem)


class ReadingConnection(Connection):
    """A connection that keeps the body of the answer, which costs time that others save."""

    __slots__ = ("_parts",)

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner)
        self._parts: list[bytes] = []

    @property
    def body(self) -> bytes:
        """Of the last answer."""
        return b"".join(self._parts)

    def on_message_begin(self) -> None:
        """httptools: an answer begins."""
        self._parts = []

    def on_body(self, part: bytes) -> None:
        """httptools: a part of its body."""
        self._parts.append(part)
