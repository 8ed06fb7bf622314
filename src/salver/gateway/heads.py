"""Request heads seen before: what clients send again and again is read once.

A client writes the same request line and headers for every request of its kind. When a read
holds exactly one request whose head is, byte for byte, one that llhttp has read before, what it
found then is taken again and the parser is not asked. Equal bytes mean equal requests, so this
can never read a request differently; anything else takes the ordinary way.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from salver.gateway.exchange import Exchange

__all__ = ["HeadMemory", "KnownHead"]

_MOST_HEADS: Final = 1024
_LONGEST_HEAD_BYTES: Final = 2048
_END: Final = b"\r\n\r\n"
_NEVER: Final = (b"transfer-encoding", b"expect", b"upgrade", b"x-request-id", b"traceparent")
"""Framing that needs the parser, and headers that differ each time."""


class KnownHead(NamedTuple):
    """What a head says. The headers are shared by all its requests: nobody may change them."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body_bytes: int
    connection: bytes


class HeadMemory:
    """The heads of one gateway; forgets all when there are too many."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}

    def find(self, data: bytes) -> tuple[KnownHead, bytes] | None:
        """The head and the body of `data`, if it is exactly one request with a known head."""
        end = data.find(_END, 0, _LONGEST_HEAD_BYTES) + 4
        known = self._heads.get(data[:end])
        if known is None or len(data) != end + known.body_bytes:
            return None
        return known, data[end:]

    def learn(self, data: bytes, exchange: Exchange) -> None:
        """Remember the head of `data`, which llhttp has read as one whole request, this exchange."""
        headers = exchange.headers
        if not exchange.keep_alive or any(name in headers for name in _NEVER):
            return
        body_bytes = int(headers.get(b"content-length", b"0"))
        end = data.find(_END, 0, _LONGEST_HEAD_BYTES) + 4
        if len(data) != end + body_bytes:
            return
        if len(self._heads) >= _MOST_HEADS:
            self._heads.clear()
        self._heads[data[:end]] = KnownHead(exchange.method, exchange.target, headers, body_bytes, exchange.connection)
